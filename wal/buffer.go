package wal

import (
	"reflect"
	"unsafe"

	tidwall "github.com/tidwall/wal"
)

// The library keeps a log's entries in memory and grows that buffer by append: for each segment of 4 MiB some 20 MiB
// of new memory, which the leader copies and faults in while everybody waits. With 256 writers that was half of the
// processor's time, and three times the limit's p99.9. It has no option for the size, so one buffer of the right size
// is put in place from outside, and moves from a sealed segment to the next one. Nothing reads through the library,
// so nothing else refers to it.

// passBuffer gives next the buffer of s, which will not be written again. The first segment's is too small; one that
// a large transaction has grown is not kept.
func (l *Log) passBuffer(s, next *Segment) {
	from, to := entryBuffer(s.lib), entryBuffer(next.lib)
	if from == nil || to == nil {
		return
	}
	b := *from
	*from = nil
	if int64(cap(b)) < l.o.SegmentSize {
		if p := l.spare.buffer.Swap(nil); p != nil {
			b = *p
		}
	}
	if int64(cap(b)) <= 2*l.o.SegmentSize {
		*to = b[:0]
	}
}

// entryBuffer finds the buffer of a log with one library segment. It returns nil when the library is not built as
// expected; then the buffer grows as ever.
func entryBuffer(l *tidwall.Log) *[]byte {
	s := reflect.ValueOf(l).Elem().FieldByName("segments")
	if s.Kind() != reflect.Slice || s.Len() != 1 || s.Index(0).Kind() != reflect.Pointer {
		return nil
	}
	f := s.Index(0).Elem().FieldByName("ebuf")
	if !f.IsValid() || f.Type() != reflect.TypeFor[[]byte]() {
		return nil
	}
	return (*[]byte)(unsafe.Pointer(f.UnsafeAddr()))
}
