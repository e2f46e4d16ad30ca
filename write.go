package oncelog

import (
	"bytes"
	"errors"
	"time"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// PutIfAbsent stores value under key, for ttl from its commit (0 = Options.TTL), unless the key is live. It returns
// once that is durable, as Options.Sync says. For a live key it returns the stored value and inserted == false, and
// that answer too comes only when what it rests on is durable.
//
// After ErrFailed the record may be there when the store is opened again, whole, or not; it is not visible before. After any
// other error (ErrFull, ErrTooLarge, ErrTTL, ...) nothing was written.
func (s *Store) PutIfAbsent(key, value []byte, ttl time.Duration) (existing []byte, inserted bool, err error) {
	if s.opts.ReadOnly {
		return nil, false, ErrReadOnly
	}
	ms, err := s.opts.ttlMillis(ttl)
	if err != nil {
		return nil, false, err
	}
	if err := s.opts.checkValue(value); err != nil {
		return nil, false, err
	}
	n, err := s.name(record.Records, key)
	if err != nil {
		return nil, false, err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return nil, false, ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	for {
		if cand := s.candidate(n); !cand.none() {
			existing := []byte{}
			ok, err := s.confirm(n, cand, &existing)
			if err != nil {
				return nil, false, err
			}
			if ok {
				return existing, false, nil
			}
		}
		size := record.MaxSize(len(key), len(value), 0)
		if err := s.ready(size); err != nil {
			return nil, false, err
		}
		c, v := s.claims.hold(n, s.clock)
		if c == nil {
			if v.commit == nil {
				continue
			}
			if err := s.log.Await(v.commit); err != nil {
				return nil, false, err
			}
			return append([]byte{}, v.value()...), false, nil
		}
		if v.commit == nil {
			// Nobody is deciding now, but somebody may have been since the look-up above.
			r, ok, err := s.current(c)
			if err != nil {
				s.claims.release(c, false)
				return nil, false, err
			}
			if ok && s.clock.millis() < r.Expires {
				s.claims.release(c, true)
				return r.Value, false, nil
			}
		}
		at := s.clock.millis() // after the hold, so that times do not run back along the versions of a key
		ch := change{claim: c, record: record.Record{
			Kind: record.Result, At: at, Expires: addMillis(at, ms), Key: key, Value: value,
		}}
		if err := s.commit(size, ch); err != nil {
			return nil, false, err
		}
		return nil, true, nil
	}
}

// Delete makes the store forget key, durably, and reports whether it was live. It goes on where a store that has reached
// MaxBytes takes no records. Errors are as for PutIfAbsent.
func (s *Store) Delete(key []byte) (existed bool, err error) {
	if s.opts.ReadOnly {
		return false, ErrReadOnly
	}
	n, err := s.name(record.Records, key)
	if err != nil {
		return false, err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return false, ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	return s.remove(n)
}

// remove makes a key of a keyspace absent, durably, and reports whether it was live.
func (s *Store) remove(n name) (existed bool, err error) {
	size := record.MaxSize(len(n.key), 1, 0)
	if err := s.readyToDelete(size); err != nil {
		return false, err
	}
	c, v := s.claims.hold(n, nil)
	there, expires := !v.deleted(), v.expires
	if v.commit == nil {
		r, ok, err := s.current(c)
		if err != nil {
			s.claims.release(c, false)
			return false, err
		}
		there, expires = ok, r.Expires
	}
	if !there {
		s.claims.release(c, false)
		if v.commit != nil {
			return false, s.log.Await(v.commit)
		}
		return false, nil
	}
	// A record that has expired is deleted as well: a clock set back before the next opening could return it.
	at := s.clock.millis()
	r := tombstone(record.Result, at, n.key)
	switch n.space {
	case record.ReceiverRecords:
		r.Receiver = true
	case record.ReceiverMarks:
		r.Receiver, r.Value[0] = true, byte(record.Mark)
	}
	err = s.commit(size, change{claim: c, record: r})
	return err == nil && at < expires, err
}

func tombstone(of record.Kind, at int64, key []byte) record.Record {
	return record.Record{Kind: record.Tombstone, At: at, Expires: record.Forever, Key: key, Value: []byte{byte(of)}}
}

// addMillis saturates at Forever.
func addMillis(t, d int64) int64 {
	if d == record.Forever || t > record.Forever-d {
		return record.Forever
	}
	return t + d
}

// ready returns an error when a commit of size payload bytes would be refused. It is asked before anything is
// claimed.
func (s *Store) ready(size int) error {
	if err := s.within(int64(size), 0); err != nil {
		return err
	}
	if err := s.log.Ready(size); err != nil {
		s.house.kickIfFull(err)
		return err
	}
	return s.keys.Full()
}

// readyToDelete is ready for a tombstone, which makes room in the end, and may use some of what is kept for that.
func (s *Store) readyToDelete(size int) error {
	if err := s.within(int64(size), s.opts.SegmentSize); err != nil {
		return err
	}
	err := s.log.Ready(size)
	s.house.kickIfFull(err)
	return err
}

// current reads what the index holds for a key that the caller holds and that has no staged version. ok is false
// if there is nothing; a record that is found may have expired. Its bytes are the caller's.
func (s *Store) current(c *claim) (r record.Record, ok bool, err error) {
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	f, err := s.fetch(c.name, 0, b)
	if err != nil {
		return r, false, err
	}
	if !f.ok {
		s.claims.found(c, f.loc, nil) // what is dead gives its place in the index to this key
		return r, false, nil
	}
	s.claims.found(c, f.loc, s.counted(f.loc, &f.record, f.size))
	r = f.record
	r.Key, r.Value, r.Attrs = c.key, append([]byte{}, r.Value...), bytes.Clone(r.Attrs)
	return r, true, nil
}

// change is what a transaction does to one key, which it holds.
type change struct {
	claim  *claim
	record record.Record
}

// commit makes the changes one transaction of at most size payload bytes: durable, visible, in the index. The
// holds are let go as soon as the transaction has its place in the log.
func (s *Store) commit(size int, changes ...change) error {
	c, err := s.stage(size, 0, changes, nil)
	for _, ch := range changes {
		s.claims.release(ch.claim, err == nil)
	}
	if err != nil {
		return err
	}
	return s.settle(c, changes)
}

// stage encodes the changes and letters, gives each key its version, each letter its ordinal, and the transaction its
// number. An error means that nothing was staged; otherwise what wal.Reserve gave is used up.
func (s *Store) stage(size int, reserved int64, changes []change, letters []letter) (*wal.Commit, error) {
	undo := func() {}
	if len(letters) > 0 {
		o := &s.outbox
		o.mu.Lock()
		defer o.mu.Unlock()
		var err error
		if letters, undo, err = o.admit(s.id, letters); err != nil {
			return nil, err
		}
	}
	c, payload := newCommit(size)
	for i := range changes {
		at := len(payload)
		r := &changes[i].record
		payload = record.Append(payload, s.base, r)
		end := len(payload) - record.CheckSize
		s.claims.stage(changes[i].claim, version{
			commit: c, at: int32(at), whole: int32(len(payload) - at), kind: r.Kind, written: r.At, expires: r.Expires,
			body: payload[end-len(r.Value)-len(r.Attrs) : end : end], size: int32(len(r.Value)),
		})
	}
	var mail []posted
	for i := range letters {
		l := &letters[i]
		at := len(payload)
		l.record.Attrs = record.AppendAttributes(nil, &l.attrs)
		payload = record.Append(payload, s.base, &l.record)
		mail = append(mail, posted{c, at, len(payload) - at, l.record.Kind, string(l.record.Key), l.attrs.Ordinal})
	}
	var err error
	c.Payload = payload
	c.Reserved = reserved
	if len(payload) > 0 {
		err = s.log.Enqueue(c)
	} else {
		err = errNothing
	}
	if err != nil {
		for i := range changes {
			s.claims.withdraw(changes[i].claim, c)
		}
		undo()
		return nil, err
	}
	if len(mail) > 0 {
		s.outbox.posted = append(s.outbox.posted, mail...)
		s.outbox.pending.Add(int64(len(mail)))
	}
	return c, nil
}

// errNothing is the error of staging copies of nothing but what is gone meanwhile.
var errNothing = errors.New("oncelog: there is nothing to commit")

// newCommit returns a commit and an empty buffer of at least size bytes for its payload, which is never grown: the
// versions point into it. Most payloads lie in one allocation with their commit.
func newCommit(size int) (*wal.Commit, []byte) {
	if size > len(smallCommit{}.buf) {
		return wal.NewCommit(nil), make([]byte, 0, size)
	}
	c := new(smallCommit)
	c.Reset(nil)
	return &c.Commit, c.buf[:0]
}

// smallCommit has room for a key of 36 bytes and a value of 256, the receiver's too, and fills its size class.
type smallCommit struct {
	wal.Commit
	buf [376]byte
}

// settle waits for a staged transaction and moves its versions into the index.
func (s *Store) settle(c *wal.Commit, changes []change) error {
	if err := s.log.Wait(c); err != nil {
		for i := range changes {
			s.claims.withdraw(changes[i].claim, c)
		}
		return err
	}
	c.Payload = nil // 16 MiB at worst, which the newest transaction would keep alive
	for i := range changes {
		s.publish(changes[i].claim)
	}
	s.publishOutbox()
	return nil
}

// enter puts a committed version into the index in the place of what the key had there, and into the ledger. The
// caller has the key's shard and the cut.
func (s *Store) enter(c *claim, v *version) error {
	seg, off := v.commit.Position()
	if v.deleted() {
		if c.base != 0 && s.keys.Remove(c.hash, byte(c.space), c.key, c.base) {
			s.count(c.space, -1)
		}
		s.ledger.Buried(c.counted, seg.Number(), int(v.whole))
		s.noteKey(c.space, c.key, v.kind, c.counted, nil)
		c.base, c.counted = 0, nil
		return nil
	}
	loc := index.At(seg.Slot(), off+int64(v.at))
	if c.base == 0 || !s.keys.Replace(c.hash, byte(c.space), c.key, c.base, loc) { // sweeping may have taken the base
		if err := s.keys.Insert(c.hash, byte(c.space), c.key, loc); err != nil {
			return err
		}
		s.count(c.space, 1)
	}
	now := compaction.EntryOf(seg.Number(), c.space, v.expires, int(v.whole))
	s.ledger.Change(c.counted, &now)
	s.noteKey(c.space, c.key, v.kind, c.counted, &now)
	c.base, c.counted = loc, nil
	if c.held || len(c.versions) > 1 { // else nobody will ask the entry any more
		c.counted = &compaction.Entry{}
		*c.counted = now
	}
	return nil
}

// noteKey notes what else is known of the receiver's keys: which are in doubt, and what their scopes take up.
func (s *Store) noteKey(space record.Space, key []byte, kind record.Kind, old, new *compaction.Entry) {
	if space == record.ReceiverRecords {
		s.doubts.change(key, kind)
		s.scopes.change(key, old, new)
	}
}

// counted returns as what a record in the index is counted in the ledger, or nil if its segment is gone.
func (s *Store) counted(loc index.Location, r *record.Record, size int) *compaction.Entry {
	seg := s.log.Segment(loc.Slot())
	if seg == nil {
		return nil
	}
	e := compaction.EntryOf(seg.Number(), r.Space(), r.Expires, size)
	return &e
}

// count keeps Stats.Keys, which counts the keys that are remembered, whoever brought them.
func (s *Store) count(space record.Space, d int64) {
	if space == record.Records || space == record.ReceiverRecords {
		s.records.Add(d)
	}
}
