package index

import (
	"slices"

	"github.com/stretchr/testify/require"
)

// onHeap returns an index whose pages the race detector sees.
func onHeap() *Index {
	m := newMemory()
	m.heap = true
	return newIndex(1, m)
}

// hashOf builds a hash for a shard from its parts. The top 12 bits are the first that lead to the shard.
func hashOf(shard uint8, tag uint64, bucket uint32) Hash {
	for top := range shardOf {
		if shardOf[top] == shard {
			return Hash(uint64(top)<<shardShift | tag<<tagShift | uint64(bucket))
		}
	}
	panic("no such shard")
}

// mix spreads the bits of i over a whole hash, no two i to the same.
func mix(i uint64) Hash {
	i = (i ^ i>>30) * 0xBF58476D1CE4E5B9
	i = (i ^ i>>27) * 0x94D049BB133111EB
	return Hash(i ^ i>>31)
}

// place is a location of its own for each i below 2^41 less one slot.
func place(i uint64) Location { return Location(1<<offsetBits + i) }

// audit checks everything that must hold while no writer is inside. The package's comparisons are asked only after a
// plain one failed where it is done for each slot, because they are slow.
func audit(t require.TestingT, x *Index) {
	var keys, pages, overflow int64
	for s := range x.shards {
		sh := &x.shards[s]
		d := sh.dir.Load()
		if d == nil {
			require.Zero(t, sh.keys.Load())
			continue
		}
		require.Len(t, d.pages, 1<<(tagBits-d.shift))
		require.Len(t, d.slots, len(d.pages))
		seen := make(map[*page]bool)
		inShard := int64(0)
		for i, p := range d.pages {
			require.Same(t, p.slots, d.slots[i])
			if seen[p] {
				require.Same(t, p, d.pages[i-1], "a page's tags are one range")
				continue
			}
			seen[p] = true
			require.LessOrEqual(t, p.depth, maxDepth)
			low := uint64(i) << d.shift
			require.Zero(t, low&(1<<(tagBits-p.depth)-1), "a page begins where its prefix does")
			count, overflowed := auditPage(t, p, low>>(tagBits-p.depth))
			require.Equal(t, p.count, count)
			inShard += int64(count)
			overflow += int64(overflowed)
		}
		pages += int64(len(seen))
		require.Equal(t, sh.keys.Load(), inShard)
		keys += inShard
	}
	require.Equal(t, x.overflow.count.Load(), overflow)
	st := x.Stats()
	require.Equal(t, keys+overflow, st.Keys)
	require.Equal(t, pages, st.Pages)
	require.Equal(t, overflow, st.Overflow)
}

func auditPage(t require.TestingT, p *page, prefix uint64) (count, overflowed int) {
	var meta [pageBuckets]uint8
	ids := make([]uint64, 0, p.count)
	for b := range p.slots {
		for i := range p.slots[b] {
			w := p.slots[b][i].Load() &^ metaBit
			if w&locationMask == 0 {
				if w != 0 {
					require.Zero(t, w, "a free slot is zero")
				}
				continue
			}
			count++
			if tagOf(w)>>(tagBits-p.depth) != prefix {
				require.Equal(t, prefix, tagOf(w)>>(tagBits-p.depth), "an entry in a page of other tags")
			}
			first := uint32(b)
			if w&guestBit != 0 {
				first = other(first, tagOf(w))
				meta[first] |= 1 << sentOn(first, uint32(b))
			}
			ids = append(ids, tagOf(w)<<9|uint64(first))
		}
	}
	slices.Sort(ids)
	require.Len(t, slices.Compact(ids), count, "two entries that can't be told apart")
	for id, n := range p.ids {
		require.Positive(t, n)
		require.Equal(t, prefix, uint64(id)/pageBuckets>>(tagBits-p.depth))
		meta[id%pageBuckets] |= 1
		overflowed += n
	}
	for b := range p.slots {
		got := uint8(0)
		for i := range p.slots[b] {
			got |= uint8(p.slots[b][i].Load()>>63) << i
		}
		if got != meta[b] {
			require.Equal(t, meta[b], got, "meta bits of bucket %d", b)
		}
	}
	return count, overflowed
}
