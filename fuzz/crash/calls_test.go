//go:build linux && amd64

package crash

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/trace"
)

// call is a system call of the child below its directory, or what it notes.
type call struct {
	name      string // mkdir, open, unlink, rename, write, truncate, grow, sync, note
	path, to  string // from the directory on; of a note, what it says
	at        int64
	data      []byte
	truncates bool
}

func (c call) String() string { return fmt.Sprintf("%s %s %d+%d", c.name, c.path, c.at, len(c.data)) }

const sysRenameat2 = 316

var watched = map[uint64]string{
	syscall.SYS_WRITE: "write", syscall.SYS_PWRITE64: "pwrite", syscall.SYS_FSYNC: "sync", syscall.SYS_FDATASYNC: "sync",
	syscall.SYS_FTRUNCATE: "truncate", syscall.SYS_FALLOCATE: "fallocate", syscall.SYS_MKDIRAT: "mkdir",
	syscall.SYS_UNLINKAT: "unlink", syscall.SYS_RENAMEAT: "rename", sysRenameat2: "rename", syscall.SYS_OPENAT: "open",
	syscall.SYS_FACCESSAT: "note",
	// What the model does not know must not be used.
	syscall.SYS_PWRITEV: "pwritev", syscall.SYS_WRITEV: "writev", syscall.SYS_LINKAT: "linkat", syscall.SYS_TRUNCATE: "truncate by path",
	syscall.SYS_SENDFILE: "sendfile", 326: "copy_file_range",
}

const (
	dirEnv   = "ONCELOG_CRASH_DIR"
	neverEnv = "ONCELOG_CRASH_NEVER" // the child syncs nothing
	// recoverEnv has the child open a store that is there, at this time, instead of the workload.
	recoverEnv = "ONCELOG_CRASH_RECOVER"

	fallocateKeepSize = 1
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		err := trace.StopAt(slices.Collect(maps.Keys(watched)))
		if err == nil {
			if clock := os.Getenv(recoverEnv); clock != "" {
				err = recovering(dir, clock)
			} else {
				err = child(dir, os.Getenv(neverEnv) != "")
			}
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// note tells the parent something, in the order of the calls.
func note(dir, what string) { _ = syscall.Access(filepath.Join(dir, "note", what), 0) }

// recordCalls runs the child and returns its calls.
func recordCalls(t *testing.T, never bool) (calls []call) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	if never {
		return traced(t, dir, neverEnv+"=1")
	}
	return traced(t, dir)
}

// traced runs the child on a directory and returns its calls there.
func traced(t *testing.T, dir string, env ...string) (calls []call) {
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	require.NoError(t, err)
	defer said.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), dirEnv+"="+dir, "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+t.TempDir()), env...)
	cmd.Stdout, cmd.Stderr = said, said
	var bad error
	status, err := trace.Run(cmd, func(pid, tid int, r *syscall.PtraceRegs) syscall.Errno {
		c, ok, err := read(pid, tid, r, dir)
		if ok {
			calls = append(calls, c)
		}
		bad = errors.Join(bad, err)
		return 0
	})
	if errors.Is(err, trace.ErrForbidden) {
		t.Skip("this machine lets nobody trace a process")
	}
	require.NoError(t, err)
	require.NoError(t, bad)
	text, err := os.ReadFile(said.Name())
	require.NoError(t, err)
	require.True(t, status.Exited() && status.ExitStatus() == 0, "the child ended with %v and said:\n%s", status, text)
	return calls
}

// read reads the call that the thread is about to make. ok is false when it changes nothing below dir.
func read(pid, tid int, r *syscall.PtraceRegs, dir string) (c call, ok bool, err error) {
	c.name = watched[r.Orig_rax]
	path := ""
	switch c.name {
	case "mkdir", "unlink", "note":
		path = trace.Text(tid, r.Rsi)
	case "rename":
		path = trace.Text(tid, r.Rsi)
		c.to, _ = below(trace.Text(tid, r.R10), dir)
	case "open":
		flags := r.Rdx
		if flags&(syscall.O_CREAT|syscall.O_TRUNC) == 0 {
			return c, false, nil
		}
		path, c.truncates = trace.Text(tid, r.Rsi), flags&syscall.O_TRUNC != 0
	case "truncate by path", "linkat":
		path = trace.Text(tid, r.Rdi)
	default:
		path = trace.File(pid, r.Rdi)
	}
	if c.path, ok = below(path, dir); !ok {
		return c, false, nil
	}
	switch c.name {
	case "note":
		c.path, ok = strings.CutPrefix(c.path, "note/")
		return c, ok, nil
	case "write":
		c.at, err = position(pid, r.Rdi)
	case "pwrite":
		c.name, c.at = "write", int64(r.R10)
	case "truncate":
		c.at = int64(r.Rsi)
	case "fallocate":
		switch r.Rsi {
		case 0:
			c.name, c.at = "grow", int64(r.Rdx+r.R10)
		case fallocateKeepSize:
			return c, false, nil
		default:
			return c, false, fmt.Errorf("fallocate with mode %d", r.Rsi)
		}
	case "pwritev", "writev", "linkat", "truncate by path", "sendfile", "copy_file_range":
		return c, false, fmt.Errorf("%s of %s: the model of the disk has no such call", c.name, c.path)
	}
	if err == nil && c.name == "write" {
		c.data, err = trace.Bytes(pid, r.Rsi, int(r.Rdx))
	}
	return c, err == nil, err
}

func below(path, dir string) (string, bool) {
	if path == dir {
		return "", true
	}
	return strings.CutPrefix(path, dir+"/")
}

// position is where the next write of a descriptor goes.
func position(pid int, fd uint64) (at int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	flags := int64(0)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "pos: %d", &at)
		_, _ = fmt.Sscanf(lines.Text(), "flags: %o", &flags)
	}
	if flags&syscall.O_APPEND != 0 {
		fi, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil {
			return 0, err
		}
		at = fi.Size()
	}
	return at, nil
}
