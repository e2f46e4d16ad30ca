package oncelog

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// A claim reserves room to say that the work was done. On a disk that is full by the time fn returns, the result is
// lost and the key is not: not here, and not after reopening. New claims are refused before fn.
func TestPromise12AClaimHasRoomForItsKey(t *testing.T) {
	disk := smallDisk(t, t.TempDir(), "1m")
	dir := filepath.Join(disk, "store")
	o := Options{SegmentSize: 64 << 10}
	s := open(t, dir, o)
	r := receiverOf(t, s)

	runs := 0
	value := make([]byte, 50_000)
	out, err := r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
		runs++
		refused := false
		for try := 0; try < 100 && !refused; try++ { // a segment that could not be prepared gives its space back
			for size := len(value); size > 0; size /= 2 { // down to the last byte
				for i := 0; ; i++ {
					key := append([]byte("fill"), byte(try), byte(size), byte(size>>8), byte(i), byte(i>>8))
					if _, _, err := s.PutIfAbsent(key, value[:size], 0); err != nil {
						require.ErrorIs(t, err, ErrFull)
						break
					}
				}
			}
			ran := false
			_, err := r.Do(t.Context(), fmt.Sprint("another key that is refused ", try), func(context.Context) ([]byte, error) {
				ran = true
				return nil, nil
			})
			if refused = err != nil; refused {
				require.ErrorIs(t, err, ErrFull)
				require.False(t, ran, "fn ran without room to record it")
			}
		}
		require.True(t, refused)
		return value, nil
	})
	require.NoError(t, err)
	require.Len(t, out.Value, len(value))

	for range 2 {
		_, err = receiverOf(t, s).Do(t.Context(), "k", func(context.Context) ([]byte, error) { runs++; return nil, nil })
		require.ErrorIs(t, err, receiver.ErrResultGone)
		require.NoError(t, s.Close())
		s = open(t, dir, o)
	}
	require.Equal(t, 1, runs)
}
