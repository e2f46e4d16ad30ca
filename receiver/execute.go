package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// unstorable is what the generic Do's fn returns when it succeeded with a value that can't be stored.
type unstorable struct{ err error }

func (e *unstorable) Error() string { return e.err.Error() }

// execute runs fn under a claim and records what came of it. w is the caller's place in the line, nil if it had none.
func (a *attempt) execute(claim Claim, w *waiter) (Outcome, error) {
	c := a.begun(claim, w)
	res, already, err := a.run(c, claim)
	if a.early {
		return c.earlyOutcome(res), err
	}
	if res.Kind == 0 {
		return Outcome{}, err
	}
	out, err := a.record(c, res)
	out.Replayed = already
	return out, err
}

// begun makes the call the one that runs.
func (a *attempt) begun(claim Claim, w *waiter) *call {
	c := &call{
		Context: a.ctx, r: a.r, key: a.name, seq: a.seq, parent: a.parent, token: claim.Token, encoded: a.key, ttl: a.ttl,
	}
	if a.checked {
		c.fingerprint = append(c.digest[:0], a.fingerprint...)
	}
	if a.fnTx != nil {
		c.tx = &callTx{c: c, key: bytes.Clone(a.key), store: a.r.store.(Transactor)}
	}
	flights.start(a.r.store, a.key, c, w)
	return c
}

// run calls fn and returns the result that is to be recorded. If there is none (its Kind is 0), the key was given up
// and the call is over. If it was recorded early, the call is over too, and the result holds fn's value.
func (a *attempt) run(c *call, claim Claim) (res Result, already bool, err error) {
	stop := a.keepLease(claim)
	running := true
	defer func() {
		if !running {
			return
		}
		// fn panicked or exited, which goes on up unchanged.
		stop()
		if a.early = c.returned(); a.early {
			return
		}
		_ = a.rollback(c)
		if a.intent {
			_ = a.leaveInDoubt(c)
		} else {
			a.release(c)
		}
		flights.fail(c, a.key)
	}()

	a.begin()
	var value []byte
	if c.tx == nil {
		value, err = a.fn(c)
	} else {
		value, err = runInTx(a, c)
	}
	a.ranFor()
	running = false
	stop()
	if a.early = c.returned(); a.early {
		a.tookCommit = c.early.took
		switch {
		case err == nil:
			err = c.early.err
		case c.early.err != nil:
			err = fmt.Errorf("%w: %w", c.early.err, err)
		}
		return Result{Kind: KindGone, Value: value}, false, err
	}
	res, already = judge(value, err)
	if failed := c.tx.failed(); failed != nil && res.Kind == KindValue {
		res, err = Result{}, fmt.Errorf("receiver: the transaction was undone: %w", failed)
	}
	if res.Kind == KindValue {
		return res, already, nil
	}
	// What fn did to tx is undone, and what it saw there must be durable before its answer is told.
	if undone := a.rollback(c); undone != nil {
		res, err = Result{}, undone
	}
	if res.Kind != 0 {
		return res, false, nil
	}
	if a.inDoubt(err) {
		left := a.leaveInDoubt(c)
		err = fmt.Errorf("%w: %w", ErrInDoubt, err)
		if left != nil {
			err = fmt.Errorf("%w: %w: %w", ErrUnrecorded, left, err)
		}
	} else {
		a.release(c)
	}
	flights.fail(c, a.key)
	return res, false, err
}

// earlyOutcome is what Do returns for a call that was recorded early.
func (c *call) earlyOutcome(res Result) Outcome {
	return Outcome{Value: res.Value, Until: c.early.until}
}

// judge says what to record for what fn returned, and whether that had happened before. Kind 0 = nothing.
func judge(value []byte, err error) (res Result, already bool) {
	if err == nil {
		return Result{Kind: KindValue, Value: value}, false
	}
	var done *alreadyError
	var permanent *permanentError
	var lost *unstorable
	switch {
	case errors.As(err, &done):
		return Result{Kind: KindValue, Value: done.value}, true
	case errors.As(err, &permanent):
		return failure(err), false
	case errors.As(err, &lost):
		return Result{Kind: KindGone}, false
	}
	return Result{}, false
}

// rollback ends the call's transaction, if it has used one.
func (a *attempt) rollback(c *call) error {
	if c.tx == nil {
		return nil
	}
	tx := c.tx.end()
	c.tx.opened = nil // what is recorded from here on is recorded without it
	defer c.tx.done()
	if tx == nil {
		return nil
	}
	return tx.Rollback(context.WithoutCancel(a.ctx))
}

