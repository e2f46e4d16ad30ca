package calls

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is which call an Op is.
type Kind string

const (
	Put          Kind = "put"           // PutIfAbsent
	Get          Kind = "get"           // Get, Has and AppendGet
	Delete       Kind = "delete"        // Delete
	Advance      Kind = "advance"       // Advance
	Mark         Kind = "mark"          // HighWater
	ForgetSource Kind = "forget source" // ForgetSource
	Update       Kind = "update"        // records, state and a mark in one transaction
	Abort        Kind = "abort"         // a transaction whose function returns an error
	View         Kind = "view"
	Do           Kind = "do"
	DoFail       Kind = "do, fails"           // a plain error: nothing is recorded
	DoPermanent  Kind = "do, fails for good"  // the failure is the answer
	DoUnknown    Kind = "do, unknown"         // in doubt
	DoLarge      Kind = "do, too large"       // done, and the result is not kept
	DoIntent     Kind = "do, under an intent" // two commits
	DoTx         Kind = "do in a transaction"
	DoTxFail     Kind = "do in a transaction, fails"
	DoSeq        Kind = "do a number"
	DoAll        Kind = "do a batch"
	Settle       Kind = "settle"
	Forget       Kind = "forget"
	Lookup       Kind = "lookup"

	// Of the store's one outbox. One caller makes these.
	Emit   Kind = "emit"
	HandOn Kind = "hand on" // Relay, one message
	Park   Kind = "park"    // Relay, which publish refuses for good
	Unpark Kind = "unpark"

	// Of the whole store; they change nothing that is answered.
	Snapshot Kind = "snapshot"
	Compact  Kind = "compact"
	Verify   Kind = "verify"
)

var (
	own    = []Kind{Put, Get, Delete, Advance, Mark, ForgetSource, Update, Abort, View, Do, DoFail, DoPermanent, DoUnknown, DoLarge, DoIntent, DoTx, DoTxFail, DoSeq, DoAll, Settle, Forget, Lookup}
	outbox = []Kind{Emit, HandOn, Park, Unpark}
	house  = []Kind{Snapshot, Compact, Verify}
)

// Op is one call. All that it does follows from it.
type Op struct {
	Kind   Kind
	Caller int
	N      uint64 // its number among the caller's calls: its values are made from it
	Key    int
	TTL    time.Duration // of what Put and Update store
	Batch  int           // messages of a DoAll
}

// The names that a caller uses are few, so that calls meet.
const (
	keyNames   = 10
	stateNames = 3
	doNames    = 8
	batchSize  = 3
	topic      = "mail"
)

func recordKey(caller, i int) string { return fmt.Sprintf("%d/key %d", caller, i%keyNames) }
func stateKey(caller, i int) string  { return fmt.Sprintf("%d/state %d", caller, i%stateNames) }
func doKey(caller, i int) string     { return fmt.Sprintf("%d/message %d", caller, i%doNames) }
func source(caller int) string       { return fmt.Sprintf("%d/source", caller) }
func orders(caller int) string       { return fmt.Sprintf("%d/orders", caller) }

// value is what call n stores, the i-th of its values: short or long, and known to the last byte from the two.
func value(n uint64, i int) []byte {
	rnd := rand.New(rand.NewPCG(n, uint64(i)))
	size := 1 + rnd.IntN(200)
	if rnd.IntN(10) == 0 {
		size += rnd.IntN(2000)
	}
	return bytes.Repeat(fmt.Appendf(nil, "%d.%d ", n, i), size/4+1)
}

// seq is the number that a DoSeq or Advance takes: mostly a little above those before, sometimes an old one.
func seq(n uint64) uint64 { return n + 20 - min(n+19, n*7%5) }

// Choose makes the n-th call of a caller. The first caller has the outbox, and does what concerns the whole store.
func Choose(rnd *rand.Rand, caller int, n uint64) Op {
	o := Op{Caller: caller, N: n, Key: rnd.IntN(keyNames * doNames), Batch: batchSize}
	switch p := rnd.IntN(100); {
	case caller == 0 && p < 20:
		o.Kind = pick(rnd, Emit, Emit, HandOn, Park, Unpark)
	case caller == 0 && p < 26:
		o.Kind = pick(rnd, house...)
	case p < 60:
		o.Kind = pick(rnd, Put, Put, Update, Do, DoTx, DoIntent)
	default:
		o.Kind = pick(rnd, own...)
	}
	o.TTL = pick(rnd, 0, 2*time.Hour, 50*time.Hour)
	return o
}

func pick[T any](rnd *rand.Rand, values ...T) T { return values[rnd.IntN(len(values))] }

// EveryKind is a workload of so many rounds in each of which every kind of call comes once, in another order.
func EveryKind(seed uint64, rounds int) (all []Op) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range rounds {
		kinds := append(append(append([]Kind(nil), own...), outbox...), house...)
		rnd.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, k := range kinds {
			all = append(all, Op{Kind: k, N: uint64(len(all) + 1), Key: rnd.IntN(keyNames * doNames), TTL: pick(rnd, 0, 2*time.Hour), Batch: batchSize})
		}
	}
	return all
}
