package index

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// forger makes keys whose XXH64 is the same as that of many others of the family, whatever the seed is.
//
// A lane takes two words one after the other: a = rotl(a + x·P2, 31)·P1, and the same with y. Adding 2^63 to x flips
// one bit of the sum, which the rotation puts at bit 30, so a changes by +2^30·P1 or -2^30·P1, as the seed will have it;
// and y can take off the one or the other. So of (x, y), (x + 2^63, y - d) and (x + 2^63, y + d) the first always
// collides with one of the other two, nobody knows which. 13 lanes like that make 3^13 keys of 2^13 hashes.
type forger struct{ x, y, d uint64 }

const forgedLanes = 13

func newForger() forger {
	p1, p2 := uint64(0x9E3779B185EBCA87), uint64(0xC2B2AE3D27D4EB4F)
	inverse := p2 // of p2, modulo 2^64: each step doubles the bits that are right
	for range 6 {
		inverse *= 2 - p2*inverse
	}
	return forger{0x0123456789ABCDEF, 0xFEDCBA9876543210, p1 << 30 * inverse}
}

// key returns key i of the family, i below 3^13. The keyspace's byte and 31 bytes of the key fill the first stripe.
func (f forger) key(dst []byte, i uint64) []byte {
	dst = append(dst[:0], "a prefix of thirty-one bytes ..."[:31]...)
	for group := 0; group < (forgedLanes+3)/4; group++ {
		var words [8]uint64
		for lane := range 4 {
			words[lane], words[4+lane] = f.x, f.y
			if group*4+lane >= forgedLanes {
				continue
			}
			switch i % 3 {
			case 1:
				words[lane] += 1 << 63
				words[4+lane] -= f.d
			case 2:
				words[lane] += 1 << 63
				words[4+lane] += f.d
			}
			i /= 3
		}
		for _, w := range words {
			dst = binary.LittleEndian.AppendUint64(dst, w)
		}
	}
	return dst
}

// Whatever the seed, a million forged keys have 8192 hashes; all are found, none is taken for another, and the map
// that keeps them whole stays within its bound.
func TestForgedKeys(t *testing.T) {
	n := uint64(1_000_000)
	if raced || testing.Short() {
		n = 50_000
	}
	f := newForger()
	var key []byte
	for _, seed := range []uint64{0, 1, rand.Uint64(), rand.Uint64()} {
		x := New(seed)
		hashes := map[Hash]bool{}
		for i := range n {
			key = f.key(key, i)
			hashes[x.Hash(0, key)] = true
		}
		require.LessOrEqual(t, len(hashes), 1<<forgedLanes)
	}
	x := New(rand.Uint64())
	for i := range n {
		key = f.key(key, i)
		require.NoError(t, x.Insert(x.Hash(0, key), 0, key, At(uint16(i>>20)+1, int64(i&0xFFFFF))))
	}
	for i := range n + n/2 {
		key = f.key(key, i)
		loc, ok := x.Lookup(x.Hash(0, key), 0, key)
		if i < n && (!ok || loc != At(uint16(i>>20)+1, int64(i&0xFFFFF))) {
			require.Fail(t, "a forged key is missed", "%d", i)
		}
		_ = loc // one that is not there may lead to another's record, which the caller finds to be another's
	}
	st := x.Stats()
	require.EqualValues(t, n, st.Keys)
	require.Greater(t, st.Overflow, int64(n)*9/10)
	require.LessOrEqual(t, st.Overflow, int64(overflowLimit+overflowReserve))
	require.Less(t, st.Bytes/int64(n), int64(len(key))+200, "bytes a forged key")
}

// BenchmarkForged looks up forged keys that are there, and some that are not, among a million of them.
func BenchmarkForged(b *testing.B) {
	const n = 1_000_000
	f := newForger()
	x := New(rand.Uint64())
	var key []byte
	for i := range uint64(n) {
		key = f.key(key, i)
		if err := x.Insert(x.Hash(0, key), 0, key, At(uint16(i>>20)+1, int64(i&0xFFFFF))); err != nil {
			b.Fatal(err)
		}
	}
	for name, from := range map[string]uint64{"hit": 0, "miss": n} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			keys := make([][]byte, 1<<14)
			for i := range keys {
				keys[i] = f.key(nil, from+rand.Uint64N(500_000))
			}
			for i := 0; b.Loop(); i++ {
				k := keys[i%len(keys)]
				x.Lookup(x.Hash(0, k), 0, k)
			}
			b.ReportMetric(float64(x.Stats().Bytes)/n, "B/key")
		})
	}
}