// record makes the result durable, tells all that wait, and returns it to the first caller. fn has had its effect, so
// nothing that goes wrong here may lead to its running again: a result that can't be kept costs the result, never the
// key. A transaction that can't be committed has had no effect, and costs nothing.
func (a *attempt) record(c *call, res Result) (Outcome, error) {
	landed := false
	defer func() {
		if !landed { // the store panicked: it is not known what it did
			_ = a.rollback(c)
			flights.fail(c, a.key)
		}
	}()
	ctx := context.WithoutCancel(a.ctx) // fn's success counts, however long the caller wanted to wait for it
	began := a.now()
	present := flights.present(c.flight, a.key)
	complete := func(res Result) (time.Time, error) { return a.r.store.Complete(ctx, a.key, c.token, res) }
	var tx Transaction
	if c.tx != nil {
		defer c.tx.done()
		if tx = c.tx.end(); tx != nil {
			complete = func(res Result) (time.Time, error) { return tx.Commit(ctx, res) }
		}
	}
	res.TTL, res.ResultTTL = a.ttl, a.resultTTL
	stored := res
	until, err := complete(stored)
	if fallback, ok := withoutValue(stored, err); ok {
		var again error
		if until, again = complete(fallback); again == nil {
			stored, err = fallback, nil
		} else {
			err = both(err, again)
		}
	}
	a.tookCommit = a.now().Sub(began)
	landed = true
	if err != nil && tx != nil {
		if undone := tx.Rollback(ctx); undone == nil {
			a.release(c)
			flights.fail(c, a.key)
			return Outcome{}, fmt.Errorf("receiver: the transaction was undone: %w", err)
		}
	}
	return c.recorded(res, stored, until, err, present)
}

// withoutValue returns what is recorded instead of a result that could not be.
func withoutValue(res Result, err error) (Result, bool) {
	if err == nil || res.Kind == KindGone || errors.Is(err, ErrStaleToken) {
		return res, false
	}
	return Result{Kind: KindGone, TTL: res.TTL}, true
}

// both is why neither a result nor, in its place, that it is gone could be recorded. Each of the two matters: the value
// may be too large, and the store have failed when that was to be recorded.
func both(err, again error) error {
	if errors.Is(again, ErrStaleToken) || again.Error() == err.Error() {
		return again
	}
	return fmt.Errorf("%w; nor that it is gone: %w", err, again)
}

// recorded is the end of a call whose result was recorded, or could not be.
func (c *call) recorded(res, stored Result, until time.Time, err error, present uint64) (Outcome, error) {
	out := Outcome{Value: res.Value}
	switch {
	case errors.Is(err, ErrStaleToken):
		flights.fail(c, c.encoded)
		return out, lost(res, fmt.Errorf("%w: %w", ErrLeaseLost, err))
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrUnrecorded, err)
		flights.finish(c.flight, c, c.encoded, answer{fingerprint: c.fingerprint, res: res, err: err}, everybody) // the key stays claimed
		return out, lost(res, err)
	}
	flights.finish(c.flight, c, c.encoded, answer{fingerprint: c.fingerprint, res: stored, until: until}, present)
	out.Until = until
	return out, lost(res, nil)
}

// lost adds to err the failure that the result is, if it is one.
func lost(res Result, err error) error {
	if res.Kind != KindFailure {
		return err
	}
	stored := &StoredError{Code: res.Code, Message: res.Message}
	if err == nil {
		return stored
	}
	return fmt.Errorf("%w: %w", stored, err)
}

// leaveInDoubt ends the claim with the key in doubt.
func (a *attempt) leaveInDoubt(c *call) error {
	_, err := a.r.store.Complete(context.WithoutCancel(a.ctx), a.key, c.token, Result{Kind: KindDoubt})
	return err
}

// release gives the key back. If that fails the caller's own error is still what it should see: a lease ends by
// itself, and so does a claim of a process.
func (a *attempt) release(c *call) {
	if a.settled { // not back into the doubt that it was in
		if _, err := a.r.store.Complete(context.WithoutCancel(a.ctx), a.key, c.token, Result{Kind: KindNot}); err == nil {
			return
		}
	}
	_ = a.r.store.Release(context.WithoutCancel(a.ctx), a.key, c.token)
}

func noLease() {}

// keepLease renews the claim's lease while fn runs, if it has one and the store can. The returned function ends that.
func (a *attempt) keepLease(claim Claim) (stop func()) {
	store, ok := a.r.store.(Renewer)
	if !ok || claim.Lease.IsZero() {
		return noLease
	}
	return a.renew(store, claim)
}

// renew is keepLease where there is one. (In one function with the case before, a claim without a lease would be moved to
// the heap as well.)
func (a *attempt) renew(store Renewer, claim Claim) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(a.ctx))
	done := make(chan struct{})
	key := append([]byte{}, a.key...)
	go func() {
		defer close(done)
		lease := claim.Lease
		for {
			// At half of what is left there is time for another try.
			t := time.NewTimer(max(time.Until(lease)/2, time.Millisecond))
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			until, err := store.Renew(ctx, key, claim.Token)
			switch {
			case err == nil:
				lease = until
			case errors.Is(err, ErrStaleToken) || time.Now().After(lease):
				return // Complete will say that the lease is lost
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
