package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Segments leave the log from the front only: were one dropped from the middle, a record before it could come back
// when the tombstone in it goes. A drop-through frame says so first, and is on stable storage under every policy
// before the first file goes; what it names need not be replayed, nor be there. The files go one at a time, oldest
// first, each name's end made durable before the next, so that a crash leaves a log without a hole.

// front is the state of the log's beginning.
type front struct {
	dropping sync.Mutex // one Drop at a time

	mu      sync.Mutex // guards the rest; never held across I/O
	through uint64     // the last drop-through names this segment
	dropped []*Segment // by it, and their file or their slot is still there
	pins    int
}

// Drop takes the segments with numbers through this one off the log, durably. They must be retired (Retired), and
// nobody may need what they hold. note is the owner's, to be found again when the log is opened. It returns when their
// space is given back, which takes some of Options.Pause for each. After ErrFailed or ErrFull nothing has changed; any other
// error says that files could not be removed yet, which the next Drop, or opening, does.
func (l *Log) Drop(through uint64, note int64) error {
	f := &l.front
	f.dropping.Lock()
	defer f.dropping.Unlock()
	if before := l.Dropped(); through > before {
		if err := l.writeDrop(through, note); err != nil {
			return err
		}
		f.mu.Lock()
		f.through = through
		for _, s := range l.all() {
			if s.number > before && s.number <= through {
				f.dropped = append(f.dropped, s)
			}
		}
		f.mu.Unlock()
	}
	return l.unlink()
}

// Dropped returns the number through which segments were dropped.
func (l *Log) Dropped() uint64 {
	l.front.mu.Lock()
	defer l.front.mu.Unlock()
	return l.front.through
}

// Segments returns the segments that were not dropped, oldest first.
func (l *Log) Segments() []*Segment {
	all, dropped := l.all(), l.Dropped()
	for len(all) > 0 && all[0].number <= dropped {
		all = all[1:]
	}
	return all
}

// Retired returns the segments that are sealed and written to by nobody, oldest first, without those that were
// dropped.
func (l *Log) Retired() []*Segment {
	var retired []*Segment
	for _, s := range l.Segments() {
		if !s.retired.Load() {
			break
		}
		retired = append(retired, s)
	}
	return retired
}

// Pin keeps the slots of segments that are dropped from now on until release is called, so that who has got
// locations can read what lies there.
func (l *Log) Pin() (release func()) {
	f := &l.front
	f.mu.Lock()
	f.pins++
	f.mu.Unlock()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.pins--
		f.mu.Unlock()
		l.forget(nil)
	})
}

// unlink removes the files of dropped segments.
func (l *Log) unlink() error {
	f := &l.front
	f.mu.Lock()
	dropped := slices.Clone(f.dropped)
	f.mu.Unlock()
	defer l.forget(l.o.Pause)
	for _, s := range dropped {
		if s.unlinked.Load() {
			continue
		}
		if err := removeSegment(l.dir, s.number); err != nil {
			return fmt.Errorf("oncelog: remove a dropped segment: %w", err)
		}
		s.unlinked.Store(true)
	}
	return nil
}

// forget closes dropped segments whose files are gone, unless somebody may read them. Without a pause their space goes at
// once: who ends a pin is a caller, and not to wait for that.
func (l *Log) forget(pause pacer) {
	f := &l.front
	var gone []*Segment
	f.mu.Lock()
	for f.pins == 0 && len(f.dropped) > 0 && f.dropped[0].unlinked.Load() {
		gone = append(gone, l.removeThrough(f.dropped[0].number)...)
		f.dropped = f.dropped[1:]
	}
	f.mu.Unlock()
	for _, s := range gone { // which may wait for who reads a page of it
		if pause == nil {
			s.close()
		} else {
			s.closeGently(pause)
		}
	}
}

func dropFrame(through uint64, note int64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{kindDropThrough}, through)
	return binary.LittleEndian.AppendUint64(b, uint64(note))
}

// writeDrop writes the drop-through frame and makes it, and all before it, durable.
func (l *Log) writeDrop(through uint64, note int64) error {
	if err := l.Failed(); err != nil {
		return err
	}
	if !l.begun.Load() {
		l.beginM.Lock()
		defer l.beginM.Unlock()
		if !l.begun.Load() {
			return l.dropBehindTail(through, note)
		}
	}
	c := NewCommit(dropFrame(through, note))
	c.own = true
	size := int64(len(c.Payload)) + frameRoom
	if err := l.admit(size); err == nil {
		l.left.Add(-size)
	} else if !errors.Is(err, ErrFull) {
		return err
	} else {
		// A full disk: the room that is kept for this, once in each segment.
		l.mu.Lock()
		if l.dropped || l.closed {
			l.mu.Unlock()
			return err
		}
		l.dropped = true
	}
	l.pending += size
	l.enqueue(c)
	l.mu.Unlock()
	if err := l.Wait(c); err != nil {
		return err
	}
	return l.Sync()
}

// dropBehindTail writes the frame behind the last segment that was found on opening. No segment need be prepared for
// it, so that a store on a full disk can be opened and drop what is dead.
func (l *Log) dropBehindTail(through uint64, note int64) error {
	t := l.tail
	last := l.visible.Load()
	b := appendEntry(nil, appendFrame(nil, t.nonce, t.first, last, l.synced.Load(), dropFrame(through, note)))
	end := t.End() + int64(len(b))
	if err := reserve(t.file, end); err != nil {
		return full(err)
	}
	if err := l.writeBehindTail(b); err != nil {
		return err
	}
	l.stats.disk.Add(end - t.End())
	t.end.Store(end)
	return nil
}

// Sync makes all that is visible durable, whatever the policy.
func (l *Log) Sync() error {
	// First the number, then the segment: whatever is visible lies in this segment or in sealed ones before it, and
	// those are durable.
	last := l.visible.Load()
	s := l.active.Load()
	if s == nil {
		return nil // nothing was written, and opening made the rest durable
	}
	if err := l.Failed(); err != nil {
		return err
	}
	if err := l.sync(s); err != nil {
		return err
	}
	raise(&l.synced, last)
	return nil
}

// Used returns the bytes of the log, those included that are queued or reserved.
func (l *Log) Used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats.disk.Load() + l.pending
}

// fileless reports whether a segment's directory lacks its file: it was being removed, or prepared.
func fileless(dir string, number uint64) bool {
	_, err := os.Lstat(filepath.Join(segmentDir(dir, number), segmentFile))
	return errors.Is(err, os.ErrNotExist)
}
