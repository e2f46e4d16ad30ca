package oncelog

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// replay puts the records of a log into an index. It decides nothing, neither by the clock nor by what is there
// already: all of that was decided when the record was written, and deciding again could come out differently.
type replay struct {
	s        *Store
	segments []*wal.Segment // by slot
	newest   int64          // the largest time seen
	buf      []byte
}

func (p *replay) frame(f wal.Frame) error {
	for int(f.Segment.Slot()) >= len(p.segments) {
		p.segments = append(p.segments, nil)
	}
	p.segments[f.Segment.Slot()] = f.Segment
	return eachRecord(f, func(r record.Record, off int64) error {
		switch r.Space() {
		case record.Outbox, record.ReceiverOutbox:
			return fmt.Errorf("%w: %s at offset %d: outgoing messages", ErrTooNew, f.Segment.Path(), off)
		}
		p.newest = max(p.newest, r.At)
		return p.record(r, index.At(f.Segment.Slot(), off))
	})
}

func (p *replay) record(r record.Record, loc index.Location) error {
	x := p.s.keys
	space := r.Space()
	h := x.Hash(byte(space), r.Key)
	old, ok := x.Lookup(h, byte(space), r.Key)
	if ok {
		var err error
		if ok, err = p.holds(old, space, r.Key); err != nil {
			return err
		}
	}
	switch {
	case r.Kind == record.Tombstone:
		if ok {
			x.Remove(h, byte(space), r.Key, old)
			p.s.count(space, -1)
		}
	case ok:
		x.Replace(h, byte(space), r.Key, old, loc)
	default:
		if err := x.Insert(h, byte(space), r.Key, loc); err != nil {
			return err
		}
		p.s.count(space, 1)
	}
	return nil
}

// holds reports whether the record at loc has this key. Its frame was checked when it was replayed, so only the
// head and the key are read.
func (p *replay) holds(loc index.Location, space record.Space, key []byte) (bool, error) {
	seg := p.segments[loc.Slot()]
	need := record.MaxSize(len(key), 1, 0)
	if cap(p.buf) < need {
		p.buf = make([]byte, need)
	}
	n, err := seg.ReadAt(p.buf[:need], loc.Offset())
	if n == 0 {
		return false, readError(seg.Path(), loc.Offset(), err)
	}
	gotSpace, gotKey, err := record.Identity(p.buf[:n])
	if errors.Is(err, record.ErrShort) {
		return false, nil // a longer key
	}
	if err != nil {
		return false, recordError(seg.Corrupt, seg.Path(), loc.Offset(), err)
	}
	return gotSpace == space && bytes.Equal(gotKey, key), nil
}
