package index

import (
	"encoding/binary"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestLocation(t *testing.T) {
	for _, slot := range []uint16{1, 2, 255, 1 << 15, 1<<16 - 1} {
		for _, offset := range []int64{0, 1, 4 << 20, MaxOffset} {
			l := At(slot, offset)
			require.Equal(t, slot, l.Slot())
			require.Equal(t, offset, l.Offset())
			require.NotZero(t, l)
			require.Zero(t, uint64(l)&^locationMask)
		}
	}
	require.Zero(t, Location(0).Slot())
	require.Panics(t, func() { At(0, 5) })
	require.Panics(t, func() { At(1, -1) })
	require.Panics(t, func() { At(1, MaxOffset+1) })

	x := New(1)
	require.Panics(t, func() { _ = x.Insert(1, 0, nil, 0) })
	require.Panics(t, func() { _ = x.Insert(1, 0, nil, 5) })
	require.Panics(t, func() { _ = x.Insert(1, 0, nil, 1<<locationBits) })
	require.Panics(t, func() { x.Replace(1, 0, nil, At(1, 1), 0) })
	require.NoError(t, x.Insert(1, 0, nil, At(1<<16-1, MaxOffset)))
	got, ok := x.Lookup(1, 0, nil)
	require.True(t, ok)
	require.Equal(t, At(1<<16-1, MaxOffset), got)
}

func TestShares(t *testing.T) {
	var share [shardCount]int
	for _, s := range shardOf {
		share[s]++
	}
	require.InDelta(t, 22.2, share[0], 1)
	require.InDelta(t, 44.2, share[shardCount-1], 1)
}

func TestOtherBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Hash(rapid.Uint64().Draw(t, "hash")).address()
		require.NotEqual(t, a.first, a.second)
		require.Less(t, a.second, uint32(pageBuckets))
		require.Equal(t, a.first, other(a.second, a.tag))
		bit := sentOn(a.first, a.second)
		require.Equal(t, bit, sentOn(a.second, a.first))
		require.True(t, bit >= 1 && bit < bucketSlots)
	})
}

// model is a Go map with the same keys.
type model struct {
	x    *Index
	keys []modelKey
	next uint64
}

type modelKey struct {
	h     Hash
	space byte
	name  []byte
	loc   Location
}

func (m *model) insert(t require.TestingT, h Hash) {
	k := modelKey{h, byte(m.next % 3), strconv.AppendUint(nil, m.next, 10), place(m.next)}
	m.next++
	if err := m.x.Insert(k.h, k.space, k.name, k.loc); err != nil {
		require.NoError(t, err)
	}
	m.keys = append(m.keys, k)
}

func (m *model) remove(t require.TestingT, i int) {
	k := m.keys[i]
	if !m.x.Remove(k.h, k.space, k.name, k.loc) || m.x.Remove(k.h, k.space, k.name, k.loc) {
		require.Fail(t, "not removed, or twice")
	}
	m.keys[i] = m.keys[len(m.keys)-1]
	m.keys = m.keys[:len(m.keys)-1]
}

func (m *model) check(t require.TestingT) {
	want := make(map[Location]bool)
	for _, k := range m.keys {
		loc, ok := m.x.Lookup(k.h, k.space, k.name)
		if !ok || loc != k.loc {
			require.True(t, ok, "a key is missed")
			require.Equal(t, k.loc, loc, "another key's location")
		}
		want[loc] = true
	}
	seen := 0
	m.x.Scan(func(f Found) bool {
		loc := f.Location
		if !want[loc] {
			require.Contains(t, want, loc)
		}
		seen++
		return true
	})
	require.Equal(t, len(m.keys), seen)
	audit(t, m.x)
}

