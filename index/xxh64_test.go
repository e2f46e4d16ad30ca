package index

import (
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func xxhashOf(seed uint64, space byte, key []byte) Hash {
	d := xxhash.NewWithSeed(seed)
	_, _ = d.Write([]byte{space})
	_, _ = d.Write(key)
	return Hash(d.Sum64())
}

func TestHashIsXXH64(t *testing.T) {
	key := make([]byte, 300)
	for i := range key {
		key[i] = byte(i * 7)
	}
	for n := range key {
		for _, seed := range []uint64{0, 1, 1 << 63, 0x0123456789ABCDEF} {
			require.Equal(t, xxhashOf(seed, byte(n), key[:n]), New(seed).Hash(byte(n), key[:n]), "%d bytes", n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		seed, space := rapid.Uint64().Draw(t, "seed"), rapid.Byte().Draw(t, "space")
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		require.Equal(t, xxhashOf(seed, space, key), New(seed).Hash(space, key))
	})
}
