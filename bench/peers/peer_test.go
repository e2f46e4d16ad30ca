package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A peer that keeps less than it says would be measured for nothing.
func TestEachPeerKeepsWhatItTook(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			dir := t.TempDir()
			open := func() peer {
				p, err := k.open(dir, mode{Durable: true})
				if errors.Is(err, errAbsent) {
					t.Skip(err)
				}
				require.NoError(t, err)
				if pre, ok := p.(preparer); ok {
					require.NoError(t, pre.Prepare(1000))
				}
				return p
			}
			p := open()
			key := make([]byte, keySize)
			const n = 300
			require.NoError(t, load(p, 0, n/2))
			for id := range uint64(n) {
				nameKey(key, id)
				inserted, err := p.Put(key, valueOf(id))
				require.NoError(t, err)
				require.Equal(t, id >= n/2 || k.name == "limit" || k.name == "append", inserted, "key %d", id)
			}
			require.NoError(t, p.Close())
			if !k.lookups {
				return
			}
			if k.reopens {
				p = open()
				defer func() { require.NoError(t, p.Close()) }()
			}
			for id := range uint64(n) {
				nameKey(key, id)
				v, ok, err := p.Get([]byte("before"), key)
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, append([]byte("before"), valueOf(id)...), v)
			}
			nameKey(key, absent)
			v, ok, err := p.Get([]byte("before"), key)
			require.NoError(t, err)
			require.False(t, ok)
			require.Equal(t, "before", string(v))
		})
	}
}

func TestEachPeerHasOneWinner(t *testing.T) {
	for _, k := range kinds {
		if !k.lookups {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			p, err := k.open(t.TempDir(), mode{Durable: true})
			if errors.Is(err, errAbsent) {
				t.Skip(err)
			}
			require.NoError(t, err)
			defer func() { require.NoError(t, p.Close()) }()
			won := make(chan bool, 64)
			key := make([]byte, keySize)
			nameKey(key, 7)
			for range cap(won) {
				go func() {
					inserted, err := p.Put(key, valueOf(7))
					won <- inserted && err == nil
				}()
			}
			winners := 0
			for range cap(won) {
				if <-won {
					winners++
				}
			}
			require.Equal(t, 1, winners)
		})
	}
}

func TestResultsAreReadBack(t *testing.T) {
	r := newResults([]string{"cpu: some", "peer: oncelog  (defaults)"})
	r.add("W1", "writers=8", "oncelog", 0, "ops/s", 100)
	r.add("W1", "writers=8", "oncelog", 1, "ops/s", 300)
	r.add("W1", "writers=8", "oncelog", 2, "ops/s", 200)
	r.add("W1", "writers=8", "limit", 1, "ops/s", 600)
	r.add("W1", "writers=8", "limit", 0, "ops/s", 400)
	r.add("W2", "keys=1M/miss", "oncelog", 0, "ns", 60)
	dir := t.TempDir()
	require.NoError(t, r.write(dir))
	again, err := readResults(dir + "/results.txt")
	require.NoError(t, err)
	require.Equal(t, r.machine, again.machine)
	require.Equal(t, r.cells, again.cells)
	require.Equal(t, figure{200, 100, 300, true}, again.figure("W1", "writers=8", "oncelog", "ops/s"))
	require.Equal(t, figure{0.5, 0.25, 0.5, true}, again.ratio("W1", "writers=8", "oncelog", "limit", "ops/s"))
	require.Equal(t, r.markdown(), again.markdown())
	require.FileExists(t, dir+"/throughput.svg")
}

func TestNumbersAreShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0123: "0.012", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1,230", 1234567: "1,230,000"} {
		require.Equal(t, want, short3(v))
	}
}
