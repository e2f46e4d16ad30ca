package oncelog

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// clocks is a wall and a monotonic clock that a test moves, in milliseconds.
type clocks struct {
	sync.Mutex
	wall, mono int64
}

func (c *clocks) read() (wall, mono int64) {
	c.Lock()
	defer c.Unlock()
	return c.wall, c.mono
}

// pass lets both go on; step sets the wall.
func (c *clocks) pass(d time.Duration) { c.move(d, d) }
func (c *clocks) step(d time.Duration) { c.move(d, 0) }

func (c *clocks) move(wall, mono time.Duration) {
	c.Lock()
	defer c.Unlock()
	c.wall += wall.Milliseconds()
	c.mono += mono.Milliseconds()
}

const clockStart int64 = 1_700_000_000_000

// three days and one: a day may be credited at once.
var clockOptions = Options{TTL: 72 * time.Hour, RetryWindow: 24 * time.Hour}

func steppedClock(o Options) (*clocks, *clock) {
	s := &clocks{wall: clockStart, mono: 5000}
	return s, newClockFrom(&o, s.read)
}

const year = 365 * 24 * time.Hour

func TestPromise8AStepOfTheWall(t *testing.T) {
	for _, c := range []struct {
		step                  time.Duration
		atOnce, before, after time.Duration // T, 14 and 16 minutes later, beyond what has passed
	}{
		{time.Second, 0, 0, 0}, // the slack
		{-time.Second, 0, 0, 0},
		{time.Hour, time.Hour, time.Hour, time.Hour},
		{-time.Hour, 0, 0, 0},
		{24 * time.Hour, 24 * time.Hour, 24 * time.Hour, 24 * time.Hour},
		{25 * time.Hour, 0, 0, 25 * time.Hour},
		{10 * year, 0, 0, 10 * year},
		{-10 * year, 0, 0, 0},
	} {
		for _, restarted := range []bool{false, true} {
			s, k := steppedClock(clockOptions)
			if restarted { // the log ends at the wall's time before the step
				s.step(c.step)
				k = newClockFrom(&clockOptions, s.read)
				k.begin(clockStart)
			} else {
				require.EqualValues(t, clockStart, k.millis())
				s.step(c.step)
			}
			require.Equal(t, c.atOnce.Milliseconds(), k.millis()-clockStart, "%v", c)
			passed := time.Duration(0)
			for passed < 14*time.Minute {
				s.pass(time.Minute)
				passed += time.Minute
				require.Equal(t, (c.before + passed).Milliseconds(), k.millis()-clockStart, "%v", c)
			}
			s.pass(2 * time.Minute)
			passed += 2 * time.Minute
			require.Equal(t, (c.after + passed).Milliseconds(), k.millis()-clockStart, "%v", c)
		}
	}
}

// A wall that was wrong at boot and is set right in time has changed nothing; one that is not is believed in the end.
func TestPromise8AClockThatIsWrongAtBoot(t *testing.T) {
	for _, wrong := range []time.Duration{-50 * year, 75 * year} {
		s, _ := steppedClock(clockOptions)
		s.step(wrong)
		k := newClockFrom(&clockOptions, s.read)
		k.begin(clockStart)
		for range 14 {
			s.pass(time.Minute)
			require.LessOrEqual(t, k.millis(), int64(clockStart)+14*60_000)
		}
		s.step(-wrong)
		s.pass(time.Second)
		require.EqualValues(t, clockStart+14*60_000+1000, k.millis())
		s.step(75 * year) // the waiting begins anew
		require.EqualValues(t, clockStart+14*60_000+1000, k.millis())
		s.pass(14 * time.Minute)
		require.EqualValues(t, clockStart+28*60_000+1000, k.millis())
	}
}

