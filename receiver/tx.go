package receiver

import (
	"context"
	"encoding/binary"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Tx is the transaction of a DoTx: result, state, marks and outgoing messages become true in one atomic step. It is
// valid until fn returns, for any goroutine.
//
// The first use of any of its methods takes the store's transaction lock, which is held until fn returns, so slow work
// goes before it: until then nobody waits for this call.
type Tx interface {
	// Get returns a piece of application state, as the transaction sees it. The value is the caller's.
	Get(key []byte) (value []byte, ok bool, err error)
	// Set stores a piece of application state, which never expires.
	Set(key, value []byte) error
	// Delete removes a piece of application state. Removing what is not there is no error.
	Delete(key []byte) error
	// Advance raises the high-water mark of source to seq if seq is above it, and reports whether it was.
	Advance(source string, seq uint64) (fresh bool, err error)
	// Emit leaves a message for Relay, which hands it on once the transaction is durable: at least once, in order within
	// its topic, with a key derived from this call's, the same each time.
	Emit(topic string, payload []byte) error
}

// DoTx is Do for work that changes the store's own state: what fn does to tx and the result become durable together,
// in one frame, or not at all. So there is no moment at which a crash could leave one without the other. Effects outside
// the store are as with Do.
//
// fn runs at most once per call. Changes are undone when fn returns an error, a Permanent one included, or panics or
// exits. If they can't be committed, because there is no room for them or a method of tx has failed, nothing has
// happened, the error says why, and the key is free.
//
// Inside fn, whatever needs a transaction lock is ErrReentrant: another DoTx, and what the store itself offers. One
// circle is not seen: fn waits, in a Do inside it, for a key whose own fn calls the store's Update. Use DoTx there, or
// give the wait an end. errors.ErrUnsupported if the store has no transactions.
func (r *Receiver) DoTx(ctx context.Context, key string, fn func(ctx context.Context, tx Tx) ([]byte, error), opts ...CallOption) (Outcome, error) {
	a := attempt{r: r, ctx: ctx, name: key, fnTx: fn}
	return a.start(opts)
}

// DoSeqTx is DoSeq with the transaction of DoTx: the source's mark moves in the same atomic step as the state.
func (r *Receiver) DoSeqTx(ctx context.Context, source string, seq uint64, fn func(ctx context.Context, tx Tx) ([]byte, error), opts ...CallOption) (Outcome, error) {
	a := attempt{r: r, ctx: ctx, fnTx: fn, seq: &number{source: source, seq: seq}}
	return a.start(opts)
}

// TxFrom returns the transaction of the call that ctx belongs to. ok is false outside a DoTx's fn, and in the fn of a
// Do inside it.
func TxFrom(ctx context.Context) (tx Tx, ok bool) {
	if c := callFrom(ctx); c != nil && c.tx != nil {
		return c.tx, true
	}
	return nil, false
}

// callTx is the Tx of a call. It opens the store's transaction when it is first used.
type callTx struct {
	c     *call
	key   []byte
	store Transactor

	mu      sync.Mutex
	opened  Transaction // nil = not used yet
	lock    *txLock
	err     error // why it could not be opened
	over    bool
	emitted map[string]uint64 // by topic
}

// use opens the transaction if it is not, and returns with it locked against other goroutines of fn; release ends that.
func (t *callTx) use() (tx Transaction, release func(), err error) {
	t.mu.Lock()
	defer func() {
		if release == nil { // an error, or the store panicked
			t.mu.Unlock()
		}
	}()
	if err := t.open(); err != nil {
		return nil, nil, err
	}
	return t.opened, t.mu.Unlock, nil
}

func (t *callTx) open() error {
	switch {
	case t.over:
		return ErrTxDone
	case t.opened != nil || t.err != nil:
		return t.err
	}
	// The lock is one more thing to wait for, and so may close a circle: who has it may be waiting for this call.
	lock := lockOf(t.c.r.store)
	if t.err = t.c.block(&lock.flight); t.err != nil {
		lock.forget()
		return t.err
	}
	defer func() {
		t.c.unblock(&lock.flight)
		if t.opened == nil {
			lock.forget()
			return
		}
		t.lock = lock
		lock.flight.runner.Store(t.c)
	}()
	t.opened, t.err = t.store.Begin(context.WithoutCancel(t.c), t.key, t.c.token)
	return t.err
}

// failed returns why the transaction could not be opened when fn used it; of no transaction, nothing.
func (t *callTx) failed() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// end makes the transaction unusable. opened is nil if it was never used.
func (t *callTx) end() (opened Transaction) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	return t.opened
}

