package oncelog

import (
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAdvance(t *testing.T) {
	s, dir := fresh(t)
	_, ok, err := s.HighWater("source")
	require.NoError(t, err)
	require.False(t, ok)
	for _, step := range []struct {
		seq   uint64
		fresh bool
		mark  uint64
	}{{0, true, 0}, {0, false, 0}, {5, true, 5}, {5, false, 5}, {4, false, 5}, {6, true, 6}, {math.MaxUint64, true, math.MaxUint64}, {7, false, math.MaxUint64}} {
		fresh, err := s.Advance("source", step.seq)
		require.NoError(t, err)
		require.Equal(t, step.fresh, fresh, "%+v", step)
		mark, ok, err := s.HighWater("source")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, step.mark, mark)
	}
	fresh, err := s.Advance("other", 3)
	require.NoError(t, err)
	require.True(t, fresh)
	require.NoError(t, s.ForgetSource("source"))
	require.NoError(t, s.ForgetSource("source"))
	_, ok, err = s.HighWater("source")
	require.NoError(t, err)
	require.False(t, ok)
	fresh, err = s.Advance("source", 2)
	require.NoError(t, err)
	require.True(t, fresh)
	s = open(t, crashed(t, dir), quick)
	mark, _, err := s.HighWater("source")
	require.NoError(t, err)
	require.EqualValues(t, 2, mark)
	require.Zero(t, s.Stats().Keys)

	_, err = s.Advance("", 1)
	require.ErrorIs(t, err, ErrEmptyKey)
	_, _, err = s.HighWater("")
	require.ErrorIs(t, err, ErrEmptyKey)
	require.ErrorIs(t, s.ForgetSource(""), ErrEmptyKey)
	_, err = s.Advance(strings.Repeat("x", DefaultMaxKeySize+1), 1)
	require.ErrorIs(t, err, ErrTooLarge)
}

// Of all callers who bring one number, one is told that it is fresh.
func TestConcurrentAdvance(t *testing.T) {
	s, _ := fresh(t)
	const top = 200
	var freshTimes [top]atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			seq := 0
			for seq < top {
				fresh, err := s.Advance("source", uint64(seq))
				if err != nil {
					t.Error(err)
					return
				}
				if fresh {
					freshTimes[seq].Add(1)
				}
				seq += rand.IntN(3)
			}
			_, _ = s.Advance("source", top-1)
		})
	}
	wg.Wait()
	for i := range freshTimes {
		require.LessOrEqual(t, freshTimes[i].Load(), int32(1))
	}
	mark, _, err := s.HighWater("source")
	require.NoError(t, err)
	require.EqualValues(t, top-1, mark)
	requireNoClaims(t, s)
}
