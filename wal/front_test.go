package wal

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// readFrom opens a log from a start and returns what was replayed, and the notes of drop-throughs.
func readFrom(dir string, o Options, from Start) (l *Log, got []string, notes []int64, err error) {
	l, err = Open(dir, o, from, func(f Frame) error {
		if f.Payload == nil {
			notes = append(notes, f.Note)
			return nil
		}
		got = append(got, string(f.Payload))
		return nil
	})
	return l, got, notes, err
}

// filled is a log of n transactions, in segments of which all but the last are retired.
func filled(t *testing.T, n int, sync Options) (dir string, l *Log) {
	dir = create(t, sync)
	l = reopen(t, dir, sync, []string{})
	for i := 1; i <= n; i++ {
		_, err := commit(l, payload(i))
		require.NoError(t, err)
		settle(t, l)
	}
	until(t, "all but the last are retired", func() bool { return len(l.Retired()) == len(l.Segments())-1 })
	require.Greater(t, len(l.Retired()), 4)
	return dir, l
}

// kept are the payloads of the transactions from the segment with this number on.
func kept(t *testing.T, l *Log, number uint64, n int) []string {
	return payloads(n)[l.Segment(SlotOf(number)).first-1:]
}

// holdsBehind checks that the log holds these transactions, behind those that were dropped, and goes on.
func holdsBehind(t *testing.T, dir string, want []string) {
	for range 2 {
		l, got, _, err := readFrom(dir, small(0), Start{})
		require.NoError(t, err)
		require.Equal(t, want, got)
		_, err = commit(l, "more")
		require.NoError(t, err)
		want = append(want, "more")
		require.NoError(t, l.Close())
	}
}

// What is dropped is gone, on disk and for readers, and opening holds what is left, also when the store was killed.
func TestDrop(t *testing.T) {
	for _, sync := range []Options{small(0), small(never)} {
		dir, l := filled(t, 60, sync)
		want := kept(t, l, 4, 60)
		disk := l.Stats().DiskBytes
		require.NoError(t, l.Drop(3, 77))
		require.EqualValues(t, 3, l.Dropped())
		require.Less(t, l.Stats().DiskBytes, disk)
		for n := uint64(1); n <= 3; n++ {
			require.NoDirExists(t, segmentDir(dir, n))
			require.Nil(t, l.Segment(SlotOf(n)))
		}
		require.NotNil(t, l.Segment(SlotOf(4)))
		require.NoError(t, l.Verify(func(Frame) error { return nil }))
		require.NoError(t, l.Drop(2, 78), "it is dropped already")
		_, err := commit(l, payload(61))
		require.NoError(t, err)
		want = append(want, payload(61))
		killed := copyLog(t, dir)
		require.NoError(t, l.Close())
		for _, dir := range []string{dir, killed} {
			for range 2 {
				l, got, notes, err := readFrom(dir, sync, Start{})
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.Equal(t, int64(77), notes[0])
				require.EqualValues(t, 3, l.Dropped())
				require.NoError(t, l.Close())
			}
		}
	}
}

// A segment that is pinned can be read until it is not; its file's name is gone.
func TestPin(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	release, again := l.Pin(), l.Pin()
	s := l.Segment(SlotOf(2))
	require.NoError(t, l.Drop(3, 0))
	require.NoDirExists(t, segmentDir(dir, 2))
	reads := func() error {
		_, err := s.ReadAt(make([]byte, 10), 0)
		return err
	}
	require.Same(t, s, l.Segment(SlotOf(2)))
	require.NoError(t, reads())
	require.Equal(t, l.Segments()[0].Number(), uint64(4))
	release()
	release()
	require.NoError(t, reads())
	again()
	require.ErrorIs(t, reads(), os.ErrClosed)
	require.Nil(t, l.Segment(SlotOf(2)))
	require.NoError(t, l.Close())
}