// Steps add up: within one TTL no more than the bound is credited, and after one there is more to be had.
func TestPromise8ManySmallSteps(t *testing.T) {
	s, k := steppedClock(clockOptions)
	for i := range 24 {
		s.step(time.Hour)
		require.EqualValues(t, clockStart+int64(i+1)*3600_000, k.millis())
	}
	s.step(time.Hour)
	require.EqualValues(t, clockStart+24*3600_000, k.millis())
	s.step(-time.Hour)
	require.EqualValues(t, clockStart+24*3600_000, k.millis())
	s.pass(72 * time.Hour)
	require.EqualValues(t, clockStart+96*3600_000, k.millis())
	s.step(time.Hour)
	require.EqualValues(t, clockStart+97*3600_000, k.millis())
}

func TestClockCredits(t *testing.T) {
	for _, c := range []struct {
		ttl, window, step time.Duration
		atOnce            bool
	}{
		{time.Minute, NoRetryWindow, time.Minute, true}, // never less than a minute
		{time.Minute, NoRetryWindow, 2 * time.Minute, false},
		{time.Hour, 50 * time.Minute, 5 * time.Minute, true},
		{time.Hour, 50 * time.Minute, 6 * time.Minute, false},
		{time.Hour, NoRetryWindow, 30 * time.Minute, true},
		{time.Hour, NoRetryWindow, 31 * time.Minute, false},
		{Forever, NoRetryWindow, 100 * year, true},
		{Forever, time.Hour, 100 * year, true},
	} {
		s, k := steppedClock(Options{TTL: c.ttl, RetryWindow: c.window})
		s.step(c.step)
		require.Equal(t, c.atOnce, k.millis() > clockStart, "%v", c)
	}
}

// A machine that slept: the monotonic clock stood still, and the wall did not.
func TestPromise8AMachineThatSlept(t *testing.T) {
	s, k := steppedClock(clockOptions)
	s.step(8 * time.Hour)
	require.EqualValues(t, clockStart+8*3600_000, k.millis())
	s.step(20 * time.Hour) // more than is left of a day
	require.EqualValues(t, clockStart+8*3600_000, k.millis())
	s.pass(16 * time.Minute)
	s.pass(time.Second)
	_ = k.millis()
	s.pass(16 * time.Minute)
	require.EqualValues(t, clockStart+28*3600_000+32*60_000+1000, k.millis())
}

// Whatever the clocks do: T never runs back, never stands still, and is never further ahead of the monotonic clock
// than what may be credited, unless the wall has been ahead for a quarter of an hour.
func TestPromise8WhateverTheClocksDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, k := steppedClock(clockOptions)
		last, lastMono := k.millis(), s.mono
		credited, calm := int64(0), int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) {
				s.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, 4 * time.Minute}).Draw(t, "d"))
			},
			"step": func(t *rapid.T) {
				s.step(rapid.SampledFrom([]time.Duration{
					time.Second, -time.Second, time.Hour, -time.Hour, 10 * time.Hour, -10 * time.Hour, year, -year,
				}).Draw(t, "d"))
			},
			"": func(t *rapid.T) {
				before := last + s.mono - lastMono
				if s.wall-before <= clockSlack {
					calm = s.mono
				}
				now := k.millis()
				require.GreaterOrEqual(t, now, before)
				if now > before {
					credited += now - before // a late credit counts as one given at once does
					require.LessOrEqual(t, now, s.wall)
					if s.mono-calm < clockWait {
						require.LessOrEqual(t, credited, (24 * time.Hour).Milliseconds())
					}
				}
				last, lastMono = now, s.mono
			},
		})
	})
}

func TestManyReadersOfTheClock(t *testing.T) {
	s, k := steppedClock(clockOptions)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := int64(0)
			for range 5000 {
				now := k.millis()
				if now < last {
					t.Errorf("%d after %d", now, last)
					return
				}
				last = now
			}
		})
	}
	for i := range 2000 {
		s.pass(time.Millisecond)
		s.step([]time.Duration{2 * time.Second, -time.Second, year, -year}[i%4])
	}
	readers.Wait()
}

func BenchmarkClock(b *testing.B) {
	k := newClock(&clockOptions)
	b.ReportAllocs()
	for b.Loop() {
		_ = k.millis()
	}
}
