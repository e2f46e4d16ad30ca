package oncelog

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/snapshot"
	"github.com/oncelog/oncelog/wal"
)

// housekeeper keeps the store small while it is in use: it drops segments in which nothing is alive, copies what is
// alive out of the oldest when the log has grown too large for it, takes what is dead out of the index, and makes
// snapshots. One round at a time, and none holds a lock that a look-up or a commit waits for across I/O.
//
//	a segment is sealed, a write found no room, a second has passed ──▶ round: mark ▶ drop, copy ▶ sweep ▶ snapshot
type housekeeper struct {
	round  sync.Mutex // one at a time, Snapshot and Compact among them
	wake   chan struct{}
	stop   chan struct{}
	done   chan struct{}
	pace   pacer
	failed atomic.Pointer[error] // the last round's error, nil = it had none

	// Guarded by round.
	swept    uint64 // segments through this one are in the index no more
	snapshot snapshotState

	moves, copied, snapshots, snapshotBytes atomic.Int64
	snapshotTime                            atomic.Int64    // of the last one, 0 = there is none
	before                                  snapshot.Totals // what earlier processes wrote
	snapshotSize                            atomic.Int64    // of the last one
}

const (
	// houseTick is how often a store looks for what has expired when nothing else wakes it.
	houseTick = time.Second
	// sweepShare is the part of the index that may be dead before it is swept: a sweep reads all of it.
	sweepShare = 8
	// sweepSegments is after how many dropped segments it is swept at the latest, since their slots are wanted again.
	sweepSegments = wal.MaxSlots / 4
)

func (s *Store) startHousekeeping() {
	h := &s.house
	if s.opts.still {
		return
	}
	h.wake, h.stop, h.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	// Processes that end before the background gets to it would leave more and more segments. Here it is little: as
	// many as the last of them left.
	h.round.Lock()
	if err := s.compact(compaction.Merge, false); err != nil {
		s.warn("oncelog: housekeeping was put off", err)
	}
	h.round.Unlock()
	h.pace = pacer{rate: max(s.opts.Pace, 0), stop: h.stop}
	go func() {
		defer close(h.done)
		tick := time.NewTicker(houseTick)
		defer tick.Stop()
		for {
			select {
			case <-h.stop:
				return
			case <-tick.C:
			case <-h.wake:
			}
			s.keepHouse()
		}
	}()
}

// kick has a round begin now.
func (h *housekeeper) kick() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// kickIfFull has a round begin when a write found no room.
func (h *housekeeper) kickIfFull(err error) {
	if errors.Is(err, ErrFull) {
		h.kick()
	}
}

// endHousekeeping stops the background work, and leaves a snapshot for the next opening. Called once, with no call in
// progress.
func (s *Store) endHousekeeping() error {
	h := &s.house
	if s.opts.ReadOnly {
		return nil
	}
	if !s.opts.still {
		close(h.stop)
		<-h.done
	}
	h.round.Lock()
	defer h.round.Unlock()
	if s.log.Failed() != nil {
		return nil
	}
	h.pace.stop, h.pace.rate = nil, 0
	if err := s.takeSnapshot(); err != nil {
		s.warn("oncelog: no snapshot at the end, the next opening reads more of the log", err)
	}
	return nil
}

// keepHouse is a round. What fails in it is told, and tried again in the next; it endangers nothing.
func (s *Store) keepHouse() {
	h := &s.house
	h.round.Lock()
	defer h.round.Unlock()
	err := s.log.Failed()
	if err == nil {
		err = s.compact(compaction.Make, false)
	}
	if err == nil && s.snapshotDue() {
		err = s.takeSnapshot()
	}
	if errors.Is(err, errStopped) {
		return
	}
	if before := h.failed.Load(); err != nil && (before == nil || (*before).Error() != err.Error()) {
		s.warn("oncelog: housekeeping was put off", err)
	}
	if err == nil {
		h.failed.Store(nil)
	} else {
		h.failed.Store(&err)
	}
}

