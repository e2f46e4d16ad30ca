package receiver

import (
	"context"
	"errors"
	"fmt"
)

// Errors, for errors.Is.
var (
	// ErrInFlight: the key is being handled and the caller did not wait for it, or no longer. It wraps the cause of
	// the context's end if that was the reason.
	ErrInFlight = errors.New("receiver: the key is in flight")
	// ErrKeyReused: the key was used with another payload. The sender has a bug: a new message needs a new key.
	ErrKeyReused = errors.New("receiver: the key was used with another payload")
	// ErrEmptyKey: an empty key.
	ErrEmptyKey = errors.New("receiver: empty key")
	// ErrInDoubt: whether the work of an earlier call happened is not known, so it is not run again.
	ErrInDoubt = errors.New("receiver: in doubt whether the work happened")
	// ErrResultGone: the work was done, and its result was not kept.
	ErrResultGone = errors.New("receiver: the work was done, its result is not kept")
	// ErrUnrecorded: the work was done, and that could not be made durable. The call's value is right; the key stays
	// claimed until the store is reopened. It wraps the cause.
	ErrUnrecorded = errors.New("receiver: the work was done but could not be recorded")
	// ErrReentrant: the call would wait for itself, directly or in a circle.
	ErrReentrant = errors.New("receiver: the call would wait for itself")
	// ErrStaleToken: a Store's answer to a Complete or Release by someone who no longer holds the claim.
	ErrStaleToken = errors.New("receiver: the claim belongs to somebody else by now")
	// ErrLeaseLost: the work was done, but the claim's lease had ended and another may run it too. The call's value
	// is what this call's fn returned; it is not stored.
	ErrLeaseLost = errors.New("receiver: the lease ended while the work was running")
	// ErrNotInDoubt: there is nothing to settle about the key.
	ErrNotInDoubt = errors.New("receiver: the key is not in doubt")
	// ErrTooOld: the number lies so far behind its source's mark that whether it was handled is not known any more.
	ErrTooOld = errors.New("receiver: the number is too old to tell whether it was handled")
	// ErrFenced: the number belongs to an epoch of its source that is over.
	ErrFenced = errors.New("receiver: the source is in a later epoch")
	// ErrOutOfOrder: the number is not the next of its source, which is handled strictly in order.
	ErrOutOfOrder = errors.New("receiver: not the next number of the source")
	// ErrQuota: the scope has used up its quota. Keys that expire or are forgotten make room.
	ErrQuota = errors.New("receiver: the scope's quota is used up")
	// ErrTxDone: a transaction was used after its function had returned.
	ErrTxDone = errors.New("receiver: transaction is over")
	// ErrNotParked: there is no such message among those that were set aside.
	ErrNotParked = errors.New("receiver: no such message is parked")
	// ErrRelayed: the store's messages are being handed on by another Relay.
	ErrRelayed = errors.New("receiver: another Relay is running")
)

// ended is the error of a context that has ended, with its cause.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
