package receiver

import (
	"bytes"
	"context"
	"errors"
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
// The error is fn's own, a *StoredError if it was recorded, or else one of this package's or the store's. With ErrEmptyKey,
// ErrKeyReused, ErrInFlight, ErrQuota and ErrReentrant this call's fn has not run. With ErrResultGone the work is done. With
// ErrUnrecorded and ErrLeaseLost it is done, and the Outcome has its value where there is one. With ErrInDoubt nobody knows.
//
// Pass fn's context on to calls of Do inside fn: that is how a call that would wait for itself is found and answered
// with ErrReentrant instead.
func (r *Receiver) Do(ctx context.Context, key string, fn func(ctx context.Context) ([]byte, error), opts ...CallOption) (Outcome, error) {
	a := attempt{r: r, ctx: ctx, name: key, fn: fn}
	return a.start(opts)
}

// start is a call, from its beginning to its end.
func (a *attempt) start(opts []CallOption) (Outcome, error) {
	b := scratches.Get().(*scratch)
	defer scratches.Put(b)
	if err := a.prepare(opts, callFrom(a.ctx), b); err != nil {
		return Outcome{}, err
	}
	if a.r.opts.Observe == nil {
		return a.do()
	}
	return a.observed()
}

// prepare makes sure that the call can be made at all, and names it for the store.
func (a *attempt) prepare(opts []CallOption, parent *call, b *scratch) error {
	a.parent, a.settings = parent, a.r.settings(opts)
	switch {
	case a.seq == nil && a.name == "" || a.seq != nil && a.seq.source == "":
		return ErrEmptyKey
	case a.ctx.Err() != nil:
		return fmt.Errorf("receiver: nothing was claimed: %w", ended(a.ctx))
	case a.resultTTL < 0:
		return fmt.Errorf("receiver: a result TTL of %v is negative", a.resultTTL)
	case a.doubt < Block || a.doubt > Resolve:
		return fmt.Errorf("receiver: OnDoubt(%d): use Block, Retry or Resolve", a.doubt)
	case a.doubt == Resolve && a.r.opts.Resolve == nil:
		return errors.New("receiver: OnDoubt(Resolve) without Options.Resolve")
	}
	if a.fnTx != nil {
		if a.parent.insideTx() || Inside() {
			return fmt.Errorf("%w: DoTx inside a transaction", ErrReentrant)
		}
		if _, ok := a.r.store.(Transactor); !ok {
			return a.r.unsupported("has no transactions")
		}
	}
	if a.seq == nil {
		b.key = appendKey(b.key[:0], a.r.scope, a.name)
	} else {
		if _, ok := a.r.store.(Marker); !ok {
			return a.r.unsupported("keeps no marks")
		}
		a.seq.complete(a)
		a.name = a.seq.name()
		b.key = appendNumber(b.key[:0], a.r.scope, a.seq.source, a.epoch, a.seq.seq)
	}
	a.key = b.key
	if a.checked {
		a.fingerprint = appendFingerprint(b.digest[:0], a.payload)
	}
	return nil
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
	fnTx        func(ctx context.Context, tx Tx) ([]byte, error) // instead of fn, DoTx's
	seq         *number                                          // nil = not of a sequence
	settled     bool                                             // the key was in doubt, and it is known now that the work did not happen

	// For Options.Observe.
	began               time.Time // when fn began; zero = it did not
	tookRun, tookCommit time.Duration
	early               bool // the end was recorded before fn's
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
	switch c.State {
	case StateClaimed:
		return a.execute(c, nil)
	case StateInDoubt:
		return a.resolve(c)
	}
	ans, err := a.found(c)
	if err != nil {
		return Outcome{}, err
	}
	return a.replay(&ans)
}

func (a *attempt) claim() (Claim, error) {
	req := Request{
		Key: a.key, Fingerprint: a.fingerprint, TTL: a.ttl, ResultTTL: a.resultTTL, Intent: a.intent, Note: a.note,
	}
	if a.seq != nil {
		req.Mark = &a.seq.mark
	}
	if q := a.r.opts.Quota; q != nil {
		req.Quota = q(a.r.name)
	}
	return a.r.store.Claim(a.ctx, req)
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
	case StateTooOld:
		return answer{}, ErrTooOld
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
	}
	return out, ans.err
}
