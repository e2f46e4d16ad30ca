package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALogIsBornWithOneHeader(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "wal")
	unborn := func(want bool) {
		t.Helper()
		got, err := Unborn(dir)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	o := small(0)
	unborn(true) // missing
	require.NoError(t, os.Mkdir(dir, 0o700))
	unborn(true) // empty
	require.NoError(t, os.Mkdir(segmentDir(dir, 1), 0o700))
	unborn(true) // interrupted before the file
	for _, size := range []int64{0, 1, headerEntry} {
		require.NoError(t, os.WriteFile(pathOf(dir, 1), make([]byte, size), 0o600))
		unborn(true)
	}
	require.NoError(t, Create(dir, o)) // over what was interrupted
	unborn(true)                       // without a manifest beside it, still

	h, all := entries(t, pathOf(dir, 1))
	require.Equal(t, header{id: testID, number: 1, nonce: h.nonce, first: 1, meta: o.Meta()}, h)
	require.NotZero(t, h.nonce)
	require.Len(t, all, 1)
	files := tree(t, dir)
	require.Len(t, files["00000000000000000001/00000000000000000001"], headerEntry)
	require.Len(t, files, 3) // the log's directory, the segment's, the file
	for path, mode := range map[string]os.FileMode{dir: 0o700, segmentDir(dir, 1): 0o700, pathOf(dir, 1): 0o600} {
		fi, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode().Perm(), path)
	}

	// What may hold something is nobody's to create over.
	require.NoError(t, os.WriteFile(pathOf(dir, 1), make([]byte, headerEntry+1), 0o600))
	unborn(false)
	require.NoError(t, os.Truncate(pathOf(dir, 1), headerEntry))
	require.NoError(t, os.Mkdir(segmentDir(dir, 2), 0o700))
	unborn(false) // two segments
	require.NoError(t, os.RemoveAll(segmentDir(dir, 1)))
	require.NoError(t, os.WriteFile(pathOf(dir, 2), nil, 0o600))
	unborn(false) // not the first
}

func TestALogWithoutSegmentsHasLostThem(t *testing.T) {
	dir := memoryDir(t)
	_, _, err := read(dir, small(0))
	var damage *CorruptError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, dir, damage.File)
	_, _, err = read(filepath.Join(dir, "nowhere"), small(0))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Opening and closing without a transaction between them leaves every byte and every time as it was.
func TestACleanOpenWritesNothing(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	check := func(want []string) {
		t.Helper()
		before := tree(t, dir)
		long := time.Now().Add(-time.Hour)
		for rel := range before {
			require.NoError(t, os.Chtimes(filepath.Join(dir, rel), long, long))
		}
		for range 2 {
			holds(t, dir, o, want)
			l, got, err := read(dir, Options{ID: testID, ReadOnly: true})
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.NoError(t, l.Close())
		}
		require.Equal(t, before, tree(t, dir))
		for rel := range before {
			fi, err := os.Stat(filepath.Join(dir, rel))
			require.NoError(t, err)
			require.WithinDuration(t, long, fi.ModTime(), time.Minute, "%s was touched", rel)
		}
	}
	check([]string{})
	l := reopen(t, dir, o, []string{})
	require.Empty(t, l.Stats().Bytes)
	require.Nil(t, l.active.Load(), "nothing is created before the first write")
	want := fill(t, l, 40)
	require.NoError(t, l.Close())
	check(want)

	// A process that made ready and wrote nothing.
	l = reopen(t, dir, o, want)
	require.NoError(t, l.Ready(10))
	require.NoError(t, l.Close())
	check(want)
}

