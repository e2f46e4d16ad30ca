package receiver

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
)

// flight is a key of a store that is being handled, as this process sees it: the call that runs, and the line of
// those that came later.
//
// Either somebody runs, or the first in line has the turn: it asks the store, alone, on behalf of all. Whoever runs
// or has the turn passes it on when it ends, whatever way it ends. The turn is what hands a failed call's key to
// one that waits, and not to all: with a broadcast, ten thousand waiters would ask the store to find that one of
// them had been quicker.
//
// An answer is for those alone who were in line before the store was told, or asked: who comes later may have come
// after somebody forgot the key again, and asks for itself.
type flight struct {
	id          flightID
	runner      atomic.Pointer[call] // set with the shard's lock held; nil = nobody of this process
	first, last *waiter
	joined      uint64 // how many have ever joined the line
}

// flightID names a flight. All receivers of the process share one table, so that two of them over one store queue
// together, and a circle through two stores is found.
type flightID struct {
	store Store
	key   string // encoded, with its scope
}

// waiter is a place in the line. Its fields are guarded by the shard's lock.
type waiter struct {
	prev, next *waiter
	flight     *flight
	number     uint64 // it was the so-many-th to join
	queued     bool   // in the line
	turn       bool   // was told to ask
	// told brings a result, or nil for the turn. Each comes at most once, so sending never blocks.
	told chan *answer
}

// flightTable is sharded, and tells without a lock that a shard is empty: that is the usual case, and then a call
// for a key that is done takes no lock at all.
type flightTable struct {
	seed   maphash.Seed
	shards [flightShards]flightShard
}

const flightShards = 256

type flightShard struct {
	size atomic.Int64
	mu   sync.Mutex
	m    map[flightID]*flight
	_    [40]byte // a cache line each
}

var flights = flightTable{seed: maphash.MakeSeed()}

func (t *flightTable) shard(key []byte) *flightShard {
	return &t.shards[maphash.Bytes(t.seed, key)%flightShards]
}

// get finds the flight or makes it. Called with the lock held.
func (sh *flightShard) get(store Store, key []byte) *flight {
	if f := sh.m[flightID{store, string(key)}]; f != nil {
		return f
	}
	f := &flight{id: flightID{store, string(key)}}
	if sh.m == nil {
		sh.m = make(map[flightID]*flight)
	}
	sh.m[f.id] = f
	sh.size.Add(1)
	return f
}

// settle gives the turn to the first in line if nobody runs, and forgets a flight without anybody. Called with the
// lock held, after the runner or the line has changed.
func (sh *flightShard) settle(f *flight) {
	w := f.first
	switch {
	case f.runner.Load() != nil:
	case w == nil:
		sh.forget(f)
	case !w.turn:
		w.turn = true
		w.told <- nil
	}
}

func (sh *flightShard) forget(f *flight) {
	if sh.m[f.id] == f {
		delete(sh.m, f.id)
		sh.size.Add(-1)
	}
}

func (f *flight) push(w *waiter) {
	f.joined++
	w.flight, w.number, w.queued, w.prev = f, f.joined, true, f.last
	if f.last == nil {
		f.first = w
	} else {
		f.last.next = w
	}
	f.last = w
}

func (f *flight) remove(w *waiter) {
	if w.prev == nil {
		f.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
}

// find returns the flight of a key, or nil.
func (t *flightTable) find(store Store, key []byte) *flight {
	sh := t.shard(key)
	if sh.size.Load() == 0 {
		return nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.m[flightID{store, string(key)}]
}

// join takes a place at the end of the line. With must, the flight is made if there is none; otherwise nil says that
// there is none.
func (t *flightTable) join(store Store, key []byte, must bool) *waiter {
	sh := t.shard(key)
	if !must && sh.size.Load() == 0 {
		return nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !must && sh.m[flightID{store, string(key)}] == nil {
		return nil
	}
	f := sh.get(store, key)
	w := &waiter{told: make(chan *answer, 2)}
	f.push(w)
	sh.settle(f)
	return w
}

// leave gives the place up, and the turn with it.
func (t *flightTable) leave(w *waiter, key []byte) {
	sh := t.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if w.queued {
		w.flight.remove(w)
		sh.settle(w.flight)
	}
}

// start makes c the one that runs. w is its place in the line until now, nil if it had none.
func (t *flightTable) start(store Store, key []byte, c *call, w *waiter) {
	sh := t.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if w != nil && w.queued {
		w.flight.remove(w)
	}
	c.flight = sh.get(store, key)
	c.flight.runner.Store(c)
}

// handOver lets another call stand for one whose fn has returned and whose result is not recorded yet.
func (t *flightTable) handOver(c, to *call, key []byte) {
	sh := t.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c.flight.runner.CompareAndSwap(c, to) {
		c.standIn = to
	}
}

// fail ends a run that leaves no result: the next in line has the turn.
func (t *flightTable) fail(c *call, key []byte) {
	sh := t.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// Whoever had asked the store meanwhile may run already.
	if c.flight.runner.CompareAndSwap(c.runner(), nil) {
		sh.settle(c.flight)
	}
}

// present returns the number of the last one who has joined the line until now.
func (t *flightTable) present(f *flight, key []byte) uint64 {
	sh := t.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return f.joined
}

// everybody is who an answer is for that no later question can change.
const everybody = math.MaxUint64

// finish ends a run, or a turn, with an answer for those in line through a number. by is the call that ran, nil when
// the store had the answer.
func (t *flightTable) finish(f *flight, by *call, key []byte, a answer, through uint64) {
	sh := t.shard(key)
	sh.mu.Lock()
	var told []*waiter
	for w := f.first; w != nil && w.number <= through; w = f.first {
		f.remove(w)
		told = append(told, w)
	}
	if f.runner.CompareAndSwap(by.runner(), nil) {
		sh.settle(f)
	}
	sh.mu.Unlock()
	if len(told) == 0 {
		return
	}
	shared := a.shared()
	for _, w := range told {
		w.told <- shared
	}
}
