package oncelog

import (
	"bytes"
	"errors"
	"iter"
	"time"

	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
)

// Record is a record of PutIfAbsent or Tx.PutRecord.
type Record struct {
	Key, Value []byte
	Committed  time.Time // the store's clock at the commit
	Expires    time.Time // the first moment at which it is gone; zero = never
}

// Records yields the live records, in no order. What is inserted, deleted or expires meanwhile may or may not be
// among them; all others are, each once. The loop's body may use the store. An error is yielded once and ends the
// iteration.
func (s *Store) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		b := buffers.Get().(*buffer)
		defer buffers.Put(b)
		defer s.log.Pin()() // what moves meanwhile is still where it was
		s.keys.Scan(func(f index.Found) bool {
			r, ok, err := s.recordAt(f, b)
			if err != nil {
				yield(Record{}, err)
				return false
			}
			return !ok || yield(r, nil)
		})
	}
}

// recordAt reads the record that was found and reports whether it is one for Records.
func (s *Store) recordAt(f index.Found, b *buffer) (Record, bool, error) {
	loc := f.Location
	if !s.gate.enter(uint64(loc)) {
		return Record{}, false, ErrClosed
	}
	defer s.gate.leave(uint64(loc))
	r, _, err := s.readAt(loc, b)
	if errors.Is(err, errGone) { // dropped before this began: nothing in it was alive
		return Record{}, false, nil
	}
	if err == nil {
		err = s.belongs(&r, f.Like, loc)
	}
	if err != nil || r.Kind != record.Result || r.Receiver || s.clock.millis() >= r.Expires {
		return Record{}, false, err
	}
	out := Record{Key: bytes.Clone(r.Key), Value: append([]byte{}, r.Value...), Committed: time.UnixMilli(r.At)}
	if r.Expires != record.Forever {
		out.Expires = time.UnixMilli(r.Expires)
	}
	return out, true, nil
}
