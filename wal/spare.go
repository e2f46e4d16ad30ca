package wal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// firstRoom is how much of the first segment of a process is prepared. Its filling is waited for, so it is short;
// while it fills up, a whole segment is prepared behind it. A store that is opened for ten keys stays small.
const firstRoom = 256 << 10

// keeper prepares the next segment ahead of need and retires sealed ones, so that the commit path does neither.
// Nothing that fails in it endangers the log: without a spare, the active segment grows (room.go).
type keeper struct {
	ready  atomic.Pointer[Segment] // the next segment, prepared
	failed atomic.Pointer[error]   // why the last preparation failed; nil after one that did not
	fill   bool                    // zero-filling pays on this file system
	asked  atomic.Bool

	making  sync.Mutex // one preparation at a time
	growing sync.Mutex // one makeRoom at a time
	next    uint64     // number of the segment to prepare; guarded by making

	buffer atomic.Pointer[[]byte] // for the library of the first whole segment (buffer.go)
	given  sync.Once

	queue struct {
		sync.Mutex
		retired []*Segment
	}
	wake, stop chan struct{}
	running    sync.WaitGroup
}

// Ready returns an error when a transaction of n payload bytes would be refused. It is called before anything is
// claimed or run for it. The first call begins the first segment of this process: opening alone writes nothing.
func (l *Log) Ready(n int) error {
	if err := l.Failed(); err != nil {
		return err
	}
	if n > MaxPayload {
		return fmt.Errorf("%w: a transaction of %d bytes, the most is %d", ErrTooLarge, n, MaxPayload)
	}
	l.mu.Lock()
	err := l.numbersLeft()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if !l.begun.Load() {
		if err := l.begin(); err != nil {
			return err
		}
	}
	size := int64(n) + frameRoom
	if size <= l.left.Load() {
		return nil
	}
	return l.makeRoom(size)
}

// begin prepares the first segment of this process, seals the last one of those before it, and starts the
// background work. It either does all of it, or leaves things as they were, or latches.
func (l *Log) begin() error {
	l.beginM.Lock()
	defer l.beginM.Unlock()
	if l.begun.Load() {
		return l.Failed()
	}
	if err := l.Failed(); err != nil {
		return err
	}
	if err := l.slotsLeft(l.tail.number + 1); err != nil {
		return err
	}
	k := &l.spare
	k.fill = fillPays(l.dir)
	s, err := prepare(l.dir, l.tail.number+1, min(firstRoom, l.o.SegmentSize), k.fill, nil)
	if err != nil {
		return full(err)
	}
	if err := l.sealTail(s); err != nil {
		s.close()
		return err
	}
	s.mapFile(&l.readers)
	l.add(s)
	l.active.Store(s)
	l.mu.Lock()
	l.filling = s
	l.account()
	l.mu.Unlock()
	k.next = s.number + 1
	k.wake, k.stop = make(chan struct{}, 1), make(chan struct{})
	k.running.Add(1)
	go func() {
		defer k.running.Done()
		k.run(l)
	}()
	if l.o.Sync > 0 {
		k.running.Add(1)
		go func() {
			defer k.running.Done()
			l.syncEvery(k.stop)
		}()
	}
	l.begun.Store(true)
	return nil
}

// sealTail ends the last segment that was found on opening. The library never sees it again, so the seal is
// written here, byte for byte as the library would.
func (l *Log) sealTail(next *Segment) error {
	t := l.tail
	last := l.visible.Load()
	data, end := appendSeal(nil, t, last, l.synced.Load(), t.End(), next)
	entry := appendEntry(nil, data)
	if err := reserve(t.file, end); err != nil { // nothing is written yet: this may fail and be tried again
		_ = removeSegment(l.dir, next.number)
		return full(err)
	}
	if err := l.writeBehindTail(entry); err != nil {
		return err
	}
	l.stats.disk.Add(end - t.End())
	t.end.Store(end)
	_ = t.file.Truncate(end) // only space
	t.retired.Store(true)
	return nil
}

