package index

import "runtime"

// Scan calls yield with the location of each entry, in no order, until yield returns false. An entry that is in the
// index from before Scan is called until after it returns is given at least once, at a location it had meanwhile;
// others may be given or not. Scan may run beside everything else. A shard is locked only while one page of it is
// copied, and nothing is locked while yield runs.
func (x *Index) Scan(yield func(Location) bool) {
	defer runtime.KeepAlive(x)
	buf := make([]Location, 0, pageSlots)
	give := func() bool {
		for _, loc := range buf {
			if !yield(loc) {
				return false
			}
		}
		buf = buf[:0]
		return true
	}
	for i := range x.shards {
		// Pages only ever split, so the end of the tags of a page copied stays the beginning of another's.
		for tag := uint64(0); tag < 1<<tagBits; {
			buf, tag = x.shards[i].copyPage(tag, buf)
			if !give() {
				return
			}
		}
	}
	// No key changes between the table and the map, so none is missed in between.
	for i := range x.overflow.stripes {
		buf = x.overflow.locations(i, buf)
		if !give() {
			return
		}
	}
}

// copyPage appends the locations in the page of a tag to buf and returns the first tag beyond that page.
func (sh *shard) copyPage(tag uint64, buf []Location) ([]Location, uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.dir.Load()
	if d == nil {
		return buf, 1 << tagBits
	}
	p := d.page(tag)
	for b := range p.slots {
		for i := range p.slots[b] {
			if loc := p.slots[b][i].Load() & locationMask; loc != 0 {
				buf = append(buf, Location(loc))
			}
		}
	}
	return buf, tag + 1<<(tagBits-p.depth)
}
