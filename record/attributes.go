package record

import (
	"encoding/binary"
	"fmt"
)

// Attributes are what some records carry besides key and value. The zero value of a field is not written, nor is a
// negative ResultTTL, nor an Algorithm without a Fingerprint.
type Attributes struct {
	Algorithm   byte   // of the fingerprint; 1 = SHA-256, possibly shortened
	Fingerprint []byte // of the payload the key came with
	Token       uint64 // of the claim that wrote the record
	ResultTTL   int64  // milliseconds after At at which the value goes though the key stays
	Code        []byte // of a failure; why a message was parked
	Ordinal     uint64 // of an outgoing message within its topic, from 1; of a receiver's mark, see docs/FORMAT.md
	MessageKey  []byte // the idempotency key an outgoing message travels with
}

// Attribute tags, on disk:
//
//	1  tag
//	v  length of what follows, at least 1 for each tag below
//	n  1 fingerprint: algorithm byte, digest
//	   2 token: varint
//	   3 result TTL: varint, milliseconds
//	   4 code: bytes
//	   5 ordinal: varint
//	   6 message key: bytes
//
// They stand in the order of their tags, each at most once. An unknown tag is not skipped: what it would have said
// may be the reason not to act on the record.
const (
	tagFingerprint = 1
	tagToken       = 2
	tagResultTTL   = 3
	tagCode        = 4
	tagOrdinal     = 5
	tagMessageKey  = 6

	lastTag = tagMessageKey
)

// AppendAttributes encodes a behind dst.
func AppendAttributes(dst []byte, a *Attributes) []byte {
	blob := func(tag byte, b []byte) {
		if len(b) > 0 {
			dst = append(dst, tag)
			dst = binary.AppendUvarint(dst, uint64(len(b)))
			dst = append(dst, b...)
		}
	}
	number := func(tag byte, v uint64) {
		if v != 0 {
			var buf [binary.MaxVarintLen64]byte
			blob(tag, buf[:binary.PutUvarint(buf[:], v)])
		}
	}
	if len(a.Fingerprint) > 0 {
		dst = append(dst, tagFingerprint)
		dst = binary.AppendUvarint(dst, uint64(1+len(a.Fingerprint)))
		dst = append(dst, a.Algorithm)
		dst = append(dst, a.Fingerprint...)
	}
	number(tagToken, a.Token)
	number(tagResultTTL, uint64(max(a.ResultTTL, 0)))
	blob(tagCode, a.Code)
	number(tagOrdinal, a.Ordinal)
	blob(tagMessageKey, a.MessageKey)
	return dst
}

// Attributes decodes the record's attributes. Byte fields point into the record. Of a record that Parse returned
// they are known to be good.
func (r *Record) Attributes() (a Attributes, err error) {
	b := r.Attrs
	last := byte(0)
	for len(b) > 0 {
		tag := b[0]
		n, used := binary.Uvarint(b[1:])
		if used <= 0 || n > uint64(len(b)-1-used) {
			return a, fmt.Errorf("%w: attribute %d", ErrDamaged, tag)
		}
		end := 1 + used + int(n)
		body := b[1+used : end : end]
		b = b[end:]
		if tag <= last {
			return a, fmt.Errorf("%w: attribute %d out of order", ErrDamaged, tag)
		}
		last = tag
		if tag > lastTag {
			return a, fmt.Errorf("%w: attribute %d", ErrUnknown, tag)
		}
		bad := len(body) == 0
		var v uint64
		switch tag {
		case tagFingerprint:
			bad = len(body) < 2
		case tagToken, tagResultTTL, tagOrdinal:
			v, used = binary.Uvarint(body)
			bad = used <= 0 || used != len(body) || tag == tagResultTTL && v > Forever
		}
		if bad {
			return a, fmt.Errorf("%w: attribute %d", ErrDamaged, tag)
		}
		switch tag {
		case tagFingerprint:
			a.Algorithm, a.Fingerprint = body[0], body[1:]
		case tagToken:
			a.Token = v
		case tagResultTTL:
			a.ResultTTL = int64(v)
		case tagCode:
			a.Code = body
		case tagOrdinal:
			a.Ordinal = v
		case tagMessageKey:
			a.MessageKey = body
		}
	}
	return a, nil
}