// TestModel plays with hashes of few shards, tags and buckets, so that everything rare happens: full bucket pairs,
// equal ids, entries sent on, splits that help and that don't.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{x: onHeap()}
		shards := rapid.IntRange(1, 2).Draw(t, "shards")
		tags := rapid.SampledFrom([]uint64{1, 2, 8, 1 << 12, 1 << tagBits}).Draw(t, "tags")
		stride := uint64(1<<tagBits) / tags // so few tags differ in their top bits, by which pages split
		buckets := rapid.SampledFrom([]uint64{1, 4, 32, pageBuckets}).Draw(t, "buckets")
		hash := func(i uint64) Hash {
			r := uint64(mix(i))
			return hashOf(uint8(r>>40%uint64(shards)), r>>16%tags*stride, uint32(r%buckets))
		}
		seed := rapid.Uint64Range(0, 1<<32).Draw(t, "seed")
		t.Repeat(map[string]func(*rapid.T){
			"": m.checkSome,
			"insert": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 10, 100, 1500}).Draw(t, "n") {
					seed++
					m.insert(t, hash(seed))
				}
			},
			"remove": func(t *rapid.T) {
				n := rapid.SampledFrom([]int{1, 10, 100, 2000}).Draw(t, "n")
				for ; n > 0 && len(m.keys) > 0; n-- {
					seed++
					m.remove(t, int(uint64(mix(seed))%uint64(len(m.keys))))
				}
			},
			"replace": func(t *rapid.T) {
				for n := min(50, len(m.keys)); n > 0; n-- {
					seed++
					k := &m.keys[uint64(mix(seed))%uint64(len(m.keys))]
					to := place(m.next)
					m.next++
					require.False(t, m.x.Replace(k.h, k.space, k.name, to, to), "replaced what is elsewhere")
					require.False(t, m.x.Remove(k.h, k.space, k.name, to), "removed what is elsewhere")
					require.True(t, m.x.Replace(k.h, k.space, k.name, k.loc, to))
					k.loc = to
				}
			},
			"absent": func(t *rapid.T) {
				for range 50 {
					seed++
					h, absent := hash(seed), []byte("absent")
					require.False(t, m.x.Replace(h, 9, absent, place(1<<30), place(1<<31)))
					require.False(t, m.x.Remove(h, 9, absent, place(1<<30)))
					if loc, ok := m.x.Lookup(h, 9, absent); ok {
						require.NotZero(t, loc)
					}
				}
			},
		})
		m.check(t)
		for len(m.keys) > 0 {
			m.remove(t, len(m.keys)-1)
		}
		m.check(t)
	})
}

// checkSome is check without looking at everything each time.
func (m *model) checkSome(t *rapid.T) {
	for i := 0; i < len(m.keys); i += 1 + len(m.keys)/200 {
		k := m.keys[i]
		loc, ok := m.x.Lookup(k.h, k.space, k.name)
		if !ok || loc != k.loc {
			require.True(t, ok, "a key is missed")
			require.Equal(t, k.loc, loc, "another key's location")
		}
	}
	if !raced { // nothing here runs beside anything
		audit(t, m.x)
	}
}

// TestEqualHashes: whole families of keys with one XXH64 under every seed can be made.
func TestEqualHashes(t *testing.T) {
	m := &model{x: New(1)}
	h := hashOf(7, 12345, 99)
	for range 5000 {
		m.insert(t, h)
	}
	require.EqualValues(t, 4999, m.x.Stats().Overflow)
	require.EqualValues(t, 1, m.x.Stats().Pages, "keys that can't be told apart don't make pages split")
	m.check(t)
	p := m.x.shards[7].dir.Load().page(12345)
	require.True(t, p.slots[99].flagged())

	// The one in the table goes first: those in the map must still be asked for.
	m.remove(t, 0)
	m.check(t)
	for len(m.keys) > 1 {
		m.remove(t, len(m.keys)/2)
	}
	require.True(t, p.slots[99].flagged())
	m.check(t)
	m.remove(t, 0)
	require.False(t, p.slots[99].flagged())
	require.Empty(t, p.ids)
	m.check(t)
	require.Zero(t, m.x.Stats().Keys)
}

// TestFlagOfTwoIDs: a bucket's flag stands for all ids in the bucket, not for the last that came or went.
func TestFlagOfTwoIDs(t *testing.T) {
	m := &model{x: New(1)}
	for range 2 {
		m.insert(t, hashOf(0, 1, 5))
		m.insert(t, hashOf(0, 2, 5))
	}
	require.EqualValues(t, 2, m.x.Stats().Overflow)
	m.remove(t, 2)
	m.check(t)
	require.True(t, m.x.shards[0].dir.Load().pages[0].slots[5].flagged())
	m.remove(t, 2)
	m.check(t)
	require.False(t, m.x.shards[0].dir.Load().pages[0].slots[5].flagged())
}

