package oncelog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A copy that can't be written leaves everything where it was, says so each time, and lets go of what it held.
func TestACopyThatCannotBeWritten(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, dir := sealedFirst(t, o, func(s *Store, i int) {
		some(t)(s, i)
		if i == 0 {
			put(t, s, "dead", "dead")
			_, err := s.Delete([]byte("dead"))
			require.NoError(t, err)
		}
	})
	one := placed(t, s, "key 0")
	number := s.log.Segment(one.at.Slot()).Number()
	breakWrites(t, dir)
	for range 2 { // the write fails, and then the log has failed
		require.ErrorIs(t, s.copySegment(number), ErrFailed)
		require.ErrorIs(t, s.Compact(), ErrFailed)
		require.Equal(t, one.at, placed(t, s, "key 0").at)
		requireNoClaims(t, s)
	}
	require.Zero(t, s.house.moves.Load())
	require.Zero(t, s.log.Dropped())
	has(t, s, "key 0", strings.Repeat("v", 200))
}

// The log may fail while a copy waits for a key.
func TestACopyWaitsAndTheLogFails(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, dir := sealedFirst(t, o, some(t))
	one := placed(t, s, "key 0")
	c, _ := s.claims.hold(one.name, nil)
	copied := make(chan error, 1)
	go func() { m := mover{s: s}; copied <- m.move([]moving{one}, nil, one.size, true) }()
	waitedFor(t, s, c)
	breakWrites(t, dir)
	_, _, err := s.PutIfAbsent([]byte("k"), nil, 0)
	require.ErrorIs(t, err, ErrFailed)
	s.claims.release(c, false)
	require.ErrorIs(t, <-copied, ErrFailed)
	require.Equal(t, one.at, placed(t, s, "key 0").at)
	has(t, s, "key 0", strings.Repeat("v", 200))
	requireNoClaims(t, s)
}

// The change that a copy gave way to may fail. Then nothing replaces the record, and its segment stays.
func TestACopyGivesWayToAChangeThatFails(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, dir := sealedFirst(t, o, some(t))
	commit, ch := staged(t, s, recordFor("key 0", "after"))
	breakWrites(t, dir)
	require.ErrorIs(t, s.settle(commit, ch[:0]), ErrFailed)
	require.ErrorIs(t, s.entered(commit), ErrFailed)
	s.claims.withdraw(ch[0].claim, commit)
	has(t, s, "key 0", strings.Repeat("v", 200))
	requireNoClaims(t, s)
}
