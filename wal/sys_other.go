//go:build !linux

package wal

import (
	"errors"
	"os"
	"syscall"
)

// Systems other than Linux build and run; their durability is untested, so they get the plain, strongest calls.

func fdatasync(f *os.File) error { return f.Sync() }

func fillPays(string) bool { return false }

func reserve(*os.File, int64) error { return nil }

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) }
