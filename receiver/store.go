package receiver

import (
	"context"
	"iter"
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
	// KindDoubt and KindNot end the claim without a result: the key is in doubt, or new again.
	Complete(ctx context.Context, key []byte, token uint64, res Result) (until time.Time, err error)
	// Release ends the claim and leaves what it found: a key that was new is new again, one in doubt is in doubt.
	// ErrStaleToken: it was over already.
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
	// Doubts yields the keys that are in doubt and held by nobody, in no order. An error ends it.
	Doubts(ctx context.Context) iter.Seq2[[]byte, error]
}

// Transactor is a Store whose own transactions the work can take part in.
type Transactor interface {
	// Begin opens the transaction in which the holder of a claim completes it. Others may have to wait until it ends.
	Begin(ctx context.Context, key []byte, token uint64) (Transaction, error)
}

// Transaction is changes of state, marks and outgoing messages that become true together with a result, or not at all.
// Its first four methods are those of Tx. It is used by one goroutine at a time.
type Transaction interface {
	Get(key []byte) (value []byte, ok bool, err error)
	Set(key, value []byte) error
	Delete(key []byte) error
	Advance(source string, seq uint64) (fresh bool, err error)
	// Emit is that of Tx, for a message that travels with a key.
	Emit(topic string, payload []byte, key string) error
	// Commit is Complete, and makes the changes. After an error the transaction is open still, unless nobody knows what
	// became of it.
	Commit(ctx context.Context, res Result) (until time.Time, err error)
	// Rollback ends the transaction, unless Commit has. nil = nothing of it is there or ever will be, and what it has
	// read is durable. The claim is held as before.
	Rollback(ctx context.Context) error
}

// Batcher is a Store that can complete many claims at once.
type Batcher interface {
	// CompleteAll is Complete for each, in this order, and makes all of it durable together. An error is that of its
	// own completion.
	CompleteAll(ctx context.Context, all []Completion) []Completed
}

// Completion is the arguments of a Complete, and Completed are its results.
type Completion struct {
	Key    []byte
	Token  uint64
	Result Result
}

// Completed is what came of a Completion.
type Completed struct {
	Until time.Time
	Err   error
}

// Marker is a Store that keeps marks for sources of numbered messages: it takes requests with a Mark.
type Marker interface {
	// Source returns what is known of a source; ok is false if that is nothing.
	Source(ctx context.Context, source string) (state SourceState, ok bool, err error)
	// ForgetSource removes the source's mark, durably.
	ForgetSource(ctx context.Context, source string) error
}

// SourceState is how far a source has come.
type SourceState struct {
	Seq, Epoch uint64 // the mark: the highest number that was handled
	First      uint64 // the lowest
	Window     []byte // bit i, the least significant of a byte first, says that Seq-1-i was handled too
}

// Outbox is a Store that keeps the messages that transactions emitted until they are handed on. Ordinals count the
// messages of a topic, from 1.
type Outbox interface {
	// Topics returns those that have messages waiting, and a channel that is closed when there may be more.
	Topics(ctx context.Context) (topics []string, changed <-chan struct{}, err error)
	// Next returns the first message of a topic that waits behind an ordinal; ok is false if there is none.
	Next(ctx context.Context, topic string, after uint64) (m Message, ok bool, err error)
	// Sent records, durably, that the topic's messages through an ordinal are handed on.
	Sent(ctx context.Context, topic string, through uint64) error
	// Park sets aside the topic's first message, which has this ordinal, durably. It waits no more.
	Park(ctx context.Context, topic string, ordinal uint64, reason string) error
	// Parked yields the messages that were set aside, in no order. An error ends it.
	Parked(ctx context.Context) iter.Seq2[Message, error]
	// Unpark puts a message that was set aside at the end of its topic, durably. ErrNotParked if it is not there.
	Unpark(ctx context.Context, topic string, ordinal uint64) error
}

// Request is what a call brings along to a Claim.
type Request struct {
	Key         []byte
	Fingerprint []byte        // of the payload, empty = none: one byte for the algorithm (1 = SHA-256), then the digest
	TTL         time.Duration // of the record to come; 0 = the store's default
	ResultTTL   time.Duration // of its value; 0 = as long as the record
	Intent      bool          // record durably that the work is about to begin
	Note        []byte        // kept with the intent
	Mark        *Mark         // the key is a number of a sequence; nil = it is not
	Quota       Quota         // of the key's scope, which ScopeOf tells; the zero Quota is none
}

// Mark is a number in a source's sequence.
//
// A number is claimed if the source has no mark, or an older epoch; if it is above the mark; or if it is not more than
// Window behind it and was not handled. With Strict it must be the next. Completing it raises the mark, and remembers
// the number.
type Mark struct {
	Source             string // encoded with its scope
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
	StateInDoubt               // whether a former holder did the work is not known; the caller holds the key
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
	KindNot                     // it did not happen
)

// Result is what Complete records.
type Result struct {
	Kind           Kind
	Value          []byte
	Code, Message  string        // KindFailure
	TTL, ResultTTL time.Duration // 0 = the store's default; as long as the key
}
