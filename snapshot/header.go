package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/oncelog/oncelog/wal"
)

// Header, all numbers little-endian:
//
//	  0   8  magic "oncesnp\0"
//	  8   1  version, 2; files of version 1 lack accounts and are of no use
//	  9   7  reserved, 0
//	 16  16  store id
//	 32   8  hash seed of the index
//	 40   8  After
//	 48   8  Through
//	 56   8  the store's time, signed
//	 64   8  segments through this number are dropped
//	 72   8  number of keys that Stats counts
//	 80   8  bytes of the pages
//	 88   8  bytes of the keys
//	 96   8  bytes of the accounts
//	104   8  XXH64 of the keys
//	112   8  XXH64 of the accounts
//	120   8  XXH64 of the table
//	128   8  number of pages
//	136   8  bytes of log written in the store's life
//	144   8  bytes of records copied
//	152   8  bytes of snapshots written, without this one
//	160   8  XXH64 of bytes 0 to 159
//	168      0 up to 4096
const (
	magic      = "oncesnp\x00"
	version    = 2
	headerSize = 168
	pagesAt    = 4096
	pageSize   = 32 << 10
	entrySize  = 20 // of the table: shard 1, depth 1, count 2, tag 4, bytes 4, XXH64 of the bytes 8
	wordSize   = 10 // of a word in a page that is stored as its words
	checkAt    = 160
)

// Meta says what a snapshot is of.
type Meta struct {
	ID      [16]byte // of the store
	Seed    uint64   // of the index
	After   uint64   // transactions through this one were in the index when the copying began
	Through uint64   // none of a later one is
	Time    int64    // the store's clock then, milliseconds
	Dropped uint64   // segments through this number were dropped
	Keys    int64    // how many of the entries are keys, at Through
	Totals  Totals
}

// Totals are what a store has written in its life, as far as snapshots have it.
type Totals struct {
	Log       uint64 // bytes of log
	Copied    uint64 // of them, records that were copied
	Snapshots uint64 // bytes of snapshots
}

// PageHead says where in the index a page belongs.
type PageHead struct {
	Shard uint8
	Tag   uint32
	Depth uint8
	Count uint16
}

// ErrBad is the error, wrapped, for a file that is damaged or no snapshot of this store.
var ErrBad = errors.New("snapshot: not usable")

type header struct {
	Meta
	pages, keys, accounts, count         uint64
	keysCheck, accountsCheck, tableCheck uint64
}

func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	b[8] = version
	copy(b[16:], h.ID[:])
	for i, v := range [...]uint64{
		h.Seed, h.After, h.Through, uint64(h.Time), h.Dropped, uint64(h.Keys), h.pages, h.keys, h.accounts, h.keysCheck, h.accountsCheck, h.tableCheck, h.count,
		h.Totals.Log, h.Totals.Copied, h.Totals.Snapshots,
	} {
		binary.LittleEndian.PutUint64(b[32+8*i:], v)
	}
	binary.LittleEndian.PutUint64(b[checkAt:], xxhash.Sum64(b[:checkAt]))
	return b
}

func parseHeader(b []byte, path string) (h header, err error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return h, fmt.Errorf("%w: %s: no header", ErrBad, path)
	}
	if xxhash.Sum64(b[:checkAt]) != binary.LittleEndian.Uint64(b[checkAt:]) {
		return h, fmt.Errorf("%w: %s: the header's check fails", ErrBad, path)
	}
	if b[8] < version {
		return h, fmt.Errorf("%w: %s: a snapshot of version %d", ErrBad, path, b[8])
	}
	if b[8] != version || string(b[9:16]) != "\x00\x00\x00\x00\x00\x00\x00" {
		return h, fmt.Errorf("%w: %s: a snapshot of version %d", wal.ErrTooNew, path, b[8])
	}
	copy(h.ID[:], b[16:])
	var v [16]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(b[32+8*i:])
	}
	h.Seed, h.After, h.Through, h.Time, h.Dropped = v[0], v[1], v[2], int64(v[3]), v[4]
	h.Keys, h.pages, h.keys, h.accounts = int64(v[5]), v[6], v[7], v[8]
	h.keysCheck, h.accountsCheck, h.tableCheck, h.count = v[9], v[10], v[11], v[12]
	h.Totals = Totals{v[13], v[14], v[15]}
	return h, nil
}
