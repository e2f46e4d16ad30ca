package oncelog

import (
	"context"
	"time"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// backendTx is a transaction in which a claim is completed: a Tx, and at its end the claim's own changes in the same
// frame.
type backendTx struct {
	*Tx
	b      backend
	n      name
	token  uint64
	err    error // of a commit of which nobody knows what became
	landed bool  // it was committed
}

// Begin implements receiver.Transactor.
func (b backend) Begin(_ context.Context, key []byte, token uint64) (receiver.Transaction, error) {
	n, err := b.s.name(record.ReceiverRecords, key)
	if err != nil {
		return nil, err
	}
	b.s.txLock.Lock() // the claim is a call in progress, so the store is open
	return &backendTx{Tx: b.s.newTx(false), b: b, n: n, token: token}, nil
}

// Emit implements receiver.Transaction.
func (t *backendTx) Emit(topic string, payload []byte, key string) error {
	return t.emit(topic, payload, key)
}

// Commit implements receiver.Transaction.
func (t *backendTx) Commit(_ context.Context, res receiver.Result) (time.Time, error) {
	if t.err != nil {
		return time.Time{}, t.err
	}
	s := t.b.s
	l := s.leases.completing(t.n, t.token)
	if l == nil {
		return time.Time{}, receiver.ErrStaleToken
	}
	all := []completing{{l: l, res: res}}
	o := &all[0]
	marks, err := s.holdMarks(all)
	if err == nil {
		err = t.b.outcome(o, marks)
	}
	var own, changes []change
	var commit *wal.Commit
	if err == nil {
		size := 0
		own, size = marks.changes(s, o.changes, o.size)
		commit, changes, err = t.stage(size, l.reserved, own)
	}
	for _, ch := range o.changes {
		s.claims.release(ch.claim, err == nil)
	}
	marks.letGo(s, err == nil)
	if err != nil { // nothing was staged
		s.leases.running(l)
		return time.Time{}, err
	}
	t.end()
	l.reserved = 0
	if commit != nil {
		t.err = s.settle(commit, changes)
	}
	o.err, o.last, t.landed = t.err, true, t.err == nil
	return t.b.ended(o)
}

// Rollback implements receiver.Transaction.
func (t *backendTx) Rollback(context.Context) error {
	if t.landed || t.err != nil {
		return t.err
	}
	t.end()
	return t.awaitSeen()
}
