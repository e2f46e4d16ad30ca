package wal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// mappedLog is foundLog when each segment was read from.
func mappedLog(t *testing.T, n int) (l *Log, want map[uint16][]byte) {
	t.Helper()
	if !canMap {
		t.Skip("nothing is mapped here")
	}
	l, want = foundLog(t, n)
	for _, s := range l.all() {
		_, err := s.ReadAt(make([]byte, 1), 0)
		require.NoError(t, err)
		require.NotNil(t, s.mapped.base.Load(), "segment %d is not mapped", s.number)
	}
	return l, want
}

// foundLog returns a log of big transactions in segments of several pages, found on opening, with what each segment
// holds by its slot.
func foundLog(t *testing.T, n int) (l *Log, want map[uint16][]byte) {
	t.Helper()
	o := small(never)
	o.SegmentSize = 64 << 10
	dir := create(t, o)
	l = reopen(t, dir, o, []string{})
	for i := range n {
		_, err := commit(l, string(bytes.Repeat([]byte{byte(i%9 + 1)}, 3000)))
		require.NoError(t, err)
		settle(t, l)
	}
	require.NoError(t, l.Close())
	l, err := Open(dir, o, Start{}, func(Frame) error { return nil })
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	want = map[uint16][]byte{}
	for _, s := range l.all() {
		b, err := os.ReadFile(s.path)
		require.NoError(t, err)
		want[s.slot] = b[:s.End()]
		require.Nil(t, s.mapped.base.Load(), "segment %d was mapped by opening it", s.number)
	}
	require.Greater(t, len(want), 3)
	return l, want
}

// What a mapping shows is what the file holds, for segments that were found and for the one being written, and ReadAt is
// an io.ReaderAt's also at the end.
func TestMappedBytesAreTheFiles(t *testing.T) {
	l, want := mappedLog(t, 100)
	for slot, b := range want {
		s := l.Segment(slot)
		for range 200 {
			from := rand.IntN(len(b))
			p := make([]byte, 1+rand.IntN(2*len(b)-from))
			n, err := s.ReadAt(p, int64(from))
			require.Equal(t, b[from:min(len(b), from+len(p))], p[:n])
			if n < len(p) {
				require.Equal(t, io.EOF, err)
			} else {
				require.NoError(t, err)
			}
		}
		_, err := s.ReadAt(make([]byte, 1), int64(len(b)))
		require.Equal(t, io.EOF, err)
	}
	for i := range 30 {
		p := bytes.Repeat([]byte{byte(i + 1)}, 3000)
		c, err := commit(l, string(p))
		require.NoError(t, err)
		s, off := c.Position()
		require.NotNil(t, s.mapped.base.Load())
		b := make([]byte, len(p)+100)
		n, err := s.ReadAt(b, off)
		require.Equal(t, p, b[:n], "bytes behind the end were read")
		require.Equal(t, io.EOF, err)
		settle(t, l)
	}
}

// A page that can't be read is an error of the one who reads it, and of nobody else: here the file was cut under an open
// log. Afterwards faults on this goroutine are crashes again, or not, as before.
func TestAFaultIsAnError(t *testing.T) {
	l, want := mappedLog(t, 100)
	s := l.Segment(2)
	size := int64(len(want[2]))
	require.NoError(t, os.Truncate(s.path, 8192))
	for _, before := range []bool{false, true} {
		debug.SetPanicOnFault(before)
		p := make([]byte, 100)
		n, err := s.ReadAt(p, size-200)
		require.Equal(t, io.EOF, err)
		require.Zero(t, n)
		p = make([]byte, 1000)
		n, err = s.ReadAt(p, 8000) // the first page is there, the second is not
		require.Equal(t, io.EOF, err)
		require.Equal(t, want[2][8000:8192], p[:n])
		require.Equal(t, before, debug.SetPanicOnFault(false))
	}
	for slot, b := range want {
		if slot == 2 {
			continue
		}
		p := make([]byte, len(b))
		_, err := l.Segment(slot).ReadAt(p, 0)
		require.NoError(t, err)
		require.Equal(t, b, p)
	}
	for i := range l.readers.inside {
		require.Zero(t, l.readers.inside[i].n[0].Load()+l.readers.inside[i].n[1].Load(), "somebody who met a fault has not left")
	}
	require.NoError(t, os.WriteFile(s.path, want[2], 0o600)) // grown again: the pages are back
	p := make([]byte, size)
	_, err := s.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, want[2], p)
}

