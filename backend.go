package oncelog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// Receiver returns a receiver whose keys are remembered here. They are a keyspace of their own: no call of Receiver.Do
// ever meets a key of PutIfAbsent. All receivers of a store share it, apart from their scopes. A receiver of a read-only
// store answers questions and claims nothing.
func (s *Store) Receiver(opts *receiver.Options) (*receiver.Receiver, error) {
	return receiver.New(backend{s}, opts)
}

// backend is the store behind the seam of package receiver.
//
//	Claim ──▶ look up ──▶ a lease ──▶ look up again ──▶ room, a token ──▶ fn runs ──▶ Complete ──▶ the lease ends
//
// The lease comes before the second look-up, as a claim does everywhere: what was recorded in between would be missed
// otherwise. A lease lives in memory alone. Its process holds the directory's lock, so when it dies the lease is
// gone and proven to be nobody's: an intent without a lease is a doubt.
type backend struct{ s *Store }

// claimRoom is what a claim sets aside in the log: enough to record, when there is no room for the result, that the
// work was done.
func claimRoom(req *receiver.Request) int {
	room := record.MaxSize(len(req.Key), 0, maxClaimAttrs)
	if m := req.Mark; m != nil {
		room += markRoom(m)
	}
	return room
}

// maxFingerprint is the size of the largest fingerprint, an algorithm and 32 bytes.
const maxFingerprint = 1 + 32

// maxClaimAttrs bounds the attributes of a record without a result: fingerprint, token, and TTL of the result.
const maxClaimAttrs = 80

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
	if c, ok, err := s.recorded(n, req.Fingerprint); err != nil || ok && c.State == receiver.StateDone {
		return c, err
	}
	if err := s.checkRequest(&req); err != nil {
		return receiver.Claim{}, err
	}
	l, c, err := s.leases.take(n, req.Fingerprint)
	if l == nil {
		return c, err
	}
	c, err = b.admit(n, l, req)
	if err != nil || c.State != receiver.StateClaimed && c.State != receiver.StateInDoubt {
		s.endLease(l)
		return c, err
	}
	held = true
	return c, nil
}

// checkRequest refuses what could not be recorded.
func (s *Store) checkRequest(req *receiver.Request) error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if _, err := s.opts.ttlMillis(req.TTL); err != nil {
		return err
	}
	if len(req.Fingerprint) > maxFingerprint {
		return fmt.Errorf("%w: a fingerprint of %d bytes", ErrTooLarge, len(req.Fingerprint))
	}
	if m := req.Mark; m != nil {
		if err := s.opts.checkKey([]byte(m.Source)); err != nil {
			return fmt.Errorf("%w (a source)", err)
		}
	}
	return s.opts.checkValue(req.Note)
}

// admit looks again under the lease, and sees to it that the work can be recorded.
func (b backend) admit(n name, l *lease, req receiver.Request) (receiver.Claim, error) {
	s := b.s
	c, ok, err := s.recorded(n, req.Fingerprint)
	if err != nil || ok && c.State == receiver.StateDone {
		return c, err
	}
	l.doubt = ok
	if m := req.Mark; m != nil {
		mark := *m
		l.mark = &mark
		if !l.doubt {
			if c, ok, err := s.handled(&mark); ok || err != nil {
				return c, err
			}
		}
	}
	if req.Quota != (receiver.Quota{}) && !l.doubt {
		if err := s.scopes.claim(n.key, req.Quota, s.clock.millis()); err != nil {
			return receiver.Claim{}, err
		}
		l.quota = true
	}
	room := claimRoom(&req)
	if err := s.ready(room); err != nil {
		return receiver.Claim{}, err
	}
	token, err := s.tokens.next(s)
	if err != nil {
		return receiver.Claim{}, err
	}
	l.token = token
	if l.reserved, err = s.log.Reserve(room); err != nil {
		return receiver.Claim{}, err
	}
	if m := req.Mark; m != nil && m.Strict && !l.doubt {
		if err := s.await(m); err != nil {
			return receiver.Claim{}, err
		}
	}
	if req.Intent && !l.doubt {
		if err := s.intend(l, req.Note); err != nil {
			return receiver.Claim{}, err
		}
	}
	s.leases.running(l)
	if l.doubt {
		c.State, c.Token = receiver.StateInDoubt, token
		return c, nil
	}
	return receiver.Claim{State: receiver.StateClaimed, Token: token}, nil
}

// intend records that the work of a lease is about to begin.
func (s *Store) intend(l *lease, note []byte) error {
	r := record.Record{Kind: record.Intent, Receiver: true, Expires: record.Forever, Key: l.key, Value: note, Attrs: l.attrs(0, "")}
	size := record.MaxSize(len(r.Key), len(r.Value), len(r.Attrs))
	if err := s.ready(size); err != nil {
		return err
	}
	c, err := s.holdCurrent(l.name)
	if err != nil {
		return err
	}
	r.At = s.clock.millis()
	if err := s.commit(size, change{c, r}); err != nil {
		return err
	}
	l.intent = true
	return nil
}

