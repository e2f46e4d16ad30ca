//go:build !arm

package wal

import (
	"os"
	"syscall"
)

// startWriteback has the bytes in the range written out soon, and waits for nothing. It promises nothing either.
func startWriteback(f *os.File, at, n int64) {
	const syncFileRangeWrite = 2
	_ = syscall.SyncFileRange(int(f.Fd()), at, n, syncFileRangeWrite)
}
