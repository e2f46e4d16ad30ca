package compaction

// Segment is what a plan needs to know of a segment.
type Segment struct {
	Number uint64
	Bytes  int64 // of its file
	Live   int64 // bytes in it of records that are alive
	Dead   int64 // bytes in it of those that are not
}

// LiveShare returns how many of the segment's bytes are there for what is alive: the frames are shared out.
func (s Segment) LiveShare() int64 {
	if s.Live == 0 {
		return 0
	}
	return int64(float64(s.Bytes) * float64(s.Live) / float64(s.Live+s.Dead))
}

// State is what a plan is made from.
type State struct {
	Segments    []Segment // that nobody writes to any more, oldest first
	Bytes       int64     // of the whole log, the segment being written included
	Live        int64     // of these, for what is alive: the sum of LiveShare
	SegmentSize int64
	Pressed     bool // there is little room left: a whole segment to be had is worth copying for
}

// Plan is what to do next. The zero Plan is nothing.
type Plan struct {
	Copy    []uint64 // segments whose live records are copied to the end, oldest first
	Through uint64   // then the segments with numbers through this one are dropped
}

// The log may take up 1.8 times what is alive in it and two segments before records are copied: a bound of twice,
// less what is dead in a segment on average when it is noticed. Copying earlier writes more than it frees.
const (
	slackTenths   = 18
	slackSegments = 2
)

// Each process begins a segment of its own, so processes that live for a record leave many that hold next to nothing.
// From this many more than their bytes need on, they are copied together.
const crowd = 16

// Make returns what is to be done: drop what is dead at the front, and if the log then is larger than it should be,
// copy the oldest segment's live records. A caller comes again until there is nothing to do.
func Make(s State) Plan {
	var p Plan
	i := 0
	for ; i < len(s.Segments) && s.Segments[i].Live == 0; i++ {
		p.Through = s.Segments[i].Number
		s.Bytes -= s.Segments[i].Bytes
	}
	if i < len(s.Segments) && (s.tooLarge() || s.tooMany(len(s.Segments)-i)) {
		p.Copy = []uint64{s.Segments[i].Number}
		p.Through = s.Segments[i].Number
	}
	return p
}

// Merge returns what Make would do about too many segments, and nothing else.
func Merge(s State) Plan {
	if len(s.Segments) == 0 || !s.tooMany(len(s.Segments)) {
		return Plan{}
	}
	p := Plan{Through: s.Segments[0].Number}
	if s.Segments[0].Live > 0 {
		p.Copy = []uint64{p.Through}
	}
	return p
}

func (s *State) tooLarge() bool {
	if s.Pressed && s.Bytes > s.Live+slackSegments*s.SegmentSize {
		return true
	}
	return s.Bytes > s.Live/10*slackTenths+slackSegments*s.SegmentSize
}

func (s *State) tooMany(segments int) bool {
	return int64(segments) > crowd+2*(s.Bytes/s.SegmentSize)
}

// All returns what leaves nothing dead in the segments given: all of them through the last that holds something dead
// are copied and dropped.
func All(s State) Plan {
	var p Plan
	for _, seg := range s.Segments {
		if seg.Dead > 0 || seg.Live == 0 {
			p.Through = seg.Number
		}
	}
	for _, seg := range s.Segments {
		if seg.Number <= p.Through && seg.Live > 0 {
			p.Copy = append(p.Copy, seg.Number)
		}
	}
	return p
}

// Run carries a plan out. copied copies the live records of a segment to the end of the log and returns when that is
// committed; drop is the log's.
func (p *Plan) Run(copied func(segment uint64) error, drop func(through uint64) error) error {
	for _, n := range p.Copy {
		if err := copied(n); err != nil {
			return err
		}
	}
	if p.Through == 0 {
		return nil
	}
	return drop(p.Through)
}
