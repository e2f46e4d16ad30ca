package wal

import "fmt"

// MaxSlots is how many segments a log can have at a time.
const MaxSlots = 1<<16 - 1

// table finds segments by slot. A segment's slot follows from its number, so that who keeps slots on disk finds the
// same segment with them after a restart. A slot comes round again 65,535 segments later; before that Log.Swept must
// have said that nobody refers to the former one.
//
// A table never changes: another takes its place, and readers hold the old one.
type table struct {
	first    uint64     // number of segments[0]
	segments []*Segment // by number; nil where the log has left a number out
}

// SlotOf returns the slot of a segment's number, 1 to MaxSlots.
func SlotOf(number uint64) uint16 { return uint16((number-1)%MaxSlots) + 1 }

// Segment returns the segment in a slot, or nil.
func (l *Log) Segment(slot uint16) *Segment {
	t := l.table.Load()
	i := int(slot) - int(SlotOf(t.first))
	if i < 0 {
		i += MaxSlots
	}
	if i >= len(t.segments) {
		return nil
	}
	return t.segments[i]
}

// all returns the segments, oldest first.
func (l *Log) all() []*Segment {
	t := l.table.Load()
	all := make([]*Segment, 0, len(t.segments))
	for _, s := range t.segments {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// add puts a segment behind all others. That there is a slot for it was seen to before the segment was made.
func (l *Log) add(s *Segment) {
	s.slot = SlotOf(s.number)
	l.tableM.Lock()
	defer l.tableM.Unlock()
	t := *l.table.Load()
	if len(t.segments) == 0 {
		t.first = s.number
	}
	segments := t.segments // what is appended lies behind the end of every table before
	for t.first+uint64(len(segments)) < s.number {
		segments = append(segments, nil)
	}
	l.table.Store(&table{t.first, append(segments, s)})
}

// removeThrough takes the segments with numbers through this one out and returns them.
func (l *Log) removeThrough(through uint64) (gone []*Segment) {
	l.tableM.Lock()
	defer l.tableM.Unlock()
	t := *l.table.Load()
	for len(t.segments) > 0 && (t.first <= through || t.segments[0] == nil) {
		if s := t.segments[0]; s != nil {
			gone = append(gone, s)
			l.stats.disk.Add(-s.End())
		}
		t.first, t.segments = t.first+1, t.segments[1:]
	}
	l.table.Store(&table{t.first, append([]*Segment(nil), t.segments...)})
	return gone
}

// slotsLeft returns an error when there is no segment of this number, or it would take a slot that is still referred
// to.
func (l *Log) slotsLeft(number uint64) error {
	if number == 0 { // it would come before all others, and no reader takes it for a segment
		return fmt.Errorf("%w: the numbers of segments are used up; begin a new store", ErrFull)
	}
	if number-l.sweptThrough.Load() > MaxSlots {
		return fmt.Errorf("%w: the log has %d segments, the most it can; use a larger SegmentSize", ErrFull, MaxSlots)
	}
	return nil
}

// Swept says that nobody refers any more, by slot, to segments with numbers through this one.
func (l *Log) Swept(through uint64) { raise(&l.sweptThrough, through) }
