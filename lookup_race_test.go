package oncelog

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A committed version enters the index before it leaves the claim table, and a look-up asks the table first: the other
// way round it finds nothing in the index yet, and in the table no more. So what was seen once is seen from then on.
func TestWhatWasSeenIsSeenWhileItMoves(t *testing.T) {
	s := open(t, filepath.Join(memoryDir(t), "store"), Options{TTL: Forever, Sync: SyncNever, Pace: -1, still: true})
	const keys = 2000
	var current atomic.Uint64 // the key that is being written
	var lost atomic.Uint64
	var all sync.WaitGroup
	errs := make([]error, 2) // of readers: with the writer they are more than the processors of a small machine
	for r := range errs {
		all.Go(func() {
			key := make([]byte, 8)
			for seen := uint64(0); ; {
				n := current.Load()
				if n > keys || errs[r] != nil {
					return
				}
				binary.BigEndian.PutUint64(key, n)
				ok, err := s.Has(key)
				switch errs[r] = err; {
				case ok:
					seen = n
				case seen == n && n > 0:
					lost.Add(1)
				}
			}
		})
	}
	for n := uint64(1); n <= keys; n++ {
		current.Store(n)
		runtime.Gosched() // nobody has to be there, but somebody mostly is
		put(t, s, string(binary.BigEndian.AppendUint64(nil, n)), "v")
	}
	current.Store(keys + 1)
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Zero(t, lost.Load(), "seen, and not seen right afterwards")
}
