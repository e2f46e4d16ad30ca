package oncelog

import (
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/record"
)

// clock is the store's time T, in milliseconds since the Unix epoch. T never runs back, over restarts neither:
// replay raises it to the largest time in the log. Were it to run back, a record could be gone and then live again.
//
// Without an injected clock T moves with the monotonic clock from the wall's time at Open on, so that a wall clock
// that is set while the store is open changes nothing.
//
// T ends one short of Forever: at Forever even what never expires would be gone.
type clock struct {
	now   func() time.Time // injected; nil = the system's
	start time.Time        // with its monotonic reading
	base  atomic.Int64     // T at start; raised by replay, constant afterwards
	last  atomic.Int64     // the largest T that was told; injected clocks only
}

func newClock(now func() time.Time) *clock {
	c := &clock{now: now, start: time.Now()}
	c.base.Store(c.start.UnixMilli())
	if now != nil {
		c.base.Store(beforeForever(now().UnixMilli()))
		c.last.Store(c.base.Load())
	}
	return c
}

// millis returns T.
func (c *clock) millis() int64 {
	millis, _ := c.both()
	return millis
}

// both returns T and, read at the same moment, what everybody else's clock says.
func (c *clock) both() (millis int64, wall time.Time) {
	if c.now == nil {
		wall = time.Now()
		return beforeForever(addMillis(c.base.Load(), wall.Sub(c.start).Milliseconds())), wall
	}
	wall = c.now()
	raise(&c.last, beforeForever(wall.UnixMilli()))
	return c.last.Load(), wall
}

// atLeast says that the log holds a record of time t.
func (c *clock) atLeast(t int64) {
	t = beforeForever(t)
	raise(&c.base, t)
	if c.now != nil {
		raise(&c.last, t)
	}
}

func beforeForever(t int64) int64 { return min(t, record.Forever-1) }

func raise(a *atomic.Int64, v int64) {
	for {
		old := a.Load()
		if old >= v || a.CompareAndSwap(old, v) {
			return
		}
	}
}
