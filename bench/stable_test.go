//go:build linux && !race

package bench

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// What a machine's neighbours don't change is compared with what it was: allocations of a call, bytes of a key. Times are
// never asserted. A call may allocate less; when it does, lower its number here.
func TestAllocationsOfACall(t *testing.T) {
	s, err := oncelog.Open(filepath.Join(t.TempDir(), "store"), &oncelog.Options{Sync: oncelog.SyncNever})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	r, err := s.Receiver(nil)
	require.NoError(t, err)
	ctx, value := context.Background(), make([]byte, valueSize)
	fn := func(context.Context) ([]byte, error) { return value, nil }
	id := uint64(0)
	key, dst := make([]byte, keySize), make([]byte, 0, valueSize)
	there := []byte("there")
	for _, one := range []struct {
		name string
		most float64
		call func() error
	}{
		{"PutIfAbsent, fresh", 3, func() error { id++; nameKey(key, id); _, _, err := s.PutIfAbsent(key, value, 0); return err }},
		{"PutIfAbsent, duplicate", 1, func() error { _, _, err := s.PutIfAbsent(there, value, 0); return err }},
		{"Do, fresh", 11, func() error { id++; nameKey(key, id); _, err := r.Do(ctx, string(key), fn); return err }},
		{"Do, duplicate", 1, func() error { _, err := r.Do(ctx, "there", fn); return err }},
		{"AppendGet, there", 0, func() error { _, _, err := s.AppendGet(dst, there); return err }},
		{"Has, not there", 0, func() error { _, err := s.Has([]byte("not there")); return err }},
	} {
		require.NoError(t, one.call(), one.name)
		// Housekeeping allocates too, at times; the least of some runs is the call's.
		least := 1e9
		for range 5 {
			least = min(least, testing.AllocsPerRun(200, func() {
				if err := one.call(); err != nil {
					panic(err)
				}
			}))
		}
		t.Logf("%-24s %2.0f", one.name, least)
		require.LessOrEqual(t, least, one.most, one.name)
	}
}

// Tables grow page by page, and memory comes in larger pieces, so what a key takes depends on how many there are.
func TestBytesOfAKey(t *testing.T) {
	const keys = 200_000
	s, err := oncelog.Open(filepath.Join(t.TempDir(), "store"), &oncelog.Options{TTL: oncelog.Forever, Sync: oncelog.SyncNever})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	key, value := make([]byte, keySize), make([]byte, valueSize)
	for id := range uint64(keys) {
		nameKey(key, id)
		_, _, err := s.PutIfAbsent(key, value, 0)
		require.NoError(t, err)
	}
	st := s.Stats()
	index, log := float64(st.IndexBytes)/keys, float64(st.LogBytes)/keys
	t.Logf("index %.1f, log %.1f bytes a key", index, log)
	require.LessOrEqual(t, index, 22.0, "at this size; 15 at a million")
	require.LessOrEqual(t, log, float64(keySize+valueSize+28), "the format's promise")
}
