package oncelog

import (
	"bytes"
	"errors"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// replay puts the records of a log into an index. It decides nothing, neither by the clock nor by what is there
// already: all of that was decided when the record was written, and deciding again could come out differently.
//
// An index from a snapshot shows some of what is replayed first already. Replaying it again leads to the same; what is
// counted would be counted twice, so nothing is before the transaction at which the snapshot's counts are exact.
type replay struct {
	s       *Store
	counted uint64 // transactions through this one are in the counts already
	newest  int64  // the largest time seen
	buf     []byte
}

func (p *replay) frame(f wal.Frame) error {
	p.newest = max(p.newest, f.Note) // the time at which segments were dropped: what had expired then must stay gone
	return eachRecord(f, func(r record.Record, size int, off int64) error {
		p.newest = max(p.newest, r.At)
		if r.Space() == record.Outbox {
			return p.letter(f, r, size, off)
		}
		return p.record(f, r, size, off)
	})
}

// letter takes a record of the outbox, which a snapshot shows exactly as of the transaction through which it counts.
func (p *replay) letter(f wal.Frame, r record.Record, size int, off int64) error {
	if f.Number <= p.counted {
		return nil
	}
	a, err := r.Attributes()
	if err != nil {
		return recordError(f.Segment.Corrupt, f.Segment.Path(), off, err)
	}
	at := place{
		loc:   index.At(f.Segment.Slot(), off),
		entry: compaction.EntryOf(f.Segment.Number(), record.Outbox, record.Forever, size),
	}
	p.s.outbox.apply(p.s.ledger, r.Kind, string(r.Key), a.Ordinal, at)
	return nil
}

func (p *replay) record(f wal.Frame, r record.Record, size int, off int64) error {
	x, s := p.s.keys, p.s
	space := r.Space()
	h := x.Hash(byte(space), r.Key)
	old, ok := x.Lookup(h, byte(space), r.Key)
	loc := index.At(f.Segment.Slot(), off)
	if ok && old == loc && r.Kind != record.Tombstone {
		return nil // a snapshot shows it already
	}
	var was *compaction.Entry
	if ok {
		// A segment that is gone was dropped: what the index has there is dead, whosever it is, and its place is free.
		// Left alone it would come back when the key is removed that was put beside it.
		if seg := f.InSlot(old.Slot()); seg != nil {
			var err error
			if was, ok, err = p.holds(seg, old, space, r.Key); err != nil {
				return err
			}
		}
	}
	counting := f.Number > p.counted
	switch {
	case r.Kind == record.Tombstone:
		if ok {
			x.Remove(h, byte(space), r.Key, old)
			if counting {
				s.count(space, -1)
			}
		}
	case ok:
		x.Replace(h, byte(space), r.Key, old, loc)
	default:
		if err := x.Insert(h, byte(space), r.Key, loc); err != nil {
			return err
		}
		if counting {
			s.count(space, 1)
		}
	}
	switch {
	case !counting:
	case r.Kind == record.Tombstone:
		s.ledger.Buried(was, f.Segment.Number(), size)
		s.noteKey(space, r.Key, r.Kind, was, nil)
	default:
		now := compaction.EntryOf(f.Segment.Number(), space, r.Expires, size)
		s.ledger.Change(was, &now)
		s.noteKey(space, r.Key, r.Kind, was, &now)
	}
	return nil
}

// holds reports whether the record at loc has this key, and as what it is counted. Its frame was checked when it was
// replayed or before, so only the head and the key are read.
func (p *replay) holds(seg *wal.Segment, loc index.Location, space record.Space, key []byte) (*compaction.Entry, bool, error) {
	need := record.MaxSize(len(key), 1, 0)
	if cap(p.buf) < need {
		p.buf = make([]byte, need)
	}
	n, err := seg.ReadAt(p.buf[:need], loc.Offset())
	if n == 0 {
		return nil, false, p.s.readError(seg.Path(), loc.Offset(), err)
	}
	r, size, err := record.Identity(p.buf[:n], record.DecodeBase(seg.Meta()))
	if errors.Is(err, record.ErrShort) {
		return nil, false, nil // a longer key
	}
	if err != nil {
		return nil, false, recordError(seg.Corrupt, seg.Path(), loc.Offset(), err)
	}
	if r.Space() != space || !bytes.Equal(r.Key, key) {
		return nil, false, nil
	}
	e := compaction.EntryOf(seg.Number(), space, r.Expires, size)
	return &e, true, nil
}
