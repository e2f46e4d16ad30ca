package oncelog

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// scopes counts, for quotas, what the receiver's keys of each scope take up: keys and bytes of records that are live.
// Expiries are told apart in steps of a 32nd of the TTL at most, and what expires in a step counts to its end. A scope
// in which nothing is live is forgotten.
//
// As in the ledger, each segment has its part, which goes with it: what is alive in a segment is counted in elsewhere
// before the segment is dropped, and a replay that no longer finds it need not know what it was.
type scopes struct {
	shift uint // a step has 2^shift milliseconds

	mu       sync.Mutex
	m        map[string]*scope
	segments map[uint64]map[string][]cell // by number, then by scope; the cells in ascending order
}

// scope is the account of one scope.
type scope struct {
	keys, bytes int64               // of all cells
	cells       []cell              // in ascending order; the last may be what does not expire
	claimed     map[string]struct{} // keys that are claimed under a quota and have no record yet
}

// cell is what expires by a time, which is a whole number of steps, or Forever.
type cell struct{ end, keys, bytes int64 }

const stepsOfTTL = 32

// stepShift returns the step for a store with this TTL in milliseconds.
func stepShift(ttl int64) uint {
	if ttl == record.Forever {
		ttl = 72 * 60 * 60 * 1000
	}
	return uint(max(0, bits.Len64(uint64(ttl)/stepsOfTTL)-1))
}

// id returns the name of the key's scope, in the room given. ok is false for a key that is not package receiver's.
func scopeID(room, key []byte) (id []byte, ok bool) {
	names, path, ok := receiver.ScopeOf(key)
	if !ok {
		return nil, false
	}
	return append(binary.AppendUvarint(room, names), path...), true
}

// change counts out what a key's record was before, and in what it is now; either may be nil.
func (s *scopes) change(key []byte, old, new *compaction.Entry) {
	var room [64]byte
	id, ok := scopeID(room[:0], key)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.m[string(id)]
	if sc == nil {
		if new == nil {
			return
		}
		sc = s.add(string(id))
	}
	if old != nil && s.segments[old.Segment] != nil {
		s.count(sc, old.Segment, string(id), cell{s.end(old.Expires), -1, -int64(old.Size)})
	}
	if new != nil {
		s.count(sc, new.Segment, string(id), cell{s.end(new.Expires), 1, int64(new.Size)})
		delete(sc.claimed, string(key))
	}
	s.forget(string(id), sc)
}

func (s *scopes) add(id string) *scope {
	sc := &scope{}
	if s.m == nil {
		s.m = make(map[string]*scope)
	}
	s.m[id] = sc
	return sc
}

// end returns the end of the step in which an expiry lies.
func (s *scopes) end(expires int64) int64 {
	if expires > record.Forever-1<<s.shift {
		return record.Forever
	}
	return (expires + 1<<s.shift - 1) >> s.shift << s.shift
}

// count adds a cell to the account of a segment's part and to that of the scope.
func (s *scopes) count(sc *scope, segment uint64, id string, c cell) {
	sc.count(c)
	part := s.segments[segment]
	if part == nil {
		part = make(map[string][]cell)
		if s.segments == nil {
			s.segments = make(map[uint64]map[string][]cell)
		}
		s.segments[segment] = part
	}
	cells := part[id]
	i, ok := search(cells, c.end)
	if !ok {
		cells = slices.Insert(cells, i, cell{end: c.end})
	}
	cells[i].keys += c.keys
	cells[i].bytes += c.bytes
	if cells[i].keys == 0 {
		cells = slices.Delete(cells, i, i+1)
	}
	if part[id] = cells; len(cells) == 0 {
		delete(part, id)
	}
}

// count adds a cell, unless it takes from one that has expired.
func (sc *scope) count(c cell) {
	i, ok := search(sc.cells, c.end)
	if !ok {
		if c.keys < 0 {
			return
		}
		sc.cells = slices.Insert(sc.cells, i, cell{end: c.end})
	}
	sc.cells[i].keys += c.keys
	sc.cells[i].bytes += c.bytes
	sc.keys += c.keys
	sc.bytes += c.bytes
}