// A hole in a file on a full disk is a fault too: the page that the mapping wants has no room.
func TestAFaultOnAFullDisk(t *testing.T) {
	if !canMap {
		t.Skip("nothing is mapped here")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("mounting a small tmpfs takes root: ", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(32<<10))
	var r readers
	s := &Segment{path: path, file: f}
	s.end.Store(32 << 10)
	s.mapFile(&r)
	require.NotNil(t, s.mapped.base.Load())
	require.Error(t, os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 1<<20), 0o600), "there was room")
	_, ok := s.mapped.readAt(make([]byte, 8), 0, s.End())
	require.False(t, ok, "the hole was given a page, so this shows nothing")
	p := []byte("not zero")
	_, err = s.ReadAt(p, 4096)
	require.NoError(t, err)
	require.Equal(t, make([]byte, 8), p)
	s.unmap()
}

// A panic that is no fault of the mapping is not swallowed.
func TestOtherPanicsGoOn(t *testing.T) {
	var m mapped
	b := make([]byte, 10)
	m.size = 10
	base := unsafe.SliceData(b)
	require.Panics(t, func() { m.caught(base, "something else") })
	require.Panics(t, func() { m.caught(base, addressed(uintptr(unsafe.Pointer(base))-1)) })
	require.Panics(t, func() { m.caught(base, addressed(uintptr(unsafe.Pointer(base))+10)) })
	require.NotPanics(t, func() { m.caught(base, addressed(uintptr(unsafe.Pointer(base))+9)) })
}

type addressed uintptr

func (a addressed) Addr() uintptr { return uintptr(a) }

// A mapping stays for as long as somebody may be copying from it, and no longer.
func TestAMappingOutlivesItsReaders(t *testing.T) {
	l, want := mappedLog(t, 100)
	for sides := range 2 {
		s := l.Segment(uint16(sides + 1))
		inside := l.readers.enter(1)
		base := s.mapped.base.Load()
		closed := make(chan struct{})
		go func() {
			s.close()
			close(closed)
		}()
		until(t, "nobody finds the mapping any more", func() bool { return s.mapped.base.Load() == nil })
		for range 1000 { // close goes on as far as it can
			l.readers.enter(2).Add(-1)
			time.Sleep(time.Microsecond)
		}
		select {
		case <-closed:
			t.Fatal("the mapping went while somebody was inside")
		default:
		}
		require.Equal(t, want[s.slot], bytes.Clone(unsafe.Slice(base, len(want[s.slot]))))
		inside.Add(-1)
		<-closed
		_, err := s.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, os.ErrClosed)
	}
}

// wait ends also when there is always somebody inside, as long as none of them stays; and waits for those on either side.
func TestWaitingForReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readers
		var over atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() { // hand over hand, on one counter
			in := r.enter(7)
			for !over.Load() {
				next := r.enter(7)
				time.Sleep(time.Millisecond)
				in.Add(-1)
				in = next
			}
			in.Add(-1)
		})
		for i := range uint64(6) {
			stays := r.enter(i)
			if i%2 != 0 { // it had looked which side to take before the last wait changed that
				stays.Add(-1)
				stays = &r.inside[i].n[(r.side.Load()+1)&1]
				stays.Add(1)
			}
			done := make(chan struct{})
			wg.Go(func() {
				r.wait()
				close(done)
			})
			time.Sleep(time.Second)
			select {
			case <-done:
				t.Error("a wait ended before a reader did")
			default:
			}
			stays.Add(-1)
			<-done
		}
		over.Store(true)
		wg.Wait()
	})
}

