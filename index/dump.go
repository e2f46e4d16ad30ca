package index

import (
	"encoding/binary"
	"runtime"
)

// PageSize is the length of a page's bytes: its slots, each a little-endian word.
const PageSize = pageSlots * 8

// PageHead says where in the index a page belongs and how many entries it has.
type PageHead struct {
	Shard uint8
	Tag   uint32 // the first of its tags
	Depth uint8  // how many of the top bits of all its tags are the same
	Count uint16
}

// Dump gives the bytes of each page, and then each key that is kept whole, so that a Loader can make the index from
// them again. It may run beside everything else; a shard is locked while one page of it is copied, and nothing is
// while a callback runs. A key that is in the index all the while is given once, at a location it had meanwhile;
// others may be given or not. The bytes are valid until the callback returns. A callback's error ends it.
func (x *Index) Dump(page func(h PageHead, slots []byte) error, key func(space byte, key []byte, loc Location) error) error {
	defer runtime.KeepAlive(x)
	buf := make([]byte, PageSize)
	for i := range x.shards {
		for tag := uint64(0); tag < 1<<tagBits; {
			h, next := x.shards[i].dumpPage(uint8(i), tag, buf)
			tag = next
			if h.Count == 0 && h.Depth == 0 { // nothing in the whole shard
				continue
			}
			if err := page(h, buf); err != nil {
				return err
			}
		}
	}
	// No key changes between the table and the map, so none is missed in between.
	all := func(uint16) bool { return true }
	for i := range x.overflow.stripes {
		for _, k := range x.overflow.dead(i, all) {
			if err := key(k.space, []byte(k.key), k.at); err != nil {
				return err
			}
		}
	}
	return nil
}

// dumpPage copies the page of a tag, without flags, which depend on the overflow map, and returns the first tag beyond.
func (sh *shard) dumpPage(i uint8, tag uint64, buf []byte) (h PageHead, next uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	d := sh.dir.Load()
	if d == nil {
		return h, 1 << tagBits
	}
	p := d.page(tag)
	for b := range p.slots {
		at := buf[b*bucketSlots*8:][:bucketSlots*8]
		for i := range p.slots[b] {
			binary.LittleEndian.PutUint64(at[i*8:], p.slots[b][i].Load())
		}
		at[7] &^= 0x80 // slot 0's meta bit: flagged
	}
	return PageHead{i, uint32(tag), uint8(p.depth), uint16(p.count)}, tag + 1<<(tagBits-p.depth)
}
