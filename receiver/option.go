package receiver

import (
	"crypto/sha256"
	"time"
)

// CallOption changes one call of Do. It is a plain value, so that calls without options cost nothing for them.
type CallOption struct {
	kind  optionKind
	n     int64
	bytes []byte
}

type optionKind byte

const (
	optTTL optionKind = iota + 1
	optPayload
	optWait
	optResultTTL
	optIntent
	optEpoch
	optDoubt
)

// WithTTL is how long the record of this call lives, from its commit, instead of the store's default. It must exceed
// the time for which the sender retries. The TTL of the call that runs counts, not that of its duplicates.
func WithTTL(d time.Duration) CallOption { return CallOption{kind: optTTL, n: int64(d)} }

// WithPayload keeps a fingerprint of the message beside its result. The same key with another payload is then
// ErrKeyReused, where both calls gave one.
func WithPayload(b []byte) CallOption { return CallOption{kind: optPayload, bytes: b} }

// WithWait is how long a duplicate waits for the call in flight before it leaves with ErrInFlight; 0 or less = not at
// all. It overrides Options.InFlight.
func WithWait(d time.Duration) CallOption { return CallOption{kind: optWait, n: int64(d)} }

// WithResultTTL keeps the result for less time than the key: once it is gone, duplicates get ErrResultGone and fn still
// does not run. For large results that nobody asks for after the sender's first retries.
func WithResultTTL(d time.Duration) CallOption { return CallOption{kind: optResultTTL, n: int64(d)} }

// WithIntent records durably, before fn runs, that it is about to. If fn then does not come to an end that says what
// happened (a crash, a panic, Goexit, a context that ended), the key is in doubt instead of free, and the note, which
// may be empty, says what was meant. It costs a sync. Use it where the work can't be tied to the key, and running it
// twice is worse than asking somebody.
func WithIntent(note []byte) CallOption { return CallOption{kind: optIntent, bytes: note} }

// WithEpoch is for DoSeq: a source that starts its numbers anew counts its epochs. A larger epoch forgets the source's
// mark, a smaller one is ErrFenced.
func WithEpoch(e uint64) CallOption { return CallOption{kind: optEpoch, n: int64(e)} }

// OnDoubt is what to do about a key in doubt. The default is Block.
func OnDoubt(p DoubtPolicy) CallOption { return CallOption{kind: optDoubt, n: int64(p)} }

// settings is what the options of a call add up to. Given twice, the last one holds.
type settings struct {
	ttl       time.Duration
	resultTTL time.Duration
	wait      time.Duration // negative = as long as the context lasts
	payload   []byte
	checked   bool // payload was given, be it empty
	intent    bool
	note      []byte
	epoch     uint64
	doubt     DoubtPolicy
}

func (r *Receiver) settings(opts []CallOption) settings {
	s := settings{wait: -1}
	if r.opts.InFlight == Reject {
		s.wait = 0
	}
	for _, o := range opts {
		switch o.kind {
		case optTTL:
			s.ttl = time.Duration(o.n)
		case optPayload:
			s.payload, s.checked = o.bytes, true
		case optWait:
			s.wait = max(time.Duration(o.n), 0)
		case optResultTTL:
			s.resultTTL = time.Duration(o.n)
		case optIntent:
			s.intent, s.note = true, o.bytes
		case optEpoch:
			s.epoch = uint64(o.n)
		case optDoubt:
			s.doubt = DoubtPolicy(o.n)
		}
	}
	return s
}

// A fingerprint is one byte for the algorithm, then the digest. Half of SHA-256 is kept: nobody finds another payload
// for it (2^128 tries), and sixteen bytes are saved in every record.
const (
	algorithmSHA256 = 1
	digestSize      = 16
	fingerprintSize = 1 + digestSize
)

func appendFingerprint(dst, payload []byte) []byte {
	sum := sha256.Sum256(payload)
	return append(append(dst, algorithmSHA256), sum[:digestSize]...)
}
