package receiver

import "encoding/binary"

// A key in a scope is one byte string to the store:
//
//	 v  how many names the scope's path has
//	[v  length of a name
//	 n  name             ] as often
//	 n  key, to the end
//
// v is an unsigned varint. All lengths come before what they count, so it can be read back in one way only, and two
// pairs of scope and key with the same bytes are the same pair. The scope is encoded once, when it is made.
//
// A number of a sequence has two more names in its path, the source and the number, and no key. Do refuses empty keys,
// so no number meets a key. The number's name is its epoch and itself, each a varint.

// rootScope is the encoded path without a name.
var rootScope = []byte{0}

// subScope returns the encoded path with one name more.
func subScope(scope []byte, name string) []byte {
	names, n := binary.Uvarint(scope)
	sub := binary.AppendUvarint(nil, names+1)
	sub = append(sub, scope[n:]...)
	sub = binary.AppendUvarint(sub, uint64(len(name)))
	return append(sub, name...)
}

func appendKey(dst, scope []byte, key string) []byte {
	return append(append(dst, scope...), key...)
}

// scopePath returns the names of an encoded path.
func scopePath(scope []byte) []string {
	count, n := binary.Uvarint(scope)
	scope = scope[n:]
	names := make([]string, 0, count)
	for range count {
		size, n := binary.Uvarint(scope)
		names = append(names, string(scope[n:n+int(size)]))
		scope = scope[n+int(size):]
	}
	return names
}

// appendNumber appends the key of a number of a sequence.
func appendNumber(dst, scope []byte, source string, epoch, seq uint64) []byte {
	names, n := binary.Uvarint(scope)
	var room [2 * binary.MaxVarintLen64]byte
	number := binary.AppendUvarint(binary.AppendUvarint(room[:0], epoch), seq)
	dst = binary.AppendUvarint(dst, names+2)
	dst = append(dst, scope[n:]...)
	dst = binary.AppendUvarint(dst, uint64(len(source)))
	dst = append(dst, source...)
	dst = binary.AppendUvarint(dst, uint64(len(number)))
	return append(dst, number...)
}

// Key is an encoded key, taken apart.
type Key struct {
	Scope      []string
	Name       string // empty = a number of a sequence
	Source     string
	Epoch, Seq uint64
}

// ParseKey takes apart a key as a Store is given it. ok is false if it is not one of package receiver's.
func ParseKey(b []byte) (k Key, ok bool) {
	rest, names, ok := splitPath(b)
	if !ok {
		return k, false
	}
	k.Scope, k.Name = names, string(rest)
	if k.Name != "" {
		return k, true
	}
	if len(names) < 2 {
		return k, false
	}
	k.Scope, k.Source = names[:len(names)-2], names[len(names)-2]
	number := []byte(names[len(names)-1])
	var n, m int
	if k.Epoch, n = binary.Uvarint(number); n <= 0 {
		return k, false
	}
	k.Seq, m = binary.Uvarint(number[n:])
	return k, m > 0 && n+m == len(number)
}

// splitPath returns the names of the path that b begins with, and what follows.
func splitPath(b []byte) (rest []byte, names []string, ok bool) {
	count, n := binary.Uvarint(b)
	if n <= 0 || count > uint64(len(b)) {
		return nil, nil, false
	}
	b = b[n:]
	for range count {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, nil, false
		}
		names = append(names, string(b[n:n+int(size)]))
		b = b[n+int(size):]
	}
	return b, names, true
}

// ScopeOf returns the bytes by which a Store tells the scopes of its keys apart, for quotas: part of the key, and the
// same for all keys of a scope, numbers of its sequences included. ok is false if the key is not one of package
// receiver's.
func ScopeOf(key []byte) (names uint64, path []byte, ok bool) {
	count, n := binary.Uvarint(key)
	if n <= 0 || count > uint64(len(key)) {
		return 0, nil, false
	}
	rest, last, before := key[n:], 0, 0 // ends of the path without its last name, and without its last two
	at := 0
	for range count {
		size, n := binary.Uvarint(rest[at:])
		if n <= 0 || size > uint64(len(rest)-at-n) {
			return 0, nil, false
		}
		before, last = last, at
		at += n + int(size)
	}
	if at < len(rest) {
		return count, rest[:at], true
	}
	if count < 2 {
		return 0, nil, false
	}
	return count - 2, rest[:before], true
}
