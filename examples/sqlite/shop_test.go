package sqlite_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/examples/sqlite"
	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

func open(t testing.TB) *sqlite.Shop {
	s, err := sqlite.Open(filepath.Join(t.TempDir(), "shop.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// Duplicates get the first order's number, from the receiver; one whose record was lost gets it from the constraint.
func TestAnOrderOnce(t *testing.T) {
	shop := open(t)
	st, err := oncelog.Open(filepath.Join(t.TempDir(), "store"), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	r, err := st.Receiver(nil)
	require.NoError(t, err)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			key := fmt.Sprint("order ", i%10)
			if _, _, err := shop.Order(t.Context(), r, key, "book"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for i := range 10 {
		key := fmt.Sprint("order ", i)
		number, replayed, err := shop.Order(t.Context(), r, key, "book")
		require.NoError(t, err)
		require.True(t, replayed)
		require.False(t, seen[number])
		seen[number] = true
		require.NoError(t, r.Forget(t.Context(), key)) // as if a crash had fallen behind the database's commit
		for range 2 {
			again, replayed, err := shop.Order(t.Context(), r, key, "book")
			require.NoError(t, err)
			require.True(t, replayed)
			require.Equal(t, number, again)
		}
	}
	require.Len(t, seen, 10)
}

// A process that dies at any step, and all else that can happen to a delivery.
func TestTheHandlerHolds(t *testing.T) {
	oncetest.Check(t, func(t testing.TB) oncetest.Handler {
		shop, numbers := open(t), map[string]bool{}
		var mu sync.Mutex
		return oncetest.Handler{
			Handle: func(ctx context.Context, r *receiver.Receiver) error {
				number, _, err := shop.Order(ctx, r, "order", "book")
				if err == nil {
					mu.Lock()
					numbers[number] = true
					mu.Unlock()
				}
				return err
			},
			Effects: func(*receiver.Receiver) int { return len(numbers) },
		}
	})
}