// A crash between any two removals leaves a log that opens to the same and tidies up; one that misses segments which
// nothing says were dropped is damaged.
func TestADropThatWasInterrupted(t *testing.T) {
	dir, l := filled(t, 60, small(0))
	want := kept(t, l, 5, 60)
	all := payloads(60)
	before := copyLog(t, dir)
	require.NoError(t, l.Drop(4, 5))
	after := copyLog(t, dir)
	require.NoError(t, l.Close())
	for gone := range uint64(4) {
		for _, directory := range []bool{false, true} {
			name := fmt.Sprintf("%d gone, and a file: %v", gone, directory)
			work := filepath.Join(memoryDir(t), "wal")
			copyTo(t, after, work)
			for n := gone + 1; n <= 4; n++ {
				copyTo(t, segmentDir(before, n), segmentDir(work, n))
			}
			if directory {
				require.NoError(t, os.Remove(pathOf(work, gone+1)))
			}
			o := small(0)
			o.ReadOnly = true
			r, _, _, err := readFrom(work, o, Start{})
			require.NoError(t, err, name)
			require.EqualValues(t, 4, r.Dropped())
			require.EqualValues(t, 5, r.Segments()[0].Number())
			require.NoError(t, r.Close())
			l, got, _, err := readFrom(work, small(0), Start{})
			require.NoError(t, err, name)
			require.Equal(t, want, got[len(got)-len(want):], name)
			require.NoDirExists(t, segmentDir(work, 4))
			require.EqualValues(t, 5, l.Segments()[0].Number())
			ends := int64(0)
			for _, s := range l.Segments() {
				ends += s.End()
			}
			require.Equal(t, ends, l.Stats().DiskBytes, "what is gone is not counted, neither in nor out")
			require.NoError(t, l.Close())
			holdsBehind(t, work, want)

			work = filepath.Join(memoryDir(t), "wal")
			copyTo(t, before, work)
			for n := uint64(1); n <= gone; n++ {
				require.NoError(t, os.RemoveAll(segmentDir(work, n)))
			}
			if directory {
				require.NoError(t, os.Remove(pathOf(work, gone+1)))
			}
			if gone == 0 && !directory {
				holds(t, work, small(0), all)
				continue
			}
			require.Contains(t, damaged(t, work, name).Reason, "missing")
		}
	}
}

// A log read from a snapshot's position on replays what comes behind it, and knows what lies before.
func TestOpenFromTheMiddle(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	require.NoError(t, l.Close())
	for after := range uint64(61) {
		l, got, _, err := readFrom(dir, small(never), Start{After: after, Synced: after})
		require.NoError(t, err)
		require.Equal(t, payloads(60)[after:], append([]string{}, got...))
		var all []string
		require.NoError(t, l.Verify(func(f Frame) error { all = append(all, string(f.Payload)); return nil }))
		require.Equal(t, payloads(60), all)
		require.NoError(t, l.Close())
	}
	_, _, _, err := readFrom(dir, small(never), Start{After: 60, Synced: 61})
	require.ErrorIs(t, err, ErrCorrupt, "a transaction that was on stable storage is missing")

	l, _, _, err = readFrom(dir, small(never), Start{})
	require.NoError(t, err)
	first := l.Segment(SlotOf(4)).first
	require.NoError(t, l.Drop(3, 9))
	require.NoError(t, l.Close())
	_, _, _, err = readFrom(dir, small(never), Start{After: first - 2})
	require.ErrorIs(t, err, ErrGap)
	l, got, notes, err := readFrom(dir, small(never), Start{After: first - 1})
	require.NoError(t, err)
	require.Equal(t, payloads(60)[first-1:], got)
	require.Equal(t, []int64{9}, notes)
	require.NoError(t, l.Close())
	// Also when all that says so comes before what is read.
	l, _, notes, err = readFrom(dir, small(never), Start{After: 60, Synced: 60})
	require.NoError(t, err)
	require.Equal(t, []int64{9}, notes, "a drop-through carries the number of the transaction before it")
	require.NoError(t, l.Close())
}

// A segment that is missing from the middle is damage, also where a snapshot says that nobody need read there: the
// snapshot's places point into it, and would be taken for those of dropped records.
func TestAHoleBeforeWhatIsRead(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	numbers := l.Segments()
	require.NoError(t, l.Close())
	for _, s := range numbers[1 : len(numbers)-1] {
		for after := range uint64(61) {
			work := copyLog(t, dir)
			require.NoError(t, os.RemoveAll(segmentDir(work, s.number)))
			_, _, _, err := readFrom(work, small(never), Start{After: after, Synced: after})
			require.ErrorIs(t, err, ErrCorrupt, "without segment %d, from transaction %d on", s.number, after)
			require.ErrorContains(t, err, "missing")
		}
	}
}

