package wal

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/trace"
)

// A tracer runs a child (children in helper_test.go) and stops it at every system call that changes what a directory
// holds or makes that durable. There it can look at the directory, as a kill at this moment would leave it, and make
// the call fail. It needs no hooks in the code that is tested, and no privileges.

// call is a system call of the child below the directory, about to happen.
type call struct {
	name string // as in the manual; openat when it may make the file; note is what the child itself says with note()
	path string // from the directory on: of the file, or what the note says
	at   int64  // offset, of pwrite64 and ftruncate
	n    int64  // bytes, of write and pwrite64
}

func (c call) String() string {
	switch c.name {
	case "pwrite64":
		return fmt.Sprintf("%s %s %d+%d", c.name, c.path, c.at, c.n)
	case "write":
		return fmt.Sprintf("%s %s +%d", c.name, c.path, c.n)
	}
	return c.name + " " + c.path
}

// traced are the children that a tracer follows.
func traced(child func()) func() {
	return func() {
		check(trace.StopAt(slices.Collect(maps.Keys(seen))))
		child()
	}
}

const traceEnv = "ONCELOG_WAL_TRACED" // the directory

// note tells the tracer something, in the order of the calls.
func note(format string, args ...any) {
	_ = syscall.Access(filepath.Join(tracedDir(), "note", fmt.Sprintf(format, args...)), 0)
}

func tracedDir() string { return os.Getenv(traceEnv) }

// traceCalls runs the child and calls on before each of its calls; an error that on returns becomes the call's, which
// then does not happen. The child must end well.
func traceCalls(t *testing.T, child, dir string, on func(c call) syscall.Errno) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	cmd := exec.Command(os.Args[0])
	// Without a second's sleep at the end of the race detector.
	cmd.Env = append(os.Environ(), childEnv+"="+child, traceEnv+"="+dir, "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+cmp.Or(os.Getenv("GOCOVERDIR"), t.TempDir()))
	cmd.Stdout, cmd.Stderr = out, out
	status, err := trace.Run(cmd, func(pid, tid int, r *syscall.PtraceRegs) syscall.Errno {
		if c, ok := callOf(pid, tid, r, dir); ok {
			return on(c)
		}
		return 0
	})
	if errors.Is(err, trace.ErrForbidden) {
		t.Skip("this machine lets nobody trace a process")
	}
	require.NoError(t, err)
	said, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.True(t, status.Exited() && status.ExitStatus() == 0, "the child ended with %v and said:\n%s", status, said)
}

// seen are the calls at which the child is stopped.
var seen = map[uint64]string{
	syscall.SYS_WRITE: "write", syscall.SYS_PWRITE64: "pwrite64", syscall.SYS_FSYNC: "fsync", syscall.SYS_FDATASYNC: "fdatasync",
	syscall.SYS_FTRUNCATE: "ftruncate", syscall.SYS_FALLOCATE: "fallocate", syscall.SYS_CLOSE: "close", syscall.SYS_MKDIRAT: "mkdirat",
	syscall.SYS_UNLINKAT: "unlinkat", syscall.SYS_RENAMEAT: "renameat", sysRenameat2: "renameat", syscall.SYS_OPENAT: "openat",
	syscall.SYS_FACCESSAT: "note",
}

const sysRenameat2 = 316

// callOf reads the call that the thread is about to make. ok is false when it changes nothing below dir.
func callOf(pid, tid int, r *syscall.PtraceRegs, dir string) (c call, ok bool) {
	c.name = seen[r.Orig_rax]
	path := ""
	switch c.name {
	case "mkdirat", "unlinkat", "renameat", "note":
		path = trace.Text(tid, r.Rsi)
	case "openat":
		if r.Rdx&syscall.O_CREAT == 0 {
			return c, false
		}
		path = trace.Text(tid, r.Rsi)
	default:
		path = trace.File(pid, r.Rdi)
	}
	switch c.name {
	case "write":
		c.n = int64(r.Rdx)
	case "pwrite64":
		c.n, c.at = int64(r.Rdx), int64(r.R10)
	case "ftruncate":
		c.at = int64(r.Rsi)
	}
	rel, below := strings.CutPrefix(path, dir+string(filepath.Separator))
	if c.name == "note" {
		c.path, ok = strings.CutPrefix(rel, "note/")
		return c, ok && below
	}
	c.path = rel
	return c, below
}

// segmentOf returns the number of the segment that a path lies in, or is; 0 for none.
func segmentOf(path string) uint64 {
	for part := range strings.SplitSeq(path, "/") {
		if n, err := strconv.ParseUint(part, 10, 64); err == nil && len(part) == 20 {
			return n
		}
	}
	return 0
}

// changes are the calls that change what a kill leaves behind.
func (c call) changes() bool {
	switch c.name {
	case "write", "pwrite64", "ftruncate", "fallocate", "mkdirat", "openat", "unlinkat", "renameat":
		return true
	}
	return false
}
