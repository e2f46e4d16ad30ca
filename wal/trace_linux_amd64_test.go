package wal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
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
		check(stopAtCalls())
		child()
	}
}

const traceEnv = "ONCELOG_WAL_TRACED" // the directory

// note tells the tracer something, in the order of the calls.
func note(format string, args ...any) {
	_ = syscall.Access(filepath.Join(tracedDir(), "note", fmt.Sprintf(format, args...)), 0)
}

func tracedDir() string { return os.Getenv(traceEnv) }

// trace runs the child and calls on before each of its calls; an error that on returns becomes the call's, which
// then does not happen. The child must end well.
func trace(t *testing.T, child, dir string, on func(c call) syscall.Errno) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	// The kernel lets only the thread that started the child control it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(os.Args[0])
	// Without a second's sleep at the end of the race detector.
	cmd.Env = append(os.Environ(), childEnv+"="+child, traceEnv+"="+dir, "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		t.Skip("this machine lets nobody trace a process")
	} else {
		require.NoError(t, err)
	}
	pid := cmd.Process.Pid
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Process.Release() }()
	status, err := follow(pid, dir, on)
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

const (
	sysRenameat2 = 316
	sysSeccomp   = 317

	seccompSetModeFilter = 1
	seccompTsync         = 1 // for all threads
	seccompTrace         = 0x7ff00000
	seccompAllow         = 0x7fff0000
	prSetNoNewPrivs      = 38

	wnothread          = 0x20000000 // wait only for what this thread traces, not for the process's other children
	ptraceExitKill     = 0x00100000
	ptraceTraceSeccomp = 0x00000080
	ptraceOptions      = syscall.PTRACE_O_TRACECLONE | ptraceTraceSeccomp | ptraceExitKill
	eventSeccomp       = 7
)

// stopAtCalls makes this process stop at those calls and at no others: stopping at each is ten times as slow.
func stopAtCalls() error {
	const load, equal, ret = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, syscall.BPF_RET | syscall.BPF_K
	filter := []syscall.SockFilter{{Code: load, K: 0}} // the call's number
	for n := range seen {
		filter = append(filter, syscall.SockFilter{Code: equal, K: uint32(n), Jf: 1}, syscall.SockFilter{Code: ret, K: seccompTrace})
	}
	filter = append(filter, syscall.SockFilter{Code: ret, K: seccompAllow})
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("no new privileges: %w", errno)
	}
	if r, _, errno := syscall.RawSyscall(sysSeccomp, seccompSetModeFilter, seccompTsync, uintptr(unsafe.Pointer(&program))); errno != 0 || r != 0 {
		return fmt.Errorf("seccomp: %d, %w", r, errno)
	}
	return nil
}

func follow(pid int, dir string, on func(c call) syscall.Errno) (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
		return status, fmt.Errorf("wait for the start: %w", err)
	}
	if err := syscall.PtraceSetOptions(pid, ptraceOptions); err != nil {
		return status, fmt.Errorf("options: %w", err)
	}
	known := map[int]bool{pid: true} // threads that have had their first stop
	tid, signal := pid, 0
	for {
		_ = syscall.PtraceCont(tid, signal) // one that is gone will be reaped
		var err error
		for tid = -1; tid < 0; {
			if tid, err = syscall.Wait4(-1, &status, syscall.WALL|wnothread, nil); err != nil && !errors.Is(err, syscall.EINTR) {
				return status, fmt.Errorf("wait: %w", err)
			}
		}
		signal = 0
		switch {
		case !status.Stopped():
			if tid == pid {
				return status, nil
			}
		case status.StopSignal() == syscall.SIGTRAP && status.TrapCause() == eventSeccomp:
			var r syscall.PtraceRegs
			if err := syscall.PtraceGetRegs(tid, &r); err != nil {
				return status, fmt.Errorf("registers: %w", err)
			}
			c, ok := callOf(pid, tid, &r, dir)
			if !ok {
				continue
			}
			if errno := on(c); errno != 0 {
				r.Orig_rax, r.Rax = ^uint64(0), uint64(-int64(errno)) // no call, and this is its result
				if err := syscall.PtraceSetRegs(tid, &r); err != nil {
					return status, fmt.Errorf("registers: %w", err)
				}
			}
		case status.StopSignal() == syscall.SIGTRAP, status.StopSignal() == syscall.SIGSTOP && !known[tid]:
			known[tid] = true
		default:
			signal = int(status.StopSignal())
		}
	}
}

// callOf reads the call that the thread is about to make. ok is false when it changes nothing below dir.
func callOf(pid, tid int, r *syscall.PtraceRegs, dir string) (c call, ok bool) {
	c.name = seen[r.Orig_rax]
	path := ""
	switch c.name {
	case "mkdirat", "unlinkat", "renameat", "note":
		path = text(tid, r.Rsi)
	case "openat":
		if r.Rdx&syscall.O_CREAT == 0 {
			return c, false
		}
		path = text(tid, r.Rsi)
	default:
		path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, r.Rdi))
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

// text reads the string at an address of the child.
func text(tid int, at uint64) string {
	var b []byte
	for chunk := make([]byte, 64); len(b) < 4096; at += uint64(len(chunk)) {
		n, err := syscall.PtracePeekData(tid, uintptr(at), chunk)
		if i := bytes.IndexByte(chunk[:n], 0); i >= 0 {
			return string(append(b, chunk[:i]...))
		}
		b = append(b, chunk[:n]...)
		if err != nil || n < len(chunk) {
			break
		}
	}
	return string(b)
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
