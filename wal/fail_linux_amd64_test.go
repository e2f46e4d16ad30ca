package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func init() {
	children["fail"] = traced(failChild)
}

// Every system call of a log's life fails once, and only once: whoever tries again succeeds. No acknowledged
// transaction is lost and none comes twice; what fails on the way of a commit fails the log for good; what fails in
// the background, or before anything is written, does not.
func TestEachCallFailsOnce(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 4
	}
	t.Run("EIO", func(t *testing.T) { eachCallFails(t, syscall.EIO, step) })
	t.Run("ENOSPC", func(t *testing.T) { eachCallFails(t, syscall.ENOSPC, 2*step) })
}

// tiny returns options with which two or three transactions fill a segment.
func tiny() Options {
	o := small(0)
	o.SegmentSize = 300
	return o
}

func eachCallFails(t *testing.T, errno syscall.Errno, step int) {
	o := tiny()
	o.Sync = never
	killed, _, _, _ := tornLog(t, o, 9)
	base := memoryDir(t)
	copyTo(t, killed, filepath.Join(base, "killed"))
	t.Setenv("ONCELOG_WAL_STEP", strconv.Itoa(step))
	type round struct {
		calls   int
		failed  call
		phase   string // in which it failed
		latched bool
	}
	rounds := map[int]*round{}
	phase := ""
	traceCalls(t, "fail", base, func(c call) syscall.Errno {
		if c.name == "note" {
			name, what, _ := strings.Cut(c.path, " ")
			n, err := strconv.Atoi(name)
			require.NoError(t, err)
			if rounds[n] == nil {
				rounds[n] = &round{}
			}
			phase = what
			switch {
			case what == "latched":
				rounds[n].latched = true
			case what == "done" && rounds[n].calls < n: // there was no such call: all have failed
				require.NoError(t, os.WriteFile(filepath.Join(base, "stop"), nil, 0o600))
			}
			return 0
		}
		name, _, _ := strings.Cut(c.path, "/")
		n, err := strconv.Atoi(name)
		if err != nil || phase == "aside" || c.name == "close" && segmentOf(c.path) == 0 {
			return 0
		}
		r := rounds[n]
		if r.calls++; r.calls != n {
			return 0
		}
		r.failed, r.phase = c, phase
		return errno
	})
	latched, saw := 0, map[string]int{}
	for n, r := range rounds {
		if r.calls < n {
			continue
		}
		saw[r.phase+" "+r.failed.name]++
		if r.latched {
			latched++
		}
		if r.phase != "write" {
			continue
		}
		switch r.failed.name {
		case "write", "pwrite64", "fdatasync":
			require.True(t, r.latched, "%s is on the way of a commit", r.failed)
		case "mkdirat", "openat", "fallocate", "unlinkat", "ftruncate":
			require.False(t, r.latched, "%s endangers nothing", r.failed)
		}
	}
	t.Logf("%d calls failed, %d of them for good: %v", len(rounds), latched, saw)
	if step > 1 {
		return
	}
	require.Greater(t, len(rounds), 100)
	require.Greater(t, latched, 20)
	for _, what := range []string{"create mkdirat", "create write", "create fsync", "open pwrite64", "open fsync", "open unlinkat",
		"write write", "write pwrite64", "write fdatasync", "write fallocate", "write mkdirat", "write fsync", "close write", "close fdatasync", "close fsync"} {
		require.Positive(t, saw[what], what)
	}
}

func failChild() {
	step, err := strconv.Atoi(os.Getenv("ONCELOG_WAL_STEP"))
	check(err)
	for n := 1; ; n += step {
		note("%04d aside", n)
		dir := filepath.Join(tracedDir(), fmt.Sprintf("%04d", n))
		check(os.Mkdir(dir, 0o700))
		killed := filepath.Join(dir, "killed")
		check(os.CopyFS(killed, os.DirFS(filepath.Join(tracedDir(), "killed"))))
		if err := live(n, killed, 9, 1); err != nil {
			check(fmt.Errorf("round %d, a log that was killed: %w", n, err))
		}
		fresh := filepath.Join(dir, "fresh")
		note("%04d create", n)
		if err := Create(fresh, tiny()); err != nil {
			if unborn, e := Unborn(fresh); e != nil || !unborn {
				check(fmt.Errorf("round %d: after %w it can't be tried again: %w", n, err, e))
			}
			check(Create(fresh, tiny()))
		}
		if err := live(n, fresh, 0, 2); err != nil {
			check(fmt.Errorf("round %d, a new log: %w", n, err))
		}
		note("%04d done", n)
		note("%04d aside", n)
		check(os.RemoveAll(dir))
		if _, err := os.Stat(filepath.Join(tracedDir(), "stop")); err == nil {
			return
		}
	}
}

// live opens the log, which holds n transactions, writes more and closes it, as often as told, and opens it once
// more. One call on the way fails.
func live(round int, dir string, n, lives int) error {
	unknown := 0 // transactions that may be there or not
	for life := range lives + 1 {
		note("%04d open", round)
		l, got, err := read(dir, tiny())
		if err != nil {
			if errors.Is(err, ErrCorrupt) {
				return fmt.Errorf("a failed call passes for damage: %w", err)
			}
			if l, got, err = read(dir, tiny()); err != nil {
				return fmt.Errorf("the second opening: %w", err)
			}
		}
		if len(got) < n || len(got) > n+unknown {
			return fmt.Errorf("%d transactions of %d to %d", len(got), n, n+unknown)
		}
		n, unknown = len(got), 0
		for i, p := range got {
			if p != payload(i+1) {
				return fmt.Errorf("transaction %d is %q", i+1, p)
			}
		}
		if life == lives {
			return l.Close()
		}
		note("%04d write", round)
		var places []*Commit
		for end := n + 5; n < end && unknown == 0; {
			c, err := commit(l, payload(n+1))
			switch {
			case err == nil:
				n++
				places = append(places, c)
			case errors.Is(err, ErrFailed):
				unknown = 1
			default: // refused, with nothing written; it failed once, so it works now
				if l.Failed() != nil {
					return fmt.Errorf("refused with %w, and failed with %w", err, l.Failed())
				}
				if c, err = commit(l, payload(n+1)); err != nil {
					return fmt.Errorf("trying again: %w", err)
				}
				n++
				places = append(places, c)
			}
			if l.Failed() == nil && !settled(l) && l.spare.failed.Load() == nil {
				l.spare.make(l, l.spare.fill) // what the background does, or waits for it
			}
		}
		if l.Failed() != nil {
			note("%04d latched", round)
			for range 2 {
				if _, err := commit(l, payload(n+1)); !errors.Is(err, ErrFailed) {
					return fmt.Errorf("after a failure: %w", err)
				}
			}
		}
		for i, c := range places {
			want := payload(n - len(places) + i + 1)
			b := make([]byte, len(want))
			s, off := c.Position()
			if _, err := s.ReadAt(b, off); err != nil || string(b) != want {
				return fmt.Errorf("reading back %q: %q, %w", want, b, err)
			}
		}
		failed := l.Failed()
		note("%04d close", round)
		if err := l.Close(); err != nil && !errors.Is(err, ErrFailed) || failed != nil && l.active.Load() != nil && err == nil {
			return fmt.Errorf("closing: %w", err)
		}
	}
	return nil
}
