//go:build linux

package bench

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

var large = flag.Bool("large", false, "a million keys and more instead of some thousand: 4 GB of log are written first")

// BenchmarkLookup measures Get of keys that are there and Has of keys that are not, in random order over all keys,
// and the memory that the store holds for each key: what the process's resident memory grew by while it was filled.
func BenchmarkLookup(b *testing.B) {
	sizes := []int{10_000}
	if *large {
		sizes = []int{1_000_000, 10_000_000}
	}
	for _, keys := range sizes {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			before := resident(b)
			s := filled(b, filepath.Join(workDir(b), "store"), keys)
			perKey := float64(resident(b)-before) / float64(keys)
			index := float64(s.Stats().IndexBytes) / float64(keys)
			// Prepared, so that making a name is not measured, and side by side, so that reading it is not either.
			const names = 1 << 16
			there, absent := make([]byte, names*keySize), make([]byte, names*keySize)
			for i := 0; i < len(there); i += keySize {
				nameKey(there[i:], rand.Uint64N(uint64(keys))+1)
				nameKey(absent[i:], rand.Uint64N(1<<40)+1<<41)
			}
			b.Run("miss", func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if ok, err := s.Has(absent[i : i+keySize]); ok || err != nil {
						b.Fatal(ok, err)
					}
					i = (i + keySize) % len(absent)
				}
				reportCalls(b, func() error {
					i = (i + keySize) % len(absent)
					_, err := s.Has(absent[i : i+keySize])
					return err
				})
				b.ReportMetric(perKey, "RSS-B/key")
				b.ReportMetric(index, "index-B/key")
			})
			b.Run("hit", func(b *testing.B) {
				b.ReportAllocs()
				dst := make([]byte, 0, valueSize)
				i := 0
				for b.Loop() {
					if v, ok, err := s.AppendGet(dst, there[i:i+keySize]); !ok || err != nil || len(v) != valueSize {
						b.Fatal(ok, err)
					}
					i = (i + keySize) % len(there)
				}
				reportCalls(b, func() error {
					i = (i + keySize) % len(there)
					_, _, err := s.AppendGet(dst, there[i:i+keySize])
					return err
				})
			})
		})
	}
}

// filled returns a store in dir with keys 1 to n.
func filled(b *testing.B, dir string, n int) *oncelog.Store {
	s, err := oncelog.Open(dir, &oncelog.Options{TTL: oncelog.Forever, Sync: oncelog.SyncNever})
	require.NoError(b, err)
	b.Cleanup(func() {
		if err := s.Close(); !errors.Is(err, oncelog.ErrClosed) {
			require.NoError(b, err)
		}
	})
	fill(b, s, n, func(int) time.Duration { return oncelog.Forever })
	require.EqualValues(b, n, s.Stats().Keys)
	return s
}

// fill puts keys 1 to n, each with a TTL of its own.
func fill(b *testing.B, s *oncelog.Store, n int, ttl func(id int) time.Duration) {
	const writers = 4
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			key, value := make([]byte, keySize), make([]byte, valueSize)
			for id := w + 1; id <= n; id += writers {
				nameKey(key, uint64(id))
				if _, _, err := s.PutIfAbsent(key, value, ttl(id)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// resident returns the bytes of anonymous memory that the process has in use, after the collector gave back what it could.
func resident(b *testing.B) int64 {
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	for line := range strings.Lines(string(status)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	b.Fatal("no RssAnon")
	return 0
}
