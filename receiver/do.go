package receiver

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"
)

// Do runs fn unless the key was handled before, and returns its result, or the stored one. The result is durable
// before anyone sees it.
//
// fn runs on the caller's goroutine, with the caller's context. If it returns an error, or panics, or exits,
// nothing is recorded and the key is free: the next in line runs its own fn. If it returns nil, or Permanent or
// Already, that is recorded and fn does not run again while the record lives. Duplicates of a key that is running wait
// for it (Options.InFlight, WithWait).
//
// Pass fn's context on to calls of Do inside fn: that is how a call that would wait for itself is found and answered
// with ErrReentrant instead.
func (r *Receiver) Do(ctx context.Context, key string, fn func(ctx context.Context) ([]byte, error), opts ...CallOption) (Outcome, error) {
	if key == "" {
		return Outcome{}, ErrEmptyKey
	}
	if ctx.Err() != nil {
		return Outcome{}, fmt.Errorf("receiver: nothing was claimed: %w", ended(ctx))
	}
	b := scratches.Get().(*scratch)
	defer scratches.Put(b)
	a := attempt{r: r, ctx: ctx, name: key, parent: callFrom(ctx), fn: fn, settings: r.settings(opts)}
	b.key = appendKey(b.key[:0], r.scope, key)
	a.key = b.key
	if a.checked {
		a.fingerprint = appendFingerprint(b.digest[:0], a.payload)
	}
	if r.opts.Observe == nil {
		return a.do()
	}
	return a.observed()
}

// scratch is what a call needs for what it shows the store, which would cost it two allocations.
type scratch struct {
	key    []byte
	digest [fingerprintSize]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// attempt is one call of Do.
type attempt struct {
	settings
	r           *Receiver
	ctx         context.Context
	name        string // the key as the caller named it
	key         []byte // encoded
	fingerprint []byte
	parent      *call
	fn          func(ctx context.Context) ([]byte, error)

	// For Options.Observe.
	began       time.Time // when fn began; zero = it did not
	run, commit time.Duration
}

// answer is a recorded result, as it is handed to all that asked.
type answer struct {
	fingerprint []byte
	res         Result
	until       time.Time
	err         error // ErrUnrecorded with its cause: the result is right, and not recorded
}

// shared returns a copy that outlives what the first caller does with its value.
func (a answer) shared() *answer {
	a.res.Value = bytes.Clone(a.res.Value)
	a.fingerprint = bytes.Clone(a.fingerprint)
	return &a
}

// do asks for the key, in the line if there is one.
func (a *attempt) do() (Outcome, error) {
	// Who comes while others wait goes to the end of the line, and does not ask the store before them.
	if f := flights.find(a.r.store, a.key); f != nil {
		if err := a.mayWait(f); err != nil {
			return Outcome{}, err
		}
		if w := flights.join(a.r.store, a.key, false); w != nil {
			return a.wait(w)
		}
	}
	c, err := a.claim()
	if err != nil {
		return Outcome{}, err
	}
	if c.State == StateInFlight {
		if err := a.compare(c.Fingerprint); err != nil {
			return Outcome{}, err
		}
		if err := a.mayWait(flights.find(a.r.store, a.key)); err != nil {
			return Outcome{}, err
		}
		return a.wait(flights.join(a.r.store, a.key, true))
	}
	if c.State == StateClaimed {
		return a.execute(c, nil)
	}
	ans, err := a.found(c)
	if err != nil {
		return Outcome{}, err
	}
	return a.replay(&ans)
}

func (a *attempt) claim() (Claim, error) {
	return a.r.store.Claim(a.ctx, Request{Key: a.key, Fingerprint: a.fingerprint, TTL: a.ttl})
}

// mayWait says why the call should not wait for the flight, which may be nil.
func (a *attempt) mayWait(f *flight) error {
	if f != nil {
		if runner := f.runner.Load(); runner != nil {
			for p := a.parent; p != nil; p = p.parent {
				if p == runner {
					return ErrReentrant
				}
			}
			if err := a.compare(runner.fingerprint); err != nil {
				return err
			}
		}
	}
	if a.settings.wait == 0 {
		return ErrInFlight
	}
	return nil
}

// compare refuses another payload under the same key.
func (a *attempt) compare(other []byte) error {
	if a.checked && len(other) > 0 && !bytes.Equal(a.fingerprint, other) {
		return ErrKeyReused
	}
	return nil
}

// found is the answer for a key that the store knows.
func (a *attempt) found(c Claim) (answer, error) {
	switch c.State {
	case StateDone:
		return answer{fingerprint: c.Fingerprint, res: c.Result, until: c.Until}, nil
	case StateInDoubt:
		// The caller holds a key that it must not run. Should giving it back fail, its lease ends.
		_ = a.r.store.Release(context.WithoutCancel(a.ctx), a.key, c.Token)
		return answer{}, ErrInDoubt
	}
	return answer{}, fmt.Errorf("receiver: the store answered a claim with state %d", c.State)
}

// replay is the end of a call that gets another's result.
func (a *attempt) replay(ans *answer) (Outcome, error) {
	if err := a.compare(ans.fingerprint); err != nil {
		return Outcome{}, err
	}
	out := Outcome{Replayed: true, Until: ans.until}
	switch ans.res.Kind {
	case KindValue:
		out.Value = ans.res.Value
	case KindFailure:
		return out, &StoredError{Code: ans.res.Code, Message: ans.res.Message, Replayed: true}
	case KindGone:
		return out, ErrResultGone
	case KindDoubt:
		return out, ErrInDoubt
	}
	return out, ans.err
}
