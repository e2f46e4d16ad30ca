package receivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// circleRules are about calls inside fn.
var circleRules = []test{
	{"7 the own key inside fn", func(s *suite) {
		for _, wait := range [][]receiver.CallOption{nil, {receiver.WithWait(0)}} {
			r, runs := s.plain(), 0
			_, err := r.Do(background, "k", func(ctx context.Context) ([]byte, error) {
				_, err := r.Do(ctx, "k", s.never, wait...)
				require.ErrorIs(s, err, receiver.ErrReentrant)
				_, err = r.Do(ctx, "between", func(ctx context.Context) ([]byte, error) {
					_, err := r.Do(ctx, "k", s.never, wait...)
					require.ErrorIs(s, err, receiver.ErrReentrant, "two calls deep")
					return nil, errors.New("no")
				})
				require.Error(s, err)
				_, err = r.Scope("other").Do(ctx, "k", value("v", &runs))
				require.NoError(s, err, "another scope is another key")
				return nil, errors.New("no")
			})
			require.Error(s, err)
			inner, err := r.Scope("other").Do(background, "k", s.never)
			require.NoError(s, err)
			require.Equal(s, "v", string(inner.Value))
			_, ok := s.Store.(receiver.Inspector)
			if !ok {
				return
			}
			require.NoError(s, r.Scope("other").Forget(background, "k"))
		}
	}},
	{"7 circles over two and three keys", func(s *suite) {
		for n := 2; n <= 3; n++ {
			r, waiting := s.receiver(receiver.Options{})
			key := func(i int) string { return fmt.Sprint("circle of ", n, " ", i%n) }
			holding := make(chan struct{}, n)
			reach := make([]chan struct{}, n)
			results := make([]<-chan outcome, n)
			for i := range n {
				reach[i] = make(chan struct{})
				results[i] = s.do(background, r, key(i), func(ctx context.Context) ([]byte, error) {
					holding <- struct{}{}
					<-reach[i]
					out, err := r.Do(ctx, key(i+1), func(context.Context) ([]byte, error) {
						return []byte("handed over"), nil
					})
					return out.Value, err
				})
			}
			await(s, holding, n)
			for i := range n - 1 {
				close(reach[i])
				await(s, waiting, 1)
			}
			close(reach[n-1]) // would close the circle: it fails, and its key goes to who waits for it
			require.ErrorIs(s, await(s, results[n-1], 1).err, receiver.ErrReentrant)
			for i := range n - 1 {
				o := await(s, results[i], 1)
				require.NoError(s, o.err)
				require.Equal(s, "handed over", string(o.Value))
			}
		}
	}},
	{"7 waiting in a row is no circle", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "c")
		second := s.do(background, r, "b", func(ctx context.Context) ([]byte, error) {
			out, err := r.Do(ctx, "c", s.never)
			return out.Value, err
		})
		await(s, waiting, 1)
		third := s.do(background, r, "a", func(ctx context.Context) ([]byte, error) {
			out, err := r.Do(ctx, "b", s.never)
			return out.Value, err
		})
		await(s, waiting, 1)
		b.finish("v", nil)
		for _, c := range []<-chan outcome{first, second, third} {
			o := await(s, c, 1)
			require.NoError(s, o.err)
			require.Equal(s, "v", string(o.Value))
		}
	}},
	{"7 who has stopped waiting closes no circle", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		holding, reach := make(chan struct{}), make(chan struct{})
		other := s.do(background, r, "b", func(ctx context.Context) ([]byte, error) {
			close(holding)
			<-reach
			out, err := r.Do(ctx, "a", s.never)
			return out.Value, err
		})
		await(s, holding, 1)
		out, err := r.Do(background, "a", func(ctx context.Context) ([]byte, error) {
			_, err := r.Do(ctx, "b", s.never, receiver.WithWait(time.Millisecond))
			require.ErrorIs(s, err, receiver.ErrInFlight)
			await(s, waiting, 1)
			close(reach)
			await(s, waiting, 1)
			return []byte("v"), nil
		})
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))
		o := await(s, other, 1)
		require.NoError(s, o.err)
		require.Equal(s, "v", string(o.Value))
	}},
	{"7 a circle that a second goroutine of fn would close", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b := newBlocker()
		held := s.do(background, r, "held", b.fn)
		await(s, b.running, 1)
		running := make(chan struct{})
		reach := make(chan struct{})
		other := s.do(background, r, "other", func(ctx context.Context) ([]byte, error) {
			close(running)
			<-reach
			_, err := r.Do(ctx, "mine", s.never)
			return nil, err
		})
		await(s, running, 1)
		mine := s.do(background, r, "mine", func(ctx context.Context) ([]byte, error) {
			inner := s.do(ctx, r, "held", s.never)
			await(s, waiting, 1)
			outer := s.do(ctx, r, "other", func(context.Context) ([]byte, error) { return []byte("handed over"), nil })
			await(s, waiting, 1)
			close(reach)
			o := await(s, outer, 1)
			b.finish("v", nil)
			return o.Value, errors.Join(o.err, await(s, inner, 1).err)
		})
		require.ErrorIs(s, await(s, other, 1).err, receiver.ErrReentrant)
		o := await(s, mine, 1)
		require.NoError(s, o.err)
		require.Equal(s, "handed over", string(o.Value))
		require.NoError(s, await(s, held, 1).err)
	}},
}