// TestFullBuckets: more keys than two buckets hold, all told apart by their tags, and the page nearly empty.
func TestFullBuckets(t *testing.T) {
	m := &model{x: New(1)}
	var tags []uint64
	for tag := uint64(0); len(tags) < 100; tag++ {
		if other(3, tag) == other(3, 0) {
			tags = append(tags, tag)
		}
	}
	for _, tag := range tags {
		m.insert(t, hashOf(0, tag, 3))
		m.check(t)
	}
	require.EqualValues(t, 100-2*bucketSlots, m.x.Stats().Overflow)
	require.EqualValues(t, 1, m.x.Stats().Pages)
	for len(m.keys) > 0 {
		m.remove(t, 0)
	}
	m.check(t)
}

// TestDeepest: tags alike in all bits by which a page can split drive one page to its greatest depth, and then over.
func TestDeepest(t *testing.T) {
	m := &model{x: New(1)}
	for i := range uint64(6000) {
		r := uint64(mix(i))
		m.insert(t, hashOf(3, 0x155<<(tagBits-maxDepth)|r>>9%(1<<(tagBits-maxDepth)), uint32(r%pageBuckets)))
		if i%500 == 0 {
			m.check(t)
		}
	}
	m.check(t)
	p := m.x.shards[3].dir.Load().page(0x155 << (tagBits - maxDepth))
	require.Equal(t, maxDepth, p.depth)
	require.Greater(t, p.count, pageSlots*9/10, "a page that can't split is filled first")
	require.Positive(t, m.x.Stats().Overflow)
	require.EqualValues(t, 1+maxDepth, m.x.Stats().Pages)
}

// TestSplits: every key is found after every split, those that share their tag or their bucket with others too.
func TestSplits(t *testing.T) {
	m := &model{x: New(1)}
	pages := int64(0)
	for i := range uint64(40_000) {
		r := uint64(mix(i / 4))
		switch i % 4 {
		case 0:
			m.insert(t, hashOf(1, r>>9%(1<<tagBits), uint32(r%pageBuckets)))
		case 1: // the same tag in another bucket
			m.insert(t, hashOf(1, r>>9%(1<<tagBits), uint32((r+1)%pageBuckets)))
		case 2: // one low bit apart, which no split will tell
			m.insert(t, hashOf(1, r>>9%(1<<tagBits)^1, uint32(r%pageBuckets)))
		case 3: // the same in everything for one in ten
			if i%40 == 3 {
				m.insert(t, hashOf(1, r>>9%(1<<tagBits), uint32(r%pageBuckets)))
			}
		}
		if n := m.x.Stats().Pages; n != pages {
			pages = n
			m.check(t)
		}
	}
	require.Greater(t, pages, int64(8))
	require.Positive(t, m.x.Stats().Overflow)
}

func TestFullOfCollisions(t *testing.T) {
	m := &model{x: New(1)}
	m.x.overflow.limit = 10
	h := hashOf(0, 0, 0)
	for range 10 {
		require.NoError(t, m.x.Full())
		m.insert(t, h)
	}
	require.NoError(t, m.x.Full())
	m.insert(t, h)
	require.ErrorIs(t, m.x.Full(), ErrFull)
	for range overflowReserve { // writes begun before it was full
		m.insert(t, h)
	}
	require.ErrorIs(t, m.x.Insert(h, 0, []byte("one too many"), place(1<<30)), ErrFull)
	m.insert(t, hashOf(0, 0, 1)) // a key that collides with none is taken
	m.check(t)
	for len(m.keys) > 10 {
		m.remove(t, len(m.keys)-1)
	}
	require.NoError(t, m.x.Full())
	m.check(t)
}

func TestFullMemory(t *testing.T) {
	if !canMap {
		t.Skip("this system's pages come from the Go heap, where running out ends the process")
	}
	m := &model{x: New(1)}
	more := m.x.memory.more
	m.x.memory.more = func(int) ([]byte, error) { return nil, syscall.ENOMEM }
	require.ErrorIs(t, m.x.Insert(1, 0, nil, place(1)), ErrFull)
	require.ErrorIs(t, m.x.Full(), ErrFull)
	require.ErrorIs(t, m.x.Full(), syscall.ENOMEM)
	m.check(t)

	m.x.memory.more = more
	require.NoError(t, m.x.Full(), "memory is there again")
	for i := range uint64(shardCount) {
		m.insert(t, hashOf(uint8(i), i, uint32(i)))
	}
	m.x.memory.more = func(int) ([]byte, error) { return nil, syscall.ENOMEM }
	m.x.memory.piece, m.x.memory.rest = nil, nil
	for i := range uint64(6000) { // more than a page: what was begun is taken all the same
		m.insert(t, hashOf(0, uint64(mix(i))>>20%(1<<tagBits), uint32(mix(i)%pageBuckets)))
	}
	require.ErrorIs(t, m.x.Full(), ErrFull)
	m.check(t)
	m.x.memory.more = more
	require.NoError(t, m.x.Full())
	m.insert(t, hashOf(0, 0, 0))
	m.check(t)
}

