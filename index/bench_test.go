package index

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
)

var large = flag.Bool("index.large", false, "benchmark at 10 million keys too: builds for some seconds, takes 150 MB")

// benchKey is 36 bytes, as long as a UUID's text. Keys of different i differ, and no two i are neighbours in it.
func benchKey(key *[36]byte, i uint64) []byte {
	binary.LittleEndian.PutUint64(key[14:], i*0x9E3779B97F4A7C15)
	return key[:]
}

// benchWhole runs a benchmark on an index of a million keys, those of benchKey from 0 on, and with -large of ten.
func benchWhole(b *testing.B, run func(b *testing.B, n uint64, x *Index)) {
	sizes := []uint64{1_000_000}
	if *large {
		sizes = append(sizes, 10_000_000)
	}
	for _, n := range sizes {
		x := New(1)
		var key [36]byte
		for i := range n {
			k := benchKey(&key, i)
			if err := x.Insert(x.Hash(0, k), 0, k, At(uint16(i>>20)+1, int64(i&0xFFFFF))); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) { run(b, n, x) })
	}
}

// benchLookups looks up keys whose i is drawn by pick, the hash of the key included. The keys are made before, since
// a key written just before it is hashed keeps the processor from beginning a look-up before the last one's end,
// and so many of them that their buckets are in no cache when they come round again.
func benchLookups(b *testing.B, present bool, pick func(n, random uint64) uint64) {
	benchWhole(b, func(b *testing.B, n uint64, x *Index) {
		keys := make([][36]byte, 1<<20)
		rng := rand.NewPCG(1, 2)
		for i := range keys {
			benchKey(&keys[i], pick(n, rng.Uint64()>>32))
		}
		b.ReportAllocs()
		found, i := 0, 0
		for b.Loop() {
			k := &keys[i%len(keys)]
			i++
			if _, ok := x.Lookup(x.Hash(0, k[:]), 0, k[:]); ok {
				found++
			}
		}
		if present && found != b.N {
			b.Fatalf("%d of %d keys found", found, b.N)
		}
		s := x.Stats()
		b.ReportMetric(float64(s.Bytes)/float64(s.Keys), "B/key")
		b.ReportMetric(float64(found)/float64(b.N), "found/op")
	})
}

// BenchmarkMiss looks up keys that are not there. Those found all the same would cost the caller a read.
func BenchmarkMiss(b *testing.B) {
	benchLookups(b, false, func(n, random uint64) uint64 { return n + random })
}

// BenchmarkHit looks up keys that are there; the read of the record comes on top.
func BenchmarkHit(b *testing.B) {
	benchLookups(b, true, func(n, random uint64) uint64 { return random * n >> 32 })
}

// BenchmarkInsert grows an index, splits and the memory's first use included.
func BenchmarkInsert(b *testing.B) {
	x := New(1)
	var key [36]byte
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		k := benchKey(&key, i)
		if err := x.Insert(x.Hash(0, k), 0, k, At(uint16(i>>20)+1, int64(i&0xFFFFF))); err != nil {
			b.Fatal(err)
		}
	}
	s := x.Stats()
	b.ReportMetric(float64(s.Bytes)/float64(s.Keys), "B/key")
}

func BenchmarkHash(b *testing.B) {
	x := New(1)
	var key [36]byte
	for i := uint64(0); b.Loop(); i++ {
		_ = x.Hash(0, benchKey(&key, i))
	}
}
