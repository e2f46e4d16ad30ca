package index

import (
	"encoding/binary"
	"math/bits"
)

const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5
)

// xxh64 is XXH64 of space and key in one, without their being joined. The xxhash package takes a seed only with a
// digest, which is two and a half times as long for a 36-byte key, and a look-up waiting for memory is the faster
// the fewer instructions keep the processor from beginning the next.
func xxh64(seed uint64, space byte, key []byte) uint64 {
	if len(key) < 31 {
		var joined [31]byte
		joined[0] = space
		n := 1 + copy(joined[1:], key)
		return xxhEnd(seed+prime5+uint64(n), joined[:n])
	}
	le := binary.LittleEndian
	v1 := xxhRound(seed+prime1+prime2, le.Uint64(key)<<8|uint64(space))
	v2 := xxhRound(seed+prime2, le.Uint64(key[7:]))
	v3 := xxhRound(seed, le.Uint64(key[15:]))
	v4 := xxhRound(seed-prime1, le.Uint64(key[23:]))
	rest := key[31:]
	for ; len(rest) >= 32; rest = rest[32:] {
		v1 = xxhRound(v1, le.Uint64(rest))
		v2 = xxhRound(v2, le.Uint64(rest[8:]))
		v3 = xxhRound(v3, le.Uint64(rest[16:]))
		v4 = xxhRound(v4, le.Uint64(rest[24:]))
	}
	h := bits.RotateLeft64(v1, 1) + bits.RotateLeft64(v2, 7) + bits.RotateLeft64(v3, 12) + bits.RotateLeft64(v4, 18)
	h = (h^xxhRound(0, v1))*prime1 + prime4
	h = (h^xxhRound(0, v2))*prime1 + prime4
	h = (h^xxhRound(0, v3))*prime1 + prime4
	h = (h^xxhRound(0, v4))*prime1 + prime4
	return xxhEnd(h+uint64(len(key)+1), rest)
}

func xxhRound(lane, word uint64) uint64 { return bits.RotateLeft64(lane+word*prime2, 31) * prime1 }

// xxhEnd takes in what is left of the input, less than 32 bytes, and spreads each bit over all.
func xxhEnd(h uint64, rest []byte) uint64 {
	for ; len(rest) >= 8; rest = rest[8:] {
		h = bits.RotateLeft64(h^xxhRound(0, binary.LittleEndian.Uint64(rest)), 27)*prime1 + prime4
	}
	if len(rest) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(rest))*prime1, 23)*prime2 + prime3
		rest = rest[4:]
	}
	for _, b := range rest {
		h = bits.RotateLeft64(h^uint64(b)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}
