//go:build linux

package bench

import (
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// BenchmarkSteady plays three turns of the TTL at a steady load, with a clock that goes as fast as the disk allows:
// one TTL, and TTLs of one and of ten. After the store has filled it reports how many bytes of log were written for
// each that was asked for, and the most that the log took for what was live.
func BenchmarkSteady(b *testing.B) {
	perTurn := 20_000
	if *large {
		perTurn = 400_000
	}
	for _, mixed := range []bool{false, true} {
		b.Run(map[bool]string{false: "one TTL", true: "TTLs 1 to 10"}[mixed], func(b *testing.B) {
			var clock atomic.Int64
			clock.Store(1_700_000_000_000)
			const turn = 72 * time.Hour
			s, err := oncelog.Open(filepath.Join(workDir(b), "store"), &oncelog.Options{
				TTL: turn, RetryWindow: oncelog.NoRetryWindow, Sync: oncelog.SyncNever, Pace: -1,
				Now: func() time.Time { return time.UnixMilli(clock.Load()) },
			})
			require.NoError(b, err)
			defer s.Close()
			key, value := make([]byte, keySize), make([]byte, valueSize)
			id := uint64(0)
			var took []time.Duration
			put := func(n int, ttl func() time.Duration) {
				for range n {
					id++
					nameKey(key, id)
					clock.Add(int64(turn/time.Millisecond) / int64(perTurn))
					began := time.Now()
					_, inserted, err := s.PutIfAbsent(key, value, ttl())
					took = append(took, time.Since(began))
					require.NoError(b, err)
					require.True(b, inserted)
				}
			}
			ttl := func() time.Duration { return 0 }
			if mixed {
				ttl = func() time.Duration { return turn / 10 * time.Duration(1+id%2*9) }
			}
			put(perTurn, ttl)
			took = took[:0]
			for b.Loop() {
				before := s.Stats()
				most := 0.0
				for range 30 {
					put(perTurn/10, ttl)
					st := s.Stats()
					most = max(most, float64(st.DiskBytes)/float64(st.LiveBytes))
				}
				after := s.Stats()
				log, copied := float64(after.LogBytes-before.LogBytes), float64(after.CopiedBytes-before.CopiedBytes)
				b.ReportMetric(log/(log-copied), "log/asked")
				b.ReportMetric((log+float64(after.SnapshotBytes-before.SnapshotBytes))/(log-copied), "with-snapshots/asked")
				b.ReportMetric(most, "disk/live")
			}
			reportQuantiles(b, "", quantiles(took))
		})
	}
}

// BenchmarkBeside measures commits of 8 writers and look-ups while housekeeping compacts and makes snapshots without a
// pause, over the same without: the medians of the 99.9th percentiles of slices that take turns.
func BenchmarkBeside(b *testing.B) {
	keys := 20_000
	if *large {
		keys = 1_000_000
	}
	dir := filepath.Join(workDir(b), "store")
	require.NoError(b, filled(b, dir, keys).Close())
	s, err := oncelog.Open(dir, &oncelog.Options{TTL: oncelog.Forever})
	require.NoError(b, err)
	defer s.Close()
	fresh := freshKeys()
	slice := func(housekeeping bool) (commit, lookup sample) {
		var done atomic.Bool
		look := make(chan []time.Duration, 1)
		kept := make(chan error, 1)
		commits := keepCommitting(b, s, fresh)
		go func() {
			var took []time.Duration
			key, dst := make([]byte, keySize), make([]byte, 0, valueSize)
			for i := uint64(1); !done.Load(); i = i*2862933555777941757 + 3037000493 {
				nameKey(key, i%uint64(keys)+1)
				began := time.Now()
				if _, ok, err := s.AppendGet(dst, key); err != nil || !ok {
					b.Error(ok, err)
					break
				}
				took = append(took, time.Since(began))
				runtime.Gosched()
			}
			look <- took
		}()
		go func() {
			var err error
			for housekeeping && err == nil && !done.Load() {
				if err = s.Compact(); err == nil {
					err = s.Snapshot()
				}
			}
			kept <- err
		}()
		time.Sleep(*sliceTime)
		done.Store(true)
		commit, lookup = commits(), quantiles(<-look)
		if err := <-kept; err != nil {
			b.Error(err)
		}
		return commit, lookup
	}
	var quietCommits, busyCommits, quietLookups, busyLookups []sample
	for b.Loop() {
		commit, lookup := slice(false)
		quietCommits, quietLookups = append(quietCommits, commit), append(quietLookups, lookup)
		commit, lookup = slice(true)
		busyCommits, busyLookups = append(busyCommits, commit), append(busyLookups, lookup)
	}
	p999 := func(s sample) float64 { return s.p999 }
	reportQuantiles(b, "quiet-commit-", quietCommits...)
	reportQuantiles(b, "commit-", busyCommits...)
	reportQuantiles(b, "quiet-lookup-", quietLookups...)
	reportQuantiles(b, "lookup-", busyLookups...)
	b.ReportMetric(medianRatio(busyCommits, quietCommits, p999), "commit-p99.9-ratio")
	b.ReportMetric(medianRatio(busyLookups, quietLookups, p999), "lookup-p99.9-ratio")
}

// freshKeys returns what counts up numbers that filled does not use.
func freshKeys() *atomic.Uint64 {
	var id atomic.Uint64
	id.Store(1 << 40)
	return &id
}

// keepCommitting has 8 goroutines commit fresh keys until the function it returns is called.
func keepCommitting(b *testing.B, s *oncelog.Store, fresh *atomic.Uint64) (stop func() sample) {
	const writers = 8
	var done atomic.Bool
	var wg sync.WaitGroup
	var times [writers][]time.Duration
	for w := range writers {
		wg.Go(func() {
			key, value := make([]byte, keySize), make([]byte, valueSize)
			for !done.Load() {
				nameKey(key, fresh.Add(1))
				began := time.Now()
				if _, _, err := s.PutIfAbsent(key, value, 0); err != nil {
					b.Error(err)
					return
				}
				times[w] = append(times[w], time.Since(began))
			}
		})
	}
	began := time.Now()
	return func() sample {
		done.Store(true)
		wg.Wait()
		all := slices.Concat(times[:]...)
		commits := quantiles(all)
		commits.rate = float64(len(all)) / time.Since(began).Seconds()
		return commits
	}
}

// BenchmarkCollector measures a collection with a full index over one with an empty heap.
func BenchmarkCollector(b *testing.B) {
	keys := 20_000
	if *large {
		keys = 10_000_000
	}
	collect := func() time.Duration {
		var took []time.Duration
		for range 11 {
			began := time.Now()
			runtime.GC()
			took = append(took, time.Since(began))
		}
		return median(took)
	}
	empty := collect()
	st := filled(b, filepath.Join(workDir(b), "store"), keys).Stats()
	var full []time.Duration
	for b.Loop() {
		full = append(full, collect())
	}
	b.ReportMetric(float64(median(full))/float64(empty), "full/empty")
	b.ReportMetric(median(full).Seconds()*1e3, "ms")
	b.ReportMetric(float64(st.IndexBytes)/float64(keys), "index-B/key")
}
