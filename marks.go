package oncelog

import (
	"fmt"

	"github.com/oncelog/oncelog/record"
)

// A mark says how far a source of numbered messages has come. Marks never expire.

// Advance raises the high-water mark of source to seq, durably, if seq is above it; fresh says whether it was. A
// source without a mark takes any number. The answer that seq is not fresh is durable too.
func (s *Store) Advance(source string, seq uint64) (fresh bool, err error) {
	err = s.Update(func(tx *Tx) error {
		fresh, err = tx.Advance(source, seq)
		return err
	})
	return fresh && err == nil, err
}

// HighWater returns the mark of source, and whether it has one.
func (s *Store) HighWater(source string) (seq uint64, ok bool, err error) {
	n, err := s.name(record.Marks, []byte(source))
	if err != nil {
		return 0, false, err
	}
	value, ok, err := s.value(n)
	if err != nil || !ok {
		return 0, false, err
	}
	seq, err = markNumber(value)
	return seq, err == nil, err
}

// ForgetSource removes the mark of source, durably: the next number of the source is fresh, whatever it is.
func (s *Store) ForgetSource(source string) error {
	return s.Update(func(tx *Tx) error {
		_, err := tx.remove(record.Mark, []byte(source))
		return err
	})
}

// Advance is Store.Advance as a part of the transaction.
func (tx *Tx) Advance(source string, seq uint64) (fresh bool, err error) {
	if tx.view {
		return false, ErrReadOnly
	}
	value, ok, err := tx.read(record.Marks, []byte(source))
	if err != nil {
		return false, err
	}
	if ok {
		mark, err := markNumber(value)
		if err != nil || seq <= mark {
			return false, err
		}
	}
	err = tx.put(record.Mark, []byte(source), record.AppendMark(nil, record.MarkValue{Number: seq}))
	return err == nil, err
}

func markNumber(value []byte) (uint64, error) {
	m, err := record.ParseMark(value)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m.Number, nil
}
