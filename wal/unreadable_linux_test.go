package wal

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A segment that can be opened and not read is an error of the system's, in the place where the log is read and where
// only its header is.
func TestASegmentThatCannotBeRead(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	require.NoError(t, l.Close())
	o := small(never)
	o.ReadOnly = true // nobody can open a directory to write
	for _, n := range []uint64{1, 3} {
		work := copyLog(t, dir)
		require.NoError(t, os.Remove(pathOf(work, n)))
		require.NoError(t, os.Mkdir(pathOf(work, n), 0o700))
		for _, after := range []uint64{0, 59} {
			_, _, _, err := readFrom(work, o, Start{After: after})
			require.ErrorIs(t, err, syscall.EISDIR, "segment %d, from transaction %d on", n, after)
			require.NotErrorIs(t, err, ErrCorrupt)
		}
	}
}

// A directory without its file is what an interrupted preparation leaves, when it is the last. Before that it is a
// segment that was lost, also where only headers are looked at.
func TestADirectoryWithoutItsFileAmongHeaders(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	numbers := l.Segments()
	require.NoError(t, l.Close())
	last := numbers[len(numbers)-1].number

	work := copyLog(t, dir)
	require.NoError(t, os.Mkdir(segmentDir(work, last+1), 0o700))
	l, got, _, err := readFrom(work, small(never), Start{After: 60, Synced: 60})
	require.NoError(t, err)
	require.Empty(t, got)
	require.Len(t, l.all(), len(numbers))
	require.NoDirExists(t, segmentDir(work, last+1))
	require.NoError(t, l.Close())
	holds(t, work, small(never), payloads(60))

	for n := uint64(2); n <= last; n++ {
		work := copyLog(t, dir)
		require.NoError(t, os.Remove(pathOf(work, n)))
		_, _, _, err := readFrom(work, small(never), Start{After: 60, Synced: 60})
		var damage *CorruptError
		require.ErrorAs(t, err, &damage)
		require.Equal(t, pathOf(work, n), damage.File)
		require.Contains(t, damage.Reason, "missing")
		require.Zero(t, descriptors(t, work))
	}
}

// What was dropped and can't be removed, since somebody's file is in the way, is an error of opening; with the file gone
// the log tidies up.
func TestWhatWasDroppedCannotBeRemoved(t *testing.T) {
	dir, l := filled(t, 60, small(0))
	want := kept(t, l, 5, 60)
	before := copyLog(t, dir)
	require.NoError(t, l.Drop(4, 5))
	require.NoError(t, l.Close())
	copyTo(t, segmentDir(before, 4), segmentDir(dir, 4))
	blocked := filepath.Join(segmentDir(dir, 4), "mine")
	require.NoError(t, os.WriteFile(blocked, nil, 0o600))
	_, _, _, err := readFrom(dir, small(0), Start{})
	require.ErrorIs(t, err, syscall.ENOTEMPTY)
	require.FileExists(t, blocked)
	require.NoError(t, os.Remove(blocked))
	holdsBehind(t, dir, want)
	require.NoDirExists(t, segmentDir(dir, 4))
}

// Where a log that nobody has written to yet can't reserve the room to say what is dropped, nothing has changed: no
// segment is gone, the log has not failed, and the next drop succeeds.
func TestNoRoomToDropBehindTheTail(t *testing.T) {
	dir, l := filled(t, 60, small(0))
	want := kept(t, l, 4, 60)
	require.NoError(t, l.Close())
	l, _, _, err := readFrom(dir, small(0), Start{})
	require.NoError(t, err)
	before := tree(t, dir)
	undo := replaced(t, int(l.tail.file.Fd()), "/dev/full")
	require.ErrorIs(t, l.Drop(3, 0), syscall.ENODEV)
	undo()
	require.NoError(t, l.Failed())
	require.Zero(t, l.Dropped())
	require.Equal(t, before, tree(t, dir))
	require.NoError(t, l.Drop(3, 0))
	require.NoError(t, l.Close())
	holdsBehind(t, dir, want)
}
