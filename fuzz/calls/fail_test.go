//go:build linux && amd64

package calls

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/fuzz/trace"
)

var (
	callsAll  = flag.Bool("calls.all", false, "make each system call fail, in each way, instead of some")
	callsSeed = flag.Uint64("calls.seed", 0, "of the workload and of the choice of calls that fail; 0 = another each time")
	callsOnly = flag.String("calls.only", "", "only this one, as a failure names it: \"pwrite64 3 once input/output error\"")
)

const sysRenameat2 = 316

var watched = map[uint64]string{
	syscall.SYS_OPENAT: "openat", syscall.SYS_WRITE: "write", syscall.SYS_PWRITE64: "pwrite64", syscall.SYS_FSYNC: "fsync",
	syscall.SYS_FDATASYNC: "fdatasync", syscall.SYS_CLOSE: "close", syscall.SYS_RENAMEAT: "renameat", sysRenameat2: "renameat",
	syscall.SYS_UNLINKAT: "unlinkat", syscall.SYS_FTRUNCATE: "ftruncate", syscall.SYS_MKDIRAT: "mkdirat",
	syscall.SYS_FALLOCATE: "fallocate", syscall.SYS_MMAP: "mmap", syscall.SYS_PREAD64: "pread64", syscall.SYS_READ: "read",
}

// errnos are those that a call may give. A mapping without a file has nothing but memory to lack, and reading needs no
// space.
func errnos(name string) []syscall.Errno {
	switch name {
	case "mmap":
		return []syscall.Errno{syscall.ENOMEM}
	case "pread64", "read", "close":
		return []syscall.Errno{syscall.EIO}
	}
	return []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.EROFS}
}

// injection is what fails.
type injection struct {
	name    string
	n       int // the n-th of that name
	forGood bool
	errno   syscall.Errno
}

func (i injection) String() string {
	return fmt.Sprintf("%s %d %s %s", i.name, i.n, map[bool]string{false: "once", true: "for good"}[i.forGood], i.errno)
}

// outcome is what the parent saw of a child's life.
type outcome struct {
	calls  map[string]int
	failed string // path of the call that failed first, from the directory on; "" if none did
	at     int64  // how much the child had said by then
	over   bool   // the store was opened since
	said   []byte
}

// live runs a child in dir, and makes that fail.
func live(t *testing.T, dir string, seed uint64, what injection) outcome {
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	require.NoError(t, err)
	defer said.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dirEnv+"="+dir, seedEnv+"="+fmt.Sprint(seed), "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+cmp.Or(os.Getenv("GOCOVERDIR"), t.TempDir()))
	errs, err := os.Create(filepath.Join(t.TempDir(), "errs")) // a file: nobody waits for what copies a pipe
	require.NoError(t, err)
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = said, errs
	o := outcome{calls: map[string]int{}}
	store := uint64(0) // where the program makes its calls; the runtime makes its own elsewhere
	status, err := trace.Run(cmd, func(pid, tid int, r *syscall.PtraceRegs) syscall.Errno {
		name, path := watched[r.Orig_rax], ""
		switch name {
		case "openat", "mkdirat", "unlinkat", "renameat":
			path = trace.Text(tid, r.Rsi)
		case "mmap":
			if r.Rip != store {
				return 0
			}
			path = dir + "/memory"
		default:
			path = trace.File(pid, r.Rdi)
		}
		path, ok := strings.CutPrefix(path, dir+"/")
		if !ok {
			return 0
		}
		if store == 0 {
			store = r.Rip
		}
		o.calls[name]++
		if name != what.name || o.calls[name] < what.n || o.calls[name] > what.n && !what.forGood {
			return 0
		}
		if o.failed == "" {
			fi, err := said.Stat()
			if err != nil {
				panic(err)
			}
			o.failed, o.at = path, fi.Size()
		}
		if name == "close" {
			return what.errno | trace.Done
		}
		return what.errno
	})
	if errors.Is(err, trace.ErrForbidden) {
		t.Skip("this machine lets nobody trace a process")
	}
	require.NoError(t, err)
	o.said, err = os.ReadFile(said.Name())
	require.NoError(t, err)
	wrong, err := os.ReadFile(errs.Name())
	require.NoError(t, err)
	require.True(t, status.Exited() && status.ExitStatus() == 0 && len(wrong) == 0, "%v: the child ended with %v and said:\n%s\n%s", what, status, wrong, tail(o.said))
	return o
}

func tail(b []byte) []byte { return b[max(0, len(b)-3000):] }