func TestNoAllocations(t *testing.T) {
	x := New(1)
	name := []byte("5f0c0d52-7f0e-4c39-9a55-6f8f3b4ad3c1")
	long := make([]byte, 1024)
	require.NoError(t, x.Insert(x.Hash(1, name), 1, name, place(1)))
	for i := range byte(3) { // the later two in the overflow map
		long[0] = i
		require.NoError(t, x.Insert(5, 2, long, place(2+uint64(i))))
	}
	for what, f := range map[string]func(){
		"hit":          func() { x.Lookup(x.Hash(1, name), 1, name) },
		"miss":         func() { x.Lookup(x.Hash(2, name), 2, name) },
		"long":         func() { x.Lookup(x.Hash(2, long), 2, long) },
		"flagged":      func() { x.Lookup(5, 2, long) },
		"flagged miss": func() { x.Lookup(5, 3, long) },
		"replace":      func() { x.Replace(x.Hash(1, name), 1, name, place(1), place(1)) },
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), what)
	}
}

// TestBytesPerKey follows an index as it grows and looks at the memory of each size on the way.
func TestBytesPerKey(t *testing.T) {
	x := New(1)
	require.Less(t, x.Stats().Bytes, int64(2<<20), "an empty index")
	most := uint64(2_100_000)
	if raced {
		most = 600_000
		t.Logf("up to %d keys only: the race detector is slow and this is about memory", most)
	}
	step, worst := uint64(10), 0.0
	for i := uint64(1); i <= most; i++ {
		if err := x.Insert(mix(i), 0, nil, place(i)); err != nil {
			require.NoError(t, err)
		}
		if i != step {
			continue
		}
		step += 1 + step/16
		s := x.Stats()
		require.EqualValues(t, i, s.Keys)
		if i == 10 {
			require.Less(t, s.Bytes, int64(2<<20), "an index of ten keys")
		}
		if i >= 250_000 {
			perKey := float64(s.Bytes) / float64(s.Keys)
			worst = max(worst, perKey)
			require.LessOrEqual(t, perKey, 20.0, "%d keys", i)
		}
	}
	t.Logf("at most %.1f bytes a key from 250 thousand keys on", worst)
	audit(t, x)
}

// TestMemoryGoesBack: there is no Close, so the collector has to do it.
func TestMemoryGoesBack(t *testing.T) {
	if !canMap {
		t.Skip("this system's pages come from the Go heap")
	}
	var m *memory
	func() {
		x := New(1)
		m = x.memory
		for i := range uint64(900_000) {
			_ = x.Insert(mix(i), 0, nil, place(i))
		}
		require.Equal(t, 2, len(m.mappings), "both kinds of mapping")
		for range 3 {
			runtime.GC()
		}
		require.Positive(t, m.bytes.Load(), "given back while it is in use")
		runtime.KeepAlive(x)
	}()
	require.Eventually(t, func() bool { runtime.GC(); return m.bytes.Load() == 0 }, 10*time.Second, time.Millisecond)
	require.Zero(t, len(m.mappings))
}

func TestSpacesAreApart(t *testing.T) {
	x := New(7)
	key := binary.BigEndian.AppendUint64(nil, 42)
	require.NotEqual(t, x.Hash(1, key), x.Hash(2, key))
	require.NotEqual(t, x.Hash(1, key), New(8).Hash(1, key))
	for space := range byte(3) { // with one hash, to be told apart by the map
		require.NoError(t, x.Insert(9, space, key, place(uint64(space))))
	}
	for space := range byte(3) {
		loc, ok := x.Lookup(9, space, key)
		require.True(t, ok)
		require.Equal(t, place(uint64(space)), loc)
	}
}
