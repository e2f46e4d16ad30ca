package oncelog

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// Tx is a transaction in progress, valid until the function it was given to returns. A method that returns an
// error has changed nothing; after one that could not read, or that made the transaction too large, the whole
// transaction fails.
//
// Each key that a transaction looks at is held until the transaction is staged, so what it has read stays true. A
// key that a single call is deciding about is waited for; such a call never waits for a transaction while it holds
// its key, so no circle can close.
type Tx struct {
	s    *Store
	view bool
	now  int64 // T at the beginning: one transaction sees one time

	mu      sync.Mutex
	over    bool
	err     error // what made the whole transaction fail
	size    int   // of the changes, an upper bound
	touched map[string]*touched
	order   []*touched  // as they were touched
	letters []letter    // messages, in the order in which they were emitted
	saw     *wal.Commit // the newest commit among those whose staged data was seen
	began   time.Time
	staged  bool // it has its place in the log
	ended   bool // the lock and the keys are given up
}

// touched is a key that the transaction holds.
type touched struct {
	claim  *claim
	there  bool           // before the transaction, expired or not
	live   bool           // there and not expired
	value  []byte         // then
	change *record.Record // what the transaction makes of it; nil = nothing
}

// Update runs fn as one transaction: serializable with all others, and durable when Update returns nil, whole or
// not at all. When fn returns an error or panics, nothing is changed.
//
// fn runs once, on the caller's goroutine, under the transaction lock: others wait meanwhile, so no slow work
// belongs inside, and no other call of the store that writes, or that reads what fn has looked at, which would
// wait for itself. Also an Update that wrote nothing, or whose fn failed, returns only when what fn read is
// durable; if that fails the error is ErrFailed.
func (s *Store) Update(fn func(tx *Tx) error) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if receiver.Inside() {
		return errInside
	}
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	s.txLock.Lock()
	tx := s.newTx(false)
	commit, changes, err := tx.run(fn)
	if commit != nil {
		return s.settle(commit, changes)
	}
	if err := tx.awaitSeen(); err != nil {
		return err
	}
	return err
}

// errInside is the answer to a call inside the fn of a DoTx, on its goroutine, that would wait for a transaction lock:
// for the call's own in the end, or for that of another store whose holder may be waiting for this one.
var errInside = fmt.Errorf("%w: a transaction inside the fn of a DoTx; use its tx", ErrReentrant)

// awaitSeen returns when the staged data that the transaction has seen is durable.
func (tx *Tx) awaitSeen() error {
	tx.mu.Lock()
	saw := tx.saw
	tx.mu.Unlock()
	if saw == nil {
		return nil
	}
	return tx.s.log.Await(saw)
}

// View runs fn with a transaction that sees durable data only and changes nothing: its writing methods return
// ErrReadOnly. It runs under the transaction lock, like Update.
func (s *Store) View(fn func(tx *Tx) error) error {
	if receiver.Inside() {
		return errInside
	}
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	s.lockDurable()
	_, _, err := s.newTx(true).run(fn)
	return err
}

// lockDurable takes the transaction lock at a moment when all that transactions have staged is durable, or has
// failed and is seen by nobody.
func (s *Store) lockDurable() {
	// Waiting without the lock lets others go on, and usually succeeds at once. Under a constant stream of updates
	// there is always one more on its way, so in the end the lock is kept over one sync.
	const patience = 4
	for try := 0; ; try++ {
		s.txLock.Lock()
		last := s.lastStaged
		if last == nil || last.Number() <= s.log.Visible() || s.log.Failed() != nil {
			return
		}
		if try == patience {
			_ = s.log.Await(last)
			return
		}
		s.txLock.Unlock()
		_ = s.log.Await(last)
	}
}

// newTx begins a transaction. The caller has taken the transaction lock, which end gives up.
func (s *Store) newTx(view bool) *Tx {
	return &Tx{s: s, view: view, now: s.clock.millis(), touched: make(map[string]*touched), began: time.Now()}
}