// The table of segments reaches from the first to the last, so a directory with a number far away must be refused
// before it has a place in it.
func TestANumberFarAway(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	require.NoError(t, l.Close())
	for _, empty := range []bool{false, true} {
		work := copyLog(t, dir)
		require.NoError(t, os.Rename(segmentDir(work, 4), segmentDir(work, 1<<40)))
		if empty {
			require.NoError(t, os.Truncate(pathOf(work, 1<<40), 0))
		}
		for n := uint64(5); n <= l.active.Load().number; n++ {
			require.NoError(t, os.RemoveAll(segmentDir(work, n)))
		}
		for _, after := range []uint64{0, 50} {
			_, _, _, err := readFrom(work, small(never), Start{After: after})
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
}

// The frame that says what was dropped may be torn, if a snapshot knows it; recovery then says it again.
func TestATornDropThrough(t *testing.T) {
	o := small(0)
	dir, l := filled(t, 60, o)
	want := kept(t, l, 4, 60)
	require.NoError(t, l.Drop(3, 5))
	killed := copyLog(t, dir)
	s := l.Segments()[len(l.Segments())-1]
	require.NoError(t, l.Close())
	_, all := entries(t, pathOf(killed, s.number))
	last := all[len(all)-1]
	require.Equal(t, byte(kindDropThrough), last.frame.payload[0])
	patch(t, pathOf(killed, s.number), last.end-5, 0xff)
	require.Contains(t, damaged(t, killed, "no frame says so").Reason, "dropped")
	l, got, _, err := readFrom(killed, o, Start{After: 55, Synced: 60, Dropped: 3, Note: 5})
	require.NoError(t, err)
	require.Equal(t, payloads(60)[55:], got)
	require.NoError(t, l.Close())
	holdsBehind(t, killed, want)
}

// Slots come round: a number's slot is free again 65,535 segments later, once nobody refers to it.
func TestSlots(t *testing.T) {
	require.EqualValues(t, 1, SlotOf(1))
	require.EqualValues(t, MaxSlots, SlotOf(MaxSlots))
	require.EqualValues(t, 1, SlotOf(MaxSlots+1))
	l := &Log{}
	l.table.Store(&table{})
	for n := uint64(MaxSlots - 2); n < MaxSlots+5; n++ {
		l.add(&Segment{number: n})
	}
	for n := uint64(MaxSlots - 2); n < MaxSlots+5; n++ {
		require.Equal(t, n, l.Segment(SlotOf(n)).number)
	}
	require.Nil(t, l.Segment(SlotOf(MaxSlots+5)))
	require.Nil(t, l.Segment(SlotOf(MaxSlots-3)))
	require.NoError(t, l.slotsLeft(MaxSlots))
	require.ErrorIs(t, l.slotsLeft(MaxSlots+1), ErrFull)
	l.Swept(1)
	require.NoError(t, l.slotsLeft(MaxSlots+1))
	require.ErrorIs(t, l.slotsLeft(MaxSlots+2), ErrFull)
}

// A copy is the log through a transaction, whatever is written meanwhile, and opens as such.
func TestCopy(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	require.NoError(t, l.Drop(2, 0))
	first := int(l.Segments()[0].first)
	lastFirst := l.Segments()[len(l.Segments())-1].first
	for through := lastFirst - 1; through <= 60; through++ {
		to := filepath.Join(memoryDir(t), "wal")
		require.NoError(t, os.Mkdir(to, 0o700))
		release := l.Pin()
		require.NoError(t, l.Copy(through, func(n uint64, size int64, r io.Reader) error { return Place(to, n, r, size) }))
		release()
		c, got, _, err := readFrom(to, small(0), Start{Dropped: 2})
		require.NoError(t, err)
		require.Equal(t, payloads(int(through))[first-1:], got)
		require.NoError(t, c.Close())
	}
	require.NoError(t, l.Close())
	_ = dir
}
