package wal

import (
	"errors"
	"os"
	"syscall"
)

// RemoveGently removes a file that nobody reads, and gives its space back piece by piece. It leaves the rest to the system
// when pause, which is asked between two pieces, returns false.
func RemoveGently(path string, pause func() bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err = errors.Join(err, os.Remove(path)); err != nil {
		return errors.Join(err, f.Close())
	}
	free(f, fi.Size(), pause)
	return nil
}

// closeGently closes a segment whose file is removed. Its space is given back through another descriptor, since who still
// has the segment must find it closed, and not cut.
func (s *Segment) closeGently(pause func() bool) {
	f := duplicate(s.file)
	s.close()
	if f != nil {
		free(f, s.End(), pause)
	}
}

// duplicate returns the same file by another descriptor, or nil.
func duplicate(f *os.File) (same *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	_ = c.Control(func(fd uintptr) {
		if fd, _, e := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0); e == 0 {
			same = os.NewFile(fd, f.Name())
		}
	})
	return same
}
