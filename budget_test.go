package oncelog

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A store that has reached its budget refuses writes, answers, deletes, and takes writes again once the TTL has passed:
// without being reopened, and with it.
func TestPromise9MaxBytes(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		clock := clockAt(1_700_000_000_000)
		o := Options{
			TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, Now: clock.now,
			SegmentSize: 64 << 10, MaxBytes: 4 << 20, Pace: -1,
		}
		dir := filepath.Join(t.TempDir(), "store")
		s := open(t, dir, o)
		value := make([]byte, 500)
		for turn := range 3 {
			retired(t, s)
			s.keepHouse() // the first dead segment made room; now for the others
			n := 0
			for ; ; n++ {
				require.Less(t, n, 20_000, "MaxBytes is never reached")
				_, _, err := s.PutIfAbsent(fmt.Append(nil, turn, " ", n), value, 0)
				if errors.Is(err, ErrFull) {
					require.ErrorContains(t, err, "MaxBytes")
					break
				}
				require.NoError(t, err)
			}
			require.Greater(t, n, 1000)
			require.LessOrEqual(t, diskUsage(t, dir), o.MaxBytes)
			require.NoError(t, s.Verify())
			for i := range n {
				ok, err := s.Has(fmt.Append(nil, turn, " ", i))
				require.NoError(t, err)
				require.True(t, ok)
			}
			if turn == 0 { // later there is something to be dropped, at any moment
				large := make([]byte, 16*len(value)) // what is smaller than the record just refused may find room
				require.ErrorIs(t, s.Update(func(tx *Tx) error { return tx.Set([]byte("k"), large) }), ErrFull)
			}
			existed, err := s.Delete(fmt.Append(nil, turn, " ", 0))
			require.NoError(t, err)
			require.True(t, existed)
			clock.advance(time.Hour)
			if reopened {
				require.NoError(t, s.Close())
				s = open(t, dir, o)
			}
			putOnceThereIsRoom(t, s, fmt.Append(nil, "again ", turn), value)
		}
		requireRecounted(t, s)
	}
}

// putOnceThereIsRoom puts a record that is refused until housekeeping has dropped what is dead.
func putOnceThereIsRoom(t *testing.T, s *Store, key, value []byte) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, inserted, err := s.PutIfAbsent(key, value, 0)
		if err != nil {
			require.ErrorIs(t, err, ErrFull)
		}
		return inserted
	}, time.Minute, time.Millisecond)
}

// Deleting makes room as expiry does.
func TestDeletesMakeRoom(t *testing.T) {
	o := Options{TTL: Forever, Sync: SyncNever, SegmentSize: 64 << 10, MaxBytes: 4 << 20, Pace: -1}
	s := open(t, filepath.Join(t.TempDir(), "store"), o)
	value := make([]byte, 500)
	n := 0
	for ; ; n++ {
		if _, _, err := s.PutIfAbsent(fmt.Append(nil, n), value, 0); err != nil {
			require.ErrorIs(t, err, ErrFull)
			break
		}
	}
	for i := range n {
		if i%3 == 0 {
			continue
		}
		require.Eventually(t, func() bool {
			existed, err := s.Delete(fmt.Append(nil, i))
			if err != nil {
				require.ErrorIs(t, err, ErrFull) // housekeeping makes room from what was deleted before
			}
			return err == nil && existed
		}, time.Minute, time.Millisecond)
	}
	require.Eventually(t, func() bool {
		_, inserted, err := s.PutIfAbsent([]byte("again"), value, 0)
		return err == nil && inserted
	}, time.Minute, time.Millisecond)
	for i := 0; i < n; i += 3 {
		ok, err := s.Has(fmt.Append(nil, i))
		require.NoError(t, err)
		require.True(t, ok)
	}
	requireRecounted(t, s)
}

func TestMaxBytesOfTooLittle(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "store"), &Options{MaxBytes: 1 << 20})
	require.ErrorIs(t, err, ErrOptions)
	require.ErrorContains(t, err, "MaxBytes")
}
