package receiver

import (
	"bytes"
	"fmt"
	"time"
)

// Polling a store that can't tell when a key changes: soon, for work that is short, and then less and less.
const (
	firstPoll = 10 * time.Millisecond
	lastPoll  = time.Second
)

// wait is the way of a call that stands in a line.
func (a *attempt) wait(w *waiter) (Outcome, error) {
	c, ans, err := a.stand(w)
	switch {
	case err != nil:
		return Outcome{}, err
	case ans != nil:
		return a.replay(ans)
	case c.State == StateInDoubt:
		return a.resolve(c)
	}
	return a.execute(c, w)
}

// stand waits until there is an answer, or until the turn has come and the key is the caller's: then the place in the
// line, with its turn, is still held. A key in doubt is the caller's too, and the turn is the next one's.
func (a *attempt) stand(w *waiter) (c Claim, ans *answer, err error) {
	defer func() {
		if c.State != StateClaimed {
			flights.leave(w, a.key)
		}
	}()
	if a.parent != nil {
		if err := a.parent.block(w.flight); err != nil {
			return Claim{}, nil, err
		}
		defer a.parent.unblock(w.flight)
	}
	a.tell(Event{Kind: EventWaiting, Scope: a.r.name})
	var timeout, again <-chan time.Time
	if a.settings.wait > 0 {
		t := time.NewTimer(a.settings.wait)
		defer t.Stop()
		timeout = t.C
	}
	var changed <-chan struct{}
	poll := firstPoll
	for {
		select {
		case shared := <-w.told:
			if shared != nil {
				own := *shared
				own.res.Value = bytes.Clone(shared.res.Value)
				return Claim{}, &own, nil
			}
		case <-changed:
		case <-again:
		case <-timeout:
			return Claim{}, nil, ErrInFlight
		case <-a.ctx.Done():
		}
		if a.ctx.Err() != nil {
			return Claim{}, nil, fmt.Errorf("%w: %w", ErrInFlight, ended(a.ctx))
		}
		// The turn is ours from here on: nothing else wakes who has not got it.
		present := flights.present(w.flight, a.key)
		if c, err = a.claim(); err != nil || c.State == StateClaimed || c.State == StateInDoubt {
			return c, nil, err
		}
		if c.State != StateInFlight {
			found, err := a.found(c)
			if err == nil {
				flights.finish(w.flight, nil, a.key, found, present)
			}
			return Claim{}, &found, err
		}
		if err := a.compare(c.Fingerprint); err != nil {
			return Claim{}, nil, err
		}
		if changed, again = c.Changed, nil; changed == nil {
			again = time.After(poll)
			poll = min(2*poll, lastPoll)
		}
	}
}
