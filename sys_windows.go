package oncelog

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

const openNoFollow = 0

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

// flockFile locks a byte far behind the process id, which stays readable that way.
func flockFile(f *os.File) error {
	const exclusive, failAtOnce = 2, 1
	const errorLockViolation = syscall.Errno(33)
	ol := syscall.Overlapped{Offset: 1 << 30}
	ok, _, err := lockFileEx.Call(f.Fd(), exclusive|failAtOnce, 0, 1, 0, uintptr(unsafe.Pointer(&ol)))
	if ok != 0 {
		return nil
	}
	if errors.Is(err, errorLockViolation) || errors.Is(err, syscall.ERROR_IO_PENDING) {
		return errBusy
	}
	return err
}

// unlockFile: descriptors are not inherited here, so closing is enough.
func unlockFile(*os.File) error { return nil }

// checkOwner: access lists decide here, not owners.
func checkOwner(string, os.FileInfo) error { return nil }
