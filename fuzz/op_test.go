package fuzz

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
)

// The keys are few, so that calls meet: what they say of each other is what is tested.
const (
	workers = 8
	groups  = 12
	keys    = 4 // of records in a group
)

func recordKey(group, key int) string { return fmt.Sprintf("group/%d/%d", group, key) }
func stateKey(group int) string       { return fmt.Sprintf("group/%d/state", group) }
func markSource(group int) string     { return fmt.Sprintf("group/%d", group) }

// The chain of all transactions: the number of the last one as state and as mark, the name of each as a record.
const (
	chainState  = "chain"
	chainSource = "chain"
)

func chainKey(n uint64) string { return fmt.Sprintf("chain/%d", n) }

// kind is which of the store's calls an operation is.
type kind string

const (
	opPut     kind = "put"     // PutIfAbsent
	opDelete  kind = "delete"  // Delete
	opGet     kind = "get"     // Get
	opAdvance kind = "advance" // Advance
	opMark    kind = "mark"    // HighWater
	opTx      kind = "tx"      // Update
	opLook    kind = "look"    // View of the whole group but the mark, which a view does not show
)

// op is an operation as the child announces it.
type op struct {
	ID     uint64
	Worker int
	Kind   kind
	Group  int
	At     int64 // the child's clock before the call

	Key int    `json:",omitempty"` // of put, delete, get
	TTL int64  `json:",omitempty"` // of what put and tx store, in milliseconds; 0 = for ever
	Seq uint64 `json:",omitempty"` // of advance; of tx, if not 0

	Deletes []int `json:",omitempty"` // of tx, in this order: these are deleted,
	Puts    []int `json:",omitempty"` // these stored unless they exist,
	Set     bool  `json:",omitempty"` // and the state is set,
	Abort   bool  `json:",omitempty"` // but then the function returns an error.

	// The parent's.
	answered int64 // the child's clock after the call; 0 = never answered
	dead     int64 // the clock when an unanswered call was certainly over
	chain    uint64
	slot     int // among the pending calls of its group
}

// chained reports whether the operation becomes a link of the chain if it happens.
func (o *op) chained() bool { return o.Kind == opTx && !o.Abort }

func (o *op) writes() bool {
	return o.chained() || o.Kind == opPut || o.Kind == opDelete || o.Kind == opAdvance
}

// answer is what the call returned.
type answer struct {
	ID    uint64
	At    int64
	Saw   string // what it saw, in the words of the functions below
	Chain uint64 `json:",omitempty"` // the transaction's number in the chain
	Err   string `json:",omitempty"`
}

// The words of an answer. The ledger forms the same from the states it holds possible.
func sawRecord(key int, id uint64) string { return fmt.Sprintf("r%d=%d ", key, id) }
func sawState(id uint64) string           { return fmt.Sprintf("s=%d ", id) }
func sawMark(n uint64) string             { return fmt.Sprintf("m=%d ", n) }

func sawExisted(key int, existed bool) string {
	return fmt.Sprintf("r%d %s ", key, map[bool]string{true: "existed", false: "did not exist"}[existed])
}

func sawFresh(fresh bool) string { return map[bool]string{true: "fresh ", false: "stale "}[fresh] }

// recovered is what a child finds when it has opened the store.
type recovered struct {
	Chain   []uint64 // who is under each number
	Mark    uint64   // of the chain
	Strange []string // what should not be there at all
}

// garbled is the writer's name in a value that no operation wrote under that key.
const garbled = math.MaxUint64

// valueOf is the value that an operation stores under a key: long or short, and every byte of it known from the two.
func valueOf(id uint64, key string) []byte {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	rnd := rand.New(rand.NewPCG(id, h.Sum64()))
	n := 8 + rnd.IntN(120)
	if rnd.IntN(8) == 0 {
		n += rnd.IntN(4000)
	}
	v := binary.BigEndian.AppendUint64(nil, id)
	for len(v) < n {
		v = binary.LittleEndian.AppendUint64(v, rnd.Uint64())
	}
	return v[:n]
}

// writerOf returns the operation that wrote value under key, 0 if there is none.
func writerOf(key string, value []byte, ok bool) uint64 {
	if !ok {
		return 0
	}
	if len(value) < 8 {
		return garbled
	}
	id := binary.BigEndian.Uint64(value)
	if id == 0 || !bytes.Equal(value, valueOf(id, key)) {
		return garbled
	}
	return id
}

func (o *op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d at %d: %s in group %d", o.ID, o.At, o.Kind, o.Group)
	switch o.Kind {
	case opPut, opDelete, opGet:
		fmt.Fprintf(&b, " key %d", o.Key)
	case opTx:
		fmt.Fprintf(&b, " deletes %v puts %v set %v abort %v", o.Deletes, o.Puts, o.Set, o.Abort)
	}
	if o.Seq != 0 {
		fmt.Fprintf(&b, " seq %d", o.Seq)
	}
	if o.TTL != 0 {
		fmt.Fprintf(&b, " ttl %d", o.TTL)
	}
	if o.chain != 0 {
		fmt.Fprintf(&b, " chain %d", o.chain)
	}
	return b.String()
}
