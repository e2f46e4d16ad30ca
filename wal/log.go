package wal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	tidwall "github.com/tidwall/wal"
)

// Options of a log. All but Meta, Sync and SegmentSize describe the store that the log belongs to.
type Options struct {
	ID          [16]byte              // of the store; a segment of another store is damage
	Meta        func() [MetaSize]byte // goes into the header of each segment this process begins; not called before all is replayed
	SegmentSize int64                 // bytes at which a segment is sealed, about
	Sync        time.Duration         // 0: before each acknowledgement; > 0: every so often; < 0: when sealing and closing only
	ReadOnly    bool                  // read what is there; the log takes no commits
	OnSeal      func()                // told, in the background, when a segment is retired; may be nil
	Pause       func() bool           // lets others at the disk while dropped segments are freed: see Drop; false ends it. May be nil
	OnError     func(error)           // told of what fails in the background, and of the latch; may be nil
}

// Log is an open log. Its methods may be called from any goroutine, Close once and last.
type Log struct {
	dir string
	o   Options

	table  atomic.Pointer[table] // the segments
	tableM sync.Mutex            // for changing it

	sweptThrough atomic.Uint64         // slots of segments through this number may be used again
	visible      atomic.Uint64         // transactions through this number are committed as Options.Sync asks
	synced       atomic.Uint64         // and through this one they are on stable storage
	failure      atomic.Pointer[error] // set once: the latch
	stats        counters

	mu      sync.Mutex   // the queue; never held across I/O
	gather  *batch       // what the next leader will write; nil = nothing waits
	flying  *batch       // what the leader is writing
	leading bool         // a leader is at work, or about to be
	next    uint64       // number of the next transaction
	pending int64        // bytes queued, being written or reserved
	filling *Segment     // where what is queued goes, unless it goes into the spare
	left    atomic.Int64 // bytes that can be queued and are sure to find room (room.go); changed with mu held
	closed  bool
	spent   []*Commit // a batch's slice, to be used again
	dropped bool      // the room kept for a drop-through in the segment being filled is used up

	// The leader's alone.
	expected int           // how many commits the next batch may hold: those of the last one, and who came meanwhile
	took     time.Duration // by the last batch's write and sync
	entries  tidwall.Batch
	scratch  []byte

	active atomic.Pointer[Segment] // the segment being written; nil until the first write. Only the leader changes it
	tail   *Segment                // the last segment found on opening; sealed when the first write comes
	// tailOwn are the log's own frames that the tail ends with, as they were found. They say that what comes before them
	// is on stable storage, and nothing says so of them: whoever wrote them may have been told that their sync failed.
	// So who writes behind them writes them again.
	tailOwn []byte
	begun   atomic.Bool
	beginM  sync.Mutex

	front front

	spare   keeper
	readers readers
}

type counters struct {
	commits, syncs, bytes, batches atomic.Uint64
	disk                           atomic.Int64 // bytes of the log in the table's segments
}

// Stats are plain counters since Open.
type Stats struct {
	Commits, Batches, Syncs uint64
	Bytes                   uint64 // written to segments: frames and headers, not filling
	Segments                int
	DiskBytes               int64 // of the segments' files, the prepared space included
	Reserved                int64 // bytes queued, being written, or set aside for work in progress
}

// Create makes the log of a new store in dir, which must not exist or be what an interrupted Create left. The log
// is born with a first segment that holds only a header, so that a log without any segment is known to have lost
// something.
func Create(dir string, o Options) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	s, err := prepare(dir, 1, 0, false, nil)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.lib.Write(1, s.header(o.ID, 1, o.Meta())); err != nil {
		return err
	}
	return s.file.Sync()
}

// Unborn reports whether dir is a place for Create: missing, empty, or left by a Create that was interrupted.
func Unborn(dir string) (bool, error) {
	numbers, err := listSegments(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil || len(numbers) > 1 {
		return false, err
	}
	for _, n := range numbers {
		fi, err := os.Stat(segmentDir(dir, n) + "/" + segmentFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || n != 1 || fi.Size() > headerEntry {
			return false, err
		}
	}
	return true, nil
}

// Start says what the owner knows of a log from elsewhere, a snapshot. The zero Start knows nothing.
type Start struct {
	After  uint64 // transactions through this number are not replayed, nor read
	Synced uint64 // through this one all were on stable storage once
	// Dropped is the segment through which the log was dropped, as far as the owner knows. The frame that says so may
	// lie before After, where nobody reads.
	Dropped uint64
	Note    int64 // what Drop is to be found with again
	// Wait, if not nil, is called once the segments are open, before the first transaction is replayed and before
	// anything is written or removed. What it returns ends the opening. So what the owner knows the rest from can be
	// read meanwhile.
	Wait func() error
}

// Open recovers the log in dir and hands each transaction behind from.After to replay, in order. When it returns, all
// that was replayed is on stable storage (see recover.go). A log that does not reach back so far is ErrGap.
func Open(dir string, o Options, from Start, replay func(Frame) error) (*Log, error) {
	l := &Log{dir: dir, o: o}
	l.table.Store(&table{})
	if err := l.recover(from, replay); err != nil {
		for _, s := range l.all() {
			s.close()
		}
		return nil, err
	}
	disk := int64(0)
	for _, s := range l.all() {
		disk += s.End()
	}
	l.stats.disk.Store(disk) // recovery counted out what it removed, and nothing had been counted in
	return l, nil
}

// Visible returns the number through which transactions are committed.
func (l *Log) Visible() uint64 { return l.visible.Load() }

// Failed returns the latched error, or nil.
func (l *Log) Failed() error {
	if p := l.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// latch makes err the answer to every commit from here on. After a failed write the library's memory and the file
// differ, and after a failed sync the kernel drops the pages and calls them clean, so trying again would
// acknowledge what is not on disk. Only reopening, which reads the file, finds out what is.
func (l *Log) latch(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if l.failure.CompareAndSwap(nil, &err) && l.o.OnError != nil {
		l.o.OnError(err)
	}
	return l.Failed()
}

// Stats returns the counters. It asks the file system for no sizes.
func (l *Log) Stats() Stats {
	st := Stats{
		Commits: l.stats.commits.Load(), Batches: l.stats.batches.Load(), Syncs: l.stats.syncs.Load(),
		Bytes: l.stats.bytes.Load(),
	}
	st.Segments = len(l.all())
	st.DiskBytes = l.stats.disk.Load()
	if a := l.active.Load(); a != nil {
		st.DiskBytes += max(0, a.room.Load()-a.End())
	}
	st.DiskBytes += l.spare.room()
	l.mu.Lock()
	st.Reserved = l.pending
	l.mu.Unlock()
	return st
}

// Close ends the log: what is written becomes durable under every policy, and a sync mark says so, so that the
// next Open has nothing to repair. No commit may be in progress.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	l.spare.close(l)
	err := l.finish()
	for _, s := range l.all() {
		s.close()
	}
	return err
}

func (l *Log) finish() error {
	s := l.active.Load()
	if s == nil {
		return nil
	}
	if err := l.Failed(); err != nil {
		return err
	}
	if err := l.sync(s); err != nil {
		return err
	}
	if err := l.writeMark(s); err != nil {
		return err
	}
	// The prepared space behind the mark is given back. Should this fail it is only space.
	_ = s.file.Truncate(s.End())
	if err := s.file.Sync(); err != nil {
		return l.latch(err)
	}
	return nil
}
