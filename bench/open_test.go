//go:build linux

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// BenchmarkOpen measures the time from Open to the first answer: after a kill, for which the directory of a store in use
// is copied as it is at the moment, and after a clean close.
func BenchmarkOpen(b *testing.B) {
	keys := 20_000
	if *large {
		keys = 10_000_000
	}
	work := workDir(b)
	live := filepath.Join(work, "live")
	filled(b, live, keys)
	key := make([]byte, keySize)
	nameKey(key, 1)
	var took []time.Duration
	open := func(b *testing.B, dir string) {
		began := time.Now()
		s, err := oncelog.Open(dir, &oncelog.Options{TTL: oncelog.Forever, Sync: oncelog.SyncNever})
		require.NoError(b, err)
		ok, err := s.Has(key)
		took = append(took, time.Since(began))
		b.StopTimer()
		require.NoError(b, err)
		require.True(b, ok)
		require.NoError(b, s.Close())
		b.StartTimer()
	}
	report := func(b *testing.B) {
		b.ReportMetric(median(took).Seconds()*1e3, "p50-ms")
		b.ReportMetric(slices.Max(took).Seconds()*1e3, "max-ms") // openings are few: no p99
		took = nil
	}
	var dir string
	copies := 0
	b.Run(fmt.Sprintf("keys=%d/killed", keys), func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			copies++
			dir = filepath.Join(work, fmt.Sprint("copy", copies))
			image(b, live, dir)
			b.StartTimer()
			open(b, dir)
		}
		report(b)
	})
	b.Run(fmt.Sprintf("keys=%d/closed", keys), func(b *testing.B) {
		for b.Loop() {
			open(b, dir)
		}
		report(b)
	})
}

// image makes a directory that is what a kill would leave of a store. Files that are changed no more are linked.
func image(b *testing.B, from, to string) {
	segments, err := filepath.Glob(filepath.Join(from, "wal", "0*", "0*"))
	require.NoError(b, err)
	snapshots, err := filepath.Glob(filepath.Join(from, "snapshot", "0*"))
	require.NoError(b, err)
	for i, path := range append(append(snapshots, filepath.Join(from, "MANIFEST")), segments...) {
		rel, err := filepath.Rel(from, path)
		require.NoError(b, err)
		require.NoError(b, os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700))
		if i < len(snapshots)+1+len(segments)-3 {
			require.NoError(b, os.Link(path, filepath.Join(to, rel)))
			continue
		}
		content, err := os.ReadFile(path)
		require.NoError(b, err)
		require.NoError(b, os.WriteFile(filepath.Join(to, rel), content, 0o600))
	}
}
