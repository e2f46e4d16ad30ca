package receivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// gone is a fn that records early and then does what is to follow.
func (s *suite) gone(then func() ([]byte, error)) func(ctx context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		require.NoError(s, receiver.Gone(ctx))
		require.NoError(s, receiver.Gone(ctx), "asked again")
		return then()
	}
}

// isGone makes sure that a key is done, without a result, for this receiver and after a restart.
func (s *suite) isGone(r *receiver.Receiver, key string) {
	s.Helper()
	out, err := r.Do(background, key, s.never)
	require.ErrorIs(s, err, receiver.ErrResultGone)
	require.True(s, out.Replayed)
}

// goneRules are about Gone.
var goneRules = []test{
	{"5 what is recorded early stays recorded, whatever fn does then", func(s *suite) {
		var ends []receiver.EventKind
		r, _ := s.receiver(receiver.Options{Observe: func(e receiver.Event) { ends = append(ends, e.Kind) }})
		broken := errors.New("broken")
		for key, then := range map[string]func() ([]byte, error){
			"value":     func() ([]byte, error) { return []byte("v"), nil },
			"error":     func() ([]byte, error) { return []byte("v"), broken },
			"permanent": func() ([]byte, error) { return []byte("v"), receiver.Permanent(broken) },
			"unknown":   func() ([]byte, error) { return []byte("v"), receiver.Unknown(broken) },
		} {
			out, err := r.Do(background, key, s.gone(then))
			require.Equal(s, "v", string(out.Value))
			require.False(s, out.Replayed)
			if key == "value" {
				require.NoError(s, err)
				require.False(s, out.Until.IsZero())
			} else {
				require.ErrorIs(s, err, broken)
				require.NotErrorIs(s, err, receiver.ErrInDoubt)
			}
			s.isGone(r, key)
		}
		func() {
			defer func() { require.Equal(s, "boom", recover()) }()
			_, _ = r.Do(background, "panic", s.gone(func() ([]byte, error) { panic("boom") }))
		}()
		s.isGone(r, "panic")
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			_, _ = r.Do(background, "exit", s.gone(func() ([]byte, error) { runtime.Goexit(); return nil, nil }))
		}()
		<-exited
		s.isGone(r, "exit")
		for i := 0; i < len(ends); i += 2 {
			require.Equal(s, []receiver.EventKind{receiver.EventExecuted, receiver.EventReplayed}, ends[i:i+2])
		}
		if s.Reopen != nil {
			s.Store = s.Reopen()
			for _, key := range []string{"value", "error", "permanent", "unknown", "panic", "exit"} {
				s.isGone(s.plain(), key)
			}
		}
	}},
	{"5 who waits is told when it is recorded early, not when fn returns", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		running, record, recorded, end := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
		first := s.do(background, r, "k", func(ctx context.Context) ([]byte, error) {
			close(running)
			<-record
			require.NoError(s, receiver.Gone(ctx))
			close(recorded)
			<-end
			return []byte("v"), nil
		})
		<-running
		second := s.do(background, r, "k", s.never)
		<-waiting
		close(record)
		require.ErrorIs(s, (<-second).err, receiver.ErrResultGone)
		<-recorded
		s.isGone(r, "k")
		close(end)
		require.NoError(s, (<-first).err)
	}},
	{"5 Gone after fn had returned is an error, and outside fn a panic", func(s *suite) {
		r := s.plain()
		var kept context.Context
		for key, fn := range map[string]func(context.Context) ([]byte, error){
			"done":   func(ctx context.Context) ([]byte, error) { kept = ctx; return []byte("v"), nil },
			"failed": func(ctx context.Context) ([]byte, error) { kept = ctx; return nil, errors.New("no") },
		} {
			_, _ = r.Do(background, key, fn)
			require.Error(s, receiver.Gone(kept))
		}
		out, err := r.Do(background, "done", s.never)
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))
		_, err = r.Do(background, "failed", func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(s, err)
		require.Panics(s, func() { _ = receiver.Gone(background) })
	}},
	{"5 in a DoTx, Gone commits", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		broken := errors.New("broken")
		_, err := r.DoTx(background, "k", func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
			require.NoError(s, tx.Set([]byte("balance"), []byte("10")))
			require.NoError(s, receiver.Gone(ctx))
			require.ErrorIs(s, tx.Set([]byte("balance"), []byte("20")), receiver.ErrTxDone)
			require.NoError(s, receiver.Gone(ctx), "asked again")
			return nil, broken
		})
		require.ErrorIs(s, err, broken)
		require.Equal(s, "10", s.state(r, "balance"))
		s.isGone(r, "k")
	}},
	{"5 a DoTx that Gone can't commit has not happened", func(s *suite) {
		if s.lacksTx() {
			return
		}
		s.need(s.LargestValue > 0, "say how large a value may be")
		r := s.plain()
		_, err := r.DoTx(background, "k", func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
			require.NoError(s, tx.Set([]byte("balance"), []byte("wrong")))
			for i := 0; tx.Set(fmt.Append(nil, "large ", i), make([]byte, s.LargestValue)) == nil; i++ {
			}
			require.Error(s, receiver.Gone(ctx))
			require.Error(s, receiver.Gone(ctx), "asked again")
			require.Error(s, tx.Set([]byte("balance"), []byte("wrong")))
			return []byte("done"), nil
		})
		require.Error(s, err)
		require.NotErrorIs(s, err, receiver.ErrUnrecorded)
		require.Empty(s, s.state(r, "balance"))
		out, err := r.DoTx(background, "k", set("balance", "10"))
		require.NoError(s, err)
		require.False(s, out.Replayed, "the key was free")
	}},
	{"5 when Gone can't record, Do says so, and nothing runs again", func(s *suite) {
		s.need(s.Break != nil, "Break")
		r := s.plain()
		_, err := r.Do(background, "k", func(ctx context.Context) ([]byte, error) {
			s.Break()
			require.ErrorIs(s, receiver.Gone(ctx), receiver.ErrUnrecorded)
			return []byte("v"), nil
		})
		require.ErrorIs(s, err, receiver.ErrUnrecorded)
		_, err = r.Do(background, "k", s.never, receiver.WithWait(0))
		require.Error(s, err)
	}},
	{"5 a call of a batch may record early", func(s *suite) {
		r := s.plain()
		if _, can := s.Store.(receiver.Batcher); !can {
			return
		}
		outs, err := r.DoAll(background, []receiver.Call{
			{Key: "a", Fn: func(context.Context) ([]byte, error) { return []byte("a"), nil }},
			{Key: "b", Fn: s.gone(func() ([]byte, error) { return []byte("b"), nil })},
			{Key: "c", Fn: func(context.Context) ([]byte, error) { return []byte("c"), nil }},
		})
		require.NoError(s, err)
		require.Len(s, outs, 3)
		require.Equal(s, "b", string(outs[1].Value))
		s.isGone(r, "b")
		for _, key := range []string{"a", "c"} {
			out, err := r.Do(background, key, s.never)
			require.NoError(s, err)
			require.Equal(s, key, string(out.Value))
		}
		broken := errors.New("broken")
		outs, err = r.DoAll(background, []receiver.Call{
			{Key: "d", Fn: func(context.Context) ([]byte, error) { return []byte("d"), nil }},
			{Key: "e", Fn: s.gone(func() ([]byte, error) { return nil, broken })},
			{Key: "f", Fn: s.never},
		})
		require.ErrorIs(s, err, broken)
		require.Len(s, outs, 1)
		s.isGone(r, "e")
	}},
}
