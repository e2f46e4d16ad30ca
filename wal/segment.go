package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"

	tidwall "github.com/tidwall/wal"
)

// Segment is one file of the log. Reading it is safe from any goroutine while the log is open.
type Segment struct {
	number uint64
	slot   uint16
	first  uint64 // number of its first frame
	nonce  uint64
	meta   [MetaSize]byte
	path   string
	file   *os.File     // for reading, syncing and filling; the library has a handle of its own
	lib    *tidwall.Log // writes; nil once sealed, and in segments that were found on opening
	index  uint64       // index of the library's last entry
	room   atomic.Int64 // bytes that the file system has promised: writing up to here cannot find the disk full
	end    atomic.Int64 // bytes written
	mapped mapped       // the file in memory, for readers

	retired  atomic.Bool // sealed, and nobody writes to it or to its file
	unlinked atomic.Bool // dropped, and its file is gone
	unread   bool        // found sealed on opening and not read: end is the file's size, which may be more
}

// Number returns the segment's number; numbers grow by one.
func (s *Segment) Number() uint64 { return s.number }

// Slot returns the small number by which Log.Segment finds it.
func (s *Segment) Slot() uint16 { return s.slot }

// Meta returns the owner's bytes from the segment's header.
func (s *Segment) Meta() [MetaSize]byte { return s.meta }

// Path returns the segment's file, for errors.
func (s *Segment) Path() string { return s.path }

// End returns how many bytes of the file hold header and frames.
func (s *Segment) End() int64 { return s.end.Load() }

// Corrupt returns the error for damage at off.
func (s *Segment) Corrupt(off int64, reason string) error {
	return &CorruptError{File: s.path, Offset: off, Reason: reason}
}

func newNonce() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("oncelog: no randomness: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// pacer is called between chunks of background I/O and returns false when it should stop.
type pacer func() bool

// fillChunk is how much is zero-filled at a time: more holds up the commits that share the device. Beside 8 writers their
// p99 was 0.27 ms with 256 KiB, and 0.23 with 128 or with 64.
const fillChunk = 128 << 10

// prepare creates the segment's directory and file, fresh and without a header, and makes both durable. With a
// pace it fills room bytes with zeros, so that syncs later need not grow the file; a fresh library log writes at
// its own offset, not with O_APPEND, so the filling is invisible to it. The segment has held no frame yet and
// nothing refers to it, so whatever goes wrong here is undone and can be tried again.
func prepare(dir string, number uint64, room int64, fill bool, pace pacer) (_ *Segment, err error) {
	sd := segmentDir(dir, number)
	if err := removeSegment(dir, number); err != nil { // left by an attempt that could not clean up
		return nil, err
	}
	s := &Segment{number: number, path: filepath.Join(sd, segmentFile)}
	defer func() {
		if err == nil {
			return
		}
		s.close()
		if e := removeSegment(dir, number); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	if err := os.Mkdir(sd, 0o700); err != nil {
		return nil, err
	}
	s.lib, err = tidwall.Open(sd, &tidwall.Options{
		NoSync:           true,        // synced through our own descriptor, with fdatasync
		SegmentSize:      math.MaxInt, // one library segment; sealing and succession are ours
		SegmentCacheSize: 1,
		NoCopy:           true,
		DirPerms:         0o700,
		FilePerms:        0o600,
	})
	if err != nil {
		return nil, err
	}
	if s.file, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if s.nonce, err = newNonce(); err != nil {
		return nil, err
	}
	if room > 0 {
		if err := reserve(s.file, room); err != nil {
			return nil, err
		}
	}
	if fill {
		zeros := make([]byte, fillChunk)
		for at := int64(0); at < room; at += fillChunk {
			if pace != nil && !pace() {
				return nil, ErrClosed
			}
			n := min(fillChunk, room-at)
			if _, err := s.file.WriteAt(zeros[:n], at); err != nil {
				return nil, err
			}
			StartWriteback(s.file, at, n) // else the sync below writes it all at once, and commits wait for that
		}
	}
	s.room.Store(room)
	if err := s.file.Sync(); err != nil {
		return nil, err
	}
	if err := SyncDir(sd); err != nil {
		return nil, err
	}
	return s, SyncDir(dir)
}

// header makes the segment's header, once it is known which frame comes first.
func (s *Segment) header(id [16]byte, first uint64, meta [MetaSize]byte) []byte {
	s.first, s.meta = first, meta
	h := header{id: id, number: s.number, nonce: s.nonce, first: first, meta: meta}
	return h.encode()
}

// close gives up the handles. Who reads the segment meanwhile gets os.ErrClosed.
func (s *Segment) close() {
	s.unmap()
	if s.lib != nil {
		_ = s.lib.Close()
		s.lib = nil
	}
	if s.file != nil {
		_ = s.file.Close()
	}
}

// openSegment opens the file of a segment that exists.
func openSegment(dir string, number uint64, flag int) (*Segment, error) {
	path := filepath.Join(segmentDir(dir, number), segmentFile)
	f, err := os.OpenFile(path, flag, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &CorruptError{File: path, Reason: "the segment's file is missing"}
	}
	if err != nil {
		return nil, err
	}
	return &Segment{number: number, path: path, file: f}, nil
}

// Transactions gives each transaction in a segment that is retired, oldest first.
func (s *Segment) Transactions(each func(Frame) error) error {
	data, err := s.read(nil)
	if err != nil {
		return err
	}
	f, err := s.scanFrames(data, s.first-1, each)
	if err == nil && !f.sealed {
		err = s.Corrupt(f.end, f.reason)
	}
	return err
}
