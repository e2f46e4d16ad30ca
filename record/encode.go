package record

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// Forever, as an expiry, is no end; as a TTL in a Base too.
const Forever = math.MaxInt64

// Base is what the records of one segment are measured from. It stands in the segment's header.
type Base struct {
	At  int64 // store time, milliseconds since the Unix epoch; no record of the segment is older
	TTL int64 // milliseconds, or Forever: the TTL of records that carry none of their own
}

// BaseSize is the length of an encoded Base: it fills the 16 bytes a segment header keeps for the log's owner.
const BaseSize = 16

// Encode returns the Base's bytes: At, then TTL, each little-endian.
func (b Base) Encode() (buf [BaseSize]byte) {
	binary.LittleEndian.PutUint64(buf[:8], uint64(b.At))
	binary.LittleEndian.PutUint64(buf[8:], uint64(b.TTL))
	return buf
}

// DecodeBase is the inverse of Base.Encode.
func DecodeBase(buf [BaseSize]byte) Base {
	return Base{
		At:  int64(binary.LittleEndian.Uint64(buf[:8])),
		TTL: int64(binary.LittleEndian.Uint64(buf[8:])),
	}
}

// Record is one record, decoded. Key, Value and Attrs point into the buffer it was parsed from.
type Record struct {
	Kind     Kind
	Receiver bool   // in the receiver's keyspaces rather than the caller's own
	At       int64  // store time of the commit, milliseconds since the Unix epoch
	Expires  int64  // the first millisecond at which the record is gone; Forever = never
	Key      []byte // as given, without its keyspace
	Value    []byte
	Attrs    []byte // encoded; Attributes decodes them
}

// Space returns the keyspace that the record changes: for a tombstone, that of what it clears.
func (r *Record) Space() Space {
	k := r.Kind
	if k == Tombstone && len(r.Value) > 0 {
		k = Kind(r.Value[0])
	}
	return SpaceOf(k, r.Receiver)
}

// The head byte: the kind and three flags.
//
//	  7     6     5    4 3 2 1 0
//	+-----+-----+-----+-----------+
//	| att | rcv | ttl |   kind    |
//	+-----+-----+-----+-----------+
const (
	kindMask     = 0x1f
	flagTTL      = 0x20 // a TTL of its own follows the time
	flagReceiver = 0x40 // the receiver's keyspace
	flagAttrs    = 0x80 // attributes follow the value
)

// CheckSize is the length of the check that ends a record.
const CheckSize = 4

// maxHead is the longest head: the head byte and five varints (time, TTL, three lengths).
const maxHead = 1 + 5*binary.MaxVarintLen64

// Append encodes r behind dst, measured from base, and returns the extended slice.
//
//	 1        head byte, above
//	 varint   at - base.At, milliseconds
//	[varint   TTL in milliseconds, 0 = for ever]      flag ttl; otherwise the base's TTL
//	 varint   key length
//	 varint   value length
//	[varint   attributes length]                      flag att
//	 n        key
//	 n        value
//	[n        attributes]
//	 4        check: the low half of XXH64 over all of the above, little-endian
//
// r.At should not be before base.At; the store's clock never runs back, so for a record of this process it is not.
// The distance has no sign, so an older record is written as of base.At, with its expiry kept. One whose expiry is
// not behind its time is kept for a millisecond, since a TTL of 0 means for ever.
func Append(dst []byte, base Base, r *Record) []byte {
	start := len(dst)
	head := byte(r.Kind)
	own := false
	ttl := int64(0)
	at := max(r.At, base.At)
	if r.Kind.Expires() {
		ttl = Forever
		if r.Expires <= at {
			ttl = 1
		} else if d := uint64(r.Expires) - uint64(at); r.Expires != Forever && d < Forever {
			ttl = int64(d)
		}
		own = ttl != base.TTL
	}
	if own {
		head |= flagTTL
	}
	if r.Receiver {
		head |= flagReceiver
	}
	if len(r.Attrs) > 0 {
		head |= flagAttrs
	}
	dst = append(dst, head)
	dst = binary.AppendUvarint(dst, uint64(at)-uint64(base.At))
	if own {
		if ttl == Forever {
			ttl = 0
		}
		dst = binary.AppendUvarint(dst, uint64(ttl))
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Key)))
	dst = binary.AppendUvarint(dst, uint64(len(r.Value)))
	if len(r.Attrs) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(r.Attrs)))
	}
	dst = append(dst, r.Key...)
	dst = append(dst, r.Value...)
	dst = append(dst, r.Attrs...)
	return binary.LittleEndian.AppendUint32(dst, uint32(xxhash.Sum64(dst[start:])))
}

// MaxSize returns an upper bound for the encoded length of a record with these lengths.
func MaxSize(key, value, attrs int) int { return maxHead + key + value + attrs + CheckSize }
