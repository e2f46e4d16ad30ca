package index

import "sync/atomic"

const (
	bucketSlots = 8
	pageBuckets = 512
	pageSlots   = pageBuckets * bucketSlots

	// splitAt is the number of entries, 85%, at which a page is split. More fit, and do where no split is possible,
	// but the fuller a page the more entries are guests, and the more misses read two cache lines.
	splitAt = pageSlots * 85 / 100

	// splitFrom is the number of entries below which a page is not split though both buckets of a key are full.
	// Honest hashes fill no bucket pair before 85%; chosen ones always can, and would make pages without end.
	splitFrom = pageSlots / 2

	// maxDepth is how often a page may split: each split takes a bit of the tag to tell the halves apart. 11 bits
	// and the guest bit are left to tell the entries of a page apart.
	maxDepth = 10
)

// A slot holds an entry, or nothing when its location is 0.
//
//	63   62    61            41 40             0
//	┌────┬─────┬───────────────┬────────────────┐
//	│meta│guest│ tag: 21       │ location: 41   │
//	└────┴─────┴───────────────┴────────────────┘
//
// guest: the entry is in its second bucket. meta has nothing to do with the entry: the eight meta bits of a bucket
// belong to the bucket. Slot 0's says "flagged": the overflow map has keys whose first bucket is this. Those of the
// slots 1 to 7 say "sent on": among the entries whose first bucket is this, some are guests at one of the distances
// that the bit stands for. A miss reads the second bucket, another cache line, only if the bit for its own distance
// is set: 6% of them. With one bit for all distances, or a count, it was 28%.
const (
	metaBit      = 1 << 63
	guestBit     = 1 << 62
	locationMask = 1<<locationBits - 1
	nameMask     = metaBit - 1 - locationMask // guest and tag
)

// bucket is one cache line. Writers hold the shard's mutex, readers nothing; each slot is read and written whole.
type bucket [bucketSlots]atomic.Uint64

// slots is the part of a page outside of the Go heap.
type slots [pageBuckets]bucket

// page is what writers know of a page besides its slots. Guarded by the shard's mutex.
type page struct {
	*slots
	depth int // how many of the tag's top bits all entries share
	count int // of entries

	// ids counts the keys in the overflow map that belong to this page, by id. It says when a flag can be cleared.
	// Nil while there is none.
	ids map[uint32]int
}

// name returns what the key's slot has above its location, in the first bucket.
func (a address) name() uint64 { return a.tag << locationBits }

// matches reports whether a slot holds an entry with the name. A free one has the name 0, as an entry may.
func matches(w, name uint64) bool { return (w^name)&nameMask == 0 && w&locationMask != 0 }

// find returns the slot with the name, or nil.
func (b *bucket) find(name uint64) *atomic.Uint64 {
	for i := range b {
		if matches(b[i].Load(), name) {
			return &b[i]
		}
	}
	return nil
}

// free returns a free slot, or nil.
func (b *bucket) free() *atomic.Uint64 {
	for i := range b {
		if b[i].Load()&locationMask == 0 {
			return &b[i]
		}
	}
	return nil
}

// put stores an entry, or 0 for none, in a slot of whatever bucket, whose meta bit stays.
func put(slot *atomic.Uint64, entry uint64) { slot.Store(slot.Load()&metaBit | entry) }

func (b *bucket) flagged() bool { return b[0].Load()&metaBit != 0 }

func (b *bucket) setFlagged(on bool) { setMeta(&b[0], on) }

// sentOn tells of which slot the meta bit stands for the distance between an entry's buckets.
func sentOn(first, second uint32) uint32 { return 1 + (first^second)/2*7>>8 }

func setMeta(slot *atomic.Uint64, on bool) {
	w := slot.Load()
	if on != (w&metaBit != 0) {
		slot.Store(w ^ metaBit)
	}
}

