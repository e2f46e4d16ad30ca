package record

import (
	"encoding/binary"
	"fmt"
)

// MarkValue is the value of a Mark record: how far a source has come.
//
//	v  number: the highest accepted
//	v  epoch: 0 unless the source uses epochs
//	n  window, possibly empty: bit i (least significant first) says that number-1-i was accepted too
type MarkValue struct {
	Number, Epoch uint64
	Window        []byte
}

// AppendMark encodes m behind dst. Zero bytes at the window's end say nothing and are not written.
func AppendMark(dst []byte, m MarkValue) []byte {
	dst = binary.AppendUvarint(dst, m.Number)
	dst = binary.AppendUvarint(dst, m.Epoch)
	w := m.Window
	for len(w) > 0 && w[len(w)-1] == 0 {
		w = w[:len(w)-1]
	}
	return append(dst, w...)
}

// ParseMark is the inverse of AppendMark; Window points into b.
func ParseMark(b []byte) (m MarkValue, err error) {
	var n int
	if m.Number, n = binary.Uvarint(b); n <= 0 {
		return m, fmt.Errorf("%w: mark without a number", ErrDamaged)
	}
	b = b[n:]
	if m.Epoch, n = binary.Uvarint(b); n <= 0 {
		return m, fmt.Errorf("%w: mark without an epoch", ErrDamaged)
	}
	m.Window = b[n:]
	return m, nil
}
