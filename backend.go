package oncelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// Receiver returns a receiver whose keys are remembered here. They are a keyspace of their own: no call of Receiver.Do
// ever meets a key of PutIfAbsent. All receivers of a store share it, apart from their scopes.
func (s *Store) Receiver(opts *receiver.Options) (*receiver.Receiver, error) {
	if s.opts.ReadOnly {
		return nil, ErrReadOnly
	}
	return receiver.New(backend{s}, opts)
}

// backend is the store behind the seam of package receiver.
//
//	Claim ──▶ look up ──▶ a lease ──▶ look up again ──▶ room, a token ──▶ fn runs ──▶ Complete ──▶ the lease ends
//
// The lease comes before the second look-up, as a claim does everywhere: what was recorded in between would be missed
// otherwise. A lease lives in memory alone. Its process holds the directory's lock, so when it dies the lease is
// gone and proven to be nobody's.
type backend struct{ s *Store }

// claimRoom is what a claim sets aside in the log beside its key: enough to record, when there is no room for the
// result, that the work was done.
func claimRoom(key []byte) int { return record.MaxSize(len(key), 0, maxClaimAttrs) }

// maxClaimAttrs bounds the attributes of a record without a result: fingerprint (an algorithm and 32 bytes) and token.
const maxClaimAttrs = 64

// Claim implements receiver.Store.
func (b backend) Claim(_ context.Context, req receiver.Request) (receiver.Claim, error) {
	s := b.s
	n, err := s.name(record.ReceiverRecords, req.Key)
	if err != nil {
		return receiver.Claim{}, err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return receiver.Claim{}, ErrClosed
	}
	held := false
	defer func() {
		if !held { // a held claim is a call in progress until it ends
			s.gate.leave(uint64(n.hash))
		}
	}()
	if c, ok, err := s.recorded(n, req.Fingerprint); ok || err != nil {
		return c, err
	}
	if _, err := s.opts.ttlMillis(req.TTL); err != nil {
		return receiver.Claim{}, err
	}
	if req.Intent || req.Mark != nil {
		return receiver.Claim{}, fmt.Errorf("oncelog: intents and sequences: %w", errors.ErrUnsupported)
	}
	if len(req.Fingerprint) > 1+32 {
		return receiver.Claim{}, fmt.Errorf("%w: a fingerprint of %d bytes", ErrTooLarge, len(req.Fingerprint))
	}
	l, c, err := s.leases.take(n, req.Fingerprint)
	if l == nil {
		return c, err
	}
	c, err = b.admit(n, l, req)
	if err != nil || c.State != receiver.StateClaimed {
		s.endLease(l)
		return c, err
	}
	held = true
	return c, nil
}

// admit looks again under the lease, and sees to it that the work can be recorded.
func (b backend) admit(n name, l *lease, req receiver.Request) (receiver.Claim, error) {
	s := b.s
	if c, ok, err := s.recorded(n, req.Fingerprint); ok || err != nil {
		return c, err
	}
	room := claimRoom(n.key)
	if err := s.ready(room); err != nil {
		return receiver.Claim{}, err
	}
	token, err := s.tokens.next(s)
	if err != nil {
		return receiver.Claim{}, err
	}
	reserved, err := s.log.Reserve(room)
	if err != nil {
		return receiver.Claim{}, err
	}
	s.leases.grant(l, token, reserved)
	return receiver.Claim{State: receiver.StateClaimed, Token: token}, nil
}

