package oncelog

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/compaction"
)

// inTheWay puts something into a segment's directory, so that the directory can't be removed.
func inTheWay(t *testing.T, dir string, number uint64) (path string) {
	t.Helper()
	path = filepath.Join(dir, walName, fmt.Sprintf("%020d", number), "in the way")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	return path
}

// allDead returns a store of several segments of which nothing is alive but what was put last.
func allDead(t *testing.T, log *bytes.Buffer) (s *Store, dir string) {
	o := quick
	o.SegmentSize = minSegmentSize
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	return sealedFirst(t, o, func(s *Store, i int) {
		put(t, s, "dead", strings.Repeat("d", 500))
		_, err := s.Delete([]byte("dead"))
		require.NoError(t, err)
	})
}

// A round that fails is told once and not each second, and the next one goes on where it can.
func TestAFailedRoundIsToldAndTriedAgain(t *testing.T) {
	var log bytes.Buffer
	s, dir := allDead(t, &log)
	path := inTheWay(t, dir, 1)
	s.keepHouse()
	require.Equal(t, 1, strings.Count(log.String(), "housekeeping was put off"))
	require.Contains(t, log.String(), "dropped segment")
	require.NotNil(t, s.house.failed.Load())
	require.NotZero(t, s.log.Dropped(), "what was dropped is")
	s.keepHouse()
	require.Nil(t, s.house.failed.Load(), "nothing failed in this one")
	require.Equal(t, 1, strings.Count(log.String(), "housekeeping was put off"))

	require.NoError(t, os.Remove(path))
	for n := s.log.Dropped(); s.log.Dropped() == n; s.keepHouse() { // the next drop removes that, too
		put(t, s, "dead", strings.Repeat("d", 500))
		_, err := s.Delete([]byte("dead"))
		require.NoError(t, err)
	}
	require.NoDirExists(t, filepath.Dir(path))
	require.Nil(t, s.house.failed.Load())
}

// The copies that closing the store interrupts are no failure to tell anybody.
func TestARoundThatIsStoppedIsNotTold(t *testing.T) {
	var log bytes.Buffer
	s, _ := allDead(t, &log)
	put(t, s, "k", "v") // so that a snapshot has a page to write
	stop := make(chan struct{})
	close(stop)
	s.house.pace.stop = stop
	s.house.snapshot.written = s.log.Stats().Bytes - snapshotAfter // as if so much had been written since
	s.keepHouse()
	require.Empty(t, log.String())
	require.Nil(t, s.house.failed.Load())
	require.Zero(t, s.house.snapshots.Load())
}

// Opening merges what many short lives have left. When that fails it is told, and the store opens.
func TestOpeningTidiesUpIfItCan(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	o := quick
	o.still, o.SegmentSize = true, minSegmentSize
	for i := range 40 {
		s := open(t, dir, o)
		put(t, s, fmt.Sprint("key ", i), "v")
		require.NoError(t, s.Close())
	}
	var log bytes.Buffer
	o.still = false
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	inTheWay(t, dir, 1)
	s := open(t, dir, o)
	defer s.withoutHousekeeping()()
	require.Contains(t, log.String(), "housekeeping was put off")
	for i := range 40 {
		has(t, s, fmt.Sprint("key ", i), "v")
	}
}

// A snapshot is due when so much log was written since the last that reading it takes longer than writing one.
func TestASnapshotIsDue(t *testing.T) {
	o := quick
	o.still = true
	s := open(t, filepath.Join(memoryDir(t), "store"), o)
	put(t, s, "k", "v")
	s.keepHouse() // drops the segment that the store was born with, for which it writes a frame
	for _, due := range []bool{false, true} {
		s.house.snapshot.written = s.log.Stats().Bytes - snapshotAfter
		if !due {
			s.house.snapshot.written++
		}
		s.keepHouse()
		require.Equal(t, due, s.house.snapshots.Load() == 1)
	}
	require.Equal(t, s.log.Visible(), s.house.snapshot.through)
	require.Equal(t, s.log.Stats().Bytes, s.house.snapshot.written)
}

// Slots are taken out of the index before they run out, however little of it is dead.
func TestASweepIsDue(t *testing.T) {
	s, _ := allDead(t, new(bytes.Buffer))
	require.NoError(t, s.Compact())
	dropped := s.log.Dropped()
	require.False(t, s.sweepDue())
	s.house.swept = dropped - sweepSegments + 1
	require.False(t, s.sweepDue())
	s.house.swept--
	require.True(t, s.sweepDue())
	require.NoError(t, s.compact(func(compaction.State) (p compaction.Plan) { return p }, true))
	require.Equal(t, dropped, s.house.swept)
}
