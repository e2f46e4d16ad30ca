//go:build unix

package oncelog

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// openNoFollow refuses a symbolic link in a file's place: it could lead a store's bytes into another's file.
const openNoFollow = syscall.O_NOFOLLOW

// flockFile locks the file for this process without waiting. The kernel gives the lock up when the process ends,
// however it ends, so a lock that can be taken proves that the former owner is dead.
func flockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errBusy
		default:
			return err
		}
	}
}

func unlockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// checkOwner refuses a directory of another user: who owns it can change what is in it.
func checkOwner(dir string, fi os.FileInfo) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d and this process runs as user %d; run as the owner, or chown it",
			ErrForeign, dir, st.Uid, os.Geteuid())
	}
	return nil
}
