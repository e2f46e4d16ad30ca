package receiver

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// decode reads a scope and key back, from the description in encode.go.
func decode(b []byte) (scope []string, key string) {
	names, n := binary.Uvarint(b)
	b = b[n:]
	for range names {
		size, n := binary.Uvarint(b)
		scope = append(scope, string(b[n:n+int(size)]))
		b = b[n+int(size):]
	}
	return scope, string(b)
}

func encoded(scope []string, key string) []byte {
	s := rootScope
	for _, name := range scope {
		s = subScope(s, name)
	}
	return appendKey(nil, s, key)
}

// What can be read back in one way only never meets anything else.
func TestScopeAndKeyCanBeReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scope := rapid.SliceOf(rapid.String()).Draw(t, "scope")
		key := rapid.String().Draw(t, "key")
		gotScope, gotKey := decode(encoded(scope, key))
		require.True(t, slices.Equal(scope, gotScope))
		require.Equal(t, key, gotKey)
		require.True(t, slices.Equal(scope, scopePath(encoded(scope, ""))))
	})
}

// Ten million pairs of few and nasty bytes, so that an ambiguous encoding would meet itself often.
func TestTenMillionPairsNeverMeet(t *testing.T) {
	pairs := 10_000_000
	if testing.Short() {
		pairs = 1_000_000
	}
	const round = 1_000_000
	rng := rand.New(rand.NewPCG(1, 2))
	word := func(buf []byte) string {
		buf = buf[:rng.IntN(5)]
		for i := range buf {
			buf[i] = "\x00\x01\x02\x03ab/"[rng.IntN(7)]
		}
		return string(buf)
	}
	meetings := 0
	for range pairs / round {
		seen := make(map[uint64]uint64, round) // of the encoded bytes → of the pair, told apart by another encoding
		for range round {
			var buf [8]byte
			scope := make([]string, rng.IntN(4))
			pair := binary.BigEndian.AppendUint32(nil, uint32(len(scope)))
			for i := range scope {
				scope[i] = word(buf[:])
				pair = binary.BigEndian.AppendUint32(pair, uint32(len(scope[i])))
				pair = append(pair, scope[i]...)
			}
			key := word(buf[:])
			pair = append(pair, key...)
			b, p := xxhash.Sum64(encoded(scope, key)), xxhash.Sum64(pair)
			if q, ok := seen[b]; ok && q != p {
				meetings++
			}
			seen[b] = p
		}
	}
	require.Zero(t, meetings)
}