// undo says that what fn did was undone, though fn is running still.
func (t *callTx) undo(why error) {
	t.mu.Lock()
	t.opened, t.err = nil, why
	t.mu.Unlock()
	t.done()
}

// done is called when the store's transaction is over; of no transaction, nothing.
func (t *callTx) done() {
	if t != nil && t.lock != nil {
		t.lock.flight.runner.CompareAndSwap(t.c, nil)
		t.lock.forget()
		t.lock = nil
	}
}

func (t *callTx) Get(key []byte) (value []byte, ok bool, err error) {
	tx, release, err := t.use()
	if err != nil {
		return nil, false, err
	}
	defer release()
	return tx.Get(key)
}

func (t *callTx) Set(key, value []byte) error {
	tx, release, err := t.use()
	if err != nil {
		return err
	}
	defer release()
	return tx.Set(key, value)
}

func (t *callTx) Delete(key []byte) error {
	tx, release, err := t.use()
	if err != nil {
		return err
	}
	defer release()
	return tx.Delete(key)
}

func (t *callTx) Advance(source string, seq uint64) (fresh bool, err error) {
	tx, release, err := t.use()
	if err != nil {
		return false, err
	}
	defer release()
	return tx.Advance(source, seq)
}

func (t *callTx) Emit(topic string, payload []byte) error {
	tx, release, err := t.use()
	if err != nil {
		return err
	}
	defer release()
	n := t.emitted[topic] + 1
	if err := tx.Emit(topic, payload, messageKey(t.c, topic, n)); err != nil {
		return err
	}
	if t.emitted == nil {
		t.emitted = make(map[string]uint64)
	}
	t.emitted[topic] = n
	return nil
}

// messageKey names the n-th message of a call to a topic. Pinned by a golden test, as derived keys are.
func messageKey(c *call, topic string, n uint64) string {
	scope, key := c.identity()
	return uuid(hashPath("oncelog message key 1", scope, []byte(key), []byte(topic), binary.BigEndian.AppendUint64(nil, n)))
}

// txLock is a store's transaction lock, as something that calls wait for (circle.go).
type txLock struct {
	flight flight
	store  Store
	users  int
}

var txLocks struct {
	sync.Mutex
	m map[Store]*txLock
}

// lockOf returns the lock of a store; who gets it forgets it in the end.
func lockOf(store Store) *txLock {
	txLocks.Lock()
	defer txLocks.Unlock()
	l := txLocks.m[store]
	if l == nil {
		l = &txLock{store: store}
		if txLocks.m == nil {
			txLocks.m = make(map[Store]*txLock)
		}
		txLocks.m[store] = l
	}
	l.users++
	return l
}

func (l *txLock) forget() {
	txLocks.Lock()
	defer txLocks.Unlock()
	if l.users--; l.users == 0 {
		delete(txLocks.m, l.store)
	}
}

// inTx is how many fns of DoTx are running in this process.
var inTx atomic.Int64

// runInTx calls the fn of a DoTx. It must be found by its name on the stacks of what fn calls: see Inside.
//
//go:noinline
func runInTx(a *attempt, c *call) ([]byte, error) {
	inTx.Add(1)
	defer inTx.Add(-1)
	return a.fnTx(c, c.tx)
}

// Inside reports whether the calling goroutine is inside the fn of a DoTx, of whatever store. It is for stores: a call
// without a context that needs the transaction lock would wait for itself there, or close a circle over two stores. It
// looks at the goroutine's stack, and at nothing while no DoTx is running.
func Inside() bool {
	if inTx.Load() == 0 {
		return false
	}
	var pcs [64]uintptr
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for n > 0 {
			f, more := frames.Next()
			if strings.HasSuffix(f.Function, "/receiver.runInTx") {
				return true
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// insideTx reports whether a call is inside the fn of a DoTx, as far as contexts tell.
func (c *call) insideTx() bool {
	for p := c; p != nil; p = p.parent {
		if p.tx != nil {
			return true
		}
	}
	return false
}
