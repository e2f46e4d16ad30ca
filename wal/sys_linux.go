package wal

import (
	"errors"
	"os"
	"syscall"
)

// fdatasync makes the file's bytes, and the size needed to read them, durable. It is what the commit path uses:
// into a preallocated file it does not commit the file system's journal, which fsync does.
func fdatasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

const (
	ext4Magic = 0xef53
	xfsMagic  = 0x58465342
)

// fillPays reports whether syncs into written-before space are cheaper on the file system that holds path. It is
// so where a growing file costs a journal commit a sync; elsewhere filling would be writing everything twice.
func fillPays(path string) bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return false
	}
	return st.Type == ext4Magic || st.Type == xfsMagic
}

// reserve asks for space for the first n bytes of f, so that a full disk shows here, where nothing is at stake, and
// not in a commit. Where the file system cannot, it does nothing.
func reserve(f *os.File, n int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, n)
		switch {
		case err == nil, errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return nil
		case errors.Is(err, syscall.EINTR):
		default:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
	}
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
