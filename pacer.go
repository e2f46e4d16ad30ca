package oncelog

import (
	"errors"
	"time"
)

// pacer spreads the work of housekeeping over time, so that the commits and look-ups that share processors and disk
// with it are not held up.
type pacer struct {
	rate int64 // bytes a second; 0 = as fast as it goes
	stop <-chan struct{}
	due  time.Time // when what was allowed so far is paid for
}

// errStopped is the answer of a pacer when the store is being closed.
var errStopped = errors.New("the store is closing")

// paceGrain is how far housekeeping may run ahead: less would sleep for times that no timer keeps.
const paceGrain = 4 * time.Millisecond

// wait returns when n more bytes may be read or written, or errStopped.
func (p *pacer) wait(n int) error {
	select {
	case <-p.stop:
		return errStopped
	default:
	}
	if p.rate == 0 {
		return nil
	}
	now := time.Now()
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	ahead := p.due.Sub(now)
	if ahead < paceGrain {
		return nil
	}
	return p.sleep(ahead)
}

// pause is wait for what is no reading or writing but holds others up in the same way, a little at a time. It returns
// false when there is to be no pause any more.
func (p *pacer) pause() bool { return p.rate != 0 && p.sleep(shortPause) == nil }

// shortPause is what a commit takes several times over on a fast disk.
const shortPause = 500 * time.Microsecond

// sleep returns when the time is over, or errStopped.
func (p *pacer) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.stop:
		return errStopped
	case <-t.C:
		return nil
	}
}
