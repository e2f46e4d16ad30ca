//go:build linux

package bench

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// BenchmarkCold measures Get of keys whose pages are not in memory, by so many callers without a pause, and how long a
// goroutine that has nothing to do with the store waits for a processor meanwhile: by how much it oversleeps.
func BenchmarkCold(b *testing.B) {
	const keys = 200_000
	dir := filepath.Join(workDir(b), "store")
	s := filled(b, dir, keys)
	syscall.Sync() // what is dirty stays
	for _, callers := range []int{1, 2, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var calls, others []time.Duration
			for range b.N {
				pageOut(b, dir)
				c, o := coldRound(b, s, keys, callers)
				calls, others = append(calls, c...), append(others, o...)
			}
			slices.Sort(calls)
			slices.Sort(others)
			at := func(d []time.Duration, q float64) float64 { return float64(d[int(q*float64(len(d)-1))]) / 1e3 }
			b.ReportMetric(0, "ns/op")
			for _, q := range []struct {
				name string
				q    float64
			}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}} {
				b.ReportMetric(at(calls, q.q), q.name+"-us")
				b.ReportMetric(at(others, q.q), "others-"+q.name+"-us")
			}
		})
	}
}

// coldRound has callers make as many look-ups as there are pages, about.
func coldRound(b *testing.B, s *oncelog.Store, keys, callers int) (calls, others []time.Duration) {
	took := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			key, dst := make([]byte, keySize), make([]byte, 0, valueSize)
			for range keys / 14 / callers { // 14 records to a page
				nameKey(key, rand.Uint64N(uint64(keys))+1)
				began := time.Now()
				if _, ok, err := s.AppendGet(dst, key); !ok || err != nil {
					b.Error(ok, err)
					return
				}
				took[w] = append(took[w], time.Since(began))
			}
		})
	}
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			const nap = 100 * time.Microsecond
			began := time.Now()
			time.Sleep(nap)
			others = append(others, time.Since(began)-nap)
		}
	}()
	wg.Wait()
	over.Store(true)
	<-done
	return slices.Concat(took...), others
}

// pageOut takes the log's pages out of memory, as the system does when it wants the memory or they were not used.
func pageOut(b *testing.B, dir string) {
	runtime.GC() // so that no round pays for the garbage of the one before
	maps, err := os.Open("/proc/self/maps")
	require.NoError(b, err)
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		if !strings.Contains(lines.Text(), dir) {
			continue
		}
		var from, to uintptr
		_, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to)
		require.NoError(b, err)
		const pageout = 21 // MADV_PAGEOUT
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, pageout); errno != 0 {
			b.Skip("MADV_PAGEOUT: ", errno)
		}
		fields := strings.Fields(lines.Text())
		f, err := os.Open(fields[len(fields)-1])
		require.NoError(b, err)
		const dontNeed = 4 // POSIX_FADV_DONTNEED, for pages that nobody has touched yet
		_, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0)
		require.Zero(b, errno)
		require.NoError(b, f.Close())
	}
}