// A segment that is closed while somebody maps it is not mapped afterwards, nor by who comes later.
func TestNoMappingAfterClosing(t *testing.T) {
	held := mappings.Load()
	l, _ := foundLog(t, 100)
	s, later := l.Segment(1), l.Segment(2)
	f, err := os.Open(s.path)
	require.NoError(t, err)
	s.close()
	s.file = f // still open when it was mapped
	defer f.Close()
	s.mapFile(&l.readers)
	require.Nil(t, s.mapped.base.Load())
	later.close()
	_, err = later.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)
	require.Equal(t, held, mappings.Load())
}

// A read that is on its way when the segment is closed may find its file cut. What it found is not an answer, by whichever
// way it was read.
func TestNoAnswerAfterClosing(t *testing.T) {
	l, _ := foundLog(t, 100)
	for _, mapped := range []bool{false, canMap} {
		s := l.all()[1]
		if mapped {
			s = l.all()[2]
		}
		f, err := os.OpenFile(s.path, os.O_RDWR, 0)
		require.NoError(t, err)
		s.close()
		s.file = f // the read has looked already whether it is open
		defer f.Close()
		if mapped { // and who maps it has not looked yet whether it is closed
			s.mapped.gone.Store(false)
			s.mapFile(&l.readers)
			require.NotNil(t, s.mapped.base.Load())
			s.mapped.gone.Store(true)
			defer s.unmap()
		}
		require.NoError(t, f.Truncate(100))
		for _, off := range []int64{0, 90, 5000} {
			n, err := s.ReadAt(make([]byte, 50), off)
			require.ErrorIs(t, err, os.ErrClosed)
			require.Zero(t, n)
		}
	}
}

// Readers go on while segments are dropped under them, and read what was there or that it is closed, never anything else.
// Whoever is first maps a segment, perhaps while it is dropped. Other mappings are made all the while, to take the
// addresses that become free.
func TestReadersBesideDrops(t *testing.T) {
	held := mappings.Load()
	l, want := foundLog(t, 400)
	segments := l.all()
	segments = segments[:len(segments)-1] // the last one is sealed when something is written
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for p := make([]byte, 4000); !over.Load(); {
				s := segments[rand.IntN(len(segments))]
				b := want[s.slot]
				from := rand.IntN(len(b))
				n, err := s.ReadAt(p, int64(from))
				switch {
				case errors.Is(err, os.ErrClosed):
				case err != nil && err != io.EOF:
					t.Errorf("segment %d: %v", s.number, err)
				case !bytes.Equal(p[:n], b[from:min(len(b), from+len(p))]):
					t.Errorf("segment %d at %d reads otherwise", s.number, from)
				}
			}
		})
	}
	for n := uint64(1); n <= uint64(len(segments)); n++ {
		require.NoError(t, l.Drop(n, 0))
		_, err := commit(l, payload(1))
		require.NoError(t, err)
		other, err := syscall.Mmap(-1, 0, 64<<10, syscall.PROT_READ, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		require.NoError(t, syscall.Munmap(other))
	}
	over.Store(true)
	wg.Wait()
	require.NoError(t, l.Close())
	require.Equal(t, held, mappings.Load())
}

