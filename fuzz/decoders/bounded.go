package decoders

import (
	"runtime"
	"testing"
)

// slack is what a decoder may allocate for no bytes at all: errors with their text, readers.
const slack = 16 << 10

// Bounded runs decode and fails the test if it allocates more than factor bytes of memory for each byte of input, and
// a constant. Other goroutines allocate too, so the least of three runs counts: decode is called again if the first
// was too much.
func Bounded(t testing.TB, input, factor int, decode func()) {
	t.Helper()
	limit := uint64(factor*input + slack)
	least := ^uint64(0)
	for range 3 {
		if least = min(least, allocated(decode)); least <= limit {
			return
		}
	}
	t.Fatalf("%d bytes were allocated for an input of %d, the limit is %d", least, input, limit)
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
