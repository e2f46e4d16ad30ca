package index

import "runtime"

// Sweep removes all entries whose segment slot is dead, and returns how many there were. It may run beside everything
// else; a shard is locked for one page at a time. dead is asked under that lock, so it must be quick, and must not use
// the index.
func (x *Index) Sweep(dead func(slot uint16) bool) (removed int64) {
	defer runtime.KeepAlive(x)
	for i := range x.shards {
		for tag := uint64(0); tag < 1<<tagBits; {
			var n int64
			n, tag = x.shards[i].sweepPage(tag, dead)
			removed += n
		}
	}
	for i := range x.overflow.stripes {
		for _, k := range x.overflow.dead(i, dead) {
			if x.Remove(x.Hash(k.space, []byte(k.key)), k.space, []byte(k.key), k.at) {
				removed++
			}
		}
	}
	return removed
}

// sweepPage sweeps the page of a tag, and returns the first tag beyond it.
func (sh *shard) sweepPage(tag uint64, dead func(slot uint16) bool) (removed int64, next uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.dir.Load()
	if d == nil {
		return 0, 1 << tagBits
	}
	p := d.page(tag)
	guests := false
	for b := range p.slots {
		for i := range p.slots[b] {
			w := p.slots[b][i].Load()
			loc := Location(w & locationMask)
			if loc == 0 || !dead(loc.Slot()) {
				continue
			}
			guests = guests || w&guestBit != 0
			put(&p.slots[b][i], 0)
			removed++
		}
	}
	p.count -= int(removed)
	sh.keys.Add(-removed)
	if guests {
		p.recountMeta()
	}
	return removed, tag + 1<<(tagBits-p.depth)
}

// recountMeta sets all meta bits of a page by the entries that are in it.
func (p *page) recountMeta() {
	var sent [pageBuckets]uint8
	for b := range p.slots {
		for i := range p.slots[b] {
			if w := p.slots[b][i].Load(); w&guestBit != 0 {
				first := other(uint32(b), tagOf(w))
				sent[first] |= 1 << sentOn(first, uint32(b))
			}
		}
	}
	p.setMeta(&sent)
}

// placed is a key of the overflow map with its location.
type placed struct {
	exact
	at Location
}

// dead returns the keys of stripe i whose segment slot is dead.
func (o *overflow) dead(i int, dead func(slot uint16) bool) (keys []placed) {
	s := &o.stripes[i]
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, at := range s.at {
		if dead(at.Slot()) {
			keys = append(keys, placed{k, at})
		}
	}
	return keys
}
