// Package oncelog is an embedded store that remembers which messages were handled and what came of them, so that a
// message delivered twice has its effect once.
//
// # How a record gets in, and out
//
//	PutIfAbsent ─▶ visible already? ──▶ the stored value
//	                  │ no
//	                  ▼
//	               claim the key, look again, encode, stage
//	                  │
//	                  ▼
//	               log: one frame, one sync for all that wait ─▶ visible ─▶ index ─▶ claim ends ─▶ answer
//
// The claim table (claims.go) decides who goes first. It holds each key that somebody decides about, and each
// version of a key that is in the log's queue but not yet in the index. Looking a key up therefore always means:
// the claim table, then the index, then one read of the record at the place the index names, which confirms the
// whole key (read.go). A version becomes visible when the log says that its transaction is committed, all keys of
// one transaction in the same instant, and it enters the index before it leaves the claim table, so that nobody
// looks between the two.
//
// A transaction (tx.go) is the same with many keys: it claims each record it looks at, so that what it read stays
// true, and stages all its changes as one frame. Transactions run one after the other; what one has staged the
// next one sees, and each answer that rests on staged data waits until that data is durable.
//
// A Receiver (package receiver) runs work of any length once per key. Its keys are leased (leases.go) while the work
// runs, which unlike a claim nobody waits for inside the store, and backend.go records what came of it. A lease has set
// room for its key aside in the log, so that work that was done can always be recorded as done.
//
// The receiver's other records: what a transaction emits waits in the outbox (outbox.go), which knows the places of
// messages by topic and order; a source's mark (sequence.go) moves in the frame of the result; keys in doubt are a set
// (doubts.go), and what scopes take up is counted (scopes.go). All three are in snapshots, and exact as of the
// transaction through which a snapshot is.
//
// # Staying small
//
// Housekeeping (house.go) runs by itself. A ledger (package compaction) knows how much of each segment is alive: what
// enters the index enters it too, under a lock that housekeeping takes for a moment when it needs both as of one
// transaction (claims.go, publishAll). Segments leave at the front of the log. What is alive in them is copied to the
// end like any other change of a key (move.go), so that nobody waits who does not change the same key; a look-up whose
// segment has gone asks the index again. A snapshot (snapshot.go) puts index and ledger into a file, a page at a time.
//
// Opening a directory (open.go) takes its lock, reads its manifest, loads the newest snapshot that is of use, and
// recovers the log from there. The clock by which records expire is in clock.go, the end of a store in close.go.
//
// # Errors
//
// All errors match one of this package's variables, or the operating system's, with errors.Is. A failed write or
// sync stops all writing until the store is reopened, because only reading the disk again tells what is on it.
//
//	every call on a store   ErrClosed, once Close has begun
//	that names a key        ErrEmptyKey, ErrTooLarge
//	that reads              ErrCorrupt (a *CorruptError: file, offset, reason), or the disk's error
//	that writes             ErrReadOnly; ErrFull: nothing was written, and writes go on once there is room; ErrFailed:
//	                        whether it was written is not known before the store is reopened
//	that takes a TTL        ErrTTL
//
// # Goroutines and bytes
//
// A Store may be used from any number of goroutines, a Tx from those that its function starts and ends. No call keeps
// the byte slices it is given, and those it returns are the caller's.
package oncelog
