package fuzz

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/stretchr/testify/require"
)

// A log that is cut short by a power cut is the easy case: the file ends where the last frame was. The hard one is a
// file that is as long as it should be and has zeros where the frames were: because the space was prepared before, or
// because the journal had the new size and the data never came. Whether a cut has left such a tail can't be told from
// the disk alone, which has zeros behind the last frame in any case. So what the kernel's cache held at that moment is
// kept and compared with what is found: those bytes that were not zero, were written.

// held is a file of the log as the cache had it.
type held struct {
	path   string
	mapped []byte
	bytes  []byte
}

// remains says what cuts have left of the log. The later fields count files.
type remains struct {
	Cuts      int
	Differ    int // cuts after which a file was not as the cache had it
	ZeroTails int // as long as it should be, or part of it, and zeros up to the end where something was written
	ZeroBytes int // of those
	Short     int // ends before the last byte that was written
	Holes     int // a page of zeros where something was written, and something that is not lost behind it
	Missing   int
}

func (r *remains) add(o remains) {
	r.Cuts += o.Cuts
	r.Differ += o.Differ
	r.ZeroTails += o.ZeroTails
	r.ZeroBytes += o.ZeroBytes
	r.Short += o.Short
	r.Holes += o.Holes
	r.Missing += o.Missing
}

// hold maps the last segments of the store on the disk. A mapping shows what is written to the file until the power is
// cut, and can be read after it, when reading the file fails.
func (d *disk) hold() {
	paths, err := filepath.Glob(filepath.Join(d.path, "*", "wal", "0*", "0*"))
	require.NoError(d.t, err)
	for _, path := range paths[max(0, len(paths)-4):] { // the one before, the one being written, the next, and one that comes
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) { // dropped, or a preparation that was undone
			continue
		}
		require.NoError(d.t, err)
		fi, err := f.Stat()
		require.NoError(d.t, err)
		if fi.Size() > 0 {
			m, err := syscall.Mmap(int(f.Fd()), 0, int(fi.Size()), syscall.PROT_READ, syscall.MAP_SHARED|syscall.MAP_POPULATE)
			require.NoError(d.t, err)
			d.held = append(d.held, held{path: path, mapped: m})
		}
		require.NoError(d.t, f.Close())
	}
}

// copyHeld takes what the mappings show and ends them, so that the file system can be unmounted.
func (d *disk) copyHeld() {
	for i := range d.held {
		h := &d.held[i]
		h.bytes = make([]byte, len(h.mapped))
		for at := 0; at < len(h.mapped); at += block {
			if !readable(h.bytes[at:min(at+block, len(h.bytes))], h.mapped[at:]) {
				h.bytes = h.bytes[:at] // a sealed segment gives back what is left over
				break
			}
		}
		require.NoError(d.t, syscall.Munmap(h.mapped))
		h.mapped = nil
	}
}

// readable copies from a mapping, and reports false where the file has become shorter.
func readable(to, from []byte) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	copy(to, from)
	return
}

// compareHeld counts what the cut has left of what the cache held, before a store opens it and repairs it.
func (d *disk) compareHeld() {
	now := remains{Cuts: 1}
	for _, h := range d.held {
		disk, err := os.ReadFile(h.path)
		if errors.Is(err, fs.ErrNotExist) {
			now.Missing++
			continue
		}
		require.NoError(d.t, err)
		now.compare(h.bytes, disk)
	}
	if now != (remains{Cuts: 1}) {
		now.Differ++
	}
	d.left.add(now)
	if d.matrix != nil {
		d.matrix.add(now)
	}
	d.held = nil
}

func (r *remains) compare(cache, disk []byte) {
	written := len(bytes.TrimRight(cache, "\x00"))
	found := len(bytes.TrimRight(disk, "\x00"))
	if len(disk) < written {
		r.Short++
	}
	if zeros := min(written, len(disk)) - found; zeros > 0 {
		r.ZeroTails++
		r.ZeroBytes += zeros
	}
	for at := 0; at+block < min(found, written); at += block {
		if !zeroed(cache[at:at+block]) && zeroed(disk[at:at+block]) {
			r.Holes++
			break
		}
	}
}

func zeroed(b []byte) bool { return len(bytes.TrimRight(b, "\x00")) == 0 }
