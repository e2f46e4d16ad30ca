package wal

import (
	"reflect"
	"unsafe"

	tidwall "github.com/tidwall/wal"
)

// The library keeps a log's entries in memory and grows that buffer by append: for each segment of 4 MiB 20 MiB of
// new memory, which the leader copies and faults in while everybody waits. That cost a fifth of the throughput of
// 256 writers and doubled their tail. It has no option for the size, so a buffer of the right one is put in place
// from outside, and moves from a sealed segment to the next one. Nothing reads through the library, so nothing else
// refers to it.

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
