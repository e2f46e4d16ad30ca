package oncelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// Get returns the value stored under key, and whether the key is live. The value is the caller's, and not nil if it is
// there. Damage is ErrCorrupt, never an answer. It waits for no commit: a value that is not durable yet is not there.
func (s *Store) Get(key []byte) (value []byte, ok bool, err error) {
	n, err := s.name(record.Records, key)
	if err != nil {
		return nil, false, err
	}
	return s.value(n)
}

// value is visible with a value of its own.
func (s *Store) value(n name) ([]byte, bool, error) {
	value := []byte{}
	ok, err := s.visible(n, &value)
	if !ok {
		value = nil
	}
	return value, ok, err
}

// AppendGet is Get that appends the value to dst and does not allocate when dst has room for it. Without a value it returns
// dst as it was.
func (s *Store) AppendGet(dst, key []byte) (value []byte, ok bool, err error) {
	n, err := s.name(record.Records, key)
	if err != nil {
		return dst, false, err
	}
	ok, err = s.visible(n, &dst)
	return dst, ok, err
}

// Has reports whether the key is live. It reads the record as Get does: the index alone proves no key.
func (s *Store) Has(key []byte) (bool, error) {
	n, err := s.name(record.Records, key)
	if err != nil {
		return false, err
	}
	return s.visible(n, nil)
}

// name hashes a key of the caller's, once a call.
func (s *Store) name(space record.Space, key []byte) (name, error) {
	if err := s.opts.checkKey(key); err != nil {
		return name{}, err
	}
	return name{space: space, hash: s.keys.Hash(byte(space), key), key: key}, nil
}

// visible reports whether n has a live committed value, and appends it to dst unless that is nil. It does not count as a
// call in progress: all that Close could take away from it is the log's files, and whoever reads those is counted there.
func (s *Store) visible(n name, dst *[]byte) (bool, error) {
	if s.gate.shut.Load() {
		return false, ErrClosed
	}
	cand := s.candidate(n)
	if cand.none() {
		return false, nil
	}
	return s.confirm(n, cand, dst)
}

// candidate is what memory knows about a key: a committed version on its way into the index, or a location that
// may be the key's.
type candidate struct {
	version version
	loc     index.Location
}

func (c *candidate) none() bool { return c.version.commit == nil && c.loc == 0 }

// candidate looks in the claim table and then in the index, in this order: a version enters the index before it
// leaves the table.
func (s *Store) candidate(n name) candidate {
	if v, ok := s.claims.visible(n, s.log); ok {
		return candidate{version: v}
	}
	loc, _ := s.keys.Lookup(n.hash, byte(n.space), n.key)
	return candidate{loc: loc}
}

// confirm reads what the candidate stands for and reports whether it is the key's and live.
func (s *Store) confirm(n name, cand candidate, dst *[]byte) (bool, error) {
	if v := &cand.version; v.commit != nil {
		if !v.live(s.clock.millis()) {
			return false, nil
		}
		if dst != nil {
			*dst = append(*dst, v.value()...)
		}
		return true, nil
	}
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	f, err := s.fetch(n, cand.loc, b)
	if err != nil || !f.ok || s.clock.millis() >= f.record.Expires {
		return false, err
	}
	if dst != nil {
		*dst = append(*dst, f.record.Value...)
	}
	return true, nil
}

// buffer is what a look-up reads a record into. It has room for most records, so that one read is enough.
type buffer struct {
	first [firstRead]byte
	long  []byte // for longer ones
	reads uint   // that were made into it
}

// firstRead is a 36-byte key and a 256-byte value with some room to spare; copying 320 or 512 bytes takes as long, since
// what is waited for is the first of them. keepLong bounds what a pooled buffer keeps.
const (
	firstRead = 384
	keepLong  = 64 << 10
)

// read reads from a segment into p, which is of b. If it had to wait for the disk, it lets others go first.
//
// A page that is not in memory is read while the thread waits, and the scheduler does not know (wal/mapping.go). Who makes
// one such read after the other is busy, to it, and keeps the processor for 10 ms at a time. With as many of them as there
// are processors everybody else in the process waits so long for a turn, again and again. Now it is a few reads of the disk.
// Taking the time is a tenth of a hit, so one read in a few is looked at. If each gave way, one that is alone beside a
// garbage collection would wait for the collector more often than for the disk.
func (b *buffer) read(seg *wal.Segment, p []byte, off int64) (n int, err error) {
	b.reads++
	if b.reads%timed != 0 {
		return seg.ReadAt(p, off)
	}
	began := time.Since(start)
	n, err = seg.ReadAt(p, off)
	if time.Since(start)-began >= waited {
		runtime.Gosched()
	}
	return n, err
}

// timed is how many reads there are to one that is looked at.
const timed = 8

// start is what times are taken from: that reads one clock of the system, where time.Now reads two.
var start = time.Now()

