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
		s.keys.Scan(func(loc index.Location) bool {
			r, ok, err := s.recordAt(loc, b)
			if err != nil {
				yield(Record{}, err)
				return false
			}
			return !ok || yield(r, nil)
		})
	}
}

// recordAt reads the record at loc and reports whether it is one for Records.
func (s *Store) recordAt(loc index.Location, b *buffer) (Record, bool, error) {
	if !s.gate.enter(uint64(loc)) {
		return Record{}, false, ErrClosed
	}
	defer s.gate.leave(uint64(loc))
	r, _, err := s.readAt(loc, b)
	if errors.Is(err, errGone) { // dropped before this began: nothing in it was alive
		return Record{}, false, nil
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