// holdCurrent holds a key of the receiver's, of which only the holder of its lease and housekeeping want it.
func (s *Store) holdCurrent(n name) (*claim, error) {
	c, v := s.claims.hold(n, nil)
	if v.commit == nil {
		if _, _, err := s.current(c); err != nil {
			s.claims.release(c, false)
			return nil, err
		}
	}
	return c, nil
}

// recorded returns what a live record says about a key of the receiver's: StateDone, or StateInDoubt for an intent too,
// which is one if nobody has the lease.
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
		r = record.Record{Kind: v.kind, At: v.written, Expires: v.expires, Value: v.value(), Attrs: v.attrs()}
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
	default: // an intent or a doubt
		c.State, c.Note = receiver.StateInDoubt, bytes.Clone(r.Value)
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
	l, end := b.toComplete(key, token)
	if l == nil {
		return end.Until, end.Err
	}
	all := [1]completing{{l: l, res: res}}
	b.complete(all[:])
	return b.ended(&all[0])
}

// toComplete gives the caller the lease of a claim, to record its end. If there is none, it says how the claim ended.
func (b backend) toComplete(key []byte, token uint64) (l *lease, end receiver.Completed) {
	n, err := b.s.name(record.ReceiverRecords, key)
	if err != nil {
		return nil, receiver.Completed{Err: err}
	}
	if l = b.s.leases.completing(n, token); l == nil {
		end.Until, end.Err = b.completed(n, token)
	}
	return l, end
}

// CompleteAll implements receiver.Batcher: as few transactions as their size allows, one after the other. None is in the
// log's queue while another is staged or its keys are waited for: the first commit of a batch leads it, so whoever waited
// then could be waiting for the very batch that waits for this call.
func (b backend) CompleteAll(_ context.Context, all []receiver.Completion) []receiver.Completed {
	ends := make([]receiver.Completed, len(all))
	var open []completing
	size := 0
	flush := func() {
		b.complete(open)
		for i := range open {
			o := &open[i]
			ends[o.place].Until, ends[o.place].Err = b.ended(o)
		}
		open, size = nil, 0
	}
	for i := range all {
		c := &all[i]
		l, end := b.toComplete(c.Key, c.Token)
		if l == nil {
			ends[i] = end
			continue
		}
		more := record.MaxSize(len(c.Key), len(c.Result.Value)+len(c.Result.Message), maxClaimAttrs)
		if size > 0 && size+more > batchBytes {
			flush()
		}
		open = append(open, completing{l: l, res: c.Result, place: i})
		size += more
	}
	flush()
	return ends
}

// batchBytes is about how large a transaction of many completions may be: what the log syncs at once without making
// others wait for longer than a sync.
const batchBytes = 1 << 20

// completing is a claim whose result is being recorded.
type completing struct {
	l       *lease
	res     receiver.Result
	place   int      // among those that were asked for
	changes []change // of the claim's own key, which is held
	one     [1]change
	size    int
	expires int64
	last    bool // there is nothing less to be recorded
	err     error
}

// complete records the results of claims in one transaction. If that is refused, each is tried on its own: a smaller
// one may find room.
func (b backend) complete(all []completing) {
	s := b.s
	marks, err := s.holdMarks(all)
	var changes []change
	size, reserved := 0, int64(0)
	for i := range all {
		o := &all[i]
		if o.err = err; o.err != nil {
			continue
		}
		if o.err = b.outcome(o, marks); o.err == nil {
			changes = joined(changes, o.changes)
			size += o.size
			reserved += o.l.reserved
		}
	}
	changes, size = marks.changes(s, changes, size)
	if len(changes) == 0 {
		marks.letGo(s, false)
		return
	}
	commit, err := s.stage(size, reserved, changes, nil)
	for i := range all {
		for _, ch := range all[i].changes {
			s.claims.release(ch.claim, err == nil)
		}
	}
	marks.letGo(s, err == nil)
	if err != nil && len(all) > 1 {
		for i := range all {
			if all[i].err == nil {
				all[i].changes, all[i].size = nil, 0
				b.complete(all[i : i+1])
			}
		}
		return
	}
	if err == nil {
		for i := range all {
			if all[i].err == nil {
				all[i].l.reserved = 0
			}
		}
		err = s.settle(commit, changes)
	}
	for i := range all {
		if all[i].err == nil {
			all[i].err = err
		}
	}
}

// joined is append, which allocates nothing where there was nothing before.
func joined(to, more []change) []change {
	if len(to) == 0 {
		return slices.Clip(more)
	}
	return append(to, more...)
}

// ended ends the lease, or lets it run on when nothing was recorded.
func (b backend) ended(o *completing) (time.Time, error) {
	s, l := b.s, o.l
	switch {
	case o.err == nil:
		s.endLease(l)
	case o.res.Kind == receiver.KindGone || o.res.Kind == receiver.KindDoubt || o.last:
		s.leases.orphan(l)
	default:
		s.leases.running(l)
		return time.Time{}, o.err
	}
	s.gate.leave(uint64(l.hash))
	if o.err != nil {
		return time.Time{}, o.err
	}
	now, wall := s.clock.both()
	return until(o.expires, now, wall), nil
}