// drop counts out what lies in the segments through a number.
func (s *scopes) drop(through uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, part := range s.segments {
		if number > through {
			continue
		}
		for id, cells := range part {
			if sc := s.m[id]; sc != nil {
				for _, c := range cells {
					sc.count(cell{c.end, -c.keys, -c.bytes})
				}
				s.forget(id, sc)
			}
		}
		delete(s.segments, number)
	}
}

func search(cells []cell, end int64) (int, bool) {
	return slices.BinarySearchFunc(cells, end, func(c cell, end int64) int {
		switch {
		case c.end < end:
			return -1
		case c.end > end:
			return 1
		}
		return 0
	})
}

// expire counts out what has expired.
func (sc *scope) expire(now int64) {
	n := 0
	for ; n < len(sc.cells) && sc.cells[n].end <= now; n++ { // T ends before Forever
		sc.keys -= sc.cells[n].keys
		sc.bytes -= sc.cells[n].bytes
	}
	sc.cells = slices.Delete(sc.cells, 0, n)
}

// forget removes a scope in which there is nothing.
func (s *scopes) forget(id string, sc *scope) {
	if sc.keys == 0 && len(sc.claimed) == 0 {
		delete(s.m, id)
	}
}

// claim counts a key in that is about to be claimed, or returns ErrQuota.
func (s *scopes) claim(key []byte, q receiver.Quota, now int64) error {
	var room [64]byte
	id, ok := scopeID(room[:0], key)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sc := s.m[string(id)]
	if sc == nil {
		sc = s.add(string(id))
	}
	sc.expire(now)
	if keys := sc.keys + int64(len(sc.claimed)); q.Keys > 0 && keys >= q.Keys || q.Bytes > 0 && sc.bytes >= q.Bytes {
		s.forget(string(id), sc)
		return fmt.Errorf("%w: it holds %d keys of %d and %d bytes of %d (0 = any amount)", receiver.ErrQuota, keys, q.Keys, sc.bytes, q.Bytes)
	}
	if sc.claimed == nil {
		sc.claimed = make(map[string]struct{})
	}
	sc.claimed[string(key)] = struct{}{}
	return nil
}

// unclaim takes claim back, unless a record has taken its place.
func (s *scopes) unclaim(key []byte) {
	var room [64]byte
	id, ok := scopeID(room[:0], key)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sc := s.m[string(id)]; sc != nil {
		delete(sc.claimed, string(key))
		s.forget(string(id), sc)
	}
}

// expire forgets the scopes in which everything has expired.
func (s *scopes) expire(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, sc := range s.m {
		sc.expire(now)
		s.forget(id, sc)
	}
}

// Snapshots hold the accounts as of their Through:
//
//	v  the step's shift
//	v  number of segments, and for each
//	     v  its number
//	     v  number of scopes, and for each
//	          v  length of its encoded path
//	          n  path
//	          v  number of cells, and for each: signed varint its end, v keys, v bytes
func (s *scopes) append(dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	put := func(v uint64) { dst = binary.AppendUvarint(dst, v) }
	put(uint64(s.shift))
	put(uint64(len(s.segments)))
	for number, part := range s.segments {
		put(number)
		put(uint64(len(part)))
		for id, cells := range part {
			put(uint64(len(id)))
			dst = append(dst, id...)
			put(uint64(len(cells)))
			for _, c := range cells {
				dst = binary.AppendVarint(dst, c.end)
				put(uint64(c.keys))
				put(uint64(c.bytes))
			}
		}
	}
	return dst
}

// parse is the inverse of append, into empty accounts.
func (s *scopes) parse(b []byte) error {
	p := parser{b: b}
	if shift := p.number(); shift != uint64(s.shift) {
		return fmt.Errorf("quotas are counted in steps of 2^%d ms now, not 2^%d", s.shift, shift)
	}
	for range p.count() {
		number := p.number()
		for range p.count() {
			id := string(p.bytes())
			sc := s.m[id]
			if sc == nil {
				sc = s.add(id)
			}
			for range p.count() {
				s.count(sc, number, id, cell{p.signed(), int64(p.number()), int64(p.number())})
			}
		}
	}
	return p.end()
}