// judge goes through what a child said, and looks at what it left.
func (o *outcome) judge(dir string, what injection) (silent string, err error) {
	l := NewLedger(0)
	now := int64(Begins)
	told, latched := false, false // the error was seen; nothing may be acknowledged before the store is opened again
	doing, during, at := "", "", int64(0)
	tries, changes := 0, 0
	for in := bufio.NewScanner(bytes.NewReader(o.said)); in.Scan(); {
		var line Line
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return "", fmt.Errorf("%w: %s", err, in.Bytes())
		}
		past := o.failed != "" && at >= o.at
		at += int64(len(in.Bytes())) + 1
		if f := line.Failure; f != nil {
			if !past {
				return "", fmt.Errorf("%s failed before anything did: %s", doing, f.Text)
			}
			told = told || slices.Contains(f.Errnos, what.errno)
		}
		switch line.What {
		case "begin":
			doing = string(line.Op.Kind)
			l.Begin(*line.Op, line.Now)
			changes = len(l.states)
			latched = latched || past && o.commits(what, during)
		case "answer":
			if latched && line.Failure == nil && changes > 0 {
				return "", fmt.Errorf("%s was acknowledged after %v failed on the way of a commit", doing, what)
			}
			if err := l.Answer(line.Answer, line.Failure); err != nil {
				return "", err
			}
		case "found":
			if line.Failure != nil {
				break
			}
			now = line.Now
			if err := l.Found(line.Contents, now); err != nil {
				return "", o.unlessResults(err, what, during)
			}
		case "copy":
			if line.Failure == nil && !l.May(line.Contents, line.Now) {
				return "", fmt.Errorf("the restored copy differs:\n%s", Difference(l.now.Contents(0, line.Now), line.Contents))
			}
		case "open":
			doing = line.What
		case "opened":
			tries++
			switch {
			case line.Failure == nil:
				tries, latched, o.over = 0, false, past // a store that was opened since starts anew
			case tries > 1 && !what.forGood:
				return "", fmt.Errorf("what failed once keeps the store shut: %s", line.Failure.Text)
			}
		case "answered", "log", "closed", "backed up", "restored":
		default:
			doing = line.What
		}
		if at <= o.at {
			during = doing // nothing had failed when this was said
		}
	}
	if err := lookAfterwards(filepath.Join(dir, "store"), now, l); err != nil {
		return "", o.unlessResults(err, what, during)
	}
	if err := lookAtCopy(filepath.Join(dir, "copy"), now); err != nil {
		return "", err
	}
	if !told && o.failed != "" && o.harmless(what, during) == "" {
		return fmt.Sprintf("%s: %s %s", during, what.name, pattern(o.failed)), nil
	}
	return "", nil
}

// commits reports whether what failed is on the way of a commit: written to the log, or its sync, while calls were made.
// Opening, which also writes, fails itself.
func (o *outcome) commits(what injection, during string) bool {
	return !o.over && strings.HasPrefix(o.failed, "store/wal/0") && !slices.Contains([]string{"open", "look", "close", "back up", "restore"}, during) &&
		slices.Contains([]string{"write", "pwrite64", "fdatasync"}, what.name)
}

// harmless says why nobody need hear that a call failed; "" if somebody must. What each costs is that something is done
// again, or that space is taken for longer.
func (o *outcome) harmless(what injection, during string) string {
	segment := strings.Contains(o.failed, "/wal/0")
	switch {
	case what.name == "pread64" && !what.forGood && strings.HasPrefix(during, "do"):
		return "what can't be recorded with its result at the first try is recorded without it at the second, and its caller has it"
	case what.name == "mmap":
		return "the index asks for less, or puts a new key off"
	case what.name == "close":
		return "all that was written through it was synced before, by somebody who looked"
	case what.name == "ftruncate" && segment:
		return "only the space that was prepared and not used"
	case what.name == "pwrite64" && strings.HasSuffix(o.failed, "LOCK"):
		return "who has the lock, for people; the lock counts"
	case what.name == "openat" && strings.HasPrefix(o.failed, "store/snapshot/0") && during != "open":
		return "an older snapshot, to be removed piece by piece; it is removed at once"
	case what.name == "unlinkat" && strings.HasSuffix(o.failed, "MANIFEST.tmp"):
		return "nothing was there: os.Remove tries the other kind, and reports that"
	case what.name == "unlinkat" && segment:
		return "os.Remove tries the other kind; a spare segment that stays is removed by the next opening"
	case segment && slices.Contains([]string{"mkdirat", "openat", "fallocate", "fsync"}, what.name) || what.name == "openat" && strings.HasSuffix(o.failed, "/wal") || what.name == "fsync" && strings.HasSuffix(o.failed, "/wal"):
		return "a spare segment, prepared in the background; without one the log asks again, or grows"
	}
	return ""
}

