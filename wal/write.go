package wal

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	tidwall "github.com/tidwall/wal"
)

// keepBuffers is how large the leader's buffers may stay between batches; one transaction of 16 MiB is no reason
// to hold 32 MiB for ever.
const keepBuffers = 4 << 20

// write puts the commits into the log, in their order, and makes them visible. It is the leader's alone.
func (l *Log) write(commits []*Commit) error {
	for len(commits) > 0 {
		if err := l.Failed(); err != nil {
			return err
		}
		n, err := l.writeSome(commits)
		if err != nil {
			return err
		}
		commits = commits[n:]
	}
	return nil
}

// writeSome writes as many commits as the active segment takes, with one write and one sync, and returns how many
// those were. When the next commit does not fit and the next segment is ready, the seal goes behind them in the
// same write and the same sync, and the next call begins the next segment: a batch never spans segments, and
// sealing costs no sync of its own. Whatever is queued has room in one of the two (room.go).
func (l *Log) writeSome(commits []*Commit) (n int, err error) {
	s := l.active.Load()
	synced := l.synced.Load()
	start := s.End()
	end := start
	index := s.index
	l.entries.Clear()
	if end == 0 {
		index++
		first := commits[0].Number()
		if commits[0].own {
			first++
		}
		l.entries.Write(index, s.header(l.o.ID, first, l.o.Meta()))
		end = headerEntry
	}
	last := l.visible.Load()
	var next *Segment
	own := 0
	for _, c := range commits {
		number := c.Number()
		size := int64(entrySize(s.first, number, synced, len(c.Payload)))
		if need := end + size + sealRoom; end > headerEntry && need > s.room.Load() {
			if next = l.take(s, need); next != nil {
				break
			}
		}
		l.scratch = appendFrame(l.scratch[:0], s.nonce, s.first, number, synced, c.Payload)
		index++
		l.entries.Write(index, l.scratch)
		end += size
		c.seg, c.offset = s, end-int64(len(c.Payload))
		last = number
		n++
		if c.own {
			own++
		}
	}
	if next != nil {
		l.scratch, end = appendSeal(l.scratch[:0], s, last, synced, end, next)
		index++
		l.entries.Write(index, l.scratch)
	}
	if err := s.lib.WriteBatch(&l.entries); err != nil {
		return 0, l.latch(fmt.Errorf("%s at offset %d: %w", s.path, start, err))
	}
	s.index = index
	s.end.Store(end)
	l.stats.disk.Add(end - start)
	if end-start > keepBuffers {
		l.entries, l.scratch = tidwall.Batch{}, nil
	}
	l.stats.commits.Add(uint64(n - own))
	if n > own { // and not a seal alone
		l.stats.batches.Add(1)
	}
	l.stats.bytes.Add(uint64(end - start))
	if l.o.Sync == 0 || next != nil {
		if err := l.sync(s); err != nil {
			return 0, err
		}
		raise(&l.synced, last)
	}
	l.visible.Store(last)
	if next != nil {
		l.succeed(s, next)
	} else if end > s.room.Load()/2 {
		l.spare.ask()
	}
	return n, nil
}

// succeed makes next the active segment after s was sealed and synced.
func (l *Log) succeed(s, next *Segment) {
	l.add(next)
	l.active.Store(next)
	l.passBuffer(s, next)
	l.spare.retire(s)
}

// appendSeal encodes the seal that ends s at end and names next, and returns it with the offset behind it.
func appendSeal(dst []byte, s *Segment, last, synced uint64, end int64, next *Segment) ([]byte, int64) {
	end += int64(entrySize(s.first, last, synced, sealPayload))
	sl := seal{last: last, end: uint64(end), next: next.number, nextNonce: next.nonce}
	return appendFrame(dst, s.nonce, s.first, last, synced, sl.encode()), end
}

// sync makes what was written to s durable. Its failure is final.
func (l *Log) sync(s *Segment) error {
	l.stats.syncs.Add(1)
	if err := fdatasync(s.file); err != nil {
		return l.latch(err)
	}
	return nil
}

// writeMark ends the active segment with a sync mark: all before it is on stable storage.
func (l *Log) writeMark(s *Segment) error {
	last := l.visible.Load()
	end := s.End()
	l.entries.Clear()
	if end == 0 {
		// Sealing left this segment without a frame. It gets its header, so that the next Open finds nothing to do.
		s.index++
		l.entries.Write(s.index, s.header(l.o.ID, last+1, l.o.Meta()))
		end = headerEntry
	}
	l.scratch = appendFrame(l.scratch[:0], s.nonce, s.first, last, last, []byte{kindSyncMark})
	s.index++
	l.entries.Write(s.index, l.scratch)
	end += int64(entrySize(s.first, last, last, 1))
	if err := s.lib.WriteBatch(&l.entries); err != nil {
		return l.latch(fmt.Errorf("%s at offset %d: %w", s.path, s.End(), err))
	}
	s.end.Store(end)
	return l.sync(s)
}

// syncEvery is the goroutine behind Options.Sync > 0.
func (l *Log) syncEvery(stop <-chan struct{}) {
	t := time.NewTicker(l.o.Sync)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		if l.visible.Load() != l.synced.Load() {
			_ = l.Sync() // a failure is latched
		}
	}
}

// raise sets a to v unless it is larger already.
func raise(a *atomic.Uint64, v uint64) {
	for {
		old := a.Load()
		if old >= v || a.CompareAndSwap(old, v) {
			return
		}
	}
}

// full makes a lack of space recognisable.
func full(err error) error {
	if noSpace(err) && !errors.Is(err, ErrFull) {
		return fmt.Errorf("%w on the disk, free some: %w", ErrFull, err)
	}
	return err
}
