package receiver

import (
	"context"
	"time"
)

// Store is what a receiver needs of the place where keys are remembered. The embedded store, databases and remote
// key-value engines stand behind it; package receivertest holds what each must do, and runs it.
//
// A Store is used from many goroutines at once. Its dynamic type must be comparable, since the calls in flight are
// found by store and key; a pointer is. Keys are opaque bytes, valid during the call. Byte slices that it returns
// are the caller's to keep.
type Store interface {
	// Claim asks for the key, in one atomic step: if the key is new and nobody holds it, the caller holds it from
	// here on. All that a later Complete could be refused for and that is known now is refused now, before the
	// work runs: a key too long, a TTL too short, a store that is full, failed or closed. StateDone is answered only
	// when the result is durable.
	Claim(ctx context.Context, req Request) (Claim, error)
	// Complete records the result under the key, durably, and ends the claim. until is when the record goes, zero =
	// never. ErrStaleToken: the token's claim is over, and nothing was written. Completing again with the same token,
	// after an answer that was lost, changes nothing and succeeds. After another error the claim is still held.
	Complete(ctx context.Context, key []byte, token uint64, res Result) (until time.Time, err error)
	// Release ends the claim without a result. ErrStaleToken: it was over already.
	Release(ctx context.Context, key []byte, token uint64) error
}

// Renewer is a Store whose claims are leases that can be prolonged. While the work runs, its lease is renewed.
type Renewer interface {
	// Renew prolongs the claim's lease and returns its new end. ErrStaleToken: the claim is over.
	Renew(ctx context.Context, key []byte, token uint64) (lease time.Time, err error)
}

// Inspector is a Store that can be asked about a key without claiming it.
type Inspector interface {
	// Inspect says what Claim would find, StateAbsent included, and changes nothing.
	Inspect(ctx context.Context, key []byte) (Claim, error)
	// Forget removes what is recorded under the key, durably. A key that somebody holds is ErrInFlight.
	Forget(ctx context.Context, key []byte) error
}

// Request is what a call brings along to a Claim.
type Request struct {
	Key         []byte
	Fingerprint []byte        // of the payload, empty = none: one byte for the algorithm (1 = SHA-256), then the digest
	TTL         time.Duration // of the record to come; 0 = the store's default
	Intent      bool          // record durably that the work is about to begin
	Note        []byte        // kept with the intent
	Mark        *Mark         // the key is a number of a sequence; nil = it is not
}

// Mark is a number in a source's sequence.
type Mark struct {
	Source             string
	Seq, Window, Epoch uint64
	Strict             bool
}

// State is what a Claim found.
type State int

const (
	StateAbsent   State = iota // nothing; only Inspect says so
	StateClaimed               // the key is new, and the caller's
	StateDone                  // a result is recorded
	StateInFlight              // somebody holds the key
	StateInDoubt               // a former holder is gone and left no result; the caller holds the key
	StateTooOld                // the number lies behind the window
)

// Claim is the answer to a Request.
type Claim struct {
	State State
	// Token names the claim. It grows with each claim of a key, over restarts of the store too, so that it serves as
	// the fencing token for the resource that the work changes.
	Token uint64
	// Lease is when the claim ends by itself; zero = never while this process lives.
	Lease time.Time
	// Fingerprint is that of the call that the state is about: of the recorded one, or of the one in flight if the
	// store knows it.
	Fingerprint []byte
	Result      Result    // StateDone
	Until       time.Time // StateDone: when the record goes; zero = never
	Note        []byte    // StateInDoubt
	// Changed is closed when it is worth asking again; nil = poll.
	Changed <-chan struct{}
}

// Kind says what a Result is.
type Kind int

const (
	KindValue   Kind = iota + 1 // the work's value
	KindFailure                 // a permanent failure, which is the answer
	KindGone                    // the work was done, its value is not kept
	KindDoubt                   // whether the work happened is not known
)

// Result is what Complete records.
type Result struct {
	Kind           Kind
	Value          []byte
	Code, Message  string        // KindFailure
	TTL, ResultTTL time.Duration // 0 = the store's default; as long as the key
}
