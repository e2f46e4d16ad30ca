package oncelog

import (
	"fmt"

	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// Verify reads back all that was committed when it was called, every frame and every record, and returns the first
// damage as a *CorruptError. Writers and readers go on meanwhile. Close ends it with ErrClosed.
func (s *Store) Verify() error {
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	return s.log.Verify(func(f wal.Frame) error {
		if s.gate.shut.Load() {
			return ErrClosed
		}
		return eachRecord(f, func(record.Record, int, int64) error { return nil })
	})
}

// eachRecord decodes the records of a frame and gives each with its size and its offset in the segment's file.
func eachRecord(f wal.Frame, do func(r record.Record, size int, off int64) error) error {
	base := record.DecodeBase(f.Segment.Meta())
	for at := 0; at < len(f.Payload); {
		off := f.Offset + int64(at)
		r, n, err := record.Parse(f.Payload[at:], base)
		if err != nil {
			return recordError(f.Segment.Corrupt, f.Segment.Path(), off, err)
		}
		if r.Kind == record.Mark {
			if _, err := record.ParseMark(r.Value); err != nil {
				return recordError(f.Segment.Corrupt, f.Segment.Path(), off, err)
			}
		}
		switch r.Space() {
		case record.Outbox, record.ReceiverOutbox:
			if err := checkLetter(&r); err != nil {
				return recordError(f.Segment.Corrupt, f.Segment.Path(), off, err)
			}
		}
		if err := do(r, n, off); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// checkLetter refuses records of the outbox that this version does not write.
func checkLetter(r *record.Record) error {
	a, err := r.Attributes()
	switch {
	case err != nil:
		return err
	case r.Receiver:
		return fmt.Errorf("%w: a message of the receiver's own", record.ErrUnknown)
	case r.Kind == record.Tombstone && record.Kind(r.Value[0]) != record.Parked:
		return fmt.Errorf("%w: a tombstone of a message that is not parked", record.ErrUnknown)
	case a.Ordinal == 0:
		return fmt.Errorf("%w: a message without an ordinal", record.ErrUnknown)
	}
	return nil
}
