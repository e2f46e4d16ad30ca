//go:build linux

package bench

import (
	"context"
	"path/filepath"
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
	// run measures so that ns/op is of calls that nobody times one by one; those come after.
	run := func(b *testing.B, s *oncelog.Store, call func() error) {
		b.ReportAllocs()
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
		reportCalls(b, call)
		if st := s.Stats(); st.Keys > 1 {
			b.ReportMetric(logPerByte(st.LogBytes, int(st.Keys)), "log/byte")
		}
	}
	b.Run("duplicate", func(b *testing.B) {
		s := open(b)
		r, err := s.Receiver(nil)
		require.NoError(b, err)
		run(b, s, func() error {
			_, err := r.Do(ctx, "order-4711", fn)
			return err
		})
	})
	b.Run("duplicate/PutIfAbsent", func(b *testing.B) {
		s := open(b)
		run(b, s, func() error {
			_, _, err := s.PutIfAbsent([]byte("order-4711"), value, 0)
			return err
		})
	})
	b.Run("fresh", func(b *testing.B) {
		s := open(b)
		r, err := s.Receiver(nil)
		require.NoError(b, err)
		next := keys()
		run(b, s, func() error {
			_, err := r.Do(ctx, string(next()), fn)
			return err
		})
	})
	b.Run("fresh/PutIfAbsent", func(b *testing.B) {
		s := open(b)
		next := keys()
		run(b, s, func() error {
			_, _, err := s.PutIfAbsent([]byte(string(next())), value, 0)
			return err
		})
	})
}

// keys returns a function that names one key after the other, in the same bytes.
func keys() func() []byte {
	id, key := uint64(0), make([]byte, keySize)
	return func() []byte {
		id++
		nameKey(key, id)
		return key
	}
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
	next := keys()
	var ratios, batches []float64
	var single []time.Duration
	for b.Loop() {
		calls := make([]receiver.Call, messages)
		for i := range calls {
			calls[i] = receiver.Call{Key: string(next()), Fn: fn}
		}
		start := time.Now()
		if _, err := r.DoAll(ctx, calls); err != nil {
			b.Fatal(err)
		}
		batch := time.Since(start)
		start = time.Now()
		for range messages {
			began := time.Now()
			if _, err := r.Do(ctx, string(next()), fn); err != nil {
				b.Fatal(err)
			}
			single = append(single, time.Since(began))
		}
		ratios = append(ratios, float64(time.Since(start))/float64(batch))
		batches = append(batches, messages/batch.Seconds())
	}
	b.ReportMetric(median(ratios), "x-Do")
	b.ReportMetric(median(batches), "messages/s")
	b.ReportMetric(messages/median(batches)*1e6, "batch-p50-us") // too few rounds for more of it
	reportQuantiles(b, "Do-", quantiles(single))
	st := s.Stats()
	b.ReportMetric(logPerByte(st.LogBytes, int(st.Keys)), "log/byte")
}
