package oncelog

import (
	"errors"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/wal"
)

// Errors, for errors.Is.
var (
	// ErrClosed: the store was closed.
	ErrClosed = wal.ErrClosed
	// ErrLocked: another owner, in this process or another, has the directory open.
	ErrLocked = errors.New("oncelog: directory is in use")
	// ErrCorrupt: acknowledged data is damaged or missing. The error is a *CorruptError, which says where.
	ErrCorrupt = wal.ErrCorrupt
	// ErrFailed: a write or sync failed; reads go on, writes need the store reopened. It wraps the cause.
	ErrFailed = wal.ErrFailed
	// ErrFull: there is no room, on the disk or in the store. Nothing was written; writes go on once there is room.
	ErrFull = wal.ErrFull
	// ErrTooLarge: a key, value or transaction exceeds its limit.
	ErrTooLarge = wal.ErrTooLarge
	// ErrTooNew: the directory was written by a later version of oncelog.
	ErrTooNew = wal.ErrTooNew
	// ErrReadOnly: a write to a store opened with Options.ReadOnly, or inside View.
	ErrReadOnly = errors.New("oncelog: read-only")
	// ErrExists: Tx.PutRecord on a key that is live.
	ErrExists = errors.New("oncelog: key exists")
	// ErrEmptyKey: an empty key, or an empty source.
	ErrEmptyKey = errors.New("oncelog: empty key")
	// ErrTTL: a TTL that is negative, or does not exceed the retry window.
	ErrTTL = errors.New("oncelog: TTL")
	// ErrOptions: an option is out of its range.
	ErrOptions = errors.New("oncelog: option out of range")
	// ErrForeign: the directory is not a store, or not this user's, and was left alone.
	ErrForeign = errors.New("oncelog: not a directory for this store")
	// ErrTxDone: a transaction was used after its function had returned.
	ErrTxDone = receiver.ErrTxDone
	// ErrReentrant: the call would wait for itself: a transaction inside the fn of a DoTx.
	ErrReentrant = receiver.ErrReentrant
)

// CorruptError says where damage is: file, offset and reason.
type CorruptError = wal.CorruptError
