package wal

import "fmt"

// A commit that has its number must be written: those behind it may rest on it, so failing it alone is not possible,
// and a disk found full by the write itself would stop the log for good. So room comes first. What is queued is
// counted against space that the file system has promised already, in the active segment or in the spare, and what
// finds none is refused before it is queued, when nothing is at stake.
//
// The rule: all that is queued, being written or reserved fits into the active segment, or all of it fits into the
// spare. Then wherever the leader changes from one to the other, the rest has room.

// maxOffset is the end that no segment may pass: locations have 25 bits for the offset.
const maxOffset = 1 << 25

// growBy is how much a segment grows at least when no spare is ready: little enough for a disk that is almost full,
// and so much that growing is rare.
const growBy = 256 << 10

// fits returns how many more bytes the segment takes besides pending ones.
func (s *Segment) fits(pending int64) int64 {
	return s.room.Load() - max(s.End(), headerEntry) - sealRoom - dropRoom - pending
}

// account brings left up to date. Called with mu held, after anything that it depends on has changed for the better.
func (l *Log) account() {
	left := int64(0)
	for _, s := range [...]*Segment{l.filling, l.spare.ready.Load()} {
		if s != nil {
			left = max(left, s.fits(l.pending))
		}
	}
	l.left.Store(left)
}

// take makes the spare the segment that is filled next, unless there is none or the active one has grown to need
// meanwhile. The leader's alone.
func (l *Log) take(active *Segment, need int64) *Segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	if need <= active.room.Load() {
		return nil
	}
	s := l.spare.ready.Swap(nil)
	if s != nil {
		l.filling, l.dropped = s, false
	}
	return s
}

// admit locks mu at a moment when size more bytes can be queued or reserved, or returns why they can't, mu unlocked.
func (l *Log) admit(size int64) error {
	for {
		l.mu.Lock()
		err := l.Failed()
		if l.closed {
			err = ErrClosed
		}
		if err == nil && size <= l.left.Load() {
			return nil
		}
		l.mu.Unlock()
		if err == nil {
			err = l.makeRoom(size)
		}
		if err != nil {
			return err
		}
	}
}

// Reserve sets room for one commit of n payload bytes aside, for as long as it takes, so that it is not refused for
// lack of room when it comes: see Commit.Reserved, and Unreserve. It wants Ready before it.
func (l *Log) Reserve(n int) (reserved int64, err error) {
	size := int64(n) + frameRoom
	if err := l.admit(size); err != nil {
		return 0, err
	}
	defer l.mu.Unlock()
	if err := l.numbersLeft(); err != nil {
		return 0, err
	}
	l.pending += size
	l.left.Add(-size)
	return size, nil
}

// Unreserve gives back what no commit has used.
func (l *Log) Unreserve(reserved int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending -= reserved
	l.account()
}

// makeRoom finds room for size more bytes of queue, or says why there is none. Others may take it first: ask again.
func (l *Log) makeRoom(size int64) error {
	k := &l.spare
	k.growing.Lock()
	defer k.growing.Unlock()
	l.mu.Lock()
	l.account()
	s := k.ready.Load()
	spare := s != nil
	if !spare {
		s = l.filling
	}
	enough, pending := size <= l.left.Load(), l.pending
	need := max(s.End(), headerEntry) + pending + size + sealRoom + dropRoom
	var queued <-chan struct{}
	if b := l.gather; b != nil {
		queued = b.ended()
	} else if b := l.flying; b != nil {
		queued = b.ended()
	}
	l.mu.Unlock()
	switch {
	case enough:
		return nil
	case need > maxOffset && queued != nil: // several of the largest transactions at once
		<-queued
		return l.Failed()
	case !spare && (need > maxOffset || s.room.Load() >= 2*l.o.SegmentSize):
		if k.make(l, false); k.ready.Load() != nil {
			return nil
		}
	}
	if need > maxOffset {
		if err := k.failed.Load(); err != nil {
			return fmt.Errorf("%w: the next segment could not be prepared: %w", ErrFull, *err)
		}
		return fmt.Errorf("%w: more is reserved for work in progress than a segment holds; let some of it end", ErrFull)
	}
	to := min(max(need, s.room.Load()+growBy), maxOffset)
	err := reserve(s.file, to)
	if err != nil && to > need {
		to = need
		err = reserve(s.file, to)
	}
	if err != nil {
		return fmt.Errorf("%w on the disk, free some: %w", ErrFull, err)
	}
	l.mu.Lock()
	s.room.Store(max(s.room.Load(), to))
	l.account()
	l.mu.Unlock()
	if !spare {
		k.failed.Store(nil) // there is room, so the next attempt may succeed
		k.ask()
	}
	return nil
}
