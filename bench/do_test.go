//go:build linux

package bench

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// BenchmarkDo is the receiver's call beside the store's own: for a key that is done, and for one that is new. The log
// is not synced, so that what is left is what the calls themselves cost.
func BenchmarkDo(b *testing.B) {
	ctx := context.Background()
	value := make([]byte, valueSize)
	fn := func(context.Context) ([]byte, error) { return value, nil }
	open := func(b *testing.B) *oncelog.Store {
		s, err := oncelog.Open(filepath.Join(b.TempDir(), "store"), &oncelog.Options{Sync: oncelog.SyncNever})
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, s.Close()) })
		return s
	}
	b.Run("duplicate", func(b *testing.B) {
		r, err := open(b).Receiver(nil)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Do(ctx, "order-4711", fn); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("duplicate/PutIfAbsent", func(b *testing.B) {
		s := open(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := s.PutIfAbsent([]byte("order-4711"), value, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fresh", func(b *testing.B) {
		r, err := open(b).Receiver(nil)
		require.NoError(b, err)
		key := make([]byte, keySize)
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			nameKey(key, i)
			if _, err := r.Do(ctx, string(key), fn); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fresh/PutIfAbsent", func(b *testing.B) {
		s := open(b)
		key := make([]byte, keySize)
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			nameKey(key, i)
			if _, _, err := s.PutIfAbsent([]byte(string(key)), value, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBatch is a lone consumer, durable: a hundred messages by DoAll, beside a hundred calls of Do. Both in turn,
// and their ratio is that of a round.
func BenchmarkBatch(b *testing.B) {
	const messages = 100
	ctx := context.Background()
	value := make([]byte, valueSize)
	fn := func(context.Context) ([]byte, error) { return value, nil }
	s, err := oncelog.Open(filepath.Join(workDir(b), "store"), nil)
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	r, err := s.Receiver(nil)
	require.NoError(b, err)
	n := uint64(0)
	key := make([]byte, keySize)
	next := func() string {
		n++
		nameKey(key, n)
		return string(key)
	}
	var ratios, batches []float64
	for b.Loop() {
		calls := make([]receiver.Call, messages)
		for i := range calls {
			calls[i] = receiver.Call{Key: next(), Fn: fn}
		}
		start := time.Now()
		if _, err := r.DoAll(ctx, calls); err != nil {
			b.Fatal(err)
		}
		batch := time.Since(start)
		start = time.Now()
		for range messages {
			if _, err := r.Do(ctx, next(), fn); err != nil {
				b.Fatal(err)
			}
		}
		ratios = append(ratios, float64(time.Since(start))/float64(batch))
		batches = append(batches, messages/batch.Seconds())
	}
	slices.Sort(ratios)
	slices.Sort(batches)
	b.ReportMetric(ratios[len(ratios)/2], "x-Do")
	b.ReportMetric(batches[len(batches)/2], "messages/s")
}
