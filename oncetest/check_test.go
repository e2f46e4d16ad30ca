package oncetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// bank is a service downstream. It counts charges, and knows a charge by its key if it is given one.
type bank struct {
	mu      sync.Mutex
	charges int
	seen    map[string]bool
}

func (b *bank) charge(ctx context.Context, key string) error {
	if err := oncetest.Step(ctx, "the bank's request"); err != nil {
		return err
	}
	b.mu.Lock()
	if key == "" || !b.seen[key] {
		b.charges++
		b.seen[key] = true
	}
	b.mu.Unlock()
	return oncetest.Step(ctx, "the bank's answer")
}

func (b *bank) effects(*receiver.Receiver) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.charges
}

// handlers that hold, and how.
var holding = map[string]func(b *bank) oncetest.Handler{
	"a derived key": func(b *bank) oncetest.Handler {
		return oncetest.Handler{Effects: b.effects, Handle: func(ctx context.Context, r *receiver.Receiver) error {
			_, err := r.Do(ctx, "order", func(ctx context.Context) ([]byte, error) {
				return []byte("charged"), b.charge(ctx, receiver.Derive(ctx, "charge"))
			})
			return err
		}}
	},
	"an intent": func(b *bank) oncetest.Handler {
		return oncetest.Handler{Effects: b.effects, Handle: func(ctx context.Context, r *receiver.Receiver) error {
			_, err := r.Do(ctx, "order", func(ctx context.Context) ([]byte, error) {
				if err := b.charge(ctx, ""); err != nil {
					return nil, receiver.Unknown(err)
				}
				return nil, nil
			}, receiver.WithIntent(nil))
			return err
		}}
	},
	"a transaction": func(*bank) oncetest.Handler {
		return oncetest.Handler{Effects: balance, Handle: func(ctx context.Context, r *receiver.Receiver) error {
			_, err := r.DoTx(ctx, "order", func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
				if err := oncetest.Step(ctx, "reading"); err != nil {
					return nil, err
				}
				v, _, err := tx.Get([]byte("balance"))
				if err != nil {
					return nil, err
				}
				if err := tx.Set([]byte("balance"), append(v, 'x')); err != nil {
					return nil, err
				}
				return nil, oncetest.Step(ctx, "written")
			})
			return err
		}}
	},
}

func balance(r *receiver.Receiver) (n int) {
	_, _ = r.DoTx(context.Background(), "read", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		v, _, err := tx.Get([]byte("balance"))
		n = len(v)
		return nil, err
	})
	return n
}

func TestHandlersThatHold(t *testing.T) {
	for name, handler := range holding {
		t.Run(name, func(t *testing.T) {
			oncetest.Check(t, func(testing.TB) oncetest.Handler { return handler(&bank{seen: map[string]bool{}}) })
		})
	}
}

// reports is a test that notes what it is told.
type reports struct {
	testing.TB
	mu  sync.Mutex
	all []string
}

func (r *reports) Helper() {}

func (r *reports) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf(format, args...))
}

// Each of these has a hole, and the report says where.
func TestHandlersWithAHole(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(ctx context.Context, r *receiver.Receiver, b *bank, n int) error
		where  string
	}{
		"no receiver at all": {func(ctx context.Context, _ *receiver.Receiver, b *bank, _ int) error {
			return b.charge(ctx, "")
		}, "three deliveries, one after the other: the effect happened 3 times"},
		"the effect is outside fn": {func(ctx context.Context, r *receiver.Receiver, b *bank, _ int) error {
			_, err := r.Do(ctx, "order", func(context.Context) ([]byte, error) { return nil, nil })
			return errors.Join(err, b.charge(ctx, ""))
		}, "eight deliveries at the same moment: the effect happened 8 times"},
		"another key each time": {func(ctx context.Context, r *receiver.Receiver, b *bank, n int) error {
			_, err := r.Do(ctx, fmt.Sprint("attempt ", n), func(ctx context.Context) ([]byte, error) { return nil, b.charge(ctx, "") })
			return err
		}, "three deliveries, one after the other: the effect happened 3 times"},
		"the key is not passed on": {func(ctx context.Context, r *receiver.Receiver, b *bank, _ int) error {
			_, err := r.Do(ctx, "order", func(ctx context.Context) ([]byte, error) { return nil, b.charge(ctx, "") })
			return err
		}, "with the process dying before the store's Complete: the effect happened 2 times"},
		"an answer that is lost": {func(ctx context.Context, r *receiver.Receiver, b *bank, _ int) error {
			_, err := r.Do(ctx, "order", func(ctx context.Context) ([]byte, error) { return nil, b.charge(ctx, "") }, receiver.WithIntent(nil))
			return err
		}, "with an error at the bank's answer: the effect happened 2 times"},
		"acknowledged too early": {func(ctx context.Context, r *receiver.Receiver, b *bank, _ int) error {
			_, _ = r.Do(ctx, "order", func(ctx context.Context) ([]byte, error) {
				_ = b.charge(ctx, receiver.Derive(ctx, "charge"))
				return nil, nil
			})
			return nil
		}, "with an error at the bank's request: the effect happened 0 times"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &reports{TB: t}
			oncetest.Check(r, func(testing.TB) oncetest.Handler {
				b, n := &bank{seen: map[string]bool{}}, 0
				var mu sync.Mutex
				return oncetest.Handler{Effects: b.effects, Handle: func(ctx context.Context, r *receiver.Receiver) error {
					mu.Lock()
					n++
					attempt := n
					mu.Unlock()
					return c.handle(ctx, r, b, attempt)
				}}
			})
			require.Contains(t, strings.Join(r.all, "\n"), c.where)
		})
	}
}
