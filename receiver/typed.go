package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Typed is an Outcome whose value is a T.
type Typed[T any] struct {
	Value    T
	Replayed bool      // the stored result; fn did not run
	Until    time.Time // duplicates are recognised at least until then; zero = always
}

// Do is Receiver.Do for work that returns a T, stored as JSON. The first caller too gets the decoded stored bytes, so
// what JSON loses is lost for all alike, and not found out by the first duplicate. A value that can't be encoded, or
// decoded again, is not kept: the first caller gets it as it is, duplicates get ErrResultGone.
func Do[T any](ctx context.Context, r *Receiver, key string, fn func(ctx context.Context) (T, error), opts ...CallOption) (Typed[T], error) {
	var own T // what is left for the first caller if it can't be stored
	kept := true
	out, err := r.Do(ctx, key, func(ctx context.Context) ([]byte, error) {
		v, err := fn(ctx)
		if err != nil {
			return nil, err
		}
		b, err := encode(v)
		if err != nil {
			own, kept = v, false
			return nil, &unstorable{err}
		}
		return b, nil
	}, opts...)
	t := Typed[T]{Replayed: out.Replayed, Until: out.Until}
	switch {
	case !kept:
		t.Value = own
	case err == nil || (errors.Is(err, ErrUnrecorded) || errors.Is(err, ErrLeaseLost)) && out.Value != nil:
		if bad := json.Unmarshal(out.Value, &t.Value); bad != nil {
			return t, errors.Join(err, fmt.Errorf("receiver: the stored result can't be decoded as %T: %w", t.Value, bad))
		}
	}
	return t, err
}

// encode returns v's JSON, if it can be read back. A panic in a method of T's is such an error too: fn has returned,
// so its effect is there, and the panic must not make it run again.
func encode[T any](v T) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("encoding %T panicked: %v", v, p)
		}
	}()
	if b, err = json.Marshal(v); err != nil {
		return nil, err
	}
	var back T
	return b, json.Unmarshal(b, &back)
}
