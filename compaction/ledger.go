package compaction

import (
	"encoding/binary"
	"sort"
	"sync"

	"github.com/oncelog/oncelog/record"
)

// Entry is a record as an account counts it.
type Entry struct {
	Segment uint64
	Expires int64
	Size    int // of the record, without the frame around it
	Key     bool
}

// EntryOf returns the entry of a record that was encoded in size bytes.
func EntryOf(segment uint64, space record.Space, expires int64, size int) Entry {
	return Entry{
		Segment: segment, Expires: expires, Size: size,
		Key: space == record.Records || space == record.ReceiverRecords,
	}
}

// Ledger holds the accounts of all segments. Its methods may be called from any goroutine.
type Ledger struct {
	mu       sync.Mutex
	accounts map[uint64]*Account // by the segment's number
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{accounts: make(map[uint64]*Account)} }

// Change counts out what a record was before, and in what it is now; either may be nil. Segments that were dropped
// are counted no more.
func (l *Ledger) Change(old, new *Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old != nil {
		if a := l.accounts[old.Segment]; a != nil {
			a.Remove(old.Expires, old.Size, old.Key)
		}
	}
	if new != nil {
		l.account(new.Segment).Add(new.Expires, new.Size, new.Key)
	}
}

// Buried counts out what a record was before its tombstone, or nil, and the tombstone's bytes in, which are dead.
func (l *Ledger) Buried(old *Entry, segment uint64, size int) {
	l.Change(old, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.account(segment).Wrote(size)
}

func (l *Ledger) account(segment uint64) *Account {
	a := l.accounts[segment]
	if a == nil {
		a = NewAccount()
		l.accounts[segment] = a
	}
	return a
}

// Drop forgets the segments through a number.
func (l *Ledger) Drop(through uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range l.accounts {
		if n <= through {
			delete(l.accounts, n)
		}
	}
}

// Bytes returns how many bytes of a segment's records are alive at a time, and how many are dead.
func (l *Ledger) Bytes(segment uint64, now int64) (live, dead int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[segment]
	if a == nil {
		return 0, 0
	}
	_, live = a.Live(now)
	return live, a.Written() - live
}

// Keys returns how many keys of a segment are alive at a time.
func (l *Ledger) Keys(segment uint64, now int64) (keys int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[segment]; a != nil {
		keys, _ = a.Live(now)
	}
	return keys
}

// Last is Account.Last of a segment. In one without an account nothing is alive.
func (l *Ledger) Last(segment uint64) (at int64, never bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[segment]; a != nil {
		return a.Last()
	}
	return NewAccount().Last()
}

// Total returns how much is alive at a time.
func (l *Ledger) Total(now int64) (keys, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.accounts {
		k, b := a.Live(now)
		keys += k
		bytes += b
	}
	return keys, bytes
}

// Append encodes the ledger behind dst: how many segments, then the number and the account of each, in ascending
// order.
func (l *Ledger) Append(dst []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	numbers := make([]uint64, 0, len(l.accounts))
	for n := range l.accounts {
		numbers = append(numbers, n)
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	dst = binary.AppendUvarint(dst, uint64(len(numbers)))
	for _, n := range numbers {
		dst = binary.AppendUvarint(dst, n)
		dst = l.accounts[n].Append(dst)
	}
	return dst
}

// ParseLedger is the inverse of Append.
func ParseLedger(b []byte) (*Ledger, error) {
	l := NewLedger()
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)) {
		return nil, errAccount
	}
	b = b[used:]
	for range n {
		number, used := binary.Uvarint(b)
		if used <= 0 {
			return nil, errAccount
		}
		a, rest, err := ParseAccount(b[used:])
		if err != nil {
			return nil, err
		}
		l.accounts[number], b = a, rest
	}
	if len(b) > 0 {
		return nil, errAccount
	}
	return l, nil
}
