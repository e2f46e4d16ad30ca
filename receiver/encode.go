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
