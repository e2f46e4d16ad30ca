package compaction

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/oncelog/oncelog/record"
)

// steps is the number of expiries that an account tells apart. Each is a range of 2^shift milliseconds, the least
// with which all expiries of the segment fit: with one TTL, some minutes; with TTLs of an hour and of 72, four hours.
const steps = 32

// cell counts the records of one step.
type cell struct {
	keys  uint32
	bytes uint32
}

// Account says what is alive in one segment. It is not safe for concurrent use.
type Account struct {
	shift     uint
	low, high int64 // the first and the last step in use: expiry >> shift; low > high = none
	last      int64 // no record that ends expires after this
	cells     [steps]cell
	never     cell   // of records that do not expire
	written   uint64 // bytes of all records that were written to the segment, dead ones and tombstones included
}

// NewAccount returns the account of a segment in which nothing is alive.
func NewAccount() *Account { return &Account{low: 0, high: -1, last: math.MinInt64} }

// Add counts a record in: its expiry, its size in bytes, and whether it is a key that Stats counts.
func (a *Account) Add(expires int64, size int, key bool) {
	a.cell(expires).change(size, key, 1)
	a.written += uint64(size)
}

// Wrote counts bytes that were dead when they were written: a tombstone's.
func (a *Account) Wrote(size int) { a.written += uint64(size) }

// Written returns the bytes of all records that were ever counted in.
func (a *Account) Written() int64 { return int64(a.written) }

// Remove counts out a record that was counted in.
func (a *Account) Remove(expires int64, size int, key bool) { a.cell(expires).change(size, key, -1) }

func (c *cell) change(size int, key bool, by int) {
	c.bytes += uint32(by * size)
	if key {
		c.keys += uint32(by)
	}
}

// cell returns the cell of an expiry, after widening the steps until it has one.
func (a *Account) cell(expires int64) *cell {
	if expires == record.Forever {
		return &a.never
	}
	a.last = max(a.last, expires)
	at := expires >> a.shift
	if a.low > a.high {
		a.low, a.high = at, at
	}
	for uint64(max(a.high, at))-uint64(min(a.low, at)) >= steps { // unsigned: the distance may take 64 bits
		a.widen()
		at >>= 1
	}
	a.low, a.high = min(a.low, at), max(a.high, at)
	return &a.cells[at&(steps-1)]
}

// widen makes each step twice as long.
func (a *Account) widen() {
	var wide [steps]cell
	for at := a.low; at <= a.high; at++ {
		from, to := &a.cells[at&(steps-1)], &wide[at>>1&(steps-1)]
		to.keys += from.keys
		to.bytes += from.bytes
	}
	a.cells = wide
	a.shift, a.low, a.high = a.shift+1, a.low>>1, a.high>>1
}

// Live returns how much is alive at a time. What expires within the step that the time lies in counts as alive, unless
// the last record has expired: then nothing is left but what never does.
func (a *Account) Live(now int64) (keys, bytes int64) {
	keys, bytes = int64(a.never.keys), int64(a.never.bytes)
	if now >= a.last {
		return keys, bytes
	}
	for at := max(a.low, now>>a.shift); at <= a.high; at++ {
		c := &a.cells[at&(steps-1)]
		keys += int64(c.keys)
		bytes += int64(c.bytes)
	}
	return keys, bytes
}

// Last returns the time from which on all that expires has expired, and whether something in the segment never does.
func (a *Account) Last() (at int64, never bool) { return a.last, a.never.bytes > 0 }

// errAccount is what is wrong with bytes that are no account.
var errAccount = errors.New("not an account")

// Append encodes the account behind dst: the shift, low and the number of steps as varints (low and last signed),
// then keys and bytes of each step, then of what never expires, then the bytes written.
func (a *Account) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(a.shift))
	dst = binary.AppendVarint(dst, a.low)
	dst = binary.AppendUvarint(dst, uint64(a.high-a.low+1))
	dst = binary.AppendVarint(dst, a.last)
	for at := a.low; at <= a.high; at++ {
		dst = a.cells[at&(steps-1)].append(dst)
	}
	return binary.AppendUvarint(a.never.append(dst), a.written)
}

func (c *cell) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.keys))
	return binary.AppendUvarint(dst, uint64(c.bytes))
}

// ParseAccount is the inverse of Append; it returns what follows, too.
func ParseAccount(b []byte) (*Account, []byte, error) {
	bad := false
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	signed := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	read := func(c *cell) {
		keys, bytes := number(), number()
		bad = bad || keys > math.MaxUint32 || bytes > math.MaxUint32
		c.keys, c.bytes = uint32(keys), uint32(bytes)
	}
	a := NewAccount()
	shift := number()
	a.low = signed()
	n := number()
	a.last = signed()
	if bad || shift > 62 || n > steps {
		return nil, nil, errAccount
	}
	// No steps are as a new account has them. Where numbers end, those of steps would too, and counting through them
	// never would.
	if n == 0 {
		a.low = 0
	}
	if a.low > math.MaxInt64-int64(n) {
		return nil, nil, errAccount
	}
	a.shift, a.high = uint(shift), a.low+int64(n)-1
	for i := range int64(n) {
		read(&a.cells[(a.low+i)&(steps-1)])
	}
	read(&a.never)
	a.written = number()
	if bad {
		return nil, nil, errAccount
	}
	return a, b, nil
}
