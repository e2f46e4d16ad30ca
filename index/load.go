package index

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"
)

// ErrBad is what a Loader returns, wrapped, for parts that are of no index.
var ErrBad = errors.New("index: not the parts of an index")

// Loader makes an index from what Dump gave: all pages, in any order and from any goroutine, then the keys, then
// Index. What it is given is checked so far that no look-up can go astray; that a location is what the key had is
// the caller's affair.
type Loader struct {
	x      *Index
	mu     sync.Mutex
	pages  [shardCount][]loaded
	pieces [][]byte // of memory, to be cut into pages; none of them is being written to
	built  bool
}

type loaded struct {
	tag uint32
	*page
}

// NewLoader returns a loader for an index with the seed of the one that was dumped, which has about so many pages.
func NewLoader(seed uint64, pages int) *Loader {
	m := newMemory()
	m.many = pages > firstMapping/pageSize
	return &Loader{x: newIndex(seed, m)}
}

// Page adds a page. fill writes its bytes to the memory that they stay in.
func (l *Loader) Page(h PageHead, fill func(slots []byte) error) error {
	if int(h.Shard) >= shardCount || h.Depth > maxDepth || h.Tag >= 1<<tagBits || h.Tag&(1<<(tagBits-h.Depth)-1) != 0 {
		return fmt.Errorf("%w: there is no page %+v", ErrBad, h)
	}
	s, piece, err := l.cut()
	if err != nil {
		return err
	}
	words := (*[pageSlots]uint64)(unsafe.Pointer(s))
	if err := fill((*[PageSize]byte)(unsafe.Pointer(s))[:]); err != nil {
		return err
	}
	if bigEndian {
		for i := range words {
			words[i] = binary.LittleEndian.Uint64((*[8]byte)(unsafe.Pointer(&words[i]))[:])
		}
	}
	// Without branches: which slots are free can't be foretold, and wrong guesses were a third of what loading took.
	// What a slot names is less than 2^63, so its negative has the sign bit unless it names nothing.
	const slotMask = locationMask &^ MaxOffset
	var count, wrong, stray uint64
	prefix, mask := uint64(h.Tag)<<locationBits, uint64(1<<h.Depth-1)<<(tagBits-h.Depth)<<locationBits
	for _, w := range words {
		used := uint64(-int64(w&slotMask) >> 63) // all ones if it names a segment, else 0
		count -= used
		wrong |= used & (w ^ prefix)
		stray |= w &^ used
	}
	if wrong&mask|stray&^metaBit != 0 {
		return fmt.Errorf("%w: a page has an entry of another's, or a free slot that is not empty", ErrBad)
	}
	if count != uint64(h.Count) {
		return fmt.Errorf("%w: a page of %d entries has %d", ErrBad, h.Count, count)
	}
	l.mu.Lock()
	l.pages[h.Shard] = append(l.pages[h.Shard], loaded{h.Tag, &page{slots: s, depth: int(h.Depth), count: int(count)}})
	if len(piece) > 0 {
		l.pieces = append(l.pieces, piece)
	}
	l.mu.Unlock()
	return nil
}

// cut returns a page of zeros and what is left of its piece, to be put back once the page is written. Nobody else writes
// to the piece until then: when two come to a huge page at a time the system clears one for each, and throws one away.
func (l *Loader) cut() (s *slots, rest []byte, err error) {
	m := l.x.memory
	if m.heap {
		s, err = m.page()
		return s, nil, err
	}
	l.mu.Lock()
	if n := len(l.pieces); n > 0 {
		rest, l.pieces = l.pieces[n-1], l.pieces[:n-1]
	}
	l.mu.Unlock()
	if len(rest) == 0 {
		if rest, err = m.take(); err != nil {
			return nil, nil, err
		}
		// Touched here and not in the system call that reads into it: while that clears a huge page, Go takes the
		// processor away from it and looks for work that isn't there.
		rest[0] = 0
	}
	s, rest = m.cut(rest)
	return s, rest, nil
}

var bigEndian = func() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 0
}()

// Key adds a key that is kept whole, after all pages.
func (l *Loader) Key(space byte, key []byte, loc Location) error {
	if err := l.build(); err != nil {
		return err
	}
	if loc.Slot() == 0 || loc>>locationBits != 0 {
		return fmt.Errorf("%w: %#x is not a location", ErrBad, uint64(loc))
	}
	x := l.x
	a := x.Hash(space, key).address()
	p, err := x.shards[a.shard].page(a.tag, x.memory)
	if err != nil {
		return err
	}
	if _, ok := x.overflow.get(space, key); ok {
		return fmt.Errorf("%w: a key twice", ErrBad)
	}
	if err := x.overflow.add(space, key, loc); err != nil {
		return err
	}
	p.overflowed(a)
	return nil
}

// Index returns the index. The loader is of no use afterwards.
func (l *Loader) Index() (*Index, error) {
	if err := l.build(); err != nil {
		return nil, err
	}
	return l.x, nil
}

// build makes the directories.
func (l *Loader) build() error {
	if l.built {
		return nil
	}
	l.built = true
	l.x.memory.giveBack(l.pieces)
	for i := range l.pages {
		pages := l.pages[i]
		if len(pages) == 0 {
			continue
		}
		slices.SortFunc(pages, func(a, b loaded) int { return cmp.Compare(a.tag, b.tag) })
		depth, end, keys := 0, uint32(0), 0
		for _, p := range pages {
			if p.tag != end {
				return fmt.Errorf("%w: pages of shard %d are missing or overlap", ErrBad, i)
			}
			end += 1 << (tagBits - p.depth)
			depth = max(depth, p.depth)
			keys += p.count
		}
		if end != 1<<tagBits {
			return fmt.Errorf("%w: the last page of shard %d is missing", ErrBad, i)
		}
		d := &directory{tagBits - depth, make([]*slots, 0, 1<<depth), make([]*page, 0, 1<<depth)}
		for _, p := range pages {
			for range 1 << (depth - p.depth) {
				d.slots, d.pages = append(d.slots, p.slots), append(d.pages, p.page)
			}
		}
		sh := &l.x.shards[i]
		sh.dir.Store(d)
		sh.keys.Store(int64(keys))
	}
	return nil
}
