package index

import (
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

const (
	// overflowLimit is the number of keys in the overflow map from which the index calls itself full. Honest hashes
	// put about 400 there at 10 million keys. It bounds what an attacker with colliding keys can make the process hold.
	overflowLimit = 1 << 20

	// overflowReserve is how many more are taken from writers that had asked whether the index is full before.
	overflowReserve = 1 << 16
)

// overflow holds, with their whole key, the keys that the table can't: those with the same id as another, and those
// that find no room. Go's map hashes with a seed and a function that nobody outside can aim at.
//
// It is cut into stripes, by such a hash too, so that a scan copying one holds its lock for microseconds even when
// an attacker has filled all of them.
type overflow struct {
	limit   int64 // a variable for tests
	count   atomic.Int64
	bytes   atomic.Int64 // of the keys
	seed    maphash.Seed
	stripes [256]stripe
}

type stripe struct {
	mu sync.RWMutex
	at map[exact]Location
}

type exact struct {
	space byte
	key   string
}

// overflowEntry is about what an entry costs besides its key's bytes: 33 bytes, a map half full, a string's rounding.
const overflowEntry = 80

func newOverflow() *overflow { return &overflow{limit: overflowLimit, seed: maphash.MakeSeed()} }

func (o *overflow) stripe(key []byte) *stripe {
	return &o.stripes[maphash.Bytes(o.seed, key)%uint64(len(o.stripes))]
}

func (o *overflow) get(space byte, key []byte) (Location, bool) {
	s := o.stripe(key)
	s.mu.RLock()
	loc, ok := s.at[exact{space, string(key)}]
	s.mu.RUnlock()
	return loc, ok
}

func (o *overflow) full() error {
	if n := o.count.Load(); n >= o.limit {
		return fmt.Errorf("%w: %d keys whose hashes collide; remove keys, or split the store", ErrFull, n)
	}
	return nil
}

func (o *overflow) add(space byte, key []byte, loc Location) error {
	if n := o.count.Add(1); n > o.limit+overflowReserve {
		o.count.Add(-1)
		return fmt.Errorf("%w: %d keys whose hashes collide; remove keys, or split the store", ErrFull, n-1)
	}
	o.bytes.Add(int64(len(key)) + overflowEntry)
	s := o.stripe(key)
	s.mu.Lock()
	if s.at == nil {
		s.at = make(map[exact]Location)
	}
	s.at[exact{space, string(key)}] = loc
	s.mu.Unlock()
	return nil
}

// move changes the location of a key that is there.
func (o *overflow) move(space byte, key []byte, loc Location) {
	s := o.stripe(key)
	s.mu.Lock()
	s.at[exact{space, string(key)}] = loc
	s.mu.Unlock()
}

func (o *overflow) remove(space byte, key []byte) {
	s := o.stripe(key)
	s.mu.Lock()
	delete(s.at, exact{space, string(key)})
	if len(s.at) == 0 {
		s.at = nil // a map never shrinks
	}
	s.mu.Unlock()
	o.bytes.Add(-int64(len(key)) - overflowEntry)
	o.count.Add(-1)
}

// locations appends those of stripe i to buf.
func (o *overflow) found(i int, x *Index, buf []Found) []Found {
	s := &o.stripes[i]
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, loc := range s.at {
		buf = append(buf, Found{loc, x.Hash(k.space, []byte(k.key))})
	}
	return buf
}
