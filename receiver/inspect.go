package receiver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Status is what is known about a key.
type Status struct {
	State       State     // StateAbsent, StateDone, StateInFlight or StateInDoubt
	Result      Result    // StateDone
	Until       time.Time // StateDone: when the record goes; zero = never
	Fingerprint []byte    // of the payload, if the call gave one
	Note        []byte    // StateInDoubt
}

// Lookup says what is known about a key and changes nothing. errors.ErrUnsupported if the store can't.
func (r *Receiver) Lookup(ctx context.Context, key string) (Status, error) {
	in, full, err := r.inspector(key)
	if err != nil {
		return Status{}, err
	}
	c, err := in.Inspect(ctx, full)
	if err != nil {
		return Status{}, err
	}
	return Status{State: c.State, Result: c.Result, Until: c.Until, Fingerprint: c.Fingerprint, Note: c.Note}, nil
}

// Forget removes what is recorded under a key, durably: the next call with it runs. A key in flight is ErrInFlight,
// one that nobody used is no error. errors.ErrUnsupported if the store can't.
func (r *Receiver) Forget(ctx context.Context, key string) error {
	in, full, err := r.inspector(key)
	if err != nil {
		return err
	}
	return in.Forget(ctx, full)
}

func (r *Receiver) inspector(key string) (Inspector, []byte, error) {
	if key == "" {
		return nil, nil, ErrEmptyKey
	}
	in, ok := r.store.(Inspector)
	if !ok {
		return nil, nil, fmt.Errorf("receiver: a store of type %T can't be asked about keys: %w", r.store, errors.ErrUnsupported)
	}
	return in, appendKey(nil, r.scope, key), nil
}
