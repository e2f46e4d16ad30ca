package receiver

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// KeyFrom returns the key of the call that ctx belongs to, as it was given to Do. For DoSeq it is source#number, and
// source#number.epoch in an epoch. ok is false outside fn.
func KeyFrom(ctx context.Context) (key string, ok bool) {
	if c := callFrom(ctx); c != nil {
		return c.key, true
	}
	return "", false
}

// Derive returns the key for a call that fn makes downstream: for the same scope, key and step it is always the same,
// in every process and for ever, and for any others another one. So when fn runs again after a crash, the service
// downstream recognises its call. The key is a UUID of version 8. It panics outside fn, where there is no key to
// derive from, and with an empty step, since two calls of one fn need two names.
func Derive(ctx context.Context, step string) string {
	c := callFrom(ctx)
	if c == nil {
		panic("receiver: Derive outside fn: pass on the context that fn was given")
	}
	if step == "" {
		panic("receiver: Derive with an empty step: name the call, each one of fn by a name of its own")
	}
	scope, key := c.identity()
	return derive(scope, key, step)
}

// identity is what derived keys are made from: the names of the call's scope, and its key. A number of a sequence has
// the two names of its encoding, and no key.
func (c *call) identity() (scope []string, key string) {
	scope = scopePath(c.r.scope)
	if c.seq == nil {
		return scope, c.key
	}
	number := binary.AppendUvarint(binary.AppendUvarint(nil, c.seq.mark.Epoch), c.seq.seq)
	return append(scope, c.seq.source, string(number)), ""
}

// derive is pinned by a golden test: another result would make every downstream service see new messages.
func derive(scope []string, key, step string) string {
	return uuid(hashPath("oncelog derived key 1", scope, []byte(key), []byte(step)))
}

// hashPath hashes a scope's names behind their number, and the parts.
func hashPath(purpose string, scope []string, parts ...[]byte) [sha256.Size]byte {
	all := make([][]byte, 0, 1+len(scope)+len(parts))
	all = append(all, binary.BigEndian.AppendUint64(nil, uint64(len(scope))))
	for _, name := range scope {
		all = append(all, []byte(name))
	}
	return hashParts(purpose, append(all, parts...))
}

// uuid makes a UUID of version 8 of a hash.
func uuid(u [sha256.Size]byte) string {
	u[6] = u[6]&0x0f | 0x80 // version 8: the bits are the maker's own
	u[8] = u[8]&0x3f | 0x80 // variant of RFC 9562
	var out [36]byte
	hex.Encode(out[0:8], u[0:4])
	hex.Encode(out[9:13], u[4:6])
	hex.Encode(out[14:18], u[6:8])
	hex.Encode(out[19:23], u[8:10])
	hex.Encode(out[24:36], u[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// KeyOf makes a key of what identifies a message that carries none: order number and line, say, or the whole payload
// if two equal ones are the same message. Each part counts with its length, so ("ab", "c") and ("a", "bc") differ.
// The key has 64 characters, and is the same in every process and for ever.
func KeyOf(parts ...[]byte) string {
	sum := hashParts("oncelog key of parts 1", parts)
	return hex.EncodeToString(sum[:])
}

// hashParts hashes the purpose and the parts, each behind its length in 8 bytes big-endian.
func hashParts(purpose string, parts [][]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	part := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	part([]byte(purpose))
	for _, b := range parts {
		part(b)
	}
	h.Sum(sum[:0])
	return sum
}
