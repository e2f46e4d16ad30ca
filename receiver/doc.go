// Package receiver is the room for the pattern: check, act, return.
//
// A Receiver makes a message that is delivered twice have its effect once. Do claims the message's key in a Store,
// runs the work, and records the result under the key; whoever brings the key again gets that result, and the work
// does not run.
//
//	Do(key, fn) ──▶ Claim ── done ─────────────────────────▶ the stored result
//	                  │  └── in flight ──▶ wait in line ──▶ the result, or the next turn
//	               claimed
//	                  │
//	                 fn ── nil ──▶ Complete ── durable ──▶ the result, to all that wait
//	                  └─ error, panic, exit ──▶ Release ──▶ the next in line runs its own fn
//
// The store is a seam (store.go): the embedded store of package oncelog stands behind it, and remote engines may.
// What happens inside one process stays inside it: duplicates of a key that is running queue up in the flight of
// that key (flight.go), in the order in which they came, and the first of them alone talks to the store. A call that
// waits from inside another's fn could close a circle of waiting; circle.go finds that before it happens.
//
// Between fn's effect and its record a crash can fall, and then fn runs again after the restart. So pass the key on
// to whatever fn changes, by Derive, or change it in the same transaction as the record.
//
// That same transaction is DoTx (tx.go): the store's transaction is opened at its first use, and the result is recorded
// by its commit. A store that has no transactions, marks, batches or outbox says errors.ErrUnsupported before fn runs;
// nothing is emulated.
//
//	DoSeq   (sequence.go)  a number of a source is a key, and its store keeps a mark instead of a record for each
//	intents (doubt.go)     a key whose holder is gone, or does not know, is in doubt until it is settled
//	DoAll   (batch.go)     many claims, completed together
//	Relay   (relay.go)     what transactions emitted is handed on, a topic a goroutine
//	Gone    (early.go)     the record comes before fn returns, for a result that leaves piece by piece
//	Step    (step.go)      names an outgoing request, for the transport that makes its key
//
// A scope keeps the keys of one sender apart from those of another; scope and key are encoded so that no two pairs
// meet (encode.go).
package receiver
