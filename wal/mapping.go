package wal

import (
	"io"
	"os"
	"runtime/debug"
	"sync/atomic"
	"unsafe"
)

// Records are read from mappings of the segments' files. The system call of a pread is most of what a hit costs; a
// mapping leaves the copy. Four things make that as safe as the call:
//
//   - A fault ends nothing. A page that can't be read, or that somebody cut off, is a signal instead of an error; on the
//     goroutine that copies it becomes a panic, which is caught, and the same bytes are asked for with pread, whose
//     error says what is wrong.
//   - No byte behind End is touched: there the file may end, or be given back.
//   - A mapping goes only when nobody can be copying from it any more (readers.wait). Records are copied out and not
//     looked at in place, so that nobody ever stays in one.
//   - What was read from a segment that is closed by then is no answer: its file may have been cut meanwhile (closeGently),
//     under a pread that is waiting for the disk, or under a mapping that somebody makes at the same moment.
//
// A page that is not in memory is read while the thread waits, and the scheduler does not know: nobody else runs on its
// processor, and a collection's pauses wait too. It is one page: the mapping is advised to be read at random. A pread would
// hand the processor on, but then one that is alone would have to wait for it too, and which pages to read with it would
// have to be known. Who reads often is to give way now and then instead (oncelog.buffer.read).
//
// Who reads first from a segment that was found on opening maps it, so that opening a log of thousands takes no longer
// than it must; the others read the file meanwhile.
//
// Where the system gives no mapping, or there are too many, pread it is.

// maxMappings is half of the mappings that Linux allows a process by default (vm.max_map_count). Were all used up, the Go
// heap could not grow, and the process would end.
const maxMappings = 1 << 15

// mappings counts those of all logs in the process.
var mappings atomic.Int64

// mapped is the mapping of a segment's file. The zero one is none.
type mapped struct {
	base    atomic.Pointer[byte] // nil when there is none, or not any more
	size    int64                // set before base
	readers *readers
	later   atomic.Bool // whoever reads first makes it
	gone    atomic.Bool // the segment is closed: none is to be made any more, and nothing read
}

// mapLater has the first reader map the segment's file.
func (s *Segment) mapLater(r *readers) {
	s.mapped.readers = r
	s.mapped.later.Store(true)
}

// mapFile maps the segment's file, as far as it is prepared or written. What it grows by later is read with pread: that
// happens when no spare was ready.
func (s *Segment) mapFile(r *readers) {
	fi, err := s.file.Stat()
	if err != nil {
		return
	}
	size := max(fi.Size(), s.room.Load())
	if size == 0 || size > maxOffset || !canMap {
		return
	}
	if mappings.Add(1) > maxMappings {
		mappings.Add(-1)
		return
	}
	b, err := mapShared(s.file, int(size))
	if err != nil {
		mappings.Add(-1)
		return
	}
	s.mapped.readers, s.mapped.size = r, size
	s.mapped.base.Store(unsafe.SliceData(b))
	if s.mapped.gone.Load() { // closed meanwhile, by who may not have seen it
		s.unmap()
	}
}

// unmap takes the mapping away, if there is one, after the last reader has left.
func (s *Segment) unmap() {
	m := &s.mapped
	m.gone.Store(true)
	base := m.base.Swap(nil)
	if base == nil {
		return
	}
	m.readers.wait()
	if unmap(unsafe.Slice(base, m.size)) == nil {
		mappings.Add(-1)
	}
}

// ReadAt reads from the file, not through the library: its Read races with writes, and after a failed write its memory
// and the file differ. It is an io.ReaderAt's; for bytes in front of End it makes no system call.
func (s *Segment) ReadAt(p []byte, off int64) (n int, err error) {
	m := &s.mapped
	n, ok := m.readAt(p, off, s.end.Load())
	if !ok && m.later.Load() && m.later.CompareAndSwap(true, false) { // others read the file meanwhile
		s.mapFile(m.readers)
		n, ok = m.readAt(p, off, s.end.Load())
	}
	if !ok {
		n, err = s.file.ReadAt(p, off)
	} else if n < len(p) {
		err = io.EOF
	}
	if m.gone.Load() {
		return 0, os.ErrClosed
	}
	return n, err
}

// readAt copies what lies at off and in front of end. It is not ok where there is no mapping, nothing to read, or a page
// can't be read.
func (m *mapped) readAt(p []byte, off, end int64) (n int, ok bool) {
	to := min(off+int64(len(p)), end)
	if off < 0 || off >= to || m.base.Load() == nil || to > m.size {
		return 0, false
	}
	inside := m.readers.enter(uint64(off))
	base := m.base.Load() // now that the mapping can't go
	if base == nil {
		inside.Add(-1)
		return 0, false
	}
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		inside.Add(-1)
		if !ok {
			m.caught(base, recover())
		}
	}()
	n = copy(p, unsafe.Slice(base, m.size)[off:to])
	return n, true
}

// caught lets go on what is no fault in the mapping.
func (m *mapped) caught(base *byte, fault any) {
	if f, ok := fault.(interface{ Addr() uintptr }); ok && f.Addr()-uintptr(unsafe.Pointer(base)) < uintptr(m.size) {
		return
	}
	panic(fault)
}
