package oncelog

import "fmt"

// budget returns how many bytes of log writes may fill, 0 = no bound. What is kept back is for housekeeping: a segment
// that is prepared, one that records are copied to, and a snapshot that is written beside the two that are there.
func (s *Store) budget() int64 {
	if s.opts.MaxBytes == 0 {
		return 0
	}
	size := max(s.records.Load()*snapshotKey+snapshotRest, s.house.snapshotSize.Load())
	return max(s.opts.MaxBytes-2*s.opts.SegmentSize-3*size, s.opts.SegmentSize)
}

// What a snapshot takes: a key in a page that is as full as pages are, and the rest for a store whose segments are
// many.
const (
	snapshotKey  = 16
	snapshotRest = 64 << 10
)

// within returns ErrFull when size more bytes of log are more than the budget and some grace.
func (s *Store) within(size, grace int64) error {
	if s.opts.MaxBytes == 0 {
		return nil
	}
	if limit := s.budget(); s.log.Used()+size > limit+grace {
		s.house.kick()
		return fmt.Errorf("%w: the store has reached Options.MaxBytes, %d; records that expire or are deleted make room", ErrFull, s.opts.MaxBytes)
	}
	return nil
}
