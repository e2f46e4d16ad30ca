package oncelog

import "time"

// Stats are plain numbers about an open store. Reading them is cheap and disturbs nobody.
type Stats struct {
	Keys       int64 // records, a receiver's among them; those that expired count until housekeeping has removed them
	IndexBytes int64 // memory of the index, records, state and marks together
	Overflow   int64 // keys that share their place in the index with another and are kept in a map of their own
	DiskBytes  int64 // of the log, prepared space included
	Segments   int   // of the log

	Commits   uint64        // transactions written since Open
	Batches   uint64        // writes they took: Commits/Batches shared one sync
	Syncs     uint64        // since Open
	TxHeldMax time.Duration // the longest time a transaction kept the others waiting since Open
}

// Stats returns the store's numbers, of a closed store too.
func (s *Store) Stats() Stats {
	l, x := s.log.Stats(), s.keys.Stats()
	return Stats{
		Keys: s.records.Load(), IndexBytes: int64(x.Bytes), Overflow: int64(x.Overflow),
		DiskBytes: l.DiskBytes, Segments: l.Segments,
		Commits: l.Commits, Batches: l.Batches, Syncs: l.Syncs,
		TxHeldMax: time.Duration(s.txHeldMax.Load()),
	}
}
