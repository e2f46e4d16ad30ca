package wal

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// How each call of a recovery is ordered, and what a kill between two of them leaves, is in kill_linux_amd64_test.go.

// aged gives every file below dir a time long ago, and touched returns those that were written since.
func aged(t *testing.T, dir string) (touched func() []string) {
	t.Helper()
	long := time.Now().Add(-time.Hour)
	before := tree(t, dir)
	for rel := range before {
		require.NoError(t, os.Chtimes(filepath.Join(dir, rel), long, long))
	}
	return func() (rels []string) {
		for rel, content := range tree(t, dir) {
			fi, err := os.Stat(filepath.Join(dir, rel))
			require.NoError(t, err)
			if _, was := before[rel]; was && content != "" && time.Since(fi.ModTime()) < 30*time.Minute {
				rels = append(rels, rel)
			}
		}
		return rels
	}
}

// A frame that was read may lie in the kernel's cache alone. It is written again before anyone sees it, with a mark
// behind it; what is known to be durable is left alone.
func TestRecoveryWritesAgainWhatItKeeps(t *testing.T) {
	o := small(never)
	killed, tail, _, numbers := tornLog(t, o, 40)
	rel := func(n uint64) string {
		r, err := filepath.Rel(killed, pathOf(killed, n))
		require.NoError(t, err)
		return r
	}
	check := func(dir string, want []string, rewritten ...string) {
		t.Helper()
		touched := aged(t, dir)
		l, got, err := read(dir, o)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.ElementsMatch(t, rewritten, touched())
		_, all := entries(t, pathOf(dir, tail.number))
		mark := all[len(all)-1]
		require.Equal(t, []byte{kindSyncMark}, mark.frame.payload)
		require.EqualValues(t, len(want), mark.frame.number)
		require.EqualValues(t, len(want), mark.frame.synced)
		require.Equal(t, mark.end, l.Segment(uint16(tail.number)).End())
		require.NoError(t, l.Close())

		touched = aged(t, dir)
		holds(t, dir, o, want)
		require.Empty(t, touched(), "the second time there is nothing to do")
	}
	check(copyLog(t, killed), payloads(40), rel(tail.number))

	// The tail has nothing that says that the segment before it is durable.
	dir := copyLog(t, killed)
	require.NoError(t, os.Truncate(pathOf(dir, tail.number), headerEntry))
	check(dir, payloads(numbers[0]-1), rel(tail.number-1), rel(tail.number))

	// Under SyncAlways only the last frame is in doubt, but it takes its segment along.
	killed, tail, _, _ = tornLog(t, small(0), 40)
	check(copyLog(t, killed), payloads(40), rel(tail.number))
}

// Recovery's own write may be torn like any other: cut anywhere, or with its end there and its beginning not.
func TestRecoveryMayBeTornItself(t *testing.T) {
	o := small(never)
	for name, change := range map[string]func(b []byte, ends []int64) (cut int){
		"a frame": func(b []byte, ends []int64) int { b[ends[1]+3] ^= 1; return 1 },
		"nothing": func([]byte, []int64) int { return -1 },
		"header":  func(b []byte, _ []int64) int { b[7] ^= 1; return 0 },
	} {
		killed, tail, ends, numbers := tornLog(t, o, 40)
		path := pathOf(killed, tail.number)
		b := readAll(t, path)
		want := payloads(40)
		switch change(b, ends) {
		case 1:
			want = payloads(numbers[1])
		case 0:
			want = payloads(numbers[0] - 1)
		}
		require.NoError(t, os.WriteFile(path, b, 0o600))
		before := readAll(t, path)
		holds(t, killed, o, want)
		after := readAll(t, path)
		require.Len(t, after, len(before))
		work := filepath.Join(memoryDir(t), "wal")
		for cut := range after {
			if cut > 0 && before[cut-1] == after[cut-1] {
				continue // the same as the one before
			}
			for _, mix := range [][]byte{
				append(after[:cut:cut], before[cut:]...), append(before[:cut:cut], after[cut:]...),
			} {
				copyTo(t, killed, work)
				require.NoError(t, os.WriteFile(pathOf(work, tail.number), mix, 0o600))
				holding := want
				if name == "header" {
					// The new header is the old one, so what lies behind it counts again where the zeros are missing. Nobody
					// saw the log without it: the recovery that would have cut it did not end.
					_, got, err := read(copyLog(t, work), o)
					require.NoError(t, err)
					require.GreaterOrEqual(t, len(got), len(want))
					holding = payloads(len(got))
				}
				goesOn(t, work, o, holding, name)
			}
		}
	}
}

// Nothing of a torn transaction comes back when the log goes on in its place: the next one has its number.
func TestWhatIsCutStaysCut(t *testing.T) {
	o := small(never)
	dir, tail, ends, numbers := tornLog(t, o, 40)
	whole := readAll(t, pathOf(dir, tail.number))
	patch(t, pathOf(dir, tail.number), ends[1]+3, whole[ends[1]+3]^1)
	want := payloads(numbers[1])
	for round := range 3 {
		l := reopen(t, dir, o, want)
		p := payload(100 + round)
		_, err := commit(l, p)
		require.NoError(t, err)
		want = append(want, p)
		dir = copyLog(t, dir) // killed again, before anything more was synced
		require.NoError(t, l.Close())
	}
	holds(t, dir, o, want)
}

// The log's own frames at the end of what an earlier process left may lie in the kernel's cache alone, where their
// failed sync left them: nothing says that they are durable. Whoever writes behind them writes them again, or a power cut
// would leave a hole before a seal.
func TestWhoWritesBehindAMarkWritesTheMarkAgain(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	want := fill(t, l, 3)
	require.NoError(t, l.Close())
	l = reopen(t, dir, o, want)
	path := l.tail.path
	_, all := entries(t, path)
	mark := all[len(all)-1]
	require.Equal(t, []byte{kindSyncMark}, mark.frame.payload)
	from := all[len(all)-2].end
	patch(t, path, from, make([]byte, mark.end-from)...) // the page was evicted, and the disk does not have it
	want = append(want, fill(t, l, 5)...)
	require.NoError(t, l.Close())
	holds(t, dir, o, want)
}

// Between recovery's reading and its writing again the cache may drop what the disk does not have. What was read then is
// served to nobody.
func TestWhatRecoveryWritesAgainIsWhatItRead(t *testing.T) {
	o := small(never)
	killed, tail, ends, numbers := tornLog(t, o, 20)
	last := len(ends) - 1
	from := ends[last-1]
	path := pathOf(killed, tail.number)
	_, err := Open(killed, o, Start{}, func(f Frame) error {
		if f.Number == uint64(numbers[last]) {
			patch(t, path, from, make([]byte, ends[last]-from)...)
		}
		return nil
	})
	require.ErrorContains(t, err, "changed since it was read")
	require.NotErrorIs(t, err, ErrCorrupt)
	holds(t, killed, o, payloads(19))
}
