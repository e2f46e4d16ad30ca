package wal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func init() {
	children["limited"] = limitedChild
}

// replaced makes a descriptor another file's, until undo is called.
func replaced(t *testing.T, fd int, by string) (undo func()) {
	t.Helper()
	was, err := syscall.Dup(fd)
	require.NoError(t, err)
	f, err := os.OpenFile(by, os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, syscall.Dup3(int(f.Fd()), fd, syscall.O_CLOEXEC))
	require.NoError(t, f.Close())
	done := false
	undo = func() {
		if !done {
			done = true
			require.NoError(t, syscall.Dup3(was, fd, syscall.O_CLOEXEC))
			require.NoError(t, syscall.Close(was))
		}
	}
	t.Cleanup(undo)
	return undo
}

// pen returns the descriptor that the library writes the segment with.
func pen(t *testing.T, s *Segment) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range all {
		fd, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == s.path && fd != int(s.file.Fd()) {
			return fd
		}
	}
	require.Fail(t, "the library has no descriptor")
	return 0
}

// reads checks that every transaction through n can still be read where it lies.
func reads(t *testing.T, l *Log, places []*Commit) {
	t.Helper()
	for i, c := range places {
		s, off := c.Position()
		b := make([]byte, len(payload(i+1)))
		_, err := s.ReadAt(b, off)
		require.NoError(t, err)
		require.Equal(t, payload(i+1), string(b))
	}
}

// After a write or a sync that failed the log acknowledges nothing more, also when the disk is well again: what it
// holds is not known before it is read. What was acknowledged can be read all the while.
func TestAFailureIsForGood(t *testing.T) {
	for name, breaks := range map[string]func(t *testing.T, l *Log) (undo func()){
		"write": func(t *testing.T, l *Log) func() { return replaced(t, pen(t, l.active.Load()), "/dev/full") },
		"sync":  func(t *testing.T, l *Log) func() { return replaced(t, int(l.active.Load().file.Fd()), "/dev/zero") },
	} {
		t.Run(name, func(t *testing.T) {
			o := small(0)
			var told []error
			o.OnError = func(err error) { told = append(told, err) }
			dir := create(t, o)
			l := reopen(t, dir, o, []string{})
			var places []*Commit
			for i := 1; i <= 13; i++ {
				c, err := commit(l, payload(i))
				require.NoError(t, err)
				places = append(places, c)
				settle(t, l)
			}
			undo := breaks(t, l)
			require.NoError(t, l.Ready(10))
			failed := queue(t, l, payload(14), "with it")
			seen := answer(func() error { return l.Await(failed[1]) })
			first := l.Wait(failed[0])
			require.ErrorIs(t, first, ErrFailed)
			require.ErrorIs(t, l.Wait(failed[1]), ErrFailed)
			require.ErrorIs(t, <-seen, ErrFailed)
			require.ErrorIs(t, l.Await(failed[0]), ErrFailed)
			if name == "write" {
				require.ErrorIs(t, first, syscall.ENOSPC) // the cause
				require.ErrorContains(t, first, fmt.Sprintf("%s at offset %d", l.active.Load().path, l.active.Load().End()))
			} else {
				require.ErrorIs(t, first, syscall.EINVAL)
				require.ErrorContains(t, first, l.active.Load().path)
			}
			undo()
			for range 3 {
				require.ErrorIs(t, l.Failed(), ErrFailed)
				require.ErrorIs(t, l.Ready(1), ErrFailed)
				require.ErrorIs(t, l.Enqueue(NewCommit([]byte("more"))), ErrFailed)
				require.EqualValues(t, 13, l.Visible())
				require.EqualValues(t, 13, l.synced.Load())
				require.ErrorIs(t, l.Await(failed[0]), ErrFailed)
				require.NoError(t, l.Await(places[12]), "what was acknowledged stays so")
				reads(t, l, places)
				require.NoError(t, l.Verify(func(Frame) error { return nil }))
			}
			require.Equal(t, []error{l.Failed()}, told, "the owner is told once")
			require.ErrorIs(t, l.Close(), ErrFailed)

			// Whether the failed ones are there, whole, is what nobody knew.
			l, got, err := read(dir, small(0))
			require.NoError(t, err)
			require.NoError(t, l.Close())
			if len(got) > 13 {
				require.Equal(t, "sync", name)
				require.Equal(t, append(payloads(14), "with it"), got)
			} else {
				require.Equal(t, payloads(13), got)
			}
			goesOn(t, dir, small(0), got, "a failure")
		})
	}
}