// run calls fn and stages what it did, and ends the transaction whatever fn does.
func (tx *Tx) run(fn func(tx *Tx) error) (commit *wal.Commit, changes []change, err error) {
	defer tx.end()
	if err = fn(tx); err != nil {
		return nil, nil, err
	}
	return tx.stage(0, 0, nil)
}

// stage makes what the transaction did one frame, together with more changes of the caller's, who holds their keys:
// at most size bytes of payload, for which he has reserved some. There is no commit if nothing was changed.
func (tx *Tx) stage(size int, reserved int64, more []change) (commit *wal.Commit, changes []change, err error) {
	s := tx.s
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case tx.ended:
		return nil, nil, ErrTxDone
	case tx.err != nil:
		return nil, nil, tx.err
	}
	if size += tx.size; size > wal.MaxPayload {
		return nil, nil, errTxTooLarge
	}
	at := s.clock.millis()
	for _, t := range tx.order {
		if r := t.change; r != nil {
			if r.Expires != record.Forever {
				r.Expires = addMillis(at, r.Expires-r.At)
			}
			r.At = at // the TTL counts from the commit
			changes = append(changes, change{t.claim, *r})
		}
	}
	changes = append(changes, more...)
	for i := range tx.letters {
		tx.letters[i].record.At = at
	}
	if len(changes) == 0 && len(tx.letters) == 0 {
		return nil, nil, nil
	}
	if err = s.ready(size - int(reserved)); err != nil {
		return nil, nil, err
	}
	if commit, err = s.stage(size, reserved, changes, tx.letters); err != nil {
		return nil, nil, err
	}
	s.lastStaged, tx.staged = commit, true
	return commit, changes, nil
}

// end gives up the lock and all keys that the transaction holds. Doing it again changes nothing.
func (tx *Tx) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.ended {
		return
	}
	tx.over, tx.ended = true, true
	for _, t := range tx.order {
		tx.s.claims.release(t.claim, tx.staged && t.change != nil)
	}
	raise(&tx.s.txHeldMax, int64(time.Since(tx.began)))
	tx.s.txLock.Unlock()
}

// touch holds a key and finds out what it is, unless the transaction has done so already. The caller holds tx.mu.
func (tx *Tx) touch(space record.Space, key []byte) (*touched, error) {
	s := tx.s
	if tx.over {
		return nil, ErrTxDone
	}
	if tx.err != nil {
		return nil, tx.err
	}
	n, err := s.name(space, key)
	if err != nil {
		return nil, err
	}
	id := string(append([]byte{byte(space)}, key...))
	if t := tx.touched[id]; t != nil {
		return t, nil
	}
	c, v := s.claims.hold(n, nil)
	t := &touched{claim: c}
	tx.touched[id] = t
	tx.order = append(tx.order, t)
	if v.commit == nil {
		r, ok, err := s.current(c)
		if err != nil {
			return nil, tx.fail(err)
		}
		t.there, t.live, t.value = ok, ok && tx.now < r.Expires, r.Value
		return t, nil
	}
	if tx.view {
		if err := s.log.Await(v.commit); err != nil {
			return nil, tx.fail(err)
		}
	} else if tx.saw == nil || tx.saw.Number() < v.commit.Number() {
		tx.saw = v.commit
	}
	t.there, t.live, t.value = !v.deleted(), v.live(tx.now), v.value()
	return t, nil
}

// fail makes the whole transaction fail.
func (tx *Tx) fail(err error) error {
	tx.err = err
	return err
}

// get returns the value that the transaction sees.
func (t *touched) get() ([]byte, bool) {
	if r := t.change; r != nil {
		return r.Value, r.Kind != record.Tombstone
	}
	return t.value, t.live
}

