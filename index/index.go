package index

import (
	"errors"
	"runtime"
	"unsafe"
)

// ErrFull is what Insert and Full return, wrapped, when the index can't take another key: the system gives no
// memory, or too many keys collide.
var ErrFull = errors.New("index: full")

// Index maps the hash of a key to the location of its record. See the package's documentation.
//
// All methods may be called at the same time. For one key, the caller makes sure that Insert, Replace and Remove
// run one after the other; Lookup and Scan may run beside them.
type Index struct {
	seed     uint64
	shards   [shardCount]shard
	overflow *overflow
	memory   *memory
}

// New returns an empty index. The seed should be random, and the same for as long as the caller keeps hashes. There
// is nothing to close: the memory goes back to the system when the Index is collected.
func New(seed uint64) *Index { return newIndex(seed, newMemory()) }

func newIndex(seed uint64, m *memory) *Index {
	x := &Index{seed: seed, overflow: newOverflow(), memory: m}
	runtime.AddCleanup(x, (*memory).release, m)
	return x
}

// Lookup returns the location of a key that is in the index. For one that is not it may return the location of
// another: the caller compares the whole key there, and takes a different one for absent. It takes no lock, unless
// the bucket is flagged, and allocates nothing.
func (x *Index) Lookup(h Hash, space byte, key []byte) (Location, bool) {
	a := h.address()
	sh := &x.shards[a.shard]
	for {
		moves := sh.moves.Load()
		d := sh.dir.Load()
		if d == nil {
			return 0, false
		}
		s := d.slots[a.tag>>d.shift]
		first := &s[a.first]
		loc := first.lookup(a.name())
		if first.flagged() {
			if loc, ok := x.overflow.get(space, key); ok {
				return loc, true
			}
		}
		if loc == 0 && first[sentOn(a.first, a.second)&7].Load()&metaBit != 0 {
			loc = s[a.second].lookup(a.name() | guestBit)
		}
		if sh.moves.Load() == moves {
			runtime.KeepAlive(x) // the memory is there as long as x
			return loc, loc != 0
		}
	}
}

// lookup returns the location of the entry with the name, or 0. It is find for readers. As a loop it took half as long
// again: the processor foretells the loop's end badly, and a wrong guess is found out only when memory has answered.
func (b *bucket) lookup(name uint64) Location {
	if w := b[0].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[1].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[2].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[3].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[4].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[5].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[6].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	if w := b[7].Load(); matches(w, name) {
		return Location(w & locationMask)
	}
	return 0
}

// Insert adds a key, which must not be in the index, at a location from At. If it can't, the error matches ErrFull
// and the index is unchanged.
func (x *Index) Insert(h Hash, space byte, key []byte, loc Location) error {
	defer runtime.KeepAlive(x)
	loc.check()
	a := h.address()
	sh := &x.shards[a.shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p, err := sh.page(a.tag, x.memory)
	if err != nil {
		return err
	}
	if slot, _ := p.find(a); slot == nil {
		for {
			if p.count < splitAt && p.insert(a, loc, &sh.moves) {
				sh.keys.Add(1)
				return nil
			}
			if p.count < splitFrom || p.depth == maxDepth || sh.split(p, x.memory) != nil {
				break
			}
			p = sh.dir.Load().page(a.tag)
		}
		if p.insert(a, loc, &sh.moves) { // a page that can't split is filled to the brim
			sh.keys.Add(1)
			return nil
		}
	}
	if err := x.overflow.add(space, key, loc); err != nil {
		return err
	}
	p.overflowed(a)
	return nil
}

// Replace gives a key that is at old the location new, one from At. It reports false, and changes nothing, if the
// key is not in the index or somewhere else.
func (x *Index) Replace(h Hash, space byte, key []byte, old, new Location) bool {
	defer runtime.KeepAlive(x)
	new.check()
	a := h.address()
	sh := &x.shards[a.shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.dir.Load()
	if d == nil {
		return false
	}
	p := d.page(a.tag)
	if p.slots[a.first].flagged() {
		if loc, ok := x.overflow.get(space, key); ok {
			if loc != old {
				return false
			}
			x.overflow.move(space, key, new)
			return true
		}
	}
	slot, _ := p.find(a)
	if slot == nil || Location(slot.Load()&locationMask) != old {
		return false
	}
	slot.Store(slot.Load()&^locationMask | uint64(new))
	return true
}

// Remove removes a key that is at old. It reports false, and changes nothing, if the key is not in the index or
// somewhere else.
func (x *Index) Remove(h Hash, space byte, key []byte, old Location) bool {
	defer runtime.KeepAlive(x)
	a := h.address()
	sh := &x.shards[a.shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.dir.Load()
	if d == nil {
		return false
	}
	p := d.page(a.tag)
	if p.slots[a.first].flagged() {
		if loc, ok := x.overflow.get(space, key); ok {
			if loc != old {
				return false
			}
			x.overflow.remove(space, key)
			p.returned(a)
			return true
		}
	}
	slot, guest := p.find(a)
	if slot == nil || Location(slot.Load()&locationMask) != old {
		return false
	}
	p.remove(a, slot, guest)
	sh.keys.Add(-1)
	return true
}

// Full returns an error that matches ErrFull when another Insert may be refused. Asked before a write is begun, it
// leaves room for those that were begun before: 65536 keys.
func (x *Index) Full() error {
	if err := x.memory.full(); err != nil {
		return err
	}
	return x.overflow.full()
}

// Stats are figures of an index.
type Stats struct {
	Keys     int64 // in the index
	Bytes    int64 // of memory the index holds, inside of the Go heap and outside
	Pages    int64 // of 32 KiB, with room for 4096 keys each
	Overflow int64 // keys in the overflow map; they are in Keys too
}

// Stats returns the index's figures. Beside writers each is right on its own.
func (x *Index) Stats() Stats {
	s := Stats{Pages: x.memory.pages.Load(), Overflow: x.overflow.count.Load()}
	s.Keys = s.Overflow
	s.Bytes = int64(unsafe.Sizeof(*x)) + int64(unsafe.Sizeof(*x.overflow)) + x.overflow.bytes.Load() + x.memory.bytes.Load()
	s.Bytes += s.Pages * int64(unsafe.Sizeof(page{}))
	for i := range x.shards {
		s.Keys += x.shards[i].keys.Load()
		if d := x.shards[i].dir.Load(); d != nil {
			s.Bytes += int64(unsafe.Sizeof(*d)) + int64(len(d.pages))*2*int64(unsafe.Sizeof(uintptr(0)))
		}
	}
	return s
}
