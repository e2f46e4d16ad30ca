package oncelog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Somebody cuts a segment's file under an open store: who asks for a record there gets an error that names the file and
// the place, the process lives, and all else is answered. Where the file ends within a page the rest of it reads as
// zeros, which is no record either.
func TestACutFileIsAnError(t *testing.T) {
	for _, cut := range []int64{0, 4096, 5000} {
		for _, readOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("at %d, read only: %v", cut, readOnly), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "store")
				o := Options{TTL: Forever, Sync: SyncNever, SegmentSize: 64 << 10}
				value := bytes.Repeat([]byte("v"), 1000)
				const keys = 200
				for i := 0; i < keys; i += 50 { // each begins a segment
					s := open(t, dir, o)
					for k := i; k < min(i+50, keys); k++ {
						_, _, err := s.PutIfAbsent(fmt.Append(nil, "key ", k), value, 0)
						require.NoError(t, err)
					}
					require.NoError(t, s.Close())
				}
				o.ReadOnly = readOnly
				s := open(t, dir, o)
				segments, err := filepath.Glob(filepath.Join(dir, walName, "0*", "0*"))
				require.NoError(t, err)
				require.Greater(t, len(segments), 2)
				require.NoError(t, os.Truncate(segments[1], cut))
				failed := 0
				for i := range keys {
					got, ok, err := s.Get(fmt.Append(nil, "key ", i))
					if err == nil {
						require.True(t, ok)
						require.Equal(t, value, got)
						continue
					}
					failed++
					require.False(t, ok)
					require.Contains(t, err.Error(), segments[1])
					require.Contains(t, err.Error(), "at offset ")
					var damage *CorruptError
					if errors.As(err, &damage) {
						require.GreaterOrEqual(t, damage.Offset+1100, cut)
					}
				}
				require.Positive(t, failed)
				require.Less(t, failed, keys)
			})
		}
	}
}