// waited is longer than a copy takes, and shorter than a disk. Tests change it.
var waited = 10 * time.Microsecond

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// fetched is the record that the index has for a key.
type fetched struct {
	record record.Record // points into the buffer
	size   int           // of the record, in bytes
	loc    index.Location
	ok     bool // the record is the key's. If not, what was at loc, unless that is 0, is another's, or dead
}

// fetch reads the record that the index has for n into b. The index only finds candidates; the whole key decides. loc
// is where the index said it is, 0 = ask.
//
// A record may be moved, and its segment dropped, between the index's answer and the read: then the index has another
// answer.
func (s *Store) fetch(n name, loc index.Location, b *buffer) (f fetched, err error) {
	if f.loc = loc; loc == 0 {
		f.loc, _ = s.keys.Lookup(n.hash, byte(n.space), n.key)
	}
	for f.loc != 0 {
		err := error(errGone)
		if !s.dead.has(f.loc.Slot()) {
			f.record, f.size, err = s.readAt(f.loc, b)
		}
		if err == nil && f.record.Space() == n.space && bytes.Equal(f.record.Key, n.key) {
			f.ok = true
			return f, nil
		}
		if err != nil && !errors.Is(err, errGone) {
			return f, err
		}
		loc, _ := s.keys.Lookup(n.hash, byte(n.space), n.key)
		if loc == f.loc {
			if err == nil {
				err = s.belongs(&f.record, n.hash, loc)
				f.loc = 0 // another's, and alive for all that is known
				return f, err
			}
			return f, nil
		}
		f.loc = loc
	}
	return f, nil
}

// belongs returns an error if a record was never put where the index has a key that hashes like this. Its check holds
// wherever it lies, so one that a disk has put into the place of another would pass for the proof that the other's key
// is not there.
func (s *Store) belongs(r *record.Record, like index.Hash, loc index.Location) error {
	space := r.Space()
	if s.keys.Hash(byte(space), r.Key).Alike(like) {
		return nil
	}
	seg := s.log.Segment(loc.Slot())
	if seg == nil {
		return nil // dropped meanwhile, and its slot is another's
	}
	return seg.Corrupt(loc.Offset(), "another record lies in the place of the one that was put here")
}

// errGone is what a read of a dropped segment returns.
var errGone = errors.New("the segment was dropped")

// readAt reads and checks the record at loc. The record points into b.
func (s *Store) readAt(loc index.Location, b *buffer) (r record.Record, size int, err error) {
	if cap(b.long) > keepLong {
		b.long = nil
	}
	seg, off := s.log.Segment(loc.Slot()), loc.Offset()
	if seg == nil {
		return r, 0, errGone
	}
	base := record.DecodeBase(seg.Meta())
	buf := b.first[:]
	n, err := b.read(seg, buf, off)
	if err == io.EOF && n == 0 {
		return r, 0, seg.Corrupt(off, "the file ends before a record that was put here")
	}
	if err != nil && err != io.EOF {
		return r, 0, s.readError(seg.Path(), off, err)
	}
	r, size, err = record.Parse(buf[:n], base)
	if errors.Is(err, record.ErrShort) {
		long, sizeErr := record.Size(buf[:n])
		if sizeErr != nil || int64(long) > seg.End()-off {
			return r, 0, seg.Corrupt(off, "a record is cut short")
		}
		if cap(b.long) < long {
			b.long = make([]byte, long)
		}
		buf = b.long[:long]
		if _, err := b.read(seg, buf, off); err != nil {
			return r, 0, s.readError(seg.Path(), off, err)
		}
		r, size, err = record.Parse(buf, base)
	}
	if err != nil {
		return r, 0, recordError(seg.Corrupt, seg.Path(), off, err)
	}
	if r.Kind == record.Tombstone {
		return r, 0, seg.Corrupt(off, "a tombstone lies in the place of a record that was put here")
	}
	if r.Space() == record.Records && (r.Kind != record.Result || len(r.Attrs) > 0) {
		// What it says besides key and value is not known here, and so may not be ignored.
		return r, 0, fmt.Errorf("%w: %s at offset %d: a record of the caller's with more than a value", ErrTooNew, seg.Path(), off)
	}
	return r, size, nil
}

func (s *Store) readError(path string, off int64, err error) error {
	if errors.Is(err, os.ErrClosed) {
		if s.closing.files.Load() {
			return ErrClosed
		}
		return errGone
	}
	return fmt.Errorf("oncelog: read %s at offset %d: %w", path, off, err)
}

// recordError says where a record is bad, and whether it is damaged or unknown.
func recordError(corrupt func(int64, string) error, path string, off int64, err error) error {
	if errors.Is(err, record.ErrUnknown) {
		return fmt.Errorf("%w: %s at offset %d: %w", ErrTooNew, path, off, err)
	}
	return corrupt(off, err.Error())
}