func TestTransactionsComeBackInOrder(t *testing.T) {
	for name, policy := range map[string]time.Duration{"always": 0, "every": time.Hour, "never": never} {
		t.Run(name, func(t *testing.T) {
			o := small(policy)
			dir := create(t, o)
			want := []string{}
			for life := 1; life <= 4; life++ {
				l := reopen(t, dir, o, want)
				require.EqualValues(t, len(want), l.Visible())
				want = append(want, fill(t, l, len(want)+life*7)...)
				require.EqualValues(t, len(want), l.Visible())
				seen := []string{}
				require.NoError(t, l.Verify(func(f Frame) error { seen = append(seen, string(f.Payload)); return nil }))
				require.Equal(t, want, seen)
				require.NoError(t, l.Close())
			}
			holds(t, dir, o, want)

			failed := errors.New("the owner can't read this")
			_, err := Open(dir, o, Start{}, func(f Frame) error {
				if f.Number == 5 {
					return failed
				}
				return nil
			})
			require.ErrorIs(t, err, failed)
		})
	}
}

// Each segment names its successor and the nonce it will have, and carries on with the number after its last.
func TestSegmentsAreChained(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	fill(t, l, 60)
	open := l.Stats().Segments
	require.NoError(t, l.Close())
	numbers, err := listSegments(dir)
	require.NoError(t, err)
	require.Greater(t, len(numbers), 5)
	require.Equal(t, open, len(numbers))
	next, announced := uint64(1), uint64(0)
	nonces := map[uint64]bool{}
	for i, n := range numbers {
		require.EqualValues(t, i+1, n)
		h, all := entries(t, pathOf(dir, n))
		require.Equal(t, n, h.number)
		require.Equal(t, next, h.first)
		require.Equal(t, testID, h.id)
		require.Equal(t, o.Meta(), h.meta)
		require.False(t, nonces[h.nonce])
		nonces[h.nonce] = true
		if i > 0 {
			require.Equal(t, announced, h.nonce)
		}
		for _, e := range all[1:] {
			if !e.frame.own() {
				require.Equal(t, next, e.frame.number)
				require.Equal(t, next-1, e.frame.synced, "alone, each transaction finds all before it durable")
				next++
			}
		}
		last := all[len(all)-1]
		fi, err := os.Stat(pathOf(dir, n))
		require.NoError(t, err)
		require.Equal(t, last.end, fi.Size(), "prepared space is given back")
		if i < len(numbers)-1 {
			s := parseSeal(last.frame.payload)
			require.Equal(t, seal{last: next - 1, end: uint64(last.end), next: n + 1, nextNonce: s.nextNonce}, s)
			announced = s.nextNonce
			require.LessOrEqual(t, last.end, o.SegmentSize, "the seal fits as well")
		} else {
			require.Equal(t, []byte{kindSyncMark}, last.frame.payload)
			require.Equal(t, last.frame.number, last.frame.synced)
		}
	}
	require.EqualValues(t, 61, next)
}

// A frame that ends exactly where the room for it ends stays; one byte more, and it begins the next segment.
func TestFramesAtTheEdgeOfASegment(t *testing.T) {
	for _, size := range []int{100, 126, 127, 128, 129, 400, 16382, 16383, 16384, 16385} {
		for _, more := range []int{0, 1} {
			o := small(0)
			o.SegmentSize = 64 << 10
			dir := create(t, o)
			l := reopen(t, dir, o, []string{})
			want := []string{strings.Repeat("a", 100), strings.Repeat("b", int(o.SegmentSize)/2)}
			for _, p := range want {
				_, err := commit(l, p)
				require.NoError(t, err)
			}
			settle(t, l)
			s := l.active.Load()
			// Up to where a frame of this size just fits.
			number := uint64(len(want) + 1)
			gap := int(s.room.Load()-s.End()) - sealRoom - entrySize(s.first, number+1, number, size)
			filler := gap - (entrySize(s.first, number, number-1, gap) - gap)
			want = append(want, strings.Repeat("c", filler), strings.Repeat("d", size+more))
			var last *Commit
			for _, p := range want[2:] {
				c, err := commit(l, p)
				require.NoError(t, err)
				last = c
			}
			at, off := last.Position()
			if more == 0 {
				require.Same(t, s, at, size)
				require.Equal(t, s.room.Load()-sealRoom, s.End())
				require.Equal(t, s.End(), off+int64(size))
			} else {
				require.NotSame(t, s, at, size)
				require.LessOrEqual(t, s.End(), s.room.Load())
			}
			want = append(want, "e")
			_, err := commit(l, "e")
			require.NoError(t, err)
			require.NoError(t, l.Close())
			holds(t, dir, o, want)
		}
	}
}