// A batch of which the first part is sealed and durable, and the second fails: each gets its own answer.
func TestAFailureInTheSecondPartOfABatch(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	fill(t, l, 6)
	s := l.active.Load()
	replaced(t, pen(t, l.spare.ready.Load()), "/dev/full")
	batch := []string{}
	for i := 7; i <= 11; i++ {
		batch = append(batch, payload(i))
	}
	all := queue(t, l, batch...)
	_ = l.Wait(all[0])
	done := int(l.Visible())
	require.Greater(t, done, 6)
	require.Less(t, done, 11)
	for i, c := range all {
		for _, err := range []error{l.outcome(c), l.Await(c)} {
			if 7+i <= done {
				require.NoError(t, err)
				at, _ := c.Position()
				require.Same(t, s, at)
			} else {
				require.ErrorIs(t, err, ErrFailed)
			}
		}
	}
	require.ErrorIs(t, l.Close(), ErrFailed)
	holds(t, dir, o, payloads(done))
}

// What fails before the seal of the log found on opening is no failure of the log: nothing was written.
func TestTheFirstWriteMayBeTriedAgain(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	blocked := segmentDir(dir, 2)
	require.NoError(t, os.WriteFile(blocked, nil, 0o600)) // a file where a directory is to be
	for range 2 {
		require.Error(t, l.Ready(10))
		require.NoError(t, l.Failed())
	}
	require.NoError(t, os.RemoveAll(blocked))
	_, err := commit(l, payload(1))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	holds(t, dir, o, payloads(1))
}

// A next segment that can't be prepared is no failure: the active one grows, and the next attempt may succeed.
func TestAFailedPreparationIsNoFailure(t *testing.T) {
	o := small(0)
	o.OnError = func(err error) { t.Error(err) }
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	_, err := commit(l, payload(1))
	require.NoError(t, err)
	blocked := segmentDir(dir, 3)
	require.NoError(t, os.Mkdir(blocked, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(blocked, "in the way"), nil, 0o600))
	for i := 2; i <= 100; i++ {
		_, err := commit(l, payload(i))
		require.NoError(t, err)
		if i == 20 {
			until(t, "the preparation fails", func() bool { return l.spare.failed.Load() != nil })
		}
	}
	require.NoError(t, l.Failed())
	require.EqualValues(t, 2, l.active.Load().Number())
	require.Greater(t, l.active.Load().End(), 4*o.SegmentSize)
	require.NoError(t, os.RemoveAll(blocked))
	want := payloads(100)
	for i := 101; l.active.Load().Number() == 2; i++ {
		require.Less(t, i, 20_000, "the preparation is never tried again")
		_, err := commit(l, payload(i))
		require.NoError(t, err)
		want = append(want, payload(i))
	}
	require.NoError(t, l.Close())
	holds(t, dir, o, want)
}

// inLimits runs the child with dir as its argument.
func inLimits(t *testing.T, child, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+child, limitedEnv+"="+dir, "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+cmp.Or(os.Getenv("GOCOVERDIR"), t.TempDir()))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

const limitedEnv = "ONCELOG_WAL_LIMITED"

// A log that finds no room says so before anything is queued, goes on reading, and goes on writing once there is
// some. A write that finds none after all, since the file system took its promise back, fails the log for good.
func TestNoRoom(t *testing.T) {
	dir := create(t, small(0))
	inLimits(t, "limited", dir)
	l, got, err := read(dir, small(0))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	n, err := strconv.Atoi(string(readAll(t, filepath.Join(dir, "acknowledged"))))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(got), n)
	require.LessOrEqual(t, len(got), n+1)
	require.Equal(t, payloads(len(got)), got)
}

