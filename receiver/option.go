package receiver

import (
	"crypto/sha256"
	"time"
)

// CallOption changes one call of Do. It is a plain value, so that calls without options cost nothing for them.
type CallOption struct {
	kind    optionKind
	d       time.Duration
	payload []byte
}

type optionKind byte

const (
	optTTL optionKind = iota + 1
	optPayload
	optWait
)

// WithTTL is how long the record of this call lives, from its commit, instead of the store's default. It must exceed
// the time for which the sender retries. The TTL of the call that runs counts, not that of its duplicates.
func WithTTL(d time.Duration) CallOption { return CallOption{kind: optTTL, d: d} }

// WithPayload keeps a fingerprint of the message beside its result. The same key with another payload is then
// ErrKeyReused, where both calls gave one.
func WithPayload(b []byte) CallOption { return CallOption{kind: optPayload, payload: b} }

// WithWait is how long a duplicate waits for the call in flight before it leaves with ErrInFlight; 0 or less = not at
// all. It overrides Options.InFlight.
func WithWait(d time.Duration) CallOption { return CallOption{kind: optWait, d: d} }

// settings is what the options of a call add up to. Given twice, the last one holds.
type settings struct {
	ttl     time.Duration
	wait    time.Duration // negative = as long as the context lasts
	payload []byte
	checked bool // payload was given, be it empty
}

func (r *Receiver) settings(opts []CallOption) settings {
	s := settings{wait: -1}
	if r.opts.InFlight == Reject {
		s.wait = 0
	}
	for _, o := range opts {
		switch o.kind {
		case optTTL:
			s.ttl = o.d
		case optPayload:
			s.payload, s.checked = o.payload, true
		case optWait:
			s.wait = max(o.d, 0)
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
