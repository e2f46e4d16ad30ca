package index

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each entry is alike to the hash it is found with, wherever it lies: in its first bucket, its second, or the map. Next
// to nothing else is.
func TestWhatIsFoundIsAlike(t *testing.T) {
	x := New(7)
	hashes := map[Location]Hash{}
	for i := range 100_000 {
		k := fmt.Append(nil, "key ", i)
		loc := At(uint16(1+i/50_000), int64(i%50_000))
		hashes[loc] = x.Hash(1, k)
		require.NoError(t, x.Insert(hashes[loc], 1, k, loc))
	}
	require.NoError(t, x.overflow.add(1, []byte("kept whole"), At(9, 1)))
	hashes[At(9, 1)] = x.Hash(1, []byte("kept whole"))
	n, chance := 0, 0
	var last Hash
	x.Scan(func(f Found) bool {
		h := hashes[f.Location]
		require.True(t, f.Like.Alike(h) && h.Alike(f.Like), "%d", f.Location)
		if h.Alike(last) {
			chance++
		}
		last = h
		n++
		return true
	})
	require.Equal(t, len(hashes), n)
	require.Less(t, chance, 10)
}
