package oncelog

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/wal"
)

func state(t testing.TB, s *Store, key string) string {
	t.Helper()
	var out string
	require.NoError(t, s.View(func(tx *Tx) error {
		v, ok, err := tx.Get([]byte(key))
		if ok {
			out = string(v)
		}
		return err
	}))
	return out
}

func set(key, value string) func(*Tx) error {
	return func(tx *Tx) error { return tx.Set([]byte(key), []byte(value)) }
}

func TestUpdate(t *testing.T) {
	s, dir := fresh(t)
	require.NoError(t, s.Update(func(tx *Tx) error {
		require.NoError(t, tx.Set([]byte("balance"), []byte("10")))
		v, ok, err := tx.Get([]byte("balance"))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "10", string(v))
		require.NoError(t, tx.PutRecord([]byte("order"), []byte("paid"), 0))
		require.ErrorIs(t, tx.PutRecord([]byte("order"), []byte("again"), 0), ErrExists)
		v, ok, err = tx.Record([]byte("order"))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "paid", string(v))
		fresh, err := tx.Advance("source", 7)
		require.NoError(t, err)
		require.True(t, fresh)
		fresh, err = tx.Advance("source", 7)
		require.NoError(t, err)
		require.False(t, fresh)
		hasNot(t, s, "other") // a key that the transaction does not hold
		return nil
	}))
	check := func() {
		t.Helper()
		require.Equal(t, "10", state(t, s, "balance"))
		has(t, s, "order", "paid")
		seq, ok, err := s.HighWater("source")
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, 7, seq)
		requireNoClaims(t, s)
	}
	check()

	failed := errors.New("no")
	require.ErrorIs(t, s.Update(func(tx *Tx) error {
		require.NoError(t, tx.Set([]byte("balance"), []byte("11")))
		require.NoError(t, tx.PutRecord([]byte("order 2"), nil, 0))
		existed, err := tx.DeleteRecord([]byte("order"))
		require.NoError(t, err)
		require.True(t, existed)
		_, ok, err := tx.Record([]byte("order"))
		require.NoError(t, err)
		require.False(t, ok)
		return failed
	}), failed)
	check()
	hasNot(t, s, "order 2")

	s = open(t, crashed(t, dir), quick)
	check()
}

// The three keyspaces never meet, and within one, absent, set, deleted and set again come out right inside the
// transaction and after it.
func TestTxSeesItself(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "k", "record")
	require.NoError(t, s.Update(set("k", "state")))
	_, err := s.Advance("k", 3)
	require.NoError(t, err)
	has(t, s, "k", "record")
	require.Equal(t, "state", state(t, s, "k"))
	k := []byte("k")
	commits := s.Stats().Commits
	require.NoError(t, s.Update(func(tx *Tx) error {
		existed, err := tx.DeleteRecord(k)
		require.NoError(t, err)
		require.True(t, existed)
		existed, err = tx.DeleteRecord(k)
		require.NoError(t, err)
		require.False(t, existed)
		require.NoError(t, tx.PutRecord(k, []byte("record 2"), 0))
		require.NoError(t, tx.Delete(k))
		require.NoError(t, tx.Delete(k))
		_, ok, err := tx.Get(k)
		require.NoError(t, err)
		require.False(t, ok)
		require.NoError(t, tx.PutRecord([]byte("new"), nil, 0))
		existed, err = tx.DeleteRecord([]byte("new"))
		require.NoError(t, err)
		require.True(t, existed)
		return nil
	}))
	require.Equal(t, commits+1, s.Stats().Commits)
	has(t, s, "k", "record 2")
	require.Empty(t, state(t, s, "k"))
	hasNot(t, s, "new")
	require.EqualValues(t, 1, s.Stats().Keys)
	requireNoClaims(t, s)
}

func TestTxPanicAndGoexitLeaveNothingBehind(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "k", "v")
	touch := func(tx *Tx) {
		_ = tx.Set([]byte("a"), nil)
		_, _ = tx.DeleteRecord([]byte("k"))
	}
	require.PanicsWithValue(t, "boom", func() {
		_ = s.Update(func(tx *Tx) error { touch(tx); panic("boom") })
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Update(func(tx *Tx) error { touch(tx); runtime.Goexit(); return nil })
	}()
	<-done
	requireNoClaims(t, s)
	has(t, s, "k", "v")
	require.NoError(t, s.Update(set("a", "1")))
	require.NoError(t, s.Close())
}

func TestTxAfterItsEnd(t *testing.T) {
	s, _ := fresh(t)
	var leaked *Tx
	require.NoError(t, s.Update(func(tx *Tx) error { leaked = tx; return nil }))
	require.ErrorIs(t, leaked.Set([]byte("k"), nil), ErrTxDone)
	_, _, err := leaked.Record([]byte("k"))
	require.ErrorIs(t, err, ErrTxDone)
	requireNoClaims(t, s)
}

