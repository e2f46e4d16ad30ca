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
type scopes struct {
	shift uint // a step has 2^shift milliseconds

	mu sync.Mutex
	m  map[string]*scope
}

// scope is the account of one scope.
type scope struct {
	keys, bytes int64 // of all cells and never
	cells       []cell
	never       cell                // of what does not expire
	claimed     map[string]struct{} // keys that are claimed under a quota and have no record yet
}

// cell is what expires by a time, which is a whole number of steps.
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
	if old != nil {
		if c := sc.find(s.end(old.Expires)); c != nil {
			sc.count(c, -1, -int64(old.Size))
		}
	}
	if new != nil {
		sc.count(sc.cell(s.end(new.Expires)), 1, int64(new.Size))
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

func (sc *scope) count(c *cell, keys, bytes int64) {
	c.keys += keys
	c.bytes += bytes
	sc.keys += keys
	sc.bytes += bytes
}

// find returns the cell of a step's end, or nil.
func (sc *scope) find(end int64) *cell {
	if end == record.Forever {
		return &sc.never
	}
	if i, ok := sc.search(end); ok {
		return &sc.cells[i]
	}
	return nil
}

// cell is find that makes the cell if it is missing.
func (sc *scope) cell(end int64) *cell {
	if end == record.Forever {
		return &sc.never
	}
	i, ok := sc.search(end)
	if !ok {
		sc.cells = slices.Insert(sc.cells, i, cell{end: end})
	}
	return &sc.cells[i]
}

func (sc *scope) search(end int64) (int, bool) {
	return slices.BinarySearchFunc(sc.cells, end, func(c cell, end int64) int {
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
	for ; n < len(sc.cells) && sc.cells[n].end <= now; n++ {
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
//	v  number of scopes, and for each
//	     v  length of its encoded path
//	     n  path
//	     v  keys, v  bytes that do not expire
//	     v  number of cells, and for each: signed varint its end, v keys, v bytes
func (s *scopes) append(dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst = binary.AppendUvarint(dst, uint64(s.shift))
	dst = binary.AppendUvarint(dst, uint64(len(s.m)))
	amounts := func(c *cell) {
		dst = binary.AppendUvarint(dst, uint64(c.keys))
		dst = binary.AppendUvarint(dst, uint64(c.bytes))
	}
	for id, sc := range s.m {
		dst = binary.AppendUvarint(dst, uint64(len(id)))
		dst = append(dst, id...)
		amounts(&sc.never)
		dst = binary.AppendUvarint(dst, uint64(len(sc.cells)))
		for i := range sc.cells {
			dst = binary.AppendVarint(dst, sc.cells[i].end)
			amounts(&sc.cells[i])
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
		sc := s.add(string(p.bytes()))
		sc.count(&sc.never, int64(p.number()), int64(p.number()))
		for range p.count() {
			sc.cells = append(sc.cells, cell{end: p.signed()})
			sc.count(&sc.cells[len(sc.cells)-1], int64(p.number()), int64(p.number()))
		}
	}
	return p.end()
}
