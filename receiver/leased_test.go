package receiver_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/receiver/receivertest"
)

// clock is moved by hand, from any goroutine.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestOnALeasedStore(t *testing.T) {
	receivertest.Run(t, func(t testing.TB) *receivertest.Backend {
		c := &clock{now: time.Now()}
		const limit = 1000
		s := receivertest.NewLeased(receivertest.LeasedOptions{MaxKey: limit, MaxValue: limit, Now: c.Now})
		return &receivertest.Backend{
			Store: s, Advance: c.Advance, LongestKey: limit, LargestValue: limit, Break: func() { s.SetDown(true) },
			Reopen: func() receiver.Store { return s }, // it does not restart when the process does
		}
	})
}

func leased(t *testing.T, o receivertest.LeasedOptions) (*receivertest.Leased, *receiver.Receiver) {
	s := receivertest.NewLeased(o)
	r, err := receiver.New(s, nil)
	require.NoError(t, err)
	return s, r
}

func never(t *testing.T) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		t.Error("fn ran again")
		return nil, nil
	}
}

// An answer that is lost after its effect costs at most an error: never a second run, never the result.
func TestAnswersThatAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := leased(t, receivertest.LeasedOptions{})
		s.Lose("complete", 1)
		runs := 0
		fn := func(context.Context) ([]byte, error) { runs++; return []byte("v"), nil }
		out, err := r.Do(t.Context(), "complete", fn)
		require.NoError(t, err)
		require.Equal(t, "v", string(out.Value))
		require.NotZero(t, out.Until)
		out, err = r.Do(t.Context(), "complete", fn)
		require.NoError(t, err)
		require.Equal(t, "v", string(out.Value), "the second try is not what is stored")

		s.Lose("complete", 2)
		out, err = r.Do(t.Context(), "all", fn)
		require.ErrorIs(t, err, receiver.ErrUnrecorded)
		require.Equal(t, "v", string(out.Value))
		out, err = r.Do(t.Context(), "all", fn)
		require.NoError(t, err, "it was recorded after all")
		require.Equal(t, "v", string(out.Value))
		require.Equal(t, 2, runs)

		s.Lose("claim", 1)
		_, err = r.Do(t.Context(), "claim", never(t))
		require.ErrorIs(t, err, receivertest.ErrAnswerLost)
		_, err = r.Do(t.Context(), "claim", never(t), receiver.WithWait(0))
		require.ErrorIs(t, err, receiver.ErrInFlight, "nobody knows that nobody holds it")
		_, err = r.Do(t.Context(), "claim", never(t))
		require.ErrorIs(t, err, receiver.ErrInDoubt, "the lease has ended")
		require.NoError(t, r.Forget(t.Context(), "claim"))
		_, err = r.Do(t.Context(), "claim", fn)
		require.NoError(t, err)

		s.Lose("release", 1)
		no := errors.New("no")
		_, err = r.Do(t.Context(), "release", func(context.Context) ([]byte, error) { return nil, no })
		require.Equal(t, no, err)
		_, err = r.Do(t.Context(), "release", fn)
		require.NoError(t, err)
	})
}

// Work that takes longer than its lease keeps it, as long as the store can be reached.
func TestTheLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := leased(t, receivertest.LeasedOptions{Lease: time.Minute})
		slow := func(context.Context) ([]byte, error) { time.Sleep(time.Hour); return []byte("v"), nil }
		out, err := r.Do(t.Context(), "k", slow)
		require.NoError(t, err)
		require.False(t, out.Replayed)

		// Some renewals fail, in time for the next.
		go func() {
			for range 20 {
				time.Sleep(2 * time.Minute)
				s.SetDown(true)
				time.Sleep(20 * time.Second)
				s.SetDown(false)
			}
		}()
		_, err = r.Do(t.Context(), "flaky", slow)
		require.NoError(t, err)
	})
}

// A lease that ends while fn runs: the caller gets its value and is told that it may not be the only one; the key is
// in doubt for all others.
func TestALostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := leased(t, receivertest.LeasedOptions{Lease: time.Minute})
		waiter := make(chan error, 1)
		out, err := r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
			go func() {
				_, err := r.Do(context.Background(), "k", never(t))
				waiter <- err
			}()
			s.SetDown(true)
			time.Sleep(time.Hour)
			s.SetDown(false)
			return []byte("v"), nil
		})
		require.ErrorIs(t, err, receiver.ErrLeaseLost)
		require.ErrorIs(t, err, receiver.ErrStaleToken)
		require.Equal(t, "v", string(out.Value))
		require.ErrorIs(t, <-waiter, receiver.ErrInDoubt)
		for range 2 {
			_, err = r.Do(t.Context(), "k", never(t))
			require.ErrorIs(t, err, receiver.ErrInDoubt)
		}
		st, err := r.Lookup(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, receiver.StateInDoubt, st.State)
	})
}

// Two processes over one store: the second polls, and gets what the first recorded.
func TestAnotherProcessHoldsTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := leased(t, receivertest.LeasedOptions{})
		theirs, err := s.Claim(t.Context(), receiver.Request{Key: append([]byte{0}, "k"...)})
		require.NoError(t, err)
		results := make(chan receiver.Outcome, 3)
		ctx, leave := context.WithCancel(context.Background())
		first := make(chan error)
		go func() {
			_, err := r.Do(ctx, "k", never(t))
			first <- err
		}()
		synctest.Wait() // it polls, for all of them
		for range 3 {
			go func() {
				out, err := r.Do(context.Background(), "k", never(t))
				if err == nil {
					results <- out
				}
			}()
		}
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-first, receiver.ErrInFlight)
		time.Sleep(30 * time.Second)
		require.Empty(t, results)
		_, err = s.Complete(t.Context(), append([]byte{0}, "k"...), theirs.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("theirs")})
		require.NoError(t, err)
		for range 3 {
			require.Equal(t, "theirs", string((<-results).Value))
		}

		theirs, err = s.Claim(t.Context(), receiver.Request{Key: append([]byte{0}, "freed"...)})
		require.NoError(t, err)
		go func() {
			out, err := r.Do(context.Background(), "freed", func(context.Context) ([]byte, error) { return []byte("ours"), nil })
			if err == nil {
				results <- out
			}
		}()
		time.Sleep(time.Second)
		require.NoError(t, s.Release(t.Context(), append([]byte{0}, "freed"...), theirs.Token))
		require.Equal(t, "ours", string((<-results).Value))
	})
}
