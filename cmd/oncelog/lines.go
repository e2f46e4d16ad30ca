package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// A batch is recorded with one sync and one frame. Its keys, at most 1 KiB each,
// stay far below the 16 MiB that a frame may have.
const (
	batchLines = 4096
	batchBytes = 4 << 20

	blockBytes = 64 << 10
	blocks     = 16 // read ahead while a batch is synced
)

var (
	errLineTooLong = errors.New("line too long")
	errStopped     = errors.New("stopped")
)

// A batch is some whole lines.
type batch struct {
	data []byte // whole lines, then the beginning of the next
	ends []int  // of the whole lines, after their newlines; the input's last line may have none

	// end says why no line follows: io.EOF, errLineTooLong, errStopped or the
	// error of a read. nil: more may come.
	end error
}

// whole returns the bytes of the whole lines.
func (b *batch) whole() []byte {
	if len(b.ends) == 0 {
		return nil
	}
	return b.data[:b.ends[len(b.ends)-1]]
}

// line returns line i with its newline.
func (b *batch) line(i int) []byte {
	start := 0
	if i > 0 {
		start = b.ends[i-1]
	}
	return b.data[start:b.ends[i]]
}

// lines cuts a stream into batches. A goroutine reads ahead, so that a read that
// blocks (a terminal, tail -f) holds up neither the lines that are there nor the
// answer to a signal. Blocks go through the channel, not lines: a send for each
// line would cost more than the line's lookup.
type lines struct {
	max    int // bytes in a line
	full   chan block
	free   chan []byte
	done   chan struct{}
	cur    block
	rest   []byte // what is left of cur
	filled batch
}

type block struct {
	data []byte
	err  error // behind data
}

func readLines(r io.Reader, maxLine int) *lines {
	l := &lines{
		max:  maxLine,
		full: make(chan block, blocks),
		free: make(chan []byte, blocks),
		done: make(chan struct{}),
	}
	for range blocks {
		l.free <- make([]byte, blockBytes)
	}
	go l.read(r)
	return l
}

func (l *lines) read(r io.Reader) {
	for {
		var buf []byte
		select {
		case buf = <-l.free:
		case <-l.done:
			return
		}
		n, err := r.Read(buf)
		if err != nil && err != io.EOF {
			err = fmt.Errorf("standard input: %w", err)
		}
		select {
		case l.full <- block{buf[:n], err}:
		case <-l.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// stop ends the reading goroutine, unless it is stuck in a read: that one ends
// with the process.
func (l *lines) stop() { close(l.done) }

// skip passes over n bytes and writes them to sum. io.EOF: there were fewer.
func (l *lines) skip(ctx context.Context, n int64, sum io.Writer) error {
	for n > 0 {
		if len(l.rest) == 0 {
			if l.cur.err != nil {
				return l.cur.err
			}
			if _, err := l.next(ctx, true); err != nil {
				return err
			}
			continue
		}
		k := int(min(n, int64(len(l.rest))))
		sum.Write(l.rest[:k]) // a hash: no error
		l.rest = l.rest[k:]
		n -= int64(k)
	}
	return nil
}

// fill returns the next lines: fewer than a batch may have when the input pauses.
// It waits only when it has none. A timer instead would either delay each line or
// cut batches short. The batch is valid until the next call.
func (l *lines) fill(ctx context.Context) *batch {
	b := &l.filled
	b.data = append(b.data[:0], b.data[len(b.whole()):]...)
	b.ends, b.end = b.ends[:0], nil
	for {
		l.cut(b)
		switch {
		case b.end != nil || b.isFull():
			return b
		case l.cur.err != nil:
			if l.cur.err == io.EOF && len(b.data) > len(b.whole()) {
				b.ends = append(b.ends, len(b.data))
			}
			b.end = l.cur.err
			return b
		}
		var more bool
		if more, b.end = l.next(ctx, len(b.ends) == 0); !more {
			return b
		}
	}
}

func (b *batch) isFull() bool { return len(b.ends) >= batchLines || len(b.whole()) >= batchBytes }

// cut moves bytes from rest to the batch until one of them is used up.
func (l *lines) cut(b *batch) {
	for len(l.rest) > 0 && !b.isFull() {
		n := bytes.IndexByte(l.rest, '\n')
		found := n >= 0
		if !found {
			n = len(l.rest)
		}
		if len(b.data)-len(b.whole())+n > l.max {
			b.end = errLineTooLong
			return
		}
		if found {
			n++
		}
		b.data = append(b.data, l.rest[:n]...)
		l.rest = l.rest[n:]
		if found {
			b.ends = append(b.ends, len(b.data))
		}
	}
}

// next takes a block. Without wait, more is false when the input pauses. An error
// is errStopped.
func (l *lines) next(ctx context.Context, wait bool) (more bool, err error) {
	if l.cur.data != nil {
		l.free <- l.cur.data[:blockBytes]
		l.cur.data = nil
	}
	if !wait && len(l.full) == 0 {
		// The reader may have a block at hand and only need a processor.
		runtime.Gosched()
		if len(l.full) == 0 && ctx.Err() == nil {
			return false, nil
		}
	}
	if ctx.Err() == nil { // of two that are ready, select takes any
		select {
		case l.cur = <-l.full:
			l.rest = l.cur.data
			return true, nil
		case <-ctx.Done():
		}
	}
	return false, fmt.Errorf("%w (%w)", errStopped, context.Cause(ctx))
}
