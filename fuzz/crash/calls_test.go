//go:build linux && amd64

package crash

import (
	"bufio"
	"cmp"
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

// call is a system call of the child below its directory, when it begins and once more when it ends, or what the child
// notes. The fields have capitals for encoding/gob.
type call struct {
	ID        int
	Name      string // mkdir, open, unlink, rmdir, rename, write, truncate, grow, sync, note; end
	Path, To  string // from the directory on; of a note, what it says
	At        int64
	Data      []byte
	Truncates bool
	Errno     syscall.Errno // of an end
}

func (c call) String() string {
	if c.Name == "end" {
		return fmt.Sprintf("the end of %d, %d", c.ID, c.Errno)
	}
	return fmt.Sprintf("%d %s %s %d+%d", c.ID, c.Name, c.Path, c.At, len(c.Data))
}

const (
	sysRenameat2 = 316
	atRemovedir  = 0x200
	// The kernel's own: the call was interrupted and is made again.
	erestartFirst, erestartLast = 512, 516
)

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
	dirEnv  = "ONCELOG_CRASH_DIR"
	roleEnv = "ONCELOG_CRASH_ROLE" // which of children runs, and for what
	argEnv  = "ONCELOG_CRASH_ARG"

	fallocateKeepSize = 1
)

// children are what a traced process may do, below a directory.
var children = map[string]func(dir, arg string) error{}

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		err := trace.StopAt(slices.Collect(maps.Keys(watched)))
		if err == nil {
			err = children[os.Getenv(roleEnv)](dir, os.Getenv(argEnv))
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

// recordCalls runs the child in a directory of its own, on a disk, and returns its calls.
func recordCalls(t *testing.T, role, arg string) []call {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return traced(t, dir, role, arg, nil)
}

// traced runs the child on a directory and returns its calls there. fail may be nil; an error of its becomes the call's.
func traced(t *testing.T, dir, role, arg string, fail func(c call) syscall.Errno) []call {
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	require.NoError(t, err)
	defer said.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dirEnv+"="+dir, roleEnv+"="+role, argEnv+"="+arg, "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+cmp.Or(os.Getenv("GOCOVERDIR"), t.TempDir()))
	cmd.Stdout, cmd.Stderr = said, said
	r := recorder{dir: dir, inside: map[int]call{}}
	status, err := trace.RunBoth(cmd, func(pid, tid int, regs *syscall.PtraceRegs) syscall.Errno {
		delete(r.inside, tid)
		c, ok, err := read(pid, tid, regs, dir)
		r.bad = errors.Join(r.bad, err)
		if !ok || err != nil {
			return 0
		}
		c.ID = len(r.calls)
		r.calls = append(r.calls, c)
		if c.Name == "note" {
			return 0
		}
		r.inside[tid] = c
		if fail != nil {
			return fail(c)
		}
		return 0
	}, r.ended)
	if errors.Is(err, trace.ErrForbidden) {
		t.Skip("this machine lets nobody trace a process")
	}
	require.NoError(t, err)
	require.NoError(t, r.bad)
	text, err := os.ReadFile(said.Name())
	require.NoError(t, err)
	require.True(t, status.Exited() && status.ExitStatus() == 0, "the child ended with %v and said:\n%s", status, text)
	return r.calls
}

// recorder gathers the calls.
type recorder struct {
	dir    string
	calls  []call
	inside map[int]call // by thread, the call that it is in
	bad    error
}

func (r *recorder) ended(_, tid int, regs *syscall.PtraceRegs) {
	c, ok := r.inside[tid]
	if !ok {
		return
	}
	delete(r.inside, tid)
	end := call{ID: c.ID, Name: "end"}
	if result := int64(regs.Rax); result < 0 {
		end.Errno = syscall.Errno(-result)
		if end.Errno >= erestartFirst && end.Errno <= erestartLast {
			end.Errno = syscall.EINTR
		}
	} else if c.Name == "write" && result != int64(len(c.Data)) {
		r.bad = errors.Join(r.bad, fmt.Errorf("%v: a short write", c))
	}
	r.calls = append(r.calls, end)
}

// read reads the call that the thread is about to make. ok is false when it changes nothing below dir.
func read(pid, tid int, r *syscall.PtraceRegs, dir string) (c call, ok bool, err error) {
	c.Name = watched[r.Orig_rax]
	path := ""
	switch c.Name {
	case "mkdir", "unlink", "note":
		path = trace.Text(tid, r.Rsi)
		if c.Name == "unlink" && r.Rdx&atRemovedir != 0 {
			c.Name = "rmdir"
		}
	case "rename":
		path = trace.Text(tid, r.Rsi)
		c.To, _ = below(trace.Text(tid, r.R10), dir)
	case "open":
		flags := r.Rdx
		if flags&(syscall.O_CREAT|syscall.O_TRUNC) == 0 {
			return c, false, nil
		}
		path, c.Truncates = trace.Text(tid, r.Rsi), flags&syscall.O_TRUNC != 0
	case "truncate by path", "linkat":
		path = trace.Text(tid, r.Rdi)
	default:
		path = trace.File(pid, r.Rdi)
	}
	if path != "" && !filepath.IsAbs(path) && c.Name != "note" && trace.File(pid, r.Rdi) != path {
		return c, false, fmt.Errorf("%s of %s: relative to what?", c.Name, path)
	}
	if c.Path, ok = below(path, dir); !ok {
		return c, false, nil
	}
	switch c.Name {
	case "note":
		c.Path, ok = strings.CutPrefix(c.Path, "note/")
		return c, ok, nil
	case "write":
		c.At, err = position(pid, r.Rdi)
	case "pwrite":
		c.Name, c.At = "write", int64(r.R10)
	case "truncate":
		c.At = int64(r.Rsi)
	case "fallocate":
		switch r.Rsi {
		case 0:
			c.Name, c.At = "grow", int64(r.Rdx+r.R10)
		case fallocateKeepSize:
			return c, false, nil
		default:
			return c, false, fmt.Errorf("fallocate with mode %d", r.Rsi)
		}
	case "pwritev", "writev", "linkat", "truncate by path", "sendfile", "copy_file_range":
		return c, false, fmt.Errorf("%s of %s: the model of the disk has no such call", c.Name, c.Path)
	}
	if err == nil && c.Name == "write" {
		c.Data, err = trace.Bytes(pid, r.Rsi, int(r.Rdx))
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
