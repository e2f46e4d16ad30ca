package main

import (
	"runtime"
	"sync"
)

// group gathers what callers bring while a commit is under way, for peers whose commits cost the same for one record as
// for many and who don't gather by themselves. The first of a batch leads it.
type group struct {
	commit func(batch []*item) error // one at a time

	mu      sync.Mutex
	waiting []*item
	leading bool
	last    int // items in the batch before
	done    chan struct{}
}

// item is one record, and what came of it.
type item struct {
	key, value []byte
	inserted   bool
	err        error
}

func (g *group) put(key, value []byte) (bool, error) {
	it := &item{key: key, value: value}
	g.mu.Lock()
	g.waiting = append(g.waiting, it)
	if len(g.waiting) == 1 {
		g.done = make(chan struct{})
	}
	done := g.done
	if g.leading {
		g.mu.Unlock()
		<-done
		return it.inserted, it.err
	}
	g.leading = true
	g.mu.Unlock()
	g.lead()
	<-done
	return it.inserted, it.err
}

// lead commits until nothing waits. It lets others run first when there were others last time: without that, a batch is
// what two cores bring in the meantime, a fraction of it.
func (g *group) lead() {
	for {
		if g.last > 1 {
			for range 4 {
				runtime.Gosched()
			}
		}
		g.mu.Lock()
		batch, done := g.waiting, g.done
		if len(batch) == 0 {
			g.leading = false
			g.mu.Unlock()
			return
		}
		g.waiting = nil
		g.mu.Unlock()
		g.last = len(batch)
		if err := g.commit(batch); err != nil {
			for _, it := range batch {
				it.err = err
			}
		}
		close(done)
	}
}
