package oncelog

import (
	"time"

	"github.com/oncelog/oncelog/snapshot"
)

// Stats are plain numbers about an open store. Reading them is cheap and disturbs nobody.
type Stats struct {
	// Keys are the live records, a receiver's among them. What has just expired may still count, for about a 16th of the
	// time between the first and the last expiry in its segment.
	Keys       int64
	IndexBytes int64 // of memory, for the index of records, state and marks together
	Overflow   int64 // keys that share their place in the index with another and are kept in a map of their own
	DiskBytes  int64 // of log and last snapshot, prepared space included
	LiveBytes  int64 // of the log, in records that are live
	Segments   int   // of the log
	Outgoing   int   // messages that wait to be handed on
	Parked     int   // messages that were refused for good
	Doubts     int   // keys in doubt, those included whose work is running under an intent

	Commits   uint64        // transactions written since Open
	Batches   uint64        // writes they took, each with a sync of its own under SyncAlways: Commits/Batches shared one
	Syncs     uint64        // since Open
	TxHeldMax time.Duration // the longest time a transaction kept the others waiting since Open

	// What was written in the store's life; what a process wrote after its last snapshot is missing if it was killed.
	LogBytes      uint64 // to the log
	CopiedBytes   uint64 // of these, records that housekeeping copied
	SnapshotBytes uint64 // to snapshots

	Snapshot time.Time // of the last snapshot, by the store's clock; zero = there is none
}

// Stats returns the store's numbers, of a closed store too.
func (s *Store) Stats() Stats {
	l, x := s.log.Stats(), s.keys.Stats()
	keys, live := s.ledger.Total(s.clock.millis())
	t := s.totals()
	st := Stats{
		Keys: keys, IndexBytes: x.Bytes, Overflow: x.Overflow,
		DiskBytes: l.DiskBytes + s.house.snapshotSize.Load(), LiveBytes: live, Segments: l.Segments,
		Commits: l.Commits, Batches: l.Batches, Syncs: l.Syncs,
		TxHeldMax: time.Duration(s.txHeldMax.Load()),
		LogBytes:  t.Log, CopiedBytes: t.Copied, SnapshotBytes: t.Snapshots,
	}
	st.Outgoing, st.Parked = s.outbox.counts()
	st.Doubts = int(s.doubts.n.Load())
	if at := s.house.snapshotTime.Load(); at != 0 {
		st.Snapshot = time.UnixMilli(at)
	}
	return st
}

// Failed returns why the store takes no more writes until it is reopened, an error that matches ErrFailed, or nil if it
// does take them. It is what a health check asks.
func (s *Store) Failed() error { return s.log.Failed() }

// totals returns what was written in the store's life.
func (s *Store) totals() snapshot.Totals {
	h := &s.house
	return snapshot.Totals{
		Log: h.before.Log + s.log.Stats().Bytes, Copied: h.before.Copied + uint64(h.copied.Load()),
		Snapshots: h.before.Snapshots + uint64(h.snapshotBytes.Load()),
	}
}

// Segment is what Segments says of one segment of the log.
type Segment struct {
	Number     uint64 // counted from 1 in the store's life
	Bytes      int64  // of its file
	Keys       int64  // that are live
	Live, Dead int64  // bytes of records
	// Expires is when the last of its records that expire has expired; zero = there are none. Never says that some
	// never do.
	Expires time.Time
	Never   bool
}

// Segments returns the segments of the log, oldest first.
func (s *Store) Segments() []Segment {
	now := s.clock.millis()
	var all []Segment
	for _, seg := range s.log.Segments() {
		one := Segment{Number: seg.Number(), Bytes: seg.End()}
		one.Live, one.Dead = s.ledger.Bytes(seg.Number(), now)
		one.Keys = s.ledger.Keys(seg.Number(), now)
		last, never := s.ledger.Last(seg.Number())
		if one.Never = never; last != noTime {
			one.Expires = time.UnixMilli(last)
		}
		all = append(all, one)
	}
	return all
}
