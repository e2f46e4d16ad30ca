package receivertest

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// runRules are about when fn runs, and what it runs in.
var runRules = []test{
	{"1 fn runs once a key", func(s *suite) {
		r, runs := s.plain(), 0
		out, err := r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))
		require.False(s, out.Replayed)
		for range 3 {
			out, err = r.Do(background, "k", value("other", &runs))
			require.NoError(s, err)
			require.Equal(s, "v", string(out.Value))
			require.True(s, out.Replayed)
		}
		require.Equal(s, 1, runs)
	}},
	{"1 fn runs on the caller's goroutine with the caller's context", func(s *suite) {
		type mine struct{}
		ctx, cancel := context.WithDeadline(context.WithValue(background, mine{}, "hers"), time.Now().Add(time.Hour))
		defer cancel()
		deadline, _ := ctx.Deadline()
		id := goroutine()
		_, err := s.plain().Do(ctx, "k", func(ctx context.Context) ([]byte, error) {
			require.Equal(s, id, goroutine())
			require.Equal(s, "hers", ctx.Value(mine{}))
			d, ok := ctx.Deadline()
			require.True(s, ok)
			require.Equal(s, deadline, d)
			key, ok := receiver.KeyFrom(ctx)
			require.True(s, ok)
			require.Equal(s, "k", key)
			return nil, nil
		})
		require.NoError(s, err)
	}},
	{"1 fn runs again when it failed", func(s *suite) {
		r, runs := s.plain(), 0
		mine := errors.New("no")
		for range 3 {
			_, err := r.Do(background, "k", func(context.Context) ([]byte, error) { runs++; return []byte("x"), mine })
			require.Equal(s, mine, err, "the error goes through as it is")
		}
		_, err := r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, 4, runs)
	}},
	{"2 a context that has ended claims nothing", func(s *suite) {
		r, runs := s.plain(), 0
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(background)
		cancel(cause)
		_, err := r.Do(ctx, "k", s.never)
		require.ErrorIs(s, err, context.Canceled)
		require.ErrorIs(s, err, cause)
		_, err = r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, 1, runs)
	}},
	{"2 a context that ends inside fn is fn's affair", func(s *suite) {
		r := s.plain()
		ctx, cancel := context.WithCancel(background)
		out, err := r.Do(ctx, "k", func(ctx context.Context) ([]byte, error) {
			cancel()
			require.Error(s, ctx.Err())
			return []byte("v"), nil
		})
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))
		out, err = r.Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))

		ctx, cancel = context.WithCancel(background)
		_, err = r.Do(ctx, "failed", func(ctx context.Context) ([]byte, error) {
			cancel()
			return nil, ctx.Err()
		})
		require.Equal(s, context.Canceled, err)
		_, err = r.Do(background, "failed", func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(s, err, "the key is free although the context that claimed it has ended")
	}},
	{"2 a waiter whose context ends leaves", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "k")
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(background)
		second := s.do(ctx, r, "k", s.never)
		await(s, waiting, 1)
		cancel(cause)
		o := await(s, second, 1)
		require.ErrorIs(s, o.err, receiver.ErrInFlight)
		require.ErrorIs(s, o.err, cause)
		require.ErrorIs(s, o.err, context.Canceled)
		third := s.do(background, r, "k", s.never)
		await(s, waiting, 1)
		b.finish("v", nil)
		require.NoError(s, await(s, first, 1).err)
		require.Equal(s, "v", string(await(s, third, 1).Value))
	}},
	{"3 a panic goes on up and frees the key", func(s *suite) {
		r, runs := s.plain(), 0
		require.PanicsWithValue(s, "mine", func() {
			_, _ = r.Do(background, "k", func(context.Context) ([]byte, error) { panic("mine") })
		})
		_, err := r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, 1, runs)
	}},
	{"3 Goexit goes on and frees the key", func(s *suite) {
		r, runs := s.plain(), 0
		done := make(chan struct{})
		returned := false
		go func() {
			defer close(done)
			_, _ = r.Do(background, "k", func(context.Context) ([]byte, error) { runtime.Goexit(); return nil, nil })
			returned = true
		}()
		await(s, done, 1)
		require.False(s, returned)
		_, err := r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, 1, runs)
	}},
	{"6 the first caller gets what is stored", func(s *suite) {
		type stored struct {
			Name string
			Lost string `json:"-"`
		}
		r := s.plain()
		first, err := receiver.Do(background, r, "k", func(context.Context) (stored, error) {
			return stored{"n", "l"}, nil
		})
		require.NoError(s, err)
		require.Equal(s, stored{"n", ""}, first.Value, "what JSON loses is lost for the first caller too")
		again, err := receiver.Do(background, r, "k", func(context.Context) (stored, error) {
			s.Error("fn ran again")
			return stored{}, nil
		})
		require.NoError(s, err)
		require.Equal(s, first.Value, again.Value)
		require.True(s, again.Replayed)
	}},
	{"6 a value that fn goes on changing", func(s *suite) {
		r := s.plain()
		v := []byte("value")
		_, err := r.Do(background, "k", func(context.Context) ([]byte, error) { return v, nil })
		require.NoError(s, err)
		scribble(v)
		out, err := r.Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, "value", string(out.Value))
		scribble(out.Value)
		out, err = r.Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, "value", string(out.Value))
	}},
	{"9 the TTL counts from the commit and the first recorder's holds", func(s *suite) {
		s.need(s.Advance != nil, "move its clock")
		r, runs := s.plain(), 0
		ttl := receiver.WithTTL(48 * time.Hour)
		_, err := r.Do(background, "k", func(context.Context) ([]byte, error) {
			s.Advance(30 * time.Second)
			return nil, nil
		}, ttl)
		require.NoError(s, err)
		s.Advance(48*time.Hour - time.Millisecond)
		_, err = r.Do(background, "k", s.never, receiver.WithTTL(1000*time.Hour))
		require.NoError(s, err)
		s.Advance(time.Millisecond)
		_, err = r.Do(background, "k", value("v", &runs), ttl)
		require.NoError(s, err)
		require.Equal(s, 1, runs)
	}},
}

// goroutine names the calling goroutine, as the first line of its stack does.
func goroutine() string {
	var b [64]byte
	n := runtime.Stack(b[:], false)
	for i, c := range b[:n] {
		if c == '[' {
			return string(b[:i])
		}
	}
	return string(b[:n])
}
