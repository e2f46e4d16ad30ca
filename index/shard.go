package index

import (
	"sync"
	"sync/atomic"
)

const shardCount = 128

// shard is a part of the index that one writer at a time changes.
//
// A reader loads moves, then dir, and after it has looked loads moves again. An entry that changes its place is
// written at the new one, published there if that takes a new directory, then moves is raised, then the old place
// is cleared. So a reader that missed an entry at both places had loaded moves before it was raised, and sees at the
// end that it must look again. No reader ever waits for a writer.
type shard struct {
	dir   atomic.Pointer[directory] // nil before the first key
	moves atomic.Uint64
	_     [48]byte // what readers load shares no cache line with what each writer changes

	mu   sync.Mutex
	keys atomic.Int64 // in pages, not in the overflow map; changed under mu
	_    [48]byte
}

// directory leads from a tag to its page, by the tag's top bits. It never changes: a split publishes another.
// At its longest it has 2^maxDepth entries, a hundredth of what the split copies anyway.
type directory struct {
	shift int      // of the tag
	slots []*slots // for readers: one step less than through page
	pages []*page
}

func (d *directory) page(tag uint64) *page { return d.pages[tag>>d.shift] }

// page returns the page for a tag, made if the shard has none yet. Under mu.
func (sh *shard) page(tag uint64, m *memory) (*page, error) {
	d := sh.dir.Load()
	if d == nil {
		s, err := m.page()
		if err != nil {
			return nil, err
		}
		d = &directory{tagBits, []*slots{s}, []*page{{slots: s}}}
		sh.dir.Store(d)
	}
	return d.page(tag), nil
}

// split moves the entries of a page whose next tag bit is 1 to a page of their own, slot by slot: an entry keeps its
// bucket and its place in it, so that all fit, and only its slot is read to do it. Under mu. The page's depth is
// less than maxDepth.
func (sh *shard) split(p *page, m *memory) error {
	fresh, err := m.page()
	if err != nil {
		return err
	}
	p.depth++
	q := &page{slots: fresh, depth: p.depth}
	bit := uint64(1) << (tagBits - p.depth)

	var sent [2][pageBuckets]uint8 // bits of the guests that stay, and of those that go, by their first bucket
	for b := range p.slots {
		for i := range p.slots[b] {
			w := p.slots[b][i].Load() &^ metaBit
			goes := w >> locationBits & bit >> (tagBits - p.depth)
			if w&guestBit != 0 {
				first := other(uint32(b), tagOf(w))
				sent[goes][first] |= 1 << sentOn(first, uint32(b))
			}
			if goes != 0 {
				q.slots[b][i].Store(w)
				q.count++
			}
		}
	}
	for id, n := range p.ids {
		if uint64(id)/pageBuckets&bit != 0 {
			if q.ids == nil {
				q.ids = make(map[uint32]int)
			}
			q.ids[id] = n
			delete(p.ids, id)
		}
	}
	q.setMeta(&sent[1])

	sh.publish(p, q)
	sh.moves.Add(1)

	for b := range p.slots {
		for i := range p.slots[b] {
			if w := p.slots[b][i].Load(); w>>locationBits&bit != 0 {
				p.slots[b][i].Store(w & metaBit)
			}
		}
	}
	p.count -= q.count
	p.setMeta(&sent[0])
	return nil
}

// setMeta sets all meta bits of a page: flagged as its ids tell, sent on as given.
func (p *page) setMeta(sent *[pageBuckets]uint8) {
	for id := range p.ids {
		sent[id%pageBuckets] |= 1
	}
	for b := range p.slots {
		for i := range p.slots[b] {
			setMeta(&p.slots[b][i], sent[b]>>i&1 != 0)
		}
	}
}

// publish puts q in place of p for the tags with a 1 at their depth's last bit.
func (sh *shard) publish(p, q *page) {
	old := sh.dir.Load()
	shift := min(old.shift, tagBits-p.depth)
	d := &directory{shift, make([]*slots, 1<<(tagBits-shift)), make([]*page, 1<<(tagBits-shift))}
	for i := range d.pages {
		at := old.pages[i>>(old.shift-shift)]
		if at == p && i<<shift>>(tagBits-p.depth)&1 != 0 {
			at = q
		}
		d.slots[i], d.pages[i] = at.slots, at
	}
	sh.dir.Store(d)
}