func TestViewChangesNothing(t *testing.T) {
	s, _ := fresh(t)
	require.NoError(t, s.View(func(tx *Tx) error {
		require.ErrorIs(t, tx.Set([]byte("k"), nil), ErrReadOnly)
		require.ErrorIs(t, tx.Delete([]byte("k")), ErrReadOnly)
		require.ErrorIs(t, tx.PutRecord([]byte("k"), nil, 0), ErrReadOnly)
		_, err := tx.DeleteRecord([]byte("k"))
		require.ErrorIs(t, err, ErrReadOnly)
		_, err = tx.Advance("k", 1)
		require.ErrorIs(t, err, ErrReadOnly)
		return nil
	}))
	require.Zero(t, s.Stats().Commits)
}

// A transaction that is too large is refused whole, also when its function ignores the error.
func TestTxTooLarge(t *testing.T) {
	s, dir := fresh(t)
	value := make([]byte, 1<<20)
	require.ErrorIs(t, s.Update(func(tx *Tx) error {
		for i := range 17 {
			_ = tx.Set([]byte(fmt.Sprint(i)), value)
		}
		return nil
	}), ErrTooLarge)
	require.Empty(t, state(t, s, "0"))
	require.NoError(t, s.Update(func(tx *Tx) error {
		for i := range 15 {
			if err := tx.Set([]byte(fmt.Sprint(i)), value); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, s.Update(func(tx *Tx) error {
		for range 40 { // the last value of a key counts, not all of them
			if err := tx.Set([]byte("0"), value); err != nil {
				return err
			}
		}
		return nil
	}))
	s = open(t, crashed(t, dir), quick)
	require.Len(t, state(t, s, "14"), len(value))
	require.LessOrEqual(t, wal.MaxPayload, 16<<20)
}

// Concurrent transactions that move money keep the sum, and each sees what the one before it staged.
func TestTransactionsAreSerializable(t *testing.T) {
	s, dir := fresh(t)
	const accounts, callers, moves = 5, 8, 40
	require.NoError(t, s.Update(func(tx *Tx) error {
		for i := range accounts {
			if err := tx.Set([]byte(strconv.Itoa(i)), []byte("100")); err != nil {
				return err
			}
		}
		return nil
	}))
	sum := func(s *Store) (total int) {
		require.NoError(t, s.View(func(tx *Tx) error {
			total = 0
			for i := range accounts {
				v, _, err := tx.Get([]byte(strconv.Itoa(i)))
				if err != nil {
					return err
				}
				n, err := strconv.Atoi(string(v))
				if err != nil {
					return err
				}
				total += n
			}
			return nil
		}))
		return total
	}
	var wg sync.WaitGroup
	for g := range callers {
		wg.Go(func() {
			for m := range moves {
				err := s.Update(func(tx *Tx) error {
					for i, d := range []int{-(m + 1), m + 1} {
						key := []byte(strconv.Itoa((g + m + i) % accounts))
						v, _, err := tx.Get(key)
						if err != nil {
							return err
						}
						n, _ := strconv.Atoi(string(v))
						if err := tx.Set(key, strconv.AppendInt(nil, int64(n+d), 10)); err != nil {
							return err
						}
					}
					return tx.PutRecord([]byte(fmt.Sprint(g, "/", m)), nil, 0)
				})
				if err != nil {
					t.Error(err)
					return
				}
				if m%10 == 0 && sum(s) != 100*accounts {
					t.Error("the sum changed")
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 100*accounts, sum(s))
	requireNoClaims(t, s)
	s = open(t, crashed(t, dir), quick)
	require.Equal(t, 100*accounts, sum(s))
	require.EqualValues(t, callers*moves, s.Stats().Keys)
}

// A record that a transaction has looked at does not change under it: a single call waits.
func TestTxHoldsWhatItRead(t *testing.T) {
	s, _ := fresh(t)
	looked, goOn := make(chan struct{}), make(chan struct{})
	txDone, putDone := make(chan error, 1), make(chan bool, 1)
	go func() {
		txDone <- s.Update(func(tx *Tx) error {
			_, ok, err := tx.Record([]byte("k"))
			if err != nil || ok {
				return fmt.Errorf("%v %v", ok, err)
			}
			close(looked)
			<-goOn
			return tx.PutRecord([]byte("k"), []byte("tx"), 0)
		})
	}()
	<-looked
	go func() {
		_, inserted, err := s.PutIfAbsent([]byte("k"), []byte("single"), 0)
		if err != nil {
			t.Error(err)
		}
		putDone <- inserted
	}()
	require.Eventually(t, func() bool { return waiters(s) == 1 }, 10*time.Second, time.Millisecond)
	close(goOn)
	require.NoError(t, <-txDone)
	require.False(t, <-putDone)
	has(t, s, "k", "tx")
}

func waiters(s *Store) (n int) {
	for i := range s.claims.shards {
		sh := &s.claims.shards[i]
		sh.mu.Lock()
		for c := sh.first.Load(); c != nil; c = c.next {
			n += len(c.waiters)
		}
		sh.mu.Unlock()
	}
	return n
}
