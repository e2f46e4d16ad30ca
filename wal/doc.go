// Package wal is the log: an ordered sequence of transactions that, once acknowledged, no crash takes back.
//
// A transaction is one frame. Frames lie in segments of about 4 MiB, each a directory with one file that
// github.com/tidwall/wal writes. The library is the pen, not the judge: it has no checksums, cannot open a log
// with a torn tail, syncs no directory and reads through memory that a failed write leaves wrong, so everything
// between a frame and a promise is done here.
//
//	Enqueue ──▶ queue ──▶ leader: frames │ one write │ one sync ──▶ visible ──▶ Wait returns
//	                        │ segment full?
//	                        ├─ seal in the same write, names the next segment
//	                        └─ next segment, prepared in the background: created, zero-filled, synced
//
// The first caller to come leads: it writes all that has queued behind it with one write and one sync and wakes
// the others; the next batch gathers meanwhile, and its first caller leads it. There is no timer and no writer
// goroutine, so a lone writer pays no hand-over (queue.go, write.go).
//
// Each frame carries a check that is seeded with its segment's random nonce and its own number, so that old or
// misplaced bytes never pass for it, and says how far the log was on stable storage when it was written. From
// that, recovery tells a torn tail, which is cut, from damage, which is refused (scan.go, recover.go).
//
// Segments leave at the front, after a frame that says so is durable (front.go). A segment's slot, by which others refer
// to it, follows from its number (table.go).
//
// Records are read by copying from mappings of the segments' files, and a page that can't be read is an error like any
// other (mapping.go, readers.go).
//
// What is queued is sure to find room, and room can be reserved for what is still to come (room.go).
//
// After a failed write or sync nothing is acknowledged any more until the log is opened again: what the disk holds
// is not known before it is read (Log.latch).
//
// The payload is opaque but for the three values of its first byte that are the log's own (frame.go). The package
// imports nothing of ours. It makes no compatibility promise: the bytes are stable (docs/FORMAT.md), the Go API is
// not.
package wal