// Without a mapping it is pread, and each that is taken is given back.
func TestWithoutMappings(t *testing.T) {
	held := mappings.Load()
	l, want := mappedLog(t, 100)
	require.EqualValues(t, len(want), mappings.Load()-held)
	require.NoError(t, l.Drop(2, 0))
	require.EqualValues(t, len(want)-2, mappings.Load()-held)
	_, err := commit(l, "begins a segment")
	require.NoError(t, err)
	require.EqualValues(t, len(want)-1, mappings.Load()-held)
	require.NoError(t, l.Close())
	require.EqualValues(t, held, mappings.Load())

	mappings.Store(maxMappings)
	defer mappings.Store(held)
	o := small(never)
	dir := create(t, o)
	l = reopen(t, dir, o, []string{})
	wrote := fill(t, l, 50)
	for _, s := range l.all() {
		require.Nil(t, s.mapped.base.Load())
	}
	require.EqualValues(t, maxMappings, mappings.Load())
	require.NoError(t, l.Close())
	holds(t, dir, o, wrote)
	require.EqualValues(t, maxMappings, mappings.Load())
}

func TestMappedReadsDoNotAllocate(t *testing.T) {
	l, want := mappedLog(t, 100)
	s, p := l.Segment(2), make([]byte, 512)
	require.Greater(t, len(want[2]), 4096)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = s.ReadAt(p, 1000) }))
}

// BenchmarkReadAt reads a record's worth of bytes that are in the cache: what a copy, its guards and the system call cost;
// and of bytes that are not, each from another page.
func BenchmarkReadAt(b *testing.B) {
	o := small(never)
	o.SegmentSize = 64 << 10
	dir := create(b, o)
	l := reopen(b, dir, o, []string{})
	c, err := commit(l, string(make([]byte, 3000)))
	require.NoError(b, err)
	s, off := c.Position()
	p := make([]byte, 512)
	b.Run("copy", func(b *testing.B) {
		m := unsafe.Slice(s.mapped.base.Load(), s.mapped.size)
		for b.Loop() {
			copy(p, m[off:])
		}
	})
	b.Run("mapped", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = s.ReadAt(p, off)
		}
	})
	b.Run("mapped, by all", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			p := make([]byte, 512)
			for at := off; pb.Next(); at++ {
				_, _ = s.ReadAt(p, off+at%8)
			}
		})
	})
	b.Run("pread", func(b *testing.B) {
		for b.Loop() {
			_, _ = s.file.ReadAt(p, off)
		}
	})
	for _, how := range []string{"mapped", "pread"} {
		b.Run(how+", cold", func(b *testing.B) {
			s, pageOut := coldSegment(b)
			read := s.ReadAt
			if how == "pread" {
				read = s.file.ReadAt
			}
			for page := int64(0); b.Loop(); page += 17 << 12 { // no neighbours, of which the system would bring some too
				if page %= s.End(); page == 0 {
					b.StopTimer()
					pageOut()
					b.StartTimer()
				}
				_, _ = read(p, page)
			}
		})
	}
	b.Run("fault", func(b *testing.B) {
		require.NoError(b, os.Truncate(s.path, 0))
		b.ReportAllocs()
		for b.Loop() {
			_, _ = s.ReadAt(p, off)
		}
		require.NoError(b, os.Truncate(s.path, s.room.Load()))
	})
}

// coldSegment returns a segment of a prime number of pages, and a function that takes them out of memory.
func coldSegment(b *testing.B) (s *Segment, pageOut func()) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	require.NoError(b, err)
	b.Cleanup(func() { _ = f.Close() })
	const size = 1021 << 12
	_, err = f.Write(make([]byte, size))
	require.NoError(b, err)
	require.NoError(b, f.Sync()) // what is dirty stays
	s = &Segment{path: f.Name(), file: f}
	s.end.Store(size)
	s.mapFile(new(readers))
	b.Cleanup(s.unmap)
	return s, func() {
		_, err := s.ReadAt(make([]byte, size), 0) // only what is mapped is taken out
		require.NoError(b, err)
		const pageout = 21 // MADV_PAGEOUT
		if err := syscall.Madvise(unsafe.Slice(s.mapped.base.Load(), size), pageout); err != nil {
			b.Skip("MADV_PAGEOUT: ", err)
		}
	}
}