// outcome finds the change that a result makes of its own key, which is held then, and that of its source's mark, which
// is.
func (b backend) outcome(o *completing, marks heldMarks) (err error) {
	s, l := b.s, o.l
	o.expires = record.Forever
	known := l.intent || l.doubt // there is a record of the key
	switch o.res.Kind {
	case receiver.KindDoubt:
		if !known {
			err = o.add(s, record.Record{Kind: record.Doubt, Expires: record.Forever, Attrs: l.attrs(0, "")}, 0)
		}
		return err
	case receiver.KindNot:
		if known {
			err = o.add(s, tombstone(record.Result, 0, nil), 0)
		}
		return err
	}
	ms, err := s.opts.ttlMillis(o.res.TTL)
	if err != nil {
		return err
	}
	r, err := l.result(&o.res, ms)
	if err != nil {
		return err
	}
	if err := s.opts.checkValue(r.Value); err != nil {
		return err
	}
	// A number of a sequence whose result says nothing is in the mark alone, if the mark can tell of it.
	kept := l.mark == nil || r.Kind != record.Result || len(r.Value) > 0 || len(l.fingerprint) > 0 || !marks.tells(l.mark)
	switch {
	case kept:
		err = o.add(s, r, ms)
	case known:
		err = o.add(s, tombstone(record.Result, 0, nil), 0)
	}
	if err == nil && l.mark != nil {
		marks.advance(l.mark, kept)
	}
	return err
}

// add adds a change of the claim's own key: a record that lives for a TTL in milliseconds, unless it does not expire.
func (o *completing) add(s *Store, r record.Record, ttl int64) error {
	c, err := s.holdCurrent(o.l.name)
	if err != nil {
		return err
	}
	r.Receiver, r.Key, r.At = true, o.l.key, s.clock.millis()
	if r.Expires != record.Forever {
		r.Expires = addMillis(r.At, ttl)
		o.expires = r.Expires
	}
	o.changes = append(o.one[:0], change{c, r})
	o.size += record.MaxSize(len(r.Key), len(r.Value), len(r.Attrs))
	return nil
}

// attrs are the attributes of a record of the lease.
func (l *lease) attrs(resultTTL int64, code string) []byte {
	attrs := record.Attributes{Token: l.token, ResultTTL: resultTTL, Code: []byte(code)}
	if len(l.fingerprint) > 0 {
		attrs.Algorithm, attrs.Fingerprint = l.fingerprint[0], l.fingerprint[1:]
	}
	return record.AppendAttributes(l.room[:0], &attrs)
}

// result is the record of a result that is kept for a TTL in milliseconds.
func (l *lease) result(res *receiver.Result, ttl int64) (r record.Record, err error) {
	resultTTL, code := int64(0), ""
	switch res.Kind {
	case receiver.KindValue:
		r.Kind, r.Value = record.Result, res.Value
		// Rounded up as TTLs are. One that is not shorter than the key's says nothing.
		if ms := int64((res.ResultTTL + time.Millisecond - 1) / time.Millisecond); ms < ttl {
			resultTTL = ms
		}
	case receiver.KindFailure:
		r.Kind, r.Value, code = record.Failure, []byte(res.Message), res.Code
	case receiver.KindGone:
		r.Kind = record.Gone
	default:
		return r, fmt.Errorf("oncelog: a result of kind %d: %w", res.Kind, errors.ErrUnsupported)
	}
	r.Attrs = l.attrs(resultTTL, code)
	return r, nil
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
	if l.intent {
		_, err = s.remove(n) // should it fail, the key is in doubt
	}
	s.endLease(l)
	s.gate.leave(uint64(n.hash))
	return err
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
	held, isHeld := s.leases.inspect(n)
	return s.inspected(n, held, isHeld)
}

// inspected is the rest of Inspect, after a look for a lease. A lease ends after its record is visible, so in this order
// one of the two is found. But it may have been taken since, and what is found be its intent: so that is a doubt only if
// it is the same before and after a look that finds no lease.
func (s *Store) inspected(n name, held receiver.Claim, isHeld bool) (receiver.Claim, error) {
	for token := uint64(0); ; {
		c, ok, err := s.recorded(n, nil)
		switch {
		case err != nil || ok && c.State == receiver.StateDone:
			return c, err
		case isHeld:
			return held, nil
		case !ok:
			return receiver.Claim{State: receiver.StateAbsent}, nil
		case c.Token == token:
			return c, nil
		}
		token = c.Token
		held, isHeld = s.leases.inspect(n)
	}
}

// Doubts implements receiver.Inspector.
func (b backend) Doubts(_ context.Context) iter.Seq2[[]byte, error] {
	s := b.s
	return func(yield func([]byte, error) bool) {
		for _, key := range s.doubts.keys() {
			n, err := s.name(record.ReceiverRecords, []byte(key))
			if err != nil {
				yield(nil, err)
				return
			}
			if _, running := s.leases.inspect(n); !running && !yield(n.key, nil) {
				return
			}
		}
	}
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
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
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