// unlessResults returns a contradiction, unless a read that failed once while results were being recorded has cost them:
// what was done is known as done, and that is all that differs.
func (o *outcome) unlessResults(err error, what injection, during string) error {
	if what.name != "pread64" || what.forGood || !strings.HasPrefix(during, "do") {
		return err
	}
	done, gone := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(err.Error()) {
		switch key, state, ok := strings.Cut(line, ": done "); {
		case ok && strings.HasPrefix(key, "- ") && strings.HasPrefix(state, "1 "):
			done[key[2:]] = true
		case ok && strings.HasPrefix(key, "+ ") && strings.HasPrefix(state, "3 "):
			gone[key[2:]] = true
		case strings.HasPrefix(line, "- "), strings.HasPrefix(line, "+ "):
			return err
		}
	}
	if len(done) == 0 || !maps.Equal(done, gone) {
		return err
	}
	return nil
}

// pattern is a path without its numbers.
func pattern(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if len(p) >= 20 {
			parts[i] = "N" + p[20:]
		}
	}
	return strings.Join(parts, "/")
}

// lookAfterwards opens the store, without failures.
func lookAfterwards(dir string, now int64, l *Ledger) error {
	st, err := oncelog.Open(dir, Options(func() int64 { return now }))
	if err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	s, err := NewService(st)
	if err != nil {
		return err
	}
	got, err := s.Contents(0)
	err = errors.Join(err, st.Verify(), st.Close())
	if err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	if err := l.Found(got, now); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return nil
}

// lookAtCopy sees that the restored store is whole or none.
func lookAtCopy(dir string, now int64) error {
	o := Options(func() int64 { return now })
	o.MustExist = true
	st, err := oncelog.Open(dir, o)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, oncelog.ErrForeign) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the copy: %w", err)
	}
	return st.Close()
}

func TestEachCallFails(t *testing.T) {
	seed := *callsSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-calls.seed=%d", seed)
	base := memoryDir(t)
	whole := live(t, filepath.Join(base, "whole"), seed, injection{})
	_, err := whole.judge(filepath.Join(base, "whole"), injection{})
	require.NoError(t, err)
	t.Logf("calls of an undisturbed life: %v", whole.calls)
	for _, name := range watched {
		require.Positive(t, whole.calls[name], name)
	}
	all := injections(whole.calls)
	chosen := all
	if *callsOnly != "" {
		chosen = slices.DeleteFunc(chosen, func(i injection) bool { return i.String() != *callsOnly })
	} else if !*callsAll {
		chosen = sample(rand.New(rand.NewPCG(seed, 1)), all, wanted())
	}
	began := time.Now()
	for i, what := range chosen {
		if !*callsAll && time.Since(began) > bounded { // a slow machine
			chosen = chosen[:i]
			break
		}
		dir := filepath.Join(base, fmt.Sprint(i))
		o := live(t, dir, seed, what)
		silent, err := o.judge(dir, what)
		if err != nil || silent != "" {
			require.NoError(t, os.WriteFile(filepath.Join(t.ArtifactDir(), "said"), o.said, 0o600))
		}
		require.NoError(t, err, "-calls.seed=%d -calls.only=%q, at %s", seed, what.String(), o.failed)
		require.Empty(t, silent, "-calls.seed=%d -calls.only=%q: nobody heard of it", seed, what.String())
		require.NoError(t, os.RemoveAll(dir))
	}
	t.Logf("%d of %d failures in %v", len(chosen), len(all), time.Since(began).Round(time.Second))
	require.NotEmpty(t, chosen)
}

// bounded is how long a test may take that is not told to make every call fail.
const bounded = 50 * time.Second

// injections is the full product.
func injections(calls map[string]int) (all []injection) {
	for name, n := range calls {
		for n := range n {
			for _, errno := range errnos(name) {
				all = append(all, injection{name, n + 1, false, errno}, injection{name, n + 1, true, errno})
			}
		}
	}
	slices.SortFunc(all, func(a, b injection) int {
		return strings.Compare(fmt.Sprintf("%s %06d", a, a.n), fmt.Sprintf("%s %06d", b, b.n))
	})
	return all
}

func wanted() int {
	if testing.Short() {
		return 40
	}
	return 300
}

// sample takes so many, of each call at least some.
func sample(rnd *rand.Rand, all []injection, n int) []injection {
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	seen := map[string]int{}
	rare := func(i injection) int { seen[i.name]++; return seen[i.name] }
	rank := map[injection]int{}
	for _, i := range all {
		rank[i] = rare(i)
	}
	slices.SortStableFunc(all, func(a, b injection) int { return min(rank[a], 1+n/30) - min(rank[b], 1+n/30) })
	return all[:min(n, len(all))]
}

func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-calls-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
