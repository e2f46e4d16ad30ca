//go:build !arm

package wal

import (
	"os"
	"syscall"
)

// StartWriteback has the bytes in the range written out soon, and waits for nothing. It promises nothing either: it is for
// who writes much beside the commits, since a sync that then finds all of it still to be written holds them up for as
// long as that takes.
func StartWriteback(f *os.File, at, n int64) {
	const syncFileRangeWrite = 2
	_ = syscall.SyncFileRange(int(f.Fd()), at, n, syncFileRangeWrite)
}
