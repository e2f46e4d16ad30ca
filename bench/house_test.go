//go:build linux

package bench

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// paces: what housekeeping does when it spares its neighbours, as it does by default, and what it could do.
var paces = []struct {
	name string
	pace int64
}{{"default pace", 0}, {"no pace", -1}}

// BenchmarkSnapshot measures Store.Snapshot. All of the index is written, however little has changed.
func BenchmarkSnapshot(b *testing.B) {
	keys := 1_000_000
	if *large {
		keys = 10_000_000
	}
	dir := filepath.Join(workDir(b), "store")
	require.NoError(b, filled(b, dir, keys).Close())
	fresh := freshKeys()
	for _, p := range paces {
		b.Run(fmt.Sprintf("keys=%d/%s", keys, p.name), func(b *testing.B) {
			s, err := oncelog.Open(dir, &oncelog.Options{TTL: oncelog.Forever, Pace: p.pace})
			require.NoError(b, err)
			defer func() { require.NoError(b, s.Close()) }()
			key := make([]byte, keySize)
			var took []time.Duration
			var sizes []float64
			for b.Loop() {
				b.StopTimer() // a store that has not changed makes none
				nameKey(key, fresh.Add(1))
				_, _, err := s.PutIfAbsent(key, nil, 0)
				require.NoError(b, err)
				before := s.Stats().SnapshotBytes
				b.StartTimer()
				began := time.Now()
				err = s.Snapshot()
				took = append(took, time.Since(began))
				require.NoError(b, err)
				sizes = append(sizes, float64(s.Stats().SnapshotBytes-before))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(took).Seconds()*1e3, "ms")
			b.ReportMetric(median(sizes)/float64(s.Stats().Keys), "B/key")
			b.ReportMetric(median(sizes)/1e6/median(took).Seconds(), "MB/s")
		})
	}
}

// BenchmarkCompact measures Store.Compact when a part of all records has expired, spread evenly over the log: alone
// and as fast as it goes, and at the default pace beside 8 writers, whose commits are timed before it and during it.
// Moved are the records that are still alive, dropped the segments' bytes.
func BenchmarkCompact(b *testing.B) {
	keys := 100_000
	if *large {
		keys = 2_000_000
	}
	for _, dead := range []int{50, 90} {
		for _, beside := range []bool{false, true} {
			name := map[bool]string{false: "alone", true: "8 writers"}[beside]
			b.Run(fmt.Sprintf("keys=%d/dead=%d%%/%s", keys, dead, name), func(b *testing.B) {
				var all []compacted
				for b.Loop() {
					all = append(all, compactOnce(b, keys, dead, beside))
				}
				report := func(unit string, of func(compacted) float64) {
					v := make([]float64, len(all))
					for i := range all {
						v[i] = of(all[i])
					}
					b.ReportMetric(median(v), unit)
				}
				b.ReportMetric(0, "ns/op") // most of it is making the store
				report("ms", func(c compacted) float64 { return c.took.Seconds() * 1e3 })
				report("moved-MB/s", func(c compacted) float64 { return float64(c.moved) / 1e6 / c.took.Seconds() })
				report("dropped-MB/s", func(c compacted) float64 { return float64(c.dropped) / 1e6 / c.took.Seconds() })
				report("log/live-before", func(c compacted) float64 { return c.before })
				report("log/live-after", func(c compacted) float64 { return c.after })
				if beside {
					quiet, busy := make([]sample, len(all)), make([]sample, len(all))
					for i, c := range all {
						quiet[i], busy[i] = c.quiet, c.busy
					}
					reportQuantiles(b, "quiet-commit-", quiet...)
					reportQuantiles(b, "commit-", busy...)
				}
			})
		}
	}
}

// compacted is what one compaction did.
type compacted struct {
	took           time.Duration
	moved, dropped int64
	before, after  float64 // bytes of log for each that is live
	quiet, busy    sample  // of commits before it and beside it
}

func compactOnce(b *testing.B, keys, deadPercent int, beside bool) (c compacted) {
	var clock atomic.Int64
	clock.Store(1_700_000_000_000)
	o := &oncelog.Options{
		TTL: oncelog.Forever, RetryWindow: oncelog.NoRetryWindow, Sync: oncelog.SyncNever, Pace: -1,
		Now: func() time.Time { return time.UnixMilli(clock.Load()) },
	}
	dir := filepath.Join(workDir(b), "store")
	s, err := oncelog.Open(dir, o)
	require.NoError(b, err)
	fill(b, s, keys, func(id int) time.Duration {
		if id%100 < deadPercent {
			return time.Hour
		}
		return oncelog.Forever
	})
	require.NoError(b, s.Close())

	o.Sync = oncelog.SyncAlways
	if beside {
		o.Pace = 0
	}
	s, err = oncelog.Open(dir, o)
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	stop := func() sample { return sample{} }
	if beside {
		fresh := freshKeys()
		stop = keepCommitting(b, s, fresh)
		time.Sleep(*sliceTime)
		c.quiet = stop()
		stop = keepCommitting(b, s, fresh)
	}
	old := s.Segments()
	clock.Add(2 * time.Hour.Milliseconds())
	copied := s.Stats().CopiedBytes
	c.before = logPerLive(s)
	began := time.Now()
	err = s.Compact()
	c.took = time.Since(began)
	c.after = logPerLive(s)
	c.busy = stop()
	require.NoError(b, err)
	c.moved = int64(s.Stats().CopiedBytes - copied)
	first := s.Segments()[0].Number
	for _, seg := range old {
		if seg.Number < first {
			c.dropped += seg.Bytes
		}
	}
	return c
}

func logPerLive(s *oncelog.Store) float64 {
	var log, live int64
	for _, seg := range s.Segments() {
		log, live = log+seg.Bytes, live+seg.Live
	}
	return float64(log) / float64(live)
}
