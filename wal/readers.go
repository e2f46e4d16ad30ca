package wal

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// readers counts who is copying from a mapping, so that one can be taken away. A reader enters, looks whether the mapping
// is still there, copies and leaves; who takes it away says so first and then waits until each counter was seen at zero.
// A reader that was in before has left by then, and one that comes later finds no mapping.
//
// There are two sides, and readers enter on one while the other drains: on one alone a busy store's counter might never
// be zero. A reference count in each segment was the other way: all readers of a busy segment would share its cache
// line, and so they would with a lock.
type readers struct {
	side    atomic.Uint32
	waiting sync.Mutex // one wait at a time
	inside  [16]struct {
		n [2]atomic.Int64
		_ [48]byte // a cache line each
	}
}

// enter returns the counter by which the reader is to leave; i is any number.
func (r *readers) enter(i uint64) *atomic.Int64 {
	n := &r.inside[i*0x9e3779b97f4a7c15>>60].n[r.side.Load()&1]
	n.Add(1)
	return n
}

// wait returns when everybody has left who was inside when it was called. Readers stay for a copy, or for reading a page.
func (r *readers) wait() {
	r.waiting.Lock()
	defer r.waiting.Unlock()
	// The side that is not in use first: it may still have readers from before the last wait's change of sides.
	old := r.side.Load()
	r.drain(old + 1)
	r.side.Store(old + 1)
	r.drain(old)
}

func (r *readers) drain(side uint32) {
	for i := range r.inside {
		n := &r.inside[i].n[side&1]
		for tries := 0; n.Load() != 0; tries++ {
			if tries < 100 {
				runtime.Gosched()
			} else {
				time.Sleep(50 * time.Microsecond) // a page is being read
			}
		}
	}
}
