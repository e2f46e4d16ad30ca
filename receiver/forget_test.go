package receiver_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/receiver/receivertest"
)

// hooked does something after the store has completed a key, or answered a claim, and before the receiver knows.
type hooked struct {
	*receivertest.Leased
	completed, claimed atomic.Pointer[func()] // each is called once
}

func (s *hooked) Complete(ctx context.Context, key []byte, token uint64, res receiver.Result) (time.Time, error) {
	until, err := s.Leased.Complete(ctx, key, token, res)
	if f := s.completed.Swap(nil); f != nil {
		(*f)()
	}
	return until, err
}

func (s *hooked) Claim(ctx context.Context, req receiver.Request) (receiver.Claim, error) {
	c, err := s.Leased.Claim(ctx, req)
	if c.State == receiver.StateDone {
		if f := s.claimed.Swap(nil); f != nil {
			(*f)()
		}
	}
	return c, err
}

// Who comes after a key was forgotten does not get the forgotten result from the line of the call that made it: neither
// from the one that ran, nor from one in line that had asked the store before.
func TestAForgottenResultIsNotHandedOn(t *testing.T) {
	s := &hooked{Leased: receivertest.NewLeased(receivertest.LeasedOptions{})}
	waiting := make(chan struct{}, 10)
	r, err := receiver.New(s, &receiver.Options{Observe: func(e receiver.Event) {
		if e.Kind == receiver.EventWaiting {
			waiting <- struct{}{}
		}
	}})
	require.NoError(t, err)
	ctx := context.Background()
	var late sync.WaitGroup
	forgetAndCome := func() {
		require.NoError(t, r.Forget(ctx, "k"))
		late.Go(func() {
			out, err := r.Do(ctx, "k", func(context.Context) ([]byte, error) { return []byte("second"), nil })
			require.NoError(t, err)
			require.Equal(t, "second", string(out.Value))
			require.False(t, out.Replayed)
		})
		<-waiting // in line behind the call that is about to hear what the store had said
	}
	s.completed.Store(&forgetAndCome)
	out, err := r.Do(ctx, "k", func(context.Context) ([]byte, error) { return []byte("first"), nil })
	require.NoError(t, err)
	require.Equal(t, "first", string(out.Value))
	late.Wait()

	// A turn: another process holds the key, and completes it while a call of this one polls.
	require.NoError(t, r.Forget(ctx, "k"))
	full := []byte("\x00k")
	c, err := s.Leased.Claim(ctx, receiver.Request{Key: full})
	require.NoError(t, err)
	var early sync.WaitGroup
	early.Go(func() {
		out, err := r.Do(ctx, "k", func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(t, err)
		require.Equal(t, "elsewhere", string(out.Value))
	})
	<-waiting
	s.claimed.Store(&forgetAndCome)
	_, err = s.Leased.Complete(ctx, full, c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("elsewhere")})
	require.NoError(t, err)
	early.Wait()
	late.Wait()
}