// queue enqueues the payloads without waiting: they become one batch.
func queue(t testing.TB, l *Log, payloads ...string) (all []*Commit) {
	t.Helper()
	for _, p := range payloads {
		c := NewCommit([]byte(p))
		require.Greater(t, c.Number(), uint64(1)<<62, "not in the queue")
		require.NoError(t, l.Enqueue(c))
		all = append(all, c)
	}
	return all
}

// A batch that does not fit what is left of a segment is two writes and two syncs, with the seal in the first, and
// no frame lies in both segments.
func TestABatchNeverSpansSegments(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	fill(t, l, 6)
	s := l.active.Load()
	batch := []string{}
	for i := 7; i <= 11; i++ {
		batch = append(batch, payload(i))
	}
	before := l.Stats()
	all := queue(t, l, batch...)
	for i, c := range all {
		require.EqualValues(t, 7+i, c.Number())
	}
	require.EqualValues(t, 6, l.Visible())
	require.NoError(t, l.Wait(all[0]))
	require.EqualValues(t, 11, l.Visible())
	for _, c := range all[1:] {
		require.NoError(t, l.Wait(c))
	}
	after := l.Stats()
	require.EqualValues(t, 5, after.Commits-before.Commits)
	require.EqualValues(t, 2, after.Batches-before.Batches)
	require.EqualValues(t, 2, after.Syncs-before.Syncs)
	next := l.active.Load()
	require.NotSame(t, s, next)
	in := map[*Segment]int{}
	for i, c := range all {
		at, off := c.Position()
		in[at]++
		b := make([]byte, len(batch[i]))
		_, err := at.ReadAt(b, off)
		require.NoError(t, err)
		require.Equal(t, batch[i], string(b))
		require.LessOrEqual(t, off+int64(len(b)), at.End())
	}
	require.Len(t, in, 2)
	require.Positive(t, in[s])
	require.Positive(t, in[next])
	_, sealed := entries(t, s.Path())
	last := sealed[len(sealed)-1]
	require.EqualValues(t, kindSeal, last.frame.payload[0])
	require.EqualValues(t, 6+in[s], last.frame.number)
	_, begun := entries(t, next.Path())
	require.EqualValues(t, 6+in[s], begun[1].frame.synced, "the seal was durable before this was written")
	require.NoError(t, l.Close())
	holds(t, dir, o, payloads(11))
}

// Whoever is told that a transaction is committed can read it, at once, and its own and no other's.
func TestConcurrentAppendersReadTheirOwn(t *testing.T) {
	const writers, each = 8, 60
	for name, policy := range map[string]time.Duration{"always": 0, "every": time.Millisecond, "never": never} {
		t.Run(name, func(t *testing.T) {
			o := small(policy)
			o.SegmentSize = 4 << 10
			dir := create(t, o)
			l := reopen(t, dir, o, []string{})
			errs := make(chan error, writers)
			var mu sync.Mutex
			byNumber := map[uint64]string{}
			for w := range writers {
				go func() {
					errs <- func() error {
						c := NewCommit(nil)
						for i := range each {
							want := fmt.Sprintf("writer %d, transaction %d %s", w, i, strings.Repeat(".", (w*i)%200))
							if err := l.Ready(len(want)); err != nil {
								return err
							}
							c.Reset([]byte(want))
							if err := l.Enqueue(c); err != nil {
								return err
							}
							if err := l.Wait(c); err != nil {
								return err
							}
							s, off := c.Position()
							b := make([]byte, len(want))
							if _, err := s.ReadAt(b, off); err != nil || string(b) != want {
								return fmt.Errorf("%q reads %q, %w", want, b, err)
							}
							if c.Number() > l.Visible() || l.Segment(s.Slot()) != s || off+int64(len(b)) > s.End() {
								return fmt.Errorf("transaction %d is acknowledged and not in its place", c.Number())
							}
							mu.Lock()
							byNumber[c.Number()] = want
							mu.Unlock()
						}
						return nil
					}()
				}()
			}
			verified := make(chan error, 1)
			go func() {
				var err error
				for range 5 {
					err = errors.Join(err, l.Verify(func(Frame) error { return nil }))
				}
				verified <- err
			}()
			for range writers {
				require.NoError(t, <-errs)
			}
			require.NoError(t, <-verified)
			st := l.Stats()
			require.EqualValues(t, writers*each, st.Commits)
			require.LessOrEqual(t, st.Batches, st.Commits)
			want := []string{}
			for n := uint64(1); n <= writers*each; n++ {
				require.Contains(t, byNumber, n, "numbers have no gaps")
				want = append(want, byNumber[n])
			}
			require.NoError(t, l.Close())
			holds(t, dir, o, want)
		})
	}
}

