//go:build !linux || arm

package wal

import "os"

// StartWriteback has no equal here (package syscall lacks it on 32-bit ARM); the sync that follows does it all.
func StartWriteback(*os.File, int64, int64) {}
