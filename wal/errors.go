package wal

import (
	"errors"
	"fmt"
)

// Errors, for errors.Is. The root package hands them to users under the same names.
var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("oncelog: store is closed")
	// ErrFailed: a write or sync failed, so what is on disk is not known; reopen to find out.
	ErrFailed = errors.New("oncelog: a write failed, reopen the store")
	// ErrFull: there is no room; nothing was written, and writes go on once there is.
	ErrFull = errors.New("oncelog: no room")
	// ErrCorrupt: acknowledged data is damaged or missing.
	ErrCorrupt = errors.New("oncelog: store is damaged")
	// ErrTooNew: the data was written by a later version.
	ErrTooNew = errors.New("oncelog: written by a later version, upgrade to read it")
	// ErrGap: the log does not reach back to where it was to be read from.
	ErrGap = errors.New("oncelog: the log does not reach back so far")
	// ErrTooLarge: more than the store takes.
	ErrTooLarge = errors.New("oncelog: too large")
)

// CorruptError says where damage is. It is ErrCorrupt for errors.Is.
type CorruptError struct {
	File   string
	Offset int64 // of the first byte that is not what it should be
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: %s at offset %d: %s; restore a backup or salvage into a new directory",
		ErrCorrupt, e.File, e.Offset, e.Reason)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
