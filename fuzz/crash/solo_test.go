//go:build linux && amd64

package crash

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// moment is what must be found after so many answers.
type moment struct {
	step     string
	clock    int64
	contents string
	restored string // of a restore: where
}

// solo is the workload of one caller. What must be found is known exactly: what was answered, with what was in flight
// or without it.
func solo(t *testing.T, never bool) workload {
	w := workload{name: "solo", contents: soloContents}
	if never {
		w.name, w.arg = "solo without syncs", "never"
	}
	w.role = "solo"
	moments := soloMoments(t, never)
	w.begin = func() tracker { return &soloTracker{moments: moments, never: never} }
	return w
}

// soloMoments runs the workload undisturbed, and says what must be found after each answer. It fails if a kind of
// record is never written, and if nothing was ever copied.
func soloMoments(t *testing.T, never bool) (all []moment) {
	kinds := map[string]bool{}
	s := &service{dir: memoryDir(t), never: never}
	all = append(all, moment{step: "nothing", clock: begins, contents: empty(t, soloContents)})
	copied := uint64(0)
	s.told = func(step string) error {
		m := moment{step: step, clock: s.clock.Load(), contents: all[len(all)-1].contents}
		var err error
		if step != "close" {
			if m.contents, err = soloContents(s.st); err != nil {
				return err
			}
			copied = max(copied, s.st.Stats().CopiedBytes)
		}
		if step == restoring {
			m.restored = s.to
			r := restoredExpectation{to: s.to, clock: m.clock, contents: m.contents, answered: true, look: soloContents}
			if err := r.check(s.dir); err != nil {
				return err
			}
		}
		all = append(all, m)
		return collect(filepath.Join(s.dir, "store"), kinds)
	}
	require.NoError(t, s.run())
	for k := record.Result; k <= record.Tombstone; k++ {
		require.True(t, kinds[k.String()], "the workload writes no %v", k)
	}
	require.True(t, kinds["several segments"])
	require.Positive(t, copied, "nothing was copied")
	return all
}

// collect notes which kinds of records are in a log.
func collect(store string, kinds map[string]bool) error {
	l, err := wal.Open(filepath.Join(store, "wal"), wal.Options{ReadOnly: true, SegmentSize: 8 << 10}, wal.Start{}, func(f wal.Frame) error {
		for at := 0; at < len(f.Payload); {
			r, n, err := record.Parse(f.Payload[at:], record.DecodeBase(f.Segment.Meta()))
			if err != nil {
				return err
			}
			kinds[r.Kind.String()] = true
			at += n
		}
		if f.Segment.Number() > 3 {
			kinds["several segments"] = true
		}
		return nil
	})
	if err != nil {
		return nil // beside an owner that is seldom; the next look finds it
	}
	return l.Close()
}

func empty(t *testing.T, contents func(*oncelog.Store) (string, error)) string {
	st, err := oncelog.Open(filepath.Join(memoryDir(t), "store"), nil)
	require.NoError(t, err)
	defer st.Close()
	c, err := contents(st)
	require.NoError(t, err)
	return c
}

type soloTracker struct {
	moments          []moment
	never            bool
	answered, synced int
}

func (s *soloTracker) note(what string) error {
	if s.answered++; s.answered == len(s.moments) {
		return fmt.Errorf("one answer more than the workload has: %s", what)
	}
	step := s.moments[s.answered].step
	if !strings.HasSuffix(what, " "+step) {
		return fmt.Errorf("%q, and it is the answer to %s", what, step)
	}
	if slices.Contains([]string{"close", "snapshot", "open", "reopen"}, step) {
		s.synced = s.answered
	}
	return nil
}

func (s *soloTracker) over() bool { return s.answered == len(s.moments)-1 }

func (s *soloTracker) cut() expectation {
	if s.never {
		return s.from(s.synced)
	}
	return s.killed()
}

func (s *soloTracker) killed() expectation { return s.from(s.answered) }

func (s *soloTracker) from(first int) expectation {
	last := min(s.answered+1, len(s.moments)-1)
	// The tracker goes on, the expectation does not.
	lawful, at, answered := s.moments[first:last+1], s.answered, s.moments[s.answered]
	e := expectation{
		behind: fmt.Sprintf("answer %d, %s", s.answered, answered.step),
		clock:  answered.clock,
		key:    uint64(first)<<32 | uint64(s.answered),
	}
	e.accepts = func(found string) (lost bool, err error) {
		for i := len(lawful) - 1; i >= 0; i-- {
			if lawful[i].contents == found {
				return first+i < at && found != answered.contents, nil
			}
		}
		return false, fmt.Errorf("found is neither what was answered nor what was in flight:\n%s", difference(answered.contents, found))
	}
	for i := s.answered; i <= last; i++ {
		if m := s.moments[i]; m.restored != "" {
			e.restored = &restoredExpectation{to: m.restored, clock: m.clock, contents: m.contents, answered: i <= s.answered, look: soloContents}
		}
	}
	return e
}
