package oncelog

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/oncelog/oncelog/record"
)

// doubts is the set of the receiver's keys whose newest record is an intent or a doubt: those that are in doubt, and
// those whose work is running under an intent at the moment, which the leases tell apart. They are few, and finding them
// in the index would mean to read every record.
type doubts struct {
	n  atomic.Int64
	mu sync.Mutex
	m  map[string]struct{}
}

func isDoubt(k record.Kind) bool { return k == record.Intent || k == record.Doubt }

// change notes what a key's newest record is.
func (d *doubts) change(key []byte, kind record.Kind) {
	now := isDoubt(kind)
	if !now && d.n.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if now {
		if d.m == nil {
			d.m = make(map[string]struct{})
		}
		d.m[string(key)] = struct{}{}
	} else {
		delete(d.m, string(key))
	}
	d.n.Store(int64(len(d.m)))
}

func (d *doubts) keys() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := make([]string, 0, len(d.m))
	for key := range d.m {
		keys = append(keys, key)
	}
	return keys
}

// append encodes the set for a snapshot: a varint for how many, then for each its length as a varint, and the key.
func (d *doubts) append(dst []byte) []byte {
	keys := d.keys()
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	for _, key := range keys {
		dst = binary.AppendUvarint(dst, uint64(len(key)))
		dst = append(dst, key...)
	}
	return dst
}

// parse is the inverse of append, into an empty set.
func (d *doubts) parse(b []byte) error {
	p := parser{b: b}
	for range p.count() {
		d.change(p.bytes(), record.Doubt)
	}
	return p.end()
}
