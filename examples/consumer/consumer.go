// Package consumer is an example: the loop of a service that consumes a partition of numbered messages from a broker
// that delivers at least once.
//
// The offset in the partition is the message's number, so no key is needed, and no record for each message: one mark
// says how far the partition was handled, and which numbers behind it were. Committing the offset to the broker is
// mere advice from then on: when it is lost, or another process has handled messages before it could commit, they are
// delivered again, and fn does not run for them.
package consumer

import (
	"context"
	"errors"
	"log/slog"

	"github.com/oncelog/oncelog/receiver"
)

// Message is what the broker delivers.
type Message struct {
	Offset  uint64
	Payload []byte
}

// Partition is one ordered line of messages at a broker.
type Partition interface {
	Name() string
	// Fetch waits for the next messages, those included that were delivered and not committed before the process died.
	Fetch(ctx context.Context) ([]Message, error)
	// Commit tells the broker that all before next need not be delivered again.
	Commit(ctx context.Context, next uint64) error
}

// Run consumes a partition until ctx ends or something fails; then call it again. handle has its effect once for each
// message, as far as it changes what the derived keys of its context, or a transaction, make idempotent.
func Run(ctx context.Context, r *receiver.Receiver, p Partition, handle func(ctx context.Context, payload []byte) error) error {
	for {
		batch, err := p.Fetch(ctx)
		if err != nil {
			return err
		}
		for _, m := range batch {
			_, err := r.DoSeq(ctx, p.Name(), m.Offset, func(ctx context.Context) ([]byte, error) {
				return nil, handle(ctx, m.Payload)
			})
			var refused *receiver.StoredError
			switch {
			case errors.Is(err, receiver.ErrTooOld):
				// Delivered a thousand messages late. Whether it was handled is not known any more, and a person has
				// to look; waiting for that would stop the partition.
				slog.Error("a message came too late to tell whether it was handled", "partition", p.Name(), "offset", m.Offset)
			case errors.As(err, &refused):
				slog.Error("a message was refused for good", "partition", p.Name(), "offset", m.Offset, "err", refused)
			case err != nil:
				return err
			}
			if err := p.Commit(ctx, m.Offset+1); err != nil {
				return err
			}
		}
	}
}
