//go:build linux

package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// limitFile is the size of each of the limit's files, that of a segment.
const limitFile = 4 << 20

// limitChunk is how much a file is filled with by one write. The page cache keeps what is written at once in pages
// as large, and each later commit pays for the whole page it touches: after one write of 4 MiB a lone writer is a
// tenth slower and 8 to 256 writers a few per cent. Chunks of 4 to 64 KiB are no faster than 256 KiB.
const limitChunk = 256 << 10

// limit is the best group commit that was found by measurement, and no more than that.
//
// The first of a batch leads it: it takes what gathered while the leader before it was at the disk. Against this,
// measured at 1, 8, 64 and 256 writers: a leader that goes on with the next batch is equal up to 64 writers and
// loses a seventh at 256; a goroutine that only writes loses a seventh with one writer, for the hand-over. Waking
// through a channel or a mutex of each waiter, instead of closing one channel, is a tenth to a quarter slower at 64
// writers; sync.Cond and sync.WaitGroup gain nothing, nor does waking the next leader last. fdatasync without
// telling the scheduler (RawSyscall) wins 5% in some runs and loses it in others, and stops the collector.
type limit struct {
	files []*os.File // all zero-filled
	used  int        // files[used] is the one being written, at offset at
	at    int64
	last  int // how many frames the last batch held

	mu      sync.Mutex
	gather  *limitBatch
	leading bool
	spent   []byte // a batch's buffer, to be used again
}

type limitBatch struct {
	frames []byte
	n      int
	lead   chan struct{} // the leader before is done
	done   chan struct{} // closed when err is known
	err    error
}

var errLimitFull = errors.New("the limit's prepared files are used up")

// prepare makes or makes again as many zero-filled files as the next n bytes need. Nobody may be committing.
func (l *limit) prepare(dir string, n int64) error {
	zeros := make([]byte, limitChunk)
	l.used, l.at = 0, 0
	// A batch does not span files, so each of them may lack one batch; an eighth is more than 256 writers' frames.
	for i := range int(n/(limitFile-limitFile/8)) + 1 {
		if i == len(l.files) {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%08d", i)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			if err != nil {
				return err
			}
			l.files = append(l.files, f)
		}
		for at := int64(0); at < limitFile; at += limitChunk {
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

func (l *limit) close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// commit returns when the frame is on stable storage.
func (l *limit) commit(frame []byte) error {
	l.mu.Lock()
	b := l.gather
	first, leads := b == nil, false
	if first {
		b = &limitBatch{frames: l.spent[:0], done: make(chan struct{})}
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

func (l *limit) lead(b *limitBatch) error {
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
func (l *limit) await(b *limitBatch) {
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

func (l *limit) write(frames []byte) error {
	if l.at+int64(len(frames)) > limitFile {
		l.used, l.at = l.used+1, 0
	}
	if l.used == len(l.files) {
		return errLimitFull
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

// TestLimitWritesEachFrame keeps the limit honest: a limit that loses or repeats frames, or lets its files grow,
// would be no measure.
func TestLimitWritesEachFrame(t *testing.T) {
	const writers, each, size = 16, 600, 1024
	l := &limit{}
	require.NoError(t, l.prepare(t.TempDir(), writers*each*size))
	defer func() { require.NoError(t, l.close()) }()
	// The writers stop in pairs as they finish, so batches of many sizes are led.
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			frame := make([]byte, size)
			for i := range each - w*20 {
				id := uint64(w*each+i) + 1
				for at := 0; at < size; at += 8 {
					binary.LittleEndian.PutUint64(frame[at:], id)
				}
				if err := l.commit(frame); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Positive(t, l.used, "one file was enough, so going on to the next is not tested")

	seen := map[uint64]int{}
	for _, f := range l.files {
		data, err := os.ReadFile(f.Name())
		require.NoError(t, err)
		require.Len(t, data, limitFile, "the file grew")
		for frame := data; len(frame) > 0; frame = frame[size:] {
			require.Equal(t, bytes.Repeat(frame[:8], size/8), frame[:size], "a frame is torn")
			if id := binary.LittleEndian.Uint64(frame); id != 0 {
				seen[id]++
			}
		}
	}
	for w := range writers {
		for i := range each - w*20 {
			require.Equal(t, 1, seen[uint64(w*each+i)+1], "writer %d, frame %d", w, i)
		}
	}
	require.Len(t, seen, writers*each-20*writers*(writers-1)/2)
	require.ErrorIs(t, (&limit{}).commit(make([]byte, size)), errLimitFull)
}
