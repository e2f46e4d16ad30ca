package oncelog

import "sync/atomic"

// slots is a set of segments' slots that readers ask without a lock.
type slots [1 << 16 / 64]atomic.Uint64

func (s *slots) has(slot uint16) bool { return s[slot/64].Load()>>(slot%64)&1 != 0 }
func (s *slots) add(slot uint16)      { s[slot/64].Or(1 << (slot % 64)) }
func (s *slots) remove(slot uint16)   { s[slot/64].And(^uint64(1 << (slot % 64))) }
