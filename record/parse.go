package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Errors of Parse and Size. The caller adds file and offset; it knows them.
var (
	// ErrShort: the buffer ends before the record does. Size, given at least the head, says how much is needed.
	ErrShort = errors.New("record is cut short")
	// ErrDamaged: the bytes are not a record, or their check fails.
	ErrDamaged = errors.New("record is damaged")
	// ErrUnknown: a kind or attribute this version does not know, in a record whose check holds.
	ErrUnknown = errors.New("record of an unknown kind")
)

// MaxHead is how many bytes at a record's start are always enough for Size.
const MaxHead = maxHead

// limit bounds each length a record may claim, so that a damaged one is told from a huge one before anything is
// read or allocated for it. It is the largest frame.
const limit = 16 << 20

type head struct {
	kind            byte
	at, ttl         uint64
	size            int // of the head itself
	key, val, attrs int
}

func parseHead(b []byte) (h head, err error) {
	if len(b) == 0 {
		return h, ErrShort
	}
	h.kind = b[0]
	h.size = 1
	next := func() uint64 {
		if err != nil {
			return 0
		}
		v, n := binary.Uvarint(b[h.size:])
		if n <= 0 {
			err = ErrShort
			if len(b)-h.size >= binary.MaxVarintLen64 { // more bytes would not end it
				err = ErrDamaged
			}
			return 0
		}
		h.size += n
		return v
	}
	length := func() int {
		v := next()
		if v > limit {
			err = ErrDamaged
			return 0
		}
		return int(v)
	}
	h.at = next()
	if h.kind&flagTTL != 0 {
		h.ttl = next()
	}
	h.key = length()
	h.val = length()
	if h.kind&flagAttrs != 0 {
		h.attrs = length()
	}
	return h, err
}

// Size returns the length of the record that begins at b[0], check included. It trusts the head, which only Parse
// verifies.
func Size(b []byte) (int, error) {
	h, err := parseHead(b)
	if err != nil {
		return 0, err
	}
	return h.size + h.key + h.val + h.attrs + CheckSize, nil
}

// Parse reads the record that begins at b[0] and returns it with its length. The record points into b.
// Its errors are ErrShort, ErrDamaged and ErrUnknown, the last only where the check holds.
func Parse(b []byte, base Base) (r Record, n int, err error) {
	h, err := parseHead(b)
	if err != nil {
		return r, 0, err
	}
	n = h.size + h.key + h.val + h.attrs + CheckSize
	if n > len(b) {
		return r, 0, ErrShort
	}
	body := n - CheckSize
	if uint32(xxhash.Sum64(b[:body])) != binary.LittleEndian.Uint32(b[body:]) {
		return r, 0, ErrDamaged
	}
	kind := Kind(h.kind & kindMask)
	if kind == 0 || kind > lastKind {
		return r, 0, fmt.Errorf("%w: %d", ErrUnknown, kind)
	}
	if !kind.Expires() && h.kind&flagTTL != 0 {
		// Reserved: this version writes no TTL on kinds that do not expire, so it cannot know what one means.
		return r, 0, fmt.Errorf("%w: %v with a TTL", ErrUnknown, kind)
	}
	r = h.record(base)
	at := h.size
	r.Key = b[at : at+h.key : at+h.key]
	at += h.key
	r.Value = b[at : at+h.val : at+h.val]
	at += h.val
	if h.attrs > 0 {
		r.Attrs = b[at : at+h.attrs : at+h.attrs]
		// Here and not only when they are asked for: most callers never ask, and would act on a record without
		// what a later version's attribute says about it.
		if _, err := r.Attributes(); err != nil {
			return Record{}, 0, err
		}
	}
	if kind == Tombstone && (len(r.Value) != 1 || Kind(r.Value[0]) == 0 || Kind(r.Value[0]) >= Tombstone) {
		return Record{}, 0, fmt.Errorf("%w: tombstone of nothing known", ErrUnknown)
	}
	return r, n, nil
}

// record returns what the head alone says of a record.
func (h *head) record(base Base) (r Record) {
	r.Kind = Kind(h.kind & kindMask)
	r.Receiver = h.kind&flagReceiver != 0
	r.At = addMillis(base.At, h.at)
	r.Expires = Forever
	if r.Kind.Expires() {
		ttl := uint64(base.TTL)
		if h.kind&flagTTL != 0 {
			ttl = h.ttl
		}
		if ttl != 0 {
			r.Expires = addMillis(r.At, ttl)
		}
	}
	return r
}

// addMillis saturates: a time too far ahead is Forever, never a time in the past.
func addMillis(t int64, d uint64) int64 {
	if d >= Forever || t > Forever-int64(d) {
		return Forever
	}
	return t + int64(d)
}

// Identity returns the record that begins at b[0] without value and attributes, and its length. The record is no
// tombstone. It needs the record's head and key only and verifies nothing: it is for records that were checked before.
func Identity(b []byte, base Base) (r Record, n int, err error) {
	h, err := parseHead(b)
	if err != nil {
		return r, 0, err
	}
	if h.size+h.key > len(b) {
		return r, 0, ErrShort
	}
	r = h.record(base)
	r.Key = b[h.size : h.size+h.key : h.size+h.key]
	return r, h.size + h.key + h.val + h.attrs + CheckSize, nil
}