// set makes r the transaction's change of t, or takes the change back if r is nil.
func (tx *Tx) set(t *touched, r *record.Record) error {
	by := 0
	if t.change != nil {
		by -= record.MaxSize(len(t.change.Key), len(t.change.Value), 0)
	}
	if r != nil {
		by += record.MaxSize(len(r.Key), len(r.Value), 0)
	}
	if err := tx.grow(by); err != nil {
		return err
	}
	t.change = r
	return nil
}

var errTxTooLarge = fmt.Errorf("%w: a transaction of more than %d bytes; make several", ErrTooLarge, wal.MaxPayload)

// grow makes the transaction larger by so many bytes.
func (tx *Tx) grow(by int) error {
	if tx.size+by > wal.MaxPayload {
		return tx.fail(errTxTooLarge)
	}
	tx.size += by
	return nil
}

func (tx *Tx) read(space record.Space, key []byte) ([]byte, bool, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	t, err := tx.touch(space, key)
	if err != nil {
		return nil, false, err
	}
	value, ok := t.get()
	if !ok {
		return nil, false, nil
	}
	return append([]byte{}, value...), true, nil
}

// remove makes key of a keyspace absent and reports whether it was there.
func (tx *Tx) remove(kind record.Kind, key []byte) (bool, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.view {
		return false, ErrReadOnly
	}
	t, err := tx.touch(record.SpaceOf(kind, false), key)
	if err != nil {
		return false, err
	}
	_, existed := t.get()
	if !t.there {
		return existed, tx.set(t, nil) // it came with this transaction and goes with it
	}
	r := tombstone(kind, tx.now, t.claim.key) // of an expired record too, as in Store.Delete
	return existed, tx.set(t, &r)
}

// Record returns the record under key, if it is live. It is one of PutIfAbsent or PutRecord; the value is the caller's.
func (tx *Tx) Record(key []byte) (value []byte, ok bool, err error) {
	return tx.read(record.Records, key)
}

// PutRecord stores a record for ttl from the commit (0 = Options.TTL). ErrExists if the key is live.
func (tx *Tx) PutRecord(key, value []byte, ttl time.Duration) error {
	ms, err := tx.s.opts.ttlMillis(ttl)
	if err != nil {
		return err
	}
	if err := tx.s.opts.checkValue(value); err != nil {
		return err
	}
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.view {
		return ErrReadOnly
	}
	t, err := tx.touch(record.Records, key)
	if err != nil {
		return err
	}
	if _, ok := t.get(); ok {
		return ErrExists
	}
	return tx.set(t, &record.Record{
		Kind: record.Result, At: tx.now, Expires: addMillis(tx.now, ms), Key: t.claim.key, Value: bytes.Clone(value),
	})
}

// DeleteRecord removes the record under key and reports whether it was live.
func (tx *Tx) DeleteRecord(key []byte) (existed bool, err error) {
	return tx.remove(record.Result, key)
}

// Get returns a piece of application state: a keyspace of its own whose values never expire, and which Store.Get does not
// see. The value is the caller's.
func (tx *Tx) Get(key []byte) (value []byte, ok bool, err error) { return tx.read(record.States, key) }

// Set stores a piece of application state. A key or value that is too large is ErrTooLarge, and so is a transaction of
// more than 16 MiB, which then fails as a whole.
func (tx *Tx) Set(key, value []byte) error {
	if err := tx.s.opts.checkValue(value); err != nil {
		return err
	}
	return tx.put(record.State, key, bytes.Clone(value))
}

// put stores a value that does not expire. The value is the transaction's.
func (tx *Tx) put(kind record.Kind, key, value []byte) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.view {
		return ErrReadOnly
	}
	t, err := tx.touch(record.SpaceOf(kind, false), key)
	if err != nil {
		return err
	}
	return tx.set(t, &record.Record{
		Kind: kind, At: tx.now, Expires: record.Forever, Key: t.claim.key, Value: value,
	})
}

// Delete removes a piece of application state. Removing what is not there is no error.
func (tx *Tx) Delete(key []byte) error {
	_, err := tx.remove(record.State, key)
	return err
}