// find returns the key's slot and the bucket it is in, or nil. Like a look-up it reads the second bucket only if
// something was sent there: without that each insertion waited for memory twice.
func (p *page) find(a address) (*atomic.Uint64, bool) {
	first := &p.slots[a.first]
	if s := first.find(a.name()); s != nil {
		return s, false
	}
	if first[sentOn(a.first, a.second)&7].Load()&metaBit == 0 {
		return nil, false
	}
	return p.slots[a.second].find(a.name() | guestBit), true
}

// insert puts an entry in one of its two buckets, if need be by sending on another, and reports whether there was
// room. moves is raised between an entry's copy and its end at the old place: a reader that passed the new place
// before and the old one after finds it raised, and looks again.
func (p *page) insert(a address, loc Location, moves *atomic.Uint64) bool {
	entry := a.name() | uint64(loc)
	first, second := &p.slots[a.first], &p.slots[a.second]
	slot := first.free()
	if slot == nil {
		slot = p.vacate(a.first, moves)
	}
	if slot == nil {
		slot = second.free()
		if slot == nil {
			slot = p.vacate(a.second, moves)
		}
		if slot == nil {
			return false
		}
		setMeta(&first[sentOn(a.first, a.second)], true) // before the entry is there: who looks for it has to know
		entry |= guestBit
	}
	put(slot, entry)
	p.count++
	return true
}

// vacate sends an entry of a full bucket on to the other bucket it may be in, and returns its slot, not yet cleared;
// nil if none can go. Guests go first, since going home makes look-ups shorter.
func (p *page) vacate(at uint32, moves *atomic.Uint64) *atomic.Uint64 {
	b := &p.slots[at]
	for _, guest := range [...]uint64{guestBit, 0} {
		for i := range b {
			w := b[i].Load()
			if w&guestBit != guest {
				continue
			}
			to := other(at, tagOf(w))
			free := p.slots[to].free()
			if free == nil {
				continue
			}
			if guest == 0 {
				setMeta(&b[sentOn(at, to)], true)
			}
			put(free, w&^metaBit^guestBit)
			moves.Add(1)
			if guest != 0 {
				put(&b[i], 0)
				p.wentHome(to, at)
			}
			return &b[i]
		}
	}
	return nil
}

func tagOf(w uint64) uint64 { return w & (nameMask &^ guestBit) >> locationBits }

// wentHome clears the bit for a guest of first that is no longer in second, unless it stands for another guest too.
// That reads the 37 buckets at the bit's distances. One removal in ten comes here; if none did, in a store
// whose keys come and go all bits would be set after a while, and each miss would read two buckets.
func (p *page) wentHome(first, second uint32) {
	bit := sentOn(first, second)
	from := (uint32(bit-1)<<8 + 6) / 7 // the least distance/2 with this bit
	for half := from; half < pageBuckets/2 && half*7>>8 == bit-1; half++ {
		b := &p.slots[first^(half*2+1)]
		for i := range b {
			if w := b[i].Load(); w&guestBit != 0 && half*2+1 == other(0, tagOf(w)) {
				return
			}
		}
	}
	setMeta(&p.slots[first][bit], false)
}

// remove clears the key's slot.
func (p *page) remove(a address, slot *atomic.Uint64, guest bool) {
	put(slot, 0)
	if guest {
		p.wentHome(a.first, a.second)
	}
	p.count--
}

// overflowed counts a key of this page into the overflow map, where it is already.
func (p *page) overflowed(a address) {
	if p.ids == nil {
		p.ids = make(map[uint32]int)
	}
	p.ids[a.id()]++
	p.slots[a.first].setFlagged(true)
}

// returned counts a key out that has left the overflow map, and clears its bucket's flag if it was the last.
func (p *page) returned(a address) {
	if p.ids[a.id()]--; p.ids[a.id()] > 0 {
		return
	}
	delete(p.ids, a.id())
	for id := range p.ids {
		if id%pageBuckets == a.first {
			return
		}
	}
	p.slots[a.first].setFlagged(false)
}