// recorded returns what a live record says about a key of the receiver's.
func (s *Store) recorded(n name, fingerprint []byte) (receiver.Claim, bool, error) {
	cand := s.candidate(n)
	if cand.none() {
		return receiver.Claim{}, false, nil
	}
	var r record.Record
	if v := &cand.version; v.commit != nil {
		if v.deleted() {
			return receiver.Claim{}, false, nil
		}
		// Without its time, which only a result TTL asks for, and this process gives none.
		r = record.Record{Kind: v.kind, Expires: v.expires, Value: v.value(), Attrs: v.attrs()}
	} else {
		b := buffers.Get().(*buffer)
		defer buffers.Put(b)
		f, err := s.fetch(n, cand.loc, b)
		if err != nil || !f.ok {
			return receiver.Claim{}, false, err
		}
		r = f.record
	}
	now, wall := s.clock.both()
	if now >= r.Expires {
		return receiver.Claim{}, false, nil
	}
	c, err := done(&r, fingerprint, now)
	c.Until = until(r.Expires, now, wall)
	return c, err == nil, err
}

// done turns a record into the answer to a claim at a time. The record's bytes are not the answer's.
func done(r *record.Record, fingerprint []byte, now int64) (receiver.Claim, error) {
	a, err := r.Attributes()
	if err != nil {
		return receiver.Claim{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(a.Fingerprint) > 0 && len(fingerprint) > 0 && a.Algorithm != fingerprint[0] {
		// Neither "same" nor "another" would be a safe answer.
		return receiver.Claim{}, fmt.Errorf("%w: a fingerprint of algorithm %d", ErrTooNew, a.Algorithm)
	}
	if a.ResultTTL > 0 && r.Kind == record.Result && now >= addMillis(r.At, int64(a.ResultTTL)) {
		r.Kind, r.Value = record.Gone, nil
	}
	c := receiver.Claim{State: receiver.StateDone, Token: a.Token}
	size := len(r.Value)
	if r.Kind == record.Failure {
		size = 0
	}
	if len(a.Fingerprint) > 0 {
		size += 1 + len(a.Fingerprint)
	}
	buf := make([]byte, 0, size) // one allocation for both
	switch r.Kind {
	case record.Result:
		buf = append(buf, r.Value...)
		c.Result = receiver.Result{Kind: receiver.KindValue, Value: buf[:len(buf):len(buf)]}
	case record.Failure:
		c.Result = receiver.Result{Kind: receiver.KindFailure, Code: string(a.Code), Message: string(r.Value)}
	case record.Gone:
		c.Result = receiver.Result{Kind: receiver.KindGone}
	default: // an intent whose process is gone, or a doubt
		c.Result, c.Note = receiver.Result{Kind: receiver.KindDoubt}, bytes.Clone(r.Value)
	}
	if len(a.Fingerprint) > 0 {
		at := len(buf)
		buf = append(append(buf, a.Algorithm), a.Fingerprint...)
		c.Fingerprint = buf[at:]
	}
	return c, nil
}

// until is the wall's time at which a record goes, by whichever clock says earlier.
func until(expires, now int64, wall time.Time) time.Time {
	if expires == record.Forever {
		return time.Time{}
	}
	at := time.UnixMilli(expires)
	if left := wall.Add(time.Duration(expires-now) * time.Millisecond); left.Before(at) {
		return left
	}
	return at
}

// Complete implements receiver.Store. A claim that can't be completed even without its result is an orphan: nobody
// may run the work again, and nobody can be told the result, until the store is reopened.
func (b backend) Complete(_ context.Context, key []byte, token uint64, res receiver.Result) (time.Time, error) {
	s := b.s
	n, err := s.name(record.ReceiverRecords, key)
	if err != nil {
		return time.Time{}, err
	}
	l := s.leases.completing(n, token)
	if l == nil {
		return b.completed(n, token)
	}
	expires, err := b.record(n, l, res)
	switch {
	case err == nil:
		s.endLease(l)
	case res.Kind == receiver.KindGone:
		s.leases.orphan(l)
	default:
		s.leases.running(l)
		return time.Time{}, err
	}
	s.gate.leave(uint64(n.hash))
	if err != nil {
		return time.Time{}, err
	}
	now, wall := s.clock.both()
	return until(expires, now, wall), nil
}

// record commits the result of a lease and returns when it expires.
func (b backend) record(n name, l *lease, res receiver.Result) (expires int64, err error) {
	s := b.s
	ms, err := s.opts.ttlMillis(res.TTL)
	if err != nil {
		return 0, err
	}
	if res.ResultTTL != 0 {
		return 0, fmt.Errorf("oncelog: results with a TTL of their own: %w", errors.ErrUnsupported)
	}
	attrs := record.Attributes{Token: l.token}
	if len(l.fingerprint) > 0 {
		attrs.Algorithm, attrs.Fingerprint = l.fingerprint[0], l.fingerprint[1:]
	}
	r := record.Record{Receiver: true, Key: n.key}
	switch res.Kind {
	case receiver.KindValue:
		r.Kind, r.Value = record.Result, res.Value
	case receiver.KindFailure:
		r.Kind, r.Value, attrs.Code = record.Failure, []byte(res.Message), []byte(res.Code)
	case receiver.KindGone:
		r.Kind = record.Gone
	default:
		return 0, fmt.Errorf("oncelog: a result of kind %d: %w", res.Kind, errors.ErrUnsupported)
	}
	if err := s.opts.checkValue(r.Value); err != nil {
		return 0, err
	}
	var room [maxClaimAttrs]byte
	r.Attrs = record.AppendAttributes(room[:0], &attrs)

	c, v := s.claims.hold(n, nil)
	if v.commit == nil {
		if _, _, err := s.current(c); err != nil {
			s.claims.release(c, false)
			return 0, err
		}
	}
	r.At = s.clock.millis()
	r.Expires = addMillis(r.At, ms)
	changes := []change{{c, r}}
	size := record.MaxSize(len(r.Key), len(r.Value), len(r.Attrs))
	commit, err := s.stage(size, l.reserved, changes)
	s.claims.release(c, err == nil)
	if err != nil {
		return 0, err
	}
	l.reserved = 0
	return r.Expires, s.settle(commit, changes)
}

// completed answers a Complete whose claim is over: it may have been this very one, whose answer was lost.
func (b backend) completed(n name, token uint64) (time.Time, error) {
	s := b.s
	if !s.gate.enter(uint64(n.hash)) {
		return time.Time{}, ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	c, ok, err := s.recorded(n, nil)
	if err != nil {
		return time.Time{}, err
	}
	if !ok || c.Token != token {
		return time.Time{}, receiver.ErrStaleToken
	}
	return c.Until, nil
}

// Release implements receiver.Store.
func (b backend) Release(_ context.Context, key []byte, token uint64) error {
	s := b.s
	n, err := s.name(record.ReceiverRecords, key)
	if err != nil {
		return err
	}
	l := s.leases.completing(n, token)
	if l == nil {
		return receiver.ErrStaleToken
	}
	s.endLease(l)
	s.gate.leave(uint64(n.hash))
	return nil
}

// Inspect implements receiver.Inspector.
func (b backend) Inspect(_ context.Context, key []byte) (receiver.Claim, error) {
	s := b.s
	n, err := s.name(record.ReceiverRecords, key)
	if err != nil {
		return receiver.Claim{}, err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return receiver.Claim{}, ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	// A lease ends after its record is visible, so in this order one of the two is found.
	held, isHeld := s.leases.inspect(n)
	if c, ok, err := s.recorded(n, nil); ok || err != nil {
		return c, err
	}
	if isHeld {
		return held, nil
	}
	return receiver.Claim{State: receiver.StateAbsent}, nil
}

// Forget implements receiver.Inspector.
func (b backend) Forget(_ context.Context, key []byte) error {
	s := b.s
	n, err := s.name(record.ReceiverRecords, key)
	if err != nil {
		return err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	l, _, err := s.leases.take(n, nil)
	if err != nil {
		return err
	}
	if l == nil {
		return receiver.ErrInFlight
	}
	defer s.endLease(l)
	_, err = s.remove(n)
	return err
}
