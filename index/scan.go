package index

import "runtime"

// Found is an entry as Scan gives it.
type Found struct {
	Location Location
	Like     Hash // the key's own hash is Alike
}

// Scan calls yield with each entry, in no order, until yield returns false. An entry that is in the
// index from before Scan is called until after it returns is given at least once, at a location it had meanwhile;
// others may be given or not. Scan may run beside everything else. A shard is locked only while one page of it is
// copied, and nothing is locked while yield runs.
func (x *Index) Scan(yield func(Found) bool) {
	defer runtime.KeepAlive(x)
	buf := make([]Found, 0, pageSlots)
	give := func() bool {
		for _, f := range buf {
			if !yield(f) {
				return false
			}
		}
		buf = buf[:0]
		return true
	}
	for i := range x.shards {
		// Pages only ever split, so the end of the tags of a page copied stays the beginning of another's.
		for tag := uint64(0); tag < 1<<tagBits; {
			buf, tag = x.shards[i].copyPage(Hash(firstOf[i])<<shardShift, tag, buf)
			if !give() {
				return
			}
		}
	}
	// No key changes between the table and the map, so none is missed in between.
	for i := range x.overflow.stripes {
		buf = x.overflow.found(i, x, buf)
		if !give() {
			return
		}
	}
}

// copyPage appends the entries in the page of a tag to buf and returns the first tag beyond that page. like is a hash in
// this shard.
func (sh *shard) copyPage(like Hash, tag uint64, buf []Found) ([]Found, uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.dir.Load()
	if d == nil {
		return buf, 1 << tagBits
	}
	p := d.page(tag)
	for b := range p.slots {
		for i := range p.slots[b] {
			if w := p.slots[b][i].Load(); w&locationMask != 0 {
				buf = append(buf, Found{Location(w & locationMask), like | Hash(tagOf(w))<<tagShift | Hash(b)})
			}
		}
	}
	return buf, tag + 1<<(tagBits-p.depth)
}
