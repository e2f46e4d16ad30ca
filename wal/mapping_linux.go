package wal

import (
	"math"
	"os"
	"syscall"
)

// canMap: 32 bits have no room for a log's addresses.
const canMap = math.MaxInt > math.MaxInt32

// mapShared maps the first n bytes of a file for reading. They may lie behind its end as long as nobody touches them. A
// shared mapping shows what is written to the file; a private one need not.
func mapShared(f *os.File, n int) ([]byte, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var b []byte
	// Inside, the descriptor stays this file's, whoever closes it.
	if e := c.Control(func(fd uintptr) {
		b, err = syscall.Mmap(int(fd), 0, n, syscall.PROT_READ, syscall.MAP_SHARED)
	}); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	_ = syscall.Madvise(b, syscall.MADV_RANDOM) // one page a fault, not 32 of which 31 are nobody's
	return b, nil
}

func unmap(b []byte) error { return syscall.Munmap(b) }
