// Package saga is an example: an order that takes three services, none of which shares a transaction with another. Either
// all three steps happen, or those that did are taken back.
//
// Each call travels with a key that is derived from the order's, so when the process dies in the middle and the order is
// delivered again, the services recognise what they have done, and the saga goes on where it was. That asks one thing of
// the services: that they keep an answer under a key, a refusal included, as a receiver does.
package saga

import (
	"context"
	"errors"
	"fmt"

	"github.com/oncelog/oncelog/receiver"
)

// ErrRefused is the answer of a service that will not do a step, however often it is asked.
var ErrRefused = errors.New("refused")

// Step is a call to a service, and the call that takes it back. key is the idempotency key to send with it. An error
// that is not ErrRefused means: not now, or no answer.
type Step struct {
	Name string
	Do   func(ctx context.Context, key string) error
	Undo func(ctx context.Context, key string) error
}

// Run takes the steps of an order, once. When one is refused, those before it are undone in reverse, and the refusal is
// the order's result. Any other error is for the sender, who delivers the order again.
func Run(ctx context.Context, r *receiver.Receiver, order string, steps []Step) error {
	_, err := r.Do(ctx, order, func(ctx context.Context) ([]byte, error) {
		for i, step := range steps {
			err := step.Do(ctx, receiver.Derive(ctx, step.Name))
			switch {
			case errors.Is(err, ErrRefused):
				if err := undo(ctx, steps[:i]); err != nil {
					return nil, err
				}
				return nil, receiver.Permanent(fmt.Errorf("%s: %w", step.Name, err))
			case err != nil:
				return nil, fmt.Errorf("%s: %w", step.Name, err)
			}
		}
		return []byte("done"), nil
	})
	return err
}

func undo(ctx context.Context, done []Step) error {
	for i := len(done) - 1; i >= 0; i-- {
		if err := done[i].Undo(ctx, receiver.Derive(ctx, "undo "+done[i].Name)); err != nil {
			return fmt.Errorf("undo %s: %w", done[i].Name, err)
		}
	}
	return nil
}
