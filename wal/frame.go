package wal

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// A segment file is a sequence of entries as tidwall/wal writes them: a varint length, then that many bytes. The
// first entry is the segment's header, each later one a frame.
//
// Header, 80 bytes, all numbers little-endian:
//
//	 0   8  magic "oncewal\x00"
//	 8   1  version, 1
//	 9   7  reserved, 0
//	16  16  store id, as in MANIFEST
//	32   8  segment number, as in the directory's name
//	40   8  nonce, random
//	48   8  number of the segment's first frame
//	56  16  the owner's (the root package keeps the records' base here)
//	72   8  XXH64 of bytes 0 to 71, seed 0
//
// Frame:
//
//	0   8  XXH64 of all that follows, seed = nonce XOR number × 0x9E3779B97F4A7C15
//	8   v  number + 1 - the segment's first frame number
//	.   v  number - syncedThrough: how far the log was on stable storage when this was written
//	.   n  payload
//
// The seed is the defence against old and misplaced bytes: what an earlier file left in these blocks, or a write
// that went to the wrong place, fails the check although it once was a good frame.
//
// The payload is the owner's, but for three values of its first byte that mark the log's own frames. Those carry
// the number of the frame before them, so that numbers count transactions and nothing else.
const (
	headerSize  = 80
	headerEntry = 1 + headerSize // with its length prefix
	metaAt      = 56

	magic         = "oncewal\x00"
	formatVersion = 1

	kindDropThrough = 28 // a segment number follows, 8 bytes: it and all before it are dropped; then 8 bytes of the owner's
	kindSyncMark    = 29 // nothing follows
	kindSeal        = 30 // last frame, end, next segment's number, its nonce: 8 bytes each

	sealPayload = 1 + 4*8

	// minFrame is the shortest frame: check, two varints, one byte of payload.
	minFrame = 8 + 1 + 1 + 1
	// frameRoom is the most a frame adds to its payload, the length prefix included.
	frameRoom   = 5 + 8 + 2*binary.MaxVarintLen64
	dropPayload = 1 + 8 + 8

	// sealRoom is kept free in a segment so that its seal never has to grow the file; dropRoom so that a full disk
	// can be told to drop segments.
	sealRoom = sealPayload + frameRoom
	dropRoom = dropPayload + frameRoom
)

// MetaSize is how many bytes of a segment's header are the owner's.
const MetaSize = 16

// MaxPayload is the largest payload of a frame.
const MaxPayload = 16 << 20

type header struct {
	id     [16]byte
	number uint64
	nonce  uint64
	first  uint64
	meta   [MetaSize]byte
}

func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	b[8] = formatVersion
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], h.number)
	binary.LittleEndian.PutUint64(b[40:], h.nonce)
	binary.LittleEndian.PutUint64(b[48:], h.first)
	copy(b[metaAt:], h.meta[:])
	binary.LittleEndian.PutUint64(b[72:], xxhash.Sum64(b[:72]))
	return b
}

// parseHeader reads the header entry at the start of a segment file. ok is false when it is not whole; tooNew says
// that it is whole but of a version, or with reserved bits, that this code does not know.
func parseHeader(b []byte) (h header, ok, tooNew bool) {
	if len(b) < headerEntry || b[0] != headerSize {
		return h, false, false
	}
	b = b[1:headerEntry]
	if string(b[:8]) != magic || xxhash.Sum64(b[:72]) != binary.LittleEndian.Uint64(b[72:]) {
		return h, false, false
	}
	if b[8] != formatVersion || string(b[9:16]) != "\x00\x00\x00\x00\x00\x00\x00" {
		return h, true, true
	}
	copy(h.id[:], b[16:32])
	h.number = binary.LittleEndian.Uint64(b[32:])
	h.nonce = binary.LittleEndian.Uint64(b[40:])
	h.first = binary.LittleEndian.Uint64(b[48:])
	copy(h.meta[:], b[metaAt:])
	return h, true, false
}

func frameSum(nonce, number uint64, body []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(nonce ^ number*0x9E3779B97F4A7C15)
	_, _ = d.Write(body)
	return d.Sum64()
}

// appendFrame encodes a frame, without the length prefix, behind dst.
func appendFrame(dst []byte, nonce, first, number, synced uint64, payload []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, number+1-first)
	dst = binary.AppendUvarint(dst, number-synced)
	dst = append(dst, payload...)
	binary.LittleEndian.PutUint64(dst[at:], frameSum(nonce, number, dst[at+8:]))
	return dst
}

// appendEntry adds the length prefix that tidwall/wal writes, for the bytes that recovery writes itself.
func appendEntry(dst, data []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	return append(dst, data...)
}

type frame struct {
	number  uint64
	synced  uint64
	payload []byte
	at      int // of the payload, from the entry's first byte
	size    int // of the whole entry, length prefix included
}

// looksLike parses the entry at b[0] without verifying its check.
func looksLike(b []byte, first uint64) (f frame, body []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n < minFrame || n > uint64(len(b)-used) || n > MaxPayload+frameRoom {
		return f, nil, false
	}
	f.size = used + int(n)
	body = b[used+8 : f.size]
	rel, a := binary.Uvarint(body)
	if a <= 0 {
		return f, nil, false
	}
	back, c := binary.Uvarint(body[a:])
	if c <= 0 || a+c >= len(body) {
		return f, nil, false
	}
	f.number = first + rel - 1
	if back > f.number {
		return f, nil, false
	}
	f.synced = f.number - back
	f.payload = body[a+c:]
	f.at = used + 8 + a + c
	return f, body, true
}

// parseFrame reads the entry at b[0] as a frame of the segment with this nonce and first frame.
func parseFrame(b []byte, nonce, first uint64) (f frame, ok bool) {
	f, body, ok := looksLike(b, first)
	if !ok {
		return f, false
	}
	sum := binary.LittleEndian.Uint64(b[f.size-len(body)-8:])
	return f, sum == frameSum(nonce, f.number, body)
}

// own reports whether the frame is one of the log's own rather than a transaction.
func (f *frame) own() bool {
	switch f.payload[0] {
	case kindDropThrough, kindSyncMark, kindSeal:
		return true
	}
	return false
}

type seal struct {
	last, end uint64 // number of the last frame; offset of the byte behind the seal
	next      uint64 // number of the segment that follows
	nextNonce uint64
}

func (s *seal) encode() []byte {
	b := make([]byte, 1, sealPayload)
	b[0] = kindSeal
	for _, v := range [...]uint64{s.last, s.end, s.next, s.nextNonce} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// ownPayload is how long the payload of one of the log's own frames is.
func ownPayload(kind byte) int {
	switch kind {
	case kindSeal:
		return sealPayload
	case kindDropThrough:
		return dropPayload
	}
	return 1
}

// parseSeal decodes a payload of sealPayload bytes.
func parseSeal(payload []byte) (s seal) {
	s.last = binary.LittleEndian.Uint64(payload[1:])
	s.end = binary.LittleEndian.Uint64(payload[9:])
	s.next = binary.LittleEndian.Uint64(payload[17:])
	s.nextNonce = binary.LittleEndian.Uint64(payload[25:])
	return s
}

// entrySize is the length of a frame's entry, prefix included, given the lengths of its parts.
func entrySize(first, number, synced uint64, payload int) int {
	n := 8 + varintLen(number+1-first) + varintLen(number-synced) + payload
	return varintLen(uint64(n)) + n
}

func varintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}
