package oncetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/receiver/receivertest"
)

func TestStore(t *testing.T) {
	receivertest.Run(t, func(t testing.TB) *receivertest.Backend {
		now := time.Now()
		quiet := recorder{TB: t} // the contract's tests leave keys held, on purpose
		return &receivertest.Backend{
			Store:   newStore(&quiet, func() time.Time { return now }),
			Advance: func(d time.Duration) { now = now.Add(d) },
		}
	})
}

// recorder is a test whose end is called by hand and whose failures are only noted.
type recorder struct {
	testing.TB
	cleanup func()
	failed  bool
}

func (r *recorder) Cleanup(f func())      { r.cleanup = f }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestAKeyThatIsStillHeldFailsTheTest(t *testing.T) {
	for _, held := range []bool{true, false} {
		rec := &recorder{TB: t}
		s := Store(rec)
		c, err := s.Claim(t.Context(), receiver.Request{Key: []byte("k")})
		require.NoError(t, err)
		if !held {
			require.NoError(t, s.Release(t.Context(), []byte("k"), c.Token))
		}
		rec.cleanup()
		require.Equal(t, held, rec.failed)
	}
}

// In a bubble, time is the test's: a duplicate waits an hour, and a record goes after three days, at once.
func TestInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := receiver.New(Store(t), nil)
		require.NoError(t, err)
		runs := 0
		slow := func(context.Context) ([]byte, error) {
			runs++
			time.Sleep(2 * time.Hour)
			return []byte("v"), nil
		}
		go func() { _, _ = r.Do(context.Background(), "k", slow) }()
		synctest.Wait()
		began := time.Now()
		_, err = r.Do(t.Context(), "k", slow, receiver.WithWait(time.Hour))
		require.ErrorIs(t, err, receiver.ErrInFlight)
		require.Equal(t, time.Hour, time.Since(began))
		out, err := r.Do(t.Context(), "k", slow)
		require.NoError(t, err)
		require.True(t, out.Replayed)
		require.Equal(t, 1, runs)

		time.Sleep(time.Until(out.Until))
		_, err = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { return nil, errors.New("ran") })
		require.EqualError(t, err, "ran")
	})
}
