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

// Numbers of sequences are read back as what they are, never meet a key, and belong to the scope of their source.
func TestNumbersNeverMeetKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "scope")
		scope := rootScope
		for _, name := range names {
			scope = subScope(scope, name)
		}
		source := rapid.StringN(1, -1, -1).Draw(t, "source")
		epoch, seq := rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "seq")
		number := appendNumber(nil, scope, source, epoch, seq)
		k, ok := ParseKey(number)
		require.True(t, ok)
		require.Equal(t, Key{Scope: append([]string{}, names...), Source: source, Epoch: epoch, Seq: seq}, Key{append([]string{}, k.Scope...), k.Name, k.Source, k.Epoch, k.Seq})
		key := rapid.StringN(1, -1, -1).Draw(t, "key")
		full := appendKey(nil, scope, key)
		k, ok = ParseKey(full)
		require.True(t, ok)
		require.Equal(t, key, k.Name)
		require.NotEqual(t, full, number)
		count, path, ok := ScopeOf(number)
		require.True(t, ok)
		count2, path2, ok := ScopeOf(full)
		require.True(t, ok)
		require.EqualValues(t, len(names), count)
		require.Equal(t, count, count2)
		require.Equal(t, path2, path)
		_, _ = ParseKey(full[:rapid.IntRange(0, len(full)).Draw(t, "cut")])
		_, _, _ = ScopeOf(number[:rapid.IntRange(0, len(number)).Draw(t, "cut")])
		_, ok = ParseKey([]byte(rapid.SliceOf(rapid.Byte()).Draw(t, "garbage")))
		_ = ok
	})
}
