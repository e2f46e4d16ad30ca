package receiver

import (
	"context"
	"time"
)

// call is a fn that is running, and the context that it is given: the caller's, with the call to be found in it.
type call struct {
	context.Context
	r      *Receiver
	key    string
	parent *call // the call inside whose fn this one was made, nil = none
	token  uint64
	flight *flight

	encoded []byte        // the key as the store knows it; valid while fn runs, and until its end is recorded
	ttl     time.Duration // of the record to come
	early   early
	steps   steps

	standIn *call   // runs in its place, nil = none
	seq     *number // nil = not of a sequence
	tx      *callTx // nil = no transaction

	fingerprint []byte // of its payload, nil = none given
	digest      [fingerprintSize]byte

	blocked []*flight // what calls inside this one wait for; guarded by circles
}

// runner is who runs in a flight for the call, nil for no call.
func (c *call) runner() *call {
	if c != nil && c.standIn != nil {
		return c.standIn
	}
	return c
}

type callKey struct{}

// Value finds the innermost call.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// callFrom returns the call that ctx belongs to, or nil.
func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}
