package wal

import (
	"errors"
	"os"
	"syscall"
)

// freeStep is how much of a file's space is given back at a time. ext4 holds up the syncs of other files for as long as it
// takes to free a file that is gone: of 4 MiB, as long as ten commits take, for each such file. Cut off by 256 KiB, with
// half a millisecond between two cuts, one file in ten is felt; by 1 MiB, one in four.
const freeStep = 256 << 10

// RemoveGently removes a file, and gives its space back piece by piece if nobody else has it. It leaves the rest to the
// system when pause, which is asked between two pieces, returns false.
func RemoveGently(path string, pause func() bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil { // perhaps there are no descriptors left: its space goes as it may
		return os.Remove(path)
	}
	if err := os.Remove(path); err != nil {
		return errors.Join(err, f.Close())
	}
	free(f, pause)
	return nil
}

// closeGently closes a segment whose file is removed. Its space is given back through another descriptor, since who still
// has the segment must find it closed, and not cut.
func (s *Segment) closeGently(pause func() bool) {
	f := duplicate(s.file)
	s.close()
	if f != nil {
		free(f, pause)
	}
}

// duplicate returns the same file by another descriptor, or nil.
func duplicate(f *os.File) (same *os.File) {
	fd, err := control(f, syscall.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(fd, f.Name())
}

// free closes a file, and gives its space back piece by piece before, unless somebody else has it. It leaves the rest to
// closing when pause, which is asked between two pieces, returns false. It is only space, so nobody is told of errors.
func free(f *os.File, pause func() bool) {
	defer f.Close()
	if !alone(f) {
		return
	}
	fi, err := f.Stat()
	if err != nil {
		return
	}
	for size := fi.Size() - freeStep; size > 0 && pause(); size -= freeStep {
		if f.Truncate(size) != nil {
			return
		}
	}
}

// alone reports whether nobody but this descriptor, and those duplicated from it, has the file any more: it has no name,
// nor one by a hard link, as some backups make; and nobody has it open or mapped, as a process does that reads the store
// beside its owner. A lease for writing is given only then. What is found stays so, since who wants to open a file needs
// a name. Where there are no leases, somebody may have it.
func alone(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Nlink != 0 {
		return false
	}
	if _, err := control(f, syscall.F_SETLEASE, syscall.F_WRLCK); err != nil {
		return false
	}
	_, err = control(f, syscall.F_SETLEASE, syscall.F_UNLCK)
	return err == nil
}

// control is fcntl.
func control(f *os.File, command, argument uintptr) (result uintptr, err error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := c.Control(func(fd uintptr) {
		r, _, e := syscall.Syscall(syscall.SYS_FCNTL, fd, command, argument)
		if result = r; e != 0 {
			err = e
		}
	}); e != nil {
		return 0, e
	}
	return result, err
}
