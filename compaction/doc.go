// Package compaction decides which segments the log may lose, and loses them.
//
// # What is alive where
//
// Each segment has an Account: how many bytes of it, and how many keys, are of records that are the latest of their
// key, by when they expire. A record that is replaced, deleted or moved leaves its segment's account; one that expires
// leaves by itself, as the time passes its step of the histogram. The Ledger holds the accounts of all segments.
//
// # What goes
//
//	  oldest                                        newest
//	┌────────┬────────┬────────┬───── … ─────┬─────────┐
//	│ dead   │ dead   │ 30%    │             │ written │
//	└────────┴────────┴────────┴───── … ─────┴─────────┘
//	  └── go whole ──┘  └── its live records are copied to the end, when the log is too large for what is alive
//
// Only the front goes. Were a segment dropped from the middle, a record before it could come back when the tombstone
// in it goes. A tombstone in the front segment hides nothing any more: what it hid lay before it.
//
// Make is a pure function from the accounts to a Plan. Run carries it out: copies first, then the drop-through frame,
// which the log makes durable together with the copies before it removes a file. A crash between any two steps leaves
// a log that replays to the same: a record is there once or twice, and the later one counts.
//
// This package makes no compatibility promise.
package compaction
