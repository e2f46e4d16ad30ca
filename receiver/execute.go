package receiver

import (
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
	c := &call{Context: a.ctx, r: a.r, key: a.name, parent: a.parent, token: claim.Token}
	if a.checked {
		c.fingerprint = append(c.digest[:0], a.fingerprint...)
	}
	flights.start(a.r.store, a.key, c, w)
	stop := a.keepLease(claim)
	running, landed := true, false
	defer func() {
		if landed {
			return
		}
		// fn panicked or exited, which goes on up unchanged. Or the store panicked: then it is not known what it did.
		if running {
			stop()
			a.release(c)
		}
		flights.fail(c, a.key)
	}()

	a.begin()
	value, err := a.fn(c)
	a.ranFor()
	res, already, ok := judge(value, err)
	running = false
	stop()
	if !ok {
		a.release(c)
		flights.fail(c, a.key)
		landed = true
		return Outcome{}, err
	}
	out, err := a.record(c, res)
	landed = true
	out.Replayed = already
	return out, err
}

// judge says what to record for what fn returned, whether that had happened before, and whether anything is to be
// recorded at all.
func judge(value []byte, err error) (res Result, already, ok bool) {
	if err == nil {
		return Result{Kind: KindValue, Value: value}, false, true
	}
	var done *alreadyError
	var permanent *permanentError
	var lost *unstorable
	switch {
	case errors.As(err, &done):
		return Result{Kind: KindValue, Value: done.value}, true, true
	case errors.As(err, &permanent):
		return failure(err), false, true
	case errors.As(err, &lost):
		return Result{Kind: KindGone}, false, true
	}
	return Result{}, false, false
}

// record makes the result durable, tells all that wait, and returns it to the first caller. fn has had its effect, so
// nothing that goes wrong here may lead to its running again: a result that can't be kept costs the result, never the
// key.
func (a *attempt) record(c *call, res Result) (Outcome, error) {
	ctx := context.WithoutCancel(a.ctx) // fn's success counts, however long the caller wanted to wait for it
	began := a.now()
	present := flights.present(c.flight, a.key)
	res.TTL = a.ttl
	stored := res
	until, err := a.r.store.Complete(ctx, a.key, c.token, stored)
	if err != nil && stored.Kind != KindGone && !errors.Is(err, ErrStaleToken) {
		stored = Result{Kind: KindGone, TTL: a.ttl}
		var again error
		if until, again = a.r.store.Complete(ctx, a.key, c.token, stored); again == nil {
			err = nil
		} else if errors.Is(again, ErrStaleToken) {
			err = again
		}
	}
	a.commit = a.now().Sub(began)
	out := Outcome{Value: res.Value}
	switch {
	case errors.Is(err, ErrStaleToken):
		flights.fail(c, a.key)
		return out, lost(res, fmt.Errorf("%w: %w", ErrLeaseLost, err))
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrUnrecorded, err)
		flights.finish(c.flight, c, a.key, answer{fingerprint: c.fingerprint, res: res, err: err}, everybody) // the key stays claimed
		return out, lost(res, err)
	}
	flights.finish(c.flight, c, a.key, answer{fingerprint: c.fingerprint, res: stored, until: until}, present)
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

// release gives the key back. If that fails the caller's own error is still what it should see: a lease ends by
// itself, and so does a claim of a process.
func (a *attempt) release(c *call) {
	_ = a.r.store.Release(context.WithoutCancel(a.ctx), a.key, c.token)
}

func noLease() {}

// keepLease renews the claim's lease while fn runs, if it has one and the store can. The returned function ends that.
func (a *attempt) keepLease(claim Claim) (stop func()) {
	store, ok := a.r.store.(Renewer)
	if !ok || claim.Lease.IsZero() {
		return noLease
	}
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