// Compact drops and rewrites all that can be, now: when it returns nil, what was dead in a segment that nobody writes to
// any more has left the log. It runs beside everything else, at Options.Pace, and waits for the housekeeping that runs
// already. What fails is tried again by the next round. ErrReadOnly; an error inside a transaction, for which it would wait.
func (s *Store) Compact() error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if receiver.Inside() {
		return errInside // it would wait for a key that the transaction holds
	}
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	s.house.round.Lock()
	defer s.house.round.Unlock()
	if err := s.compact(compaction.All, true); err != nil {
		return err
	}
	s.sweep()
	return nil
}

// compact carries out plans until there is nothing left to do, or one of them if told so. Called with round held.
func (s *Store) compact(plan func(compaction.State) compaction.Plan, once bool) error {
	for {
		st, err := s.compactionState()
		if err != nil {
			return err
		}
		p := plan(st)
		if p.Through == 0 {
			break
		}
		if err := p.Run(s.copySegment, s.dropThrough); err != nil {
			return err
		}
		if once {
			break
		}
	}
	if s.sweepDue() {
		s.sweep()
	}
	return nil
}

// compactionState is what a plan is made from. On the way it marks the segments in which all has expired.
func (s *Store) compactionState() (st compaction.State, err error) {
	// In this order: what a retired segment holds is visible, and once all that is visible is published it is in the
	// ledger. A record whose committer has not come to publish it would pass for dead.
	retired := s.log.Retired()
	s.cut.Lock()
	_, err = s.publishAll()
	s.cut.Unlock()
	if err != nil {
		s.sweep() // which may make room for the next round
		return st, err
	}
	now := s.clock.millis()
	st = compaction.State{SegmentSize: s.opts.SegmentSize, Bytes: s.log.Used()}
	for i, seg := range s.log.Segments() {
		one := compaction.Segment{Number: seg.Number(), Bytes: seg.End()}
		one.Live, one.Dead = s.ledger.Bytes(seg.Number(), now)
		st.Live += one.LiveShare()
		if i >= len(retired) {
			continue
		}
		if last, never := s.ledger.Last(seg.Number()); now >= last && !never {
			s.dead.add(seg.Slot())
		}
		st.Segments = append(st.Segments, one)
	}
	if limit := s.budget(); limit > 0 {
		st.Pressed = st.Bytes > limit-s.opts.SegmentSize
	}
	return st, nil
}

// dropThrough drops segments in which nothing is alive any more.
func (s *Store) dropThrough(through uint64) error {
	for _, seg := range s.log.Retired() {
		if seg.Number() <= through {
			s.dead.add(seg.Slot())
		}
	}
	if err := s.log.Drop(through, s.clock.millis()); err != nil {
		return err
	}
	s.ledger.Drop(through)
	s.scopes.drop(through)
	return nil
}

func (s *Store) sweepDue() bool {
	if s.log.Dropped()-s.house.swept >= sweepSegments {
		return true
	}
	alive, _ := s.ledger.Total(s.clock.millis())
	dead := s.records.Load() - alive
	return dead > 1024 && dead*sweepShare > s.records.Load()
}

// sweep takes what is dead out of the index. Called with round held.
func (s *Store) sweep() {
	dropped := s.log.Dropped()
	s.scopes.expire(s.clock.millis())
	s.records.Add(-s.keys.Sweep(s.dead.has))
	for _, n := range s.slotsThrough(dropped) {
		s.dead.remove(n)
	}
	s.house.swept = dropped
	s.log.Swept(dropped)
}

// slotsThrough returns the slots of the segments that were dropped since the last sweep.
func (s *Store) slotsThrough(dropped uint64) (slots []uint16) {
	for n := s.house.swept + 1; n <= dropped; n++ {
		slots = append(slots, wal.SlotOf(n))
	}
	return slots
}