// check ends a child that did not get what it needs.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// limitedChild limits the size of its files: beyond it fallocate and write fail, which a full disk does as well, and
// which needs no privileges.
func limitedChild() {
	signal.Ignore(syscall.SIGXFSZ)
	limit := func(n uint64) {
		var r syscall.Rlimit
		check(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r))
		r.Cur = n
		check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r))
	}
	dir := os.Getenv(limitedEnv)
	o := small(0)
	l, err := Open(dir, o, Start{}, func(Frame) error { return nil })
	check(err)
	limit(300)
	for range 2 {
		if err := l.Ready(10); !errors.Is(err, syscall.EFBIG) || l.Failed() != nil || errors.Is(err, ErrFailed) {
			check(fmt.Errorf("no room for the first segment: %w", err))
		}
	}
	limit(600)
	i := 0
	next := func() error {
		c, err := commit(l, payload(i+1))
		if err == nil {
			i++
			if s, _ := c.Position(); s.End() > s.room.Load() {
				err = fmt.Errorf("segment %d is longer than the room for it", s.Number())
			}
			for !settled(l) && l.spare.failed.Load() == nil {
				runtime.Gosched()
			}
		}
		return err
	}
	for i < 30 { // many segments, each small enough
		check(next())
	}
	large := strings.Repeat("large", 200)
	for range 2 { // the segment can't grow for it; others go on
		if _, err := commit(l, large); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.EFBIG) || l.Failed() != nil {
			check(fmt.Errorf("no room for a large transaction: %w", err))
		}
		check(next())
	}
	// No room for another segment either: what is prepared is filled up to its end.
	limit(512)
	blocked := segmentDir(dir, l.spare.ready.Load().number+1)
	check(os.MkdirAll(filepath.Join(blocked, "in the way"), 0o700))
	for err == nil {
		err = next()
	}
	refused := i
	for range 3 {
		if err := next(); !errors.Is(err, ErrFull) || errors.Is(err, ErrFailed) || l.Failed() != nil || i != refused {
			check(fmt.Errorf("no room: %w", err))
		}
		check(l.Verify(func(Frame) error { return nil }))
	}
	check(os.RemoveAll(blocked))
	limit(1 << 20)
	for i < refused+100 {
		check(next())
	}

	check(l.Ready(10))
	limit(uint64(l.active.Load().End()) + 5)
	err = next()
	if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EFBIG) {
		check(fmt.Errorf("a write without room: %w", err))
	}
	limit(1 << 20)
	if err := next(); !errors.Is(err, ErrFailed) {
		check(fmt.Errorf("after a failed write: %w", err))
	}
	check(l.Verify(func(Frame) error { return nil }))
	if err := l.Close(); !errors.Is(err, ErrFailed) {
		check(fmt.Errorf("closing after a failed write: %w", err))
	}
	check(os.WriteFile(filepath.Join(dir, "acknowledged"), []byte(strconv.Itoa(i)), 0o600))
}

// After a failed sync a disk may have dropped what was written and not committed. That is no damage.
func TestVerifyAfterAFailedSyncThatTookThePages(t *testing.T) {
	o := small(0)
	l, _, err := read(create(t, o), o)
	require.NoError(t, err)
	fill(t, l, 3)
	s := l.active.Load()
	committed := s.End()
	undo := replaced(t, int(s.file.Fd()), "/dev/null") // which nobody can sync
	_, err = commit(l, "dropped")
	require.ErrorIs(t, err, ErrFailed)
	undo()
	written := s.End()
	require.Greater(t, written, committed)
	patch(t, s.path, committed, make([]byte, written-committed)...)
	require.NoError(t, l.Verify(func(Frame) error { return nil }))

	patch(t, s.path, committed-1, 0xff) // but this is
	require.ErrorIs(t, l.Verify(func(Frame) error { return nil }), ErrCorrupt)
	require.ErrorIs(t, l.Close(), ErrFailed)
}
