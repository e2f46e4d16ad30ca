package oncelog_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// A clock at its end, which is also the number that means never: what never expires is still there.
func TestPromise8AClockAtItsEndForgetsNothingThatNeverExpires(t *testing.T) {
	var clock docClock
	clock.Store(1_700_000_000_000)
	dir := filepath.Join(t.TempDir(), "store")
	s, err := docOpen(dir, &clock, oncelog.Options{})
	require.NoError(t, err)
	_, err = s.Advance("source", 7)
	require.NoError(t, err)
	_, inserted, err := s.PutIfAbsent([]byte("k"), []byte("v"), oncelog.Forever)
	require.NoError(t, err)
	require.True(t, inserted)
	require.NoError(t, s.Update(func(tx *oncelog.Tx) error { return tx.Set([]byte("state"), nil) }))
	clock.Store(math.MaxInt64)
	seq, ok, err := s.HighWater("source")
	require.NoError(t, err)
	require.True(t, ok, "the mark is gone")
	require.EqualValues(t, 7, seq)
	fresh, err := s.Advance("source", 3)
	require.NoError(t, err)
	require.False(t, fresh)
	_, inserted, err = s.PutIfAbsent([]byte("k"), nil, 0)
	require.NoError(t, err)
	require.False(t, inserted)
	require.NoError(t, s.Close())
}
