package receiver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// early is a call whose work is recorded as done while its fn goes on (Gone). The lock keeps that from a fn that has
// returned: it is held while the store records.
type early struct {
	mu    sync.Mutex
	over  bool // fn has returned, panicked or exited
	done  bool // it is recorded, or would be if the store could
	until time.Time
	err   error // ErrUnrecorded or ErrLeaseLost, with its cause
	took  time.Duration
}

// Gone records, before fn returns, that its work is done and its result not kept: duplicates get ErrResultGone from here
// on, and none of them waits for the rest of fn. For a result that leaves piece by piece, and whose first piece may leave
// only when nothing can make the work run again. In a DoTx it commits the transaction, which takes no more changes.
//
// nil = it is durable. What fn does or returns afterwards changes nothing of it: not an error, and not a panic. After an
// error no result may leave. If a transaction could not be committed, nothing has happened, as when its fn returns.
// Otherwise the error is ErrUnrecorded or ErrLeaseLost, and Do returns it too.
//
// Calling it again gives the same answer. It panics outside fn, and fails when fn has returned.
func Gone(ctx context.Context) error {
	c := callFrom(ctx)
	if c == nil {
		panic("receiver: Gone outside fn: pass on the context that fn was given")
	}
	e := &c.early
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.done:
		return e.err
	case e.over:
		return errors.New("receiver: Gone after fn had returned")
	}
	return c.finishEarly()
}

// finishEarly is record for a call whose fn is running. The caller holds early.mu.
func (c *call) finishEarly() error {
	if failed := c.tx.failed(); failed != nil {
		return fmt.Errorf("receiver: the transaction was undone: %w", failed)
	}
	landed := false
	defer func() {
		if !landed { // the store panicked: it is not known what it did, so nothing may run the work again
			c.early.done, c.early.err = true, ErrUnrecorded
			flights.fail(c, c.encoded)
		}
	}()
	store, ctx, began := c.r.store, context.WithoutCancel(c.Context), time.Now()
	complete := func(res Result) (time.Time, error) { return store.Complete(ctx, c.encoded, c.token, res) }
	var tx Transaction
	if c.tx != nil {
		if tx = c.tx.end(); tx != nil {
			complete = func(res Result) (time.Time, error) { return tx.Commit(ctx, res) }
		}
	}
	present := flights.present(c.flight, c.encoded)
	res := Result{Kind: KindGone, TTL: c.ttl}
	until, err := complete(res)
	c.early.took = time.Since(began)
	landed = true
	if tx != nil && err != nil && tx.Rollback(ctx) == nil {
		c.tx.undo(err) // fn's return releases the key
		return fmt.Errorf("receiver: the transaction was undone: %w", err)
	}
	c.tx.done()
	out, err := c.recorded(res, res, until, err, present)
	c.early.done, c.early.until, c.early.err = true, out.Until, err
	return err
}

// returned says that fn is not running any more, and whether its work was recorded before that.
func (c *call) returned() (recorded bool) {
	c.early.mu.Lock()
	defer c.early.mu.Unlock()
	c.early.over = true
	return c.early.done
}
