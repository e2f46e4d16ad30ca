package trace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

const (
	sysSeccomp = 317

	seccompSetModeFilter = 1
	seccompTsync         = 1 // for all threads
	seccompTrace         = 0x7ff00000
	seccompAllow         = 0x7fff0000
	prSetNoNewPrivs      = 38

	wnothread          = 0x20000000 // wait only for what this thread traces, not for the process's other children
	ptraceExitKill     = 0x00100000
	ptraceTraceSeccomp = 0x00000080
	ptraceOptions      = syscall.PTRACE_O_TRACECLONE | syscall.PTRACE_O_TRACESYSGOOD | ptraceTraceSeccomp | ptraceExitKill
	eventSeccomp       = 7
	sysgood            = 0x80 // set in the signal of a stop at a call's end
)

// StopAt makes this process, the child, stop at these calls and at no others: stopping at each is ten times as slow.
func StopAt(calls []uint64) error {
	const load, equal, ret = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, syscall.BPF_RET | syscall.BPF_K
	filter := []syscall.SockFilter{{Code: load, K: 0}} // the call's number
	for _, n := range calls {
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

// ErrForbidden: this machine lets nobody trace a process.
var ErrForbidden = errors.New("tracing is forbidden here")

// Done, added to an error that on returns, has the call happen all the same: only its result is the error. So close
// fails, which gives up the descriptor whatever it says.
const Done syscall.Errno = 1 << 16

// Run starts the command, which calls StopAt, and calls on before each of those calls; an error that on returns becomes
// the call's, which then does not happen, but for Done. It returns when the process has ended.
func Run(cmd *exec.Cmd, on func(pid, tid int, r *syscall.PtraceRegs) syscall.Errno) (syscall.WaitStatus, error) {
	return RunBoth(cmd, on, nil)
}

// RunBoth is Run that also calls ended when a call has its result, which is in Rax, and before the thread goes on. A
// thread's calls alternate: one begins, it ends. Of two threads, a call that began before the other's ended was beside
// it, whatever the order in which they are told.
func RunBoth(cmd *exec.Cmd, on func(pid, tid int, r *syscall.PtraceRegs) syscall.Errno, ended func(pid, tid int, r *syscall.PtraceRegs)) (syscall.WaitStatus, error) {
	// The kernel lets only the thread that started the child control it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		return 0, fmt.Errorf("%w: %w", ErrForbidden, err)
	} else if err != nil {
		return 0, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Process.Release() }()
	return follow(cmd.Process.Pid, on, ended)
}

func follow(pid int, on func(pid, tid int, r *syscall.PtraceRegs) syscall.Errno, ended func(pid, tid int, r *syscall.PtraceRegs)) (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
		return status, fmt.Errorf("wait for the start: %w", err)
	}
	if err := syscall.PtraceSetOptions(pid, ptraceOptions); err != nil {
		return status, fmt.Errorf("options: %w", err)
	}
	known := map[int]bool{pid: true}   // threads that have had their first stop
	results := map[int]syscall.Errno{} // of the threads that are inside a call that happens and fails
	tid, signal, toEnd := pid, 0, false
	for {
		// One that is gone will be reaped.
		if toEnd {
			_ = syscall.PtraceSyscall(tid, signal) // stops again at the call's end
		} else {
			_ = syscall.PtraceCont(tid, signal)
		}
		var err error
		for tid = -1; tid < 0; {
			if tid, err = syscall.Wait4(-1, &status, syscall.WALL|wnothread, nil); err != nil && !errors.Is(err, syscall.EINTR) {
				return status, fmt.Errorf("wait: %w", err)
			}
		}
		signal, toEnd = 0, false
		switch {
		case !status.Stopped():
			if tid == pid {
				return status, nil
			}
		case status.StopSignal() == syscall.SIGTRAP && status.TrapCause() == eventSeccomp:
			toEnd = ended != nil
			var r syscall.PtraceRegs
			if err := syscall.PtraceGetRegs(tid, &r); err != nil {
				return status, fmt.Errorf("registers: %w", err)
			}
			if errno := on(pid, tid, &r); errno&Done != 0 {
				results[tid], toEnd = errno&^Done, true
			} else if errno != 0 {
				r.Orig_rax, r.Rax = ^uint64(0), uint64(-int64(errno)) // no call, and this is its result
				if err := syscall.PtraceSetRegs(tid, &r); err != nil {
					return status, fmt.Errorf("registers: %w", err)
				}
			}
		case status.StopSignal() == syscall.SIGTRAP|sysgood:
			var r syscall.PtraceRegs
			if err := syscall.PtraceGetRegs(tid, &r); err != nil {
				return status, fmt.Errorf("registers: %w", err)
			}
			if errno := results[tid]; errno != 0 {
				r.Rax = uint64(-int64(errno))
				delete(results, tid)
				if err := syscall.PtraceSetRegs(tid, &r); err != nil {
					return status, fmt.Errorf("registers: %w", err)
				}
			}
			if ended != nil {
				ended(pid, tid, &r)
			}
		case status.StopSignal() == syscall.SIGTRAP, status.StopSignal() == syscall.SIGSTOP && !known[tid]:
			known[tid] = true
		default:
			signal = int(status.StopSignal())
		}
	}
}

// Text reads the string at an address of the child.
func Text(tid int, at uint64) string {
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

// Bytes reads so many bytes at an address of the child.
func Bytes(pid int, at uint64, n int) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, int64(at)); err != nil {
		return nil, fmt.Errorf("the child's memory: %w", err)
	}
	return b, nil
}

// File returns the path behind a descriptor of the child.
func File(pid int, fd uint64) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	return path
}
