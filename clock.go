package oncelog

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/record"
)

// clock is the store's time T, in milliseconds since the Unix epoch. T never runs back, over restarts neither: were
// it to, a record could be gone and then live again. And it does not run ahead unless the wall's clock has earned it:
// a key that is forgotten early has its effect twice.
//
// T goes with the monotonic clock. When the wall is ahead of it by d (somebody set it, or the machine slept, or the
// store was closed), then
//
//	d is credited at once,     while the credits of one TTL stay within half of what the TTL exceeds the retry window by
//	or once it has lasted,     15 minutes of the wall being ahead: a wrong clock is usually set right before
//
// A wall that is behind changes nothing. An injected clock is believed: T is the largest time it has told.
//
// T ends one short of Forever: at Forever even what never expires would be gone.
type clock struct {
	now    func() time.Time          // injected; nil = the system's
	source func() (wall, mono int64) // the system's, both in milliseconds
	base   atomic.Int64              // T less the monotonic clock; only grows
	last   atomic.Int64              // the largest T that was told; injected clocks only
	ahead  atomic.Pointer[wallAhead] // the wall is ahead and not credited; nil = it is not
	mu     sync.Mutex                // guards the rest
	ttl    int64                     // for so long a credit counts
	most   int64                     // the credits of one TTL
	given  []credit
}

// wallAhead says since when the wall has been ahead, and when to look again, by the monotonic clock.
type wallAhead struct{ since, look int64 }

type credit struct{ at, d int64 }

const (
	// clockSlack is how far the wall may be ahead and nobody cares: a time daemon slews it by less, and no TTL that
	// matters is near. Below it reading T takes no lock.
	clockSlack = 1000
	// clockWait is after how long the wall is believed.
	clockWait = 15 * 60 * 1000
	// clockLook is how often the lock is taken while the wall waits to be believed.
	clockLook = 1000
	// leastCredit is what is credited at once however short the TTL.
	leastCredit = 60 * 1000
)

// newClock returns a clock that begins at the wall's time, for a store with these options.
func newClock(o *Options) *clock {
	start := time.Now()
	return newClockFrom(o, func() (wall, mono int64) {
		now := time.Now()
		return now.UnixMilli(), now.Sub(start).Milliseconds()
	})
}

func newClockFrom(o *Options, source func() (wall, mono int64)) *clock {
	c := &clock{now: o.Now, source: source, ttl: o.TTL.Milliseconds()}
	c.most = max(leastCredit, (c.ttl-max(o.RetryWindow, 0).Milliseconds())/2)
	if c.now != nil {
		c.last.Store(beforeForever(c.now().UnixMilli()))
		return c
	}
	wall, mono := source()
	c.base.Store(wall - mono)
	return c
}

// begin has T begin at the largest time in the log, noTime = the log has none. Called once, before others ask.
func (c *clock) begin(largest int64) {
	if largest == noTime {
		return
	}
	if c.now != nil {
		raise(&c.last, beforeForever(largest))
		return
	}
	_, mono := c.source()
	c.base.Store(beforeForever(largest) - mono)
}

// millis returns T.
func (c *clock) millis() int64 {
	millis, _ := c.both()
	return millis
}

// both returns T and, read at the same moment, what everybody else's clock says.
func (c *clock) both() (millis int64, wall time.Time) {
	if c.now != nil {
		wall = c.now()
		raise(&c.last, beforeForever(wall.UnixMilli()))
		return c.last.Load(), wall
	}
	at, mono := c.source()
	t := addMillis(c.base.Load(), mono)
	ahead := c.ahead.Load()
	switch {
	case at-t <= clockSlack:
		if ahead != nil {
			c.ahead.CompareAndSwap(ahead, nil)
		}
	case ahead == nil || mono >= ahead.look:
		t = c.catchUp(at, mono)
	}
	return beforeForever(t), time.UnixMilli(at)
}

// catchUp credits what the wall is ahead, if it may, and returns T.
func (c *clock) catchUp(wall, mono int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := addMillis(c.base.Load(), mono)
	d := wall - t
	if d <= clockSlack {
		return t // somebody else was here
	}
	sum := int64(0)
	kept := c.given[:0]
	for _, g := range c.given {
		if t-g.at < c.ttl {
			kept = append(kept, g)
			sum = addMillis(sum, g.d)
		}
	}
	c.given = kept
	ahead := c.ahead.Load()
	if addMillis(sum, d) > c.most && (ahead == nil || mono-ahead.since < clockWait) {
		since := mono
		if ahead != nil {
			since = ahead.since
		}
		c.ahead.Store(&wallAhead{since, mono + clockLook})
		return t
	}
	c.ahead.Store(nil)
	c.given = append(c.given, credit{wall, d})
	c.base.Add(d)
	return wall
}

func beforeForever(t int64) int64 { return min(t, record.Forever-1) }

// noTime is before all times.
const noTime = math.MinInt64

func raise(a *atomic.Int64, v int64) {
	for {
		old := a.Load()
		if old >= v || a.CompareAndSwap(old, v) {
			return
		}
	}
}
