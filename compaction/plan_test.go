package compaction

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

// segs makes segments of 4 MiB from how much of each is alive, in percent.
func segs(live ...int64) State {
	s := State{SegmentSize: 4 * mib, Bytes: 4 * mib, Live: 4 * mib} // the one being written, all of it alive
	for i, l := range live {
		seg := Segment{Number: uint64(i + 5), Bytes: 4 * mib, Live: l * 4 * mib / 100, Dead: (100 - l) * 4 * mib / 100}
		s.Segments = append(s.Segments, seg)
		s.Bytes += seg.Bytes
		s.Live += seg.LiveShare()
	}
	return s
}

func TestMake(t *testing.T) {
	small := State{SegmentSize: 4 * mib}
	for i := range 40 {
		small.Segments = append(small.Segments, Segment{Number: uint64(i + 1), Bytes: 200, Live: 60, Dead: 0})
		small.Bytes += 200
		small.Live += 200
	}
	pressed := segs(100, 0, 50, 0, 100)
	pressed.Pressed = true
	calm := segs(100, 100, 100, 90)
	calm.Pressed = true
	for name, c := range map[string]struct {
		state State
		want  Plan
	}{
		"nothing":                           {segs(), Plan{}},
		"all alive":                         {segs(100, 100, 100), Plan{}},
		"a dead one at the front":           {segs(0, 100), Plan{Through: 5}},
		"two dead at the front":             {segs(0, 0, 100), Plan{Through: 6}},
		"all dead":                          {segs(0, 0, 0), Plan{Through: 7}},
		"dead behind the front":             {segs(100, 0, 0, 100), Plan{}},
		"many dead behind the front":        {segs(100, 0, 0, 0, 0, 0, 100), Plan{Copy: []uint64{5}, Through: 5}},
		"a little alive in each":            {segs(10, 10, 10, 10), Plan{Copy: []uint64{5}, Through: 5}},
		"dead, then a little alive in each": {segs(0, 10, 10, 10, 10), Plan{Copy: []uint64{6}, Through: 6}},
		"dropping is enough":                {segs(0, 0, 0, 0, 100), Plan{Through: 8}},
		"half alive":                        {segs(50, 50, 50, 50), Plan{}},
		"two fifths alive, many":            {segs(40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40), Plan{Copy: []uint64{5}, Through: 5}},
		"little room":                       {pressed, Plan{Copy: []uint64{5}, Through: 5}},
		"little room and nothing to gain":   {calm, Plan{}},
		"many small ones":                   {small, Plan{Copy: []uint64{1}, Through: 1}},
	} {
		require.Equal(t, c.want, Make(c.state), name)
	}
}

func TestAll(t *testing.T) {
	require.Equal(t, Plan{}, All(segs(100, 100)))
	require.Equal(t, Plan{Through: 5}, All(segs(0, 100)))
	require.Equal(t, Plan{Copy: []uint64{5}, Through: 6}, All(segs(100, 0, 100)))
	require.Equal(t, Plan{Copy: []uint64{5, 7}, Through: 7}, All(segs(30, 0, 99, 100)))
}

// However a log begins, making plans ends, and leaves no more than what is promised: twice what is alive and three
// segments.
func TestPlansEndWithinTheBound(t *testing.T) {
	for seed := range 200 {
		var live []int64
		for i := range 1 + seed%30 {
			live = append(live, int64((seed*7919+i*104729)%101))
		}
		s := segs(live...)
		for rounds := 0; ; rounds++ {
			require.Less(t, rounds, 1000)
			p := Make(s)
			if p.Through == 0 {
				break
			}
			copied := int64(0)
			for len(s.Segments) > 0 && s.Segments[0].Number <= p.Through {
				s.Bytes -= s.Segments[0].Bytes
				copied += s.Segments[0].LiveShare()
				s.Segments = s.Segments[1:]
			}
			s.Bytes += copied // to the end, where they are written
		}
		require.LessOrEqual(t, s.Bytes, 2*s.Live+3*s.SegmentSize, "%v", live)
	}
}

func TestRunStopsWhereItFails(t *testing.T) {
	failed := errors.New("no")
	for at := range 4 {
		var did []string
		step := func(what string) error {
			if len(did) == at {
				return failed
			}
			did = append(did, what)
			return nil
		}
		p := Plan{Copy: []uint64{1, 2}, Through: 3}
		err := p.Run(func(n uint64) error { return step(fmt.Sprint("copy ", n)) }, func(n uint64) error { return step(fmt.Sprint("drop ", n)) })
		require.Equal(t, []string{"copy 1", "copy 2", "drop 3"}[:min(at, 3)], append([]string{}, did...))
		require.Equal(t, at < 3, errors.Is(err, failed))
	}
}

// A plan that drops nothing only copies.
func TestRunOfAPlanThatDropsNothing(t *testing.T) {
	p := Plan{Copy: []uint64{1}}
	copied := 0
	require.NoError(t, p.Run(func(uint64) error { copied++; return nil }, func(uint64) error { return errors.New("dropped") }))
	require.Equal(t, 1, copied)
}

// Keys are told by segment.
func TestKeysOfASegment(t *testing.T) {
	l := NewLedger()
	for i := range int64(3) {
		e := Entry{Segment: 2, Expires: 1000, Size: 10, Key: i > 0}
		l.Change(nil, &e)
	}
	require.EqualValues(t, 2, l.Keys(2, 0))
	require.Zero(t, l.Keys(2, 1000))
	require.Zero(t, l.Keys(3, 0))
}