func TestLimits(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	require.ErrorIs(t, l.Ready(MaxPayload+1), ErrTooLarge)
	require.Nil(t, l.active.Load(), "what is refused creates nothing")
	want := []string{"1"}
	_, err := commit(l, "1")
	require.NoError(t, err)
	if !testing.Short() {
		largest := strings.Repeat("largest ", MaxPayload/8)
		c, err := commit(l, largest)
		require.NoError(t, err)
		at, off := c.Position()
		require.LessOrEqual(t, off+MaxPayload, int64(maxOffset))
		require.Equal(t, off+MaxPayload, at.End())
		want = append(want, largest)
	}
	require.ErrorIs(t, l.Ready(MaxPayload+1), ErrTooLarge)
	_, err = commit(l, "after")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	l, got, err := read(dir, o)
	require.NoError(t, err)
	require.True(t, fmt.Sprint(append(want, "after")) == fmt.Sprint(got)) // not printed: 16 MiB
	require.NoError(t, l.Close())
}

func TestAClosedLog(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	want := fill(t, l, 3)
	late := NewCommit([]byte("late"))
	require.NoError(t, l.Ready(4))
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Enqueue(late), ErrClosed)
	require.Greater(t, late.Number(), l.Visible())
	require.ErrorIs(t, l.Close(), ErrClosed)
	require.NoError(t, l.Failed(), "closed is not failed")
	_, err := l.Segment(2).ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)
	require.Nil(t, l.Segment(0))
	require.Nil(t, l.Segment(MaxSlots))
	holds(t, dir, o, want)
}

// A reader beside a running owner sees what is there and changes nothing, a torn tail included.
func TestReadOnlyChangesNothing(t *testing.T) {
	o := small(never)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	want := fill(t, l, 20)
	ro := Options{ID: testID, ReadOnly: true}
	before := tree(t, dir)
	r := reopen(t, dir, ro, want)
	want = append(want, fill(t, l, 25)...)
	require.EqualValues(t, 20, r.Visible(), "a reader has what it opened")
	require.NoError(t, r.Close())
	require.NotEqual(t, before, tree(t, dir))

	killed := copyLog(t, dir)
	require.NoError(t, l.Close())
	tail := l.active.Load()
	patch(t, pathOf(killed, tail.number), tail.End()+100, []byte("junk behind the end")...)
	before = tree(t, killed)
	for range 2 {
		require.NoError(t, reopen(t, killed, ro, want).Close())
	}
	require.Equal(t, before, tree(t, killed))
	holds(t, killed, o, want)
	require.NotEqual(t, before, tree(t, killed), "the owner would have repaired it")
}

// The frame's number says what is durable, so each policy must say no more than it did.
func TestWhatFramesSayIsSynced(t *testing.T) {
	o := small(never)
	o.SegmentSize = 64 << 10
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	fill(t, l, 5)
	before := l.Stats().Syncs
	fill(t, l, 10)
	require.Equal(t, before, l.Stats().Syncs)
	_, all := entries(t, l.active.Load().Path())
	for _, e := range all[1:] {
		require.Zero(t, e.frame.synced)
	}
	require.NoError(t, l.Close())
	_, all = entries(t, pathOf(dir, 2))
	require.EqualValues(t, 10, all[11].frame.synced, "closing syncs under every policy, and the mark says so")
	require.Equal(t, before+2, l.Stats().Syncs) // before the mark and after it
}