// writeBehindTail appends to the tail and syncs it. Its failure is final.
func (l *Log) writeBehindTail(b []byte) error {
	t := l.tail
	if _, err := t.file.WriteAt(append(l.tailOwn, b...), t.End()-int64(len(l.tailOwn))); err != nil {
		return l.latch(err)
	}
	if err := l.sync(t); err != nil {
		return err
	}
	l.tailOwn = nil
	return nil
}

// make prepares the next segment, unless one is ready.
func (k *keeper) make(l *Log, fill bool) {
	k.making.Lock()
	defer k.making.Unlock()
	if k.ready.Load() != nil {
		return
	}
	err := l.slotsLeft(k.next)
	var s *Segment
	if err == nil {
		s, err = prepare(l.dir, k.next, l.o.SegmentSize, fill, k.pace)
	}
	if err != nil {
		k.failed.Store(&err)
		return
	}
	k.given.Do(func() {
		b := make([]byte, l.o.SegmentSize+sealRoom)
		clear(b) // touched here, so that the leader need not fault it in
		k.buffer.Store(&b)
	})
	s.mapFile(&l.readers)
	k.next++
	k.failed.Store(nil)
	l.mu.Lock()
	k.ready.Store(s)
	l.account()
	l.mu.Unlock()
}

// pace lets the commits that share device and processor through between two steps of preparing a segment to be filled.
func (k *keeper) pace() bool {
	t := time.NewTimer(fillPause)
	defer t.Stop()
	select {
	case <-k.stop:
		return false
	case <-t.C:
		return true
	}
}

// fillPause times the 33 steps of a default segment is 8 ms; the fastest commits that were measured need 40 ms for a
// segment.
const fillPause = 250 * time.Microsecond

// ask has the next segment prepared. After a failure that is makeRoom's to try again, not each batch's.
func (k *keeper) ask() {
	if k.asked.Load() || k.ready.Load() != nil || k.failed.Load() != nil || k.asked.Swap(true) {
		return
	}
	k.signal()
}

func (k *keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// retire has a sealed segment closed for writing, and its successor's successor prepared.
func (k *keeper) retire(s *Segment) {
	k.queue.Lock()
	k.queue.retired = append(k.queue.retired, s)
	k.queue.Unlock()
	k.signal()
}

func (k *keeper) run(l *Log) {
	for {
		select {
		case <-k.stop:
			k.finishRetired(l)
			return
		case <-k.wake:
		}
		// A segment that was just begun syncs first: beside the calls that make the next one it waited for the processor
		// that they have, and for the first chunk at the device, 0.6 to 1 ms instead of 0.16.
		if k.fill && !k.pace() {
			k.finishRetired(l)
			return
		}
		k.asked.Store(false)
		if l.Failed() == nil {
			k.make(l, k.fill)
		}
		// Behind the next one's sync, which commits the file system's journal with what the retired ones changed in it.
		// Before, each was a commit of its own, and a sync beside it took six times as long.
		k.finishRetired(l)
	}
}

// finishRetired closes the library's side of sealed segments, which frees its copy of their frames, and gives back
// the prepared space that the seal left over.
func (k *keeper) finishRetired(l *Log) {
	for {
		k.queue.Lock()
		if len(k.queue.retired) == 0 {
			k.queue.Unlock()
			return
		}
		s := k.queue.retired[0]
		k.queue.retired = k.queue.retired[1:]
		k.queue.Unlock()
		if err := s.lib.Close(); err != nil {
			_ = l.latch(fmt.Errorf("%s: %w", s.path, err))
		}
		s.lib = nil
		_ = s.file.Truncate(s.End()) // only space
		s.retired.Store(true)
		if l.o.OnSeal != nil {
			l.o.OnSeal()
		}
	}
}

// room returns the size of the spare, if there is one.
func (k *keeper) room() int64 {
	if s := k.ready.Load(); s != nil {
		return s.room.Load()
	}
	return 0
}

// close ends the background work and removes the spare.
func (k *keeper) close(l *Log) {
	if !l.begun.Load() {
		return
	}
	close(k.stop)
	k.running.Wait()
	if s := k.ready.Swap(nil); s != nil {
		s.close()
		_ = removeSegment(l.dir, s.number) // recovery removes what stays
	}
}
