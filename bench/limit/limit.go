//go:build linux

package limit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

// FileSize is the size of each of the limit's files, that of a segment.
const FileSize = 4 << 20

// chunk is how much a file is filled with by one write. The page cache keeps what is written at once in pages
// as large, and each later commit pays for the whole page it touches: after one write of 4 MiB a lone writer is a
// tenth slower and 8 to 256 writers a few per cent. Chunks of 4 to 64 KiB are no faster than 256 KiB.
const chunk = 256 << 10

// Log is the best group commit that was found by measurement, and no more than that.
//
// The first of a batch leads it: it takes what gathered while the leader before it was at the disk. Against this,
// measured at 1, 8, 64 and 256 writers: a leader that goes on with the next batch is equal up to 64 writers and
// loses a seventh at 256; a goroutine that only writes loses a seventh with one writer, for the hand-over. Waking
// through a channel or a mutex of each waiter, instead of closing one channel, is a tenth to a quarter slower at 64
// writers; sync.Cond and sync.WaitGroup gain nothing, nor does waking the next leader last. fdatasync without
// telling the scheduler (RawSyscall) wins 5% in some runs and loses it in others, and stops the collector.
type Log struct {
	files []*os.File // all zero-filled
	used  int        // files[used] is the one being written, at offset at
	at    int64
	last  int // how many frames the last batch held

	mu      sync.Mutex
	gather  *batch
	leading bool
	spent   []byte // a batch's buffer, to be used again
}

type batch struct {
	frames []byte
	n      int
	lead   chan struct{} // the leader before is done
	done   chan struct{} // closed when err is known
	err    error
}

// ErrFull is what Commit returns when the prepared files are used up.
var ErrFull = errors.New("limit: the prepared files are used up; prepare more")

// Prepare makes or makes again as many zero-filled files as the next n bytes need. Nobody may be committing.
func (l *Log) Prepare(dir string, n int64) error {
	zeros := make([]byte, chunk)
	l.used, l.at = 0, 0
	// A batch does not span files, so each of them may lack one batch; an eighth is more than 256 writers' frames.
	for i := range int(n/(FileSize-FileSize/8)) + 1 {
		if i == len(l.files) {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%08d", i)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			if err != nil {
				return err
			}
			l.files = append(l.files, f)
		}
		for at := int64(0); at < FileSize; at += chunk {
			if _, err := l.files[i].WriteAt(zeros, at); err != nil {
				return err
			}
		}
		if err := l.files[i].Sync(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (l *Log) Close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Commit returns when the frame is on stable storage.
func (l *Log) Commit(frame []byte) error {
	l.mu.Lock()
	b := l.gather
	first, leads := b == nil, false
	if first {
		b = &batch{frames: l.spent[:0], done: make(chan struct{})}
		l.spent = nil
		l.gather = b
		if l.leading {
			b.lead = make(chan struct{}, 1)
		} else {
			l.leading, leads = true, true
		}
	}
	b.frames = append(b.frames, frame...)
	b.n++
	l.mu.Unlock()
	if !first {
		<-b.done
		return b.err
	}
	if !leads {
		<-b.lead
	}
	return l.lead(b)
}

func (l *Log) lead(b *batch) error {
	l.await(b)
	l.mu.Lock()
	l.gather = nil
	l.mu.Unlock()

	b.err = l.write(b.frames)
	l.last = b.n

	l.mu.Lock()
	l.spent = b.frames
	next := l.gather
	l.leading = next != nil
	l.mu.Unlock()
	if next != nil {
		next.lead <- struct{}{}
	}
	close(b.done)
	return b.err
}

// await lets others run until as many have come as came last time, but not often. Not yielding at all costs 8 and 64
// writers 40% of their throughput, one yield costs 64 writers 20%. Four yields every time are as good there, but
// needless when all have come: at 256 they lose a tenth and double the 99th percentile.
func (l *Log) await(b *batch) {
	for range 8 {
		l.mu.Lock()
		n := b.n
		l.mu.Unlock()
		if l.last < 2 || n >= l.last {
			return
		}
		runtime.Gosched()
	}
}

func (l *Log) write(frames []byte) error {
	if l.at+int64(len(frames)) > FileSize {
		l.used, l.at = l.used+1, 0
	}
	if l.used == len(l.files) {
		return ErrFull
	}
	fd := int(l.files[l.used].Fd())
	n, err := syscall.Pwrite(fd, frames, l.at)
	if err != nil {
		return err
	}
	if n != len(frames) {
		return fmt.Errorf("wrote %d of %d bytes", n, len(frames))
	}
	l.at += int64(n)
	return syscall.Fdatasync(fd)
}
