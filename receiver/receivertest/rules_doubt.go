package receivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

var intent = receiver.WithIntent([]byte("charge 10"))

// lacksIntents reports that the store takes no intents, after making sure that it says so before fn runs.
func (s *suite) lacksIntents() bool {
	ran := false
	_, err := s.plain().Do(background, "does it", func(context.Context) ([]byte, error) { ran = true; return nil, nil }, intent)
	if errors.Is(err, errors.ErrUnsupported) {
		require.False(s, ran)
		return true
	}
	require.NoError(s, err)
	require.True(s, ran)
	return false
}

// doubts returns what is in doubt, in words.
func (s *suite) doubts(r *receiver.Receiver) map[string]string {
	s.Helper()
	all := map[string]string{}
	for d, err := range r.Doubts(background) {
		require.NoError(s, err)
		name := fmt.Sprint(d.Scope, d.Key)
		if d.Key == "" {
			name = fmt.Sprint(d.Scope, d.Source, " ", d.Epoch, " ", d.Seq)
		}
		all[name] = string(d.Note)
	}
	return all
}

// doubtRules are about work of which nobody knows whether it happened.
var doubtRules = []test{
	{"11 what leaves a key in doubt under an intent, and what does not", func(s *suite) {
		if s.lacksIntents() {
			return
		}
		for name, c := range map[string]struct {
			fn    func(stop func()) error
			doubt bool
			exits bool
		}{
			"an error":            {func(func()) error { return errors.New("no") }, false, false},
			"a deadline":          {func(func()) error { return context.DeadlineExceeded }, true, false},
			"a cancellation":      {func(func()) error { return fmt.Errorf("call: %w", context.Canceled) }, true, false},
			"an error, ctx ended": {func(stop func()) error { stop(); return errors.New("cut off") }, true, false},
			"success, ctx ended":  {func(stop func()) error { stop(); return nil }, false, false},
			"not done":            {func(stop func()) error { stop(); return receiver.NotDone(context.Canceled) }, false, false},
			"unknown":             {func(func()) error { return receiver.Unknown(errors.New("no answer")) }, true, false},
			"panic":               {func(func()) error { panic("no") }, true, true},
			"exit":                {func(func()) error { runtime.Goexit(); return nil }, true, true},
		} {
			r := s.plain().Scope(name)
			ctx, stop := context.WithCancel(background)
			defer stop()
			done := make(chan error, 1)
			go func() {
				defer func() {
					if c.exits {
						_ = recover()
						done <- nil
					}
				}()
				_, err := r.Do(ctx, "k", func(context.Context) ([]byte, error) { return []byte("v"), c.fn(stop) }, intent)
				done <- err
			}()
			err := await(s, done, 1)
			if !c.doubt {
				require.NotErrorIs(s, err, receiver.ErrInDoubt, name)
				require.Empty(s, s.doubts(r), name)
				out, err := r.Do(background, "k", func(context.Context) ([]byte, error) { return []byte("again"), nil })
				require.NoError(s, err, name)
				require.Equal(s, name == "success, ctx ended", out.Replayed, name)
				continue
			}
			if !c.exits {
				require.ErrorIs(s, err, receiver.ErrInDoubt, name)
			}
			require.Equal(s, map[string]string{"[]k": "charge 10"}, s.doubts(r), name)
			require.Equal(s, map[string]string{"[" + name + "]k": "charge 10"}, s.doubts(s.plain()), name)
			st, err := r.Lookup(background, "k")
			require.NoError(s, err)
			require.Equal(s, receiver.StateInDoubt, st.State, name)
			require.Equal(s, "charge 10", string(st.Note))
			for range 2 {
				_, err = r.Do(background, "k", s.never)
				require.ErrorIs(s, err, receiver.ErrInDoubt, name)
			}
			require.NoError(s, r.Settle(background, "k", receiver.HappenedNot()))
			require.ErrorIs(s, r.Settle(background, "k", receiver.HappenedNot()), receiver.ErrNotInDoubt)
		}
	}},
	{"11 unknown without an intent", func(s *suite) {
		r := s.plain()
		why := errors.New("no answer")
		_, err := r.Do(background, "k", func(context.Context) ([]byte, error) { return nil, receiver.Unknown(why) })
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		require.ErrorIs(s, err, why)
		_, err = r.Do(background, "k", s.never)
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		require.Contains(s, s.doubts(r), "[]k")
	}},
	{"11 doubts outlast a restart and every TTL", func(s *suite) {
		s.need(s.Reopen != nil && s.Advance != nil, "restart and move a clock")
		_, err := s.plain().Do(background, "k", func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) })
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		s.Store = s.Reopen()
		s.Advance(1000 * 24 * 3600e9)
		r := s.plain()
		_, err = r.Do(background, "k", s.never)
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		require.NoError(s, r.Settle(background, "k", receiver.Happened([]byte("v"))))
		out, err := r.Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))
		s.Advance(1000 * 24 * 3600e9)
		runs := 0
		_, err = r.Do(background, "k", value("", &runs))
		require.NoError(s, err)
		require.Equal(s, 1, runs, "settled, it has a TTL")
	}},
	{"11 what a call may do about a doubt", func(s *suite) {
		unknown := func(r *receiver.Receiver, key string) {
			_, err := r.Do(background, key, func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) })
			require.ErrorIs(s, err, receiver.ErrInDoubt)
		}
		var resolution receiver.Resolution
		var resolveErr error
		asked := 0
		r, _ := s.receiver(receiver.Options{Resolve: func(_ context.Context, d receiver.Doubt) (receiver.Resolution, error) {
			asked++
			require.NotEmpty(s, d.Key)
			return resolution, resolveErr
		}})
		runs := 0

		unknown(r, "retry")
		out, err := r.Do(background, "retry", value("v", &runs), receiver.OnDoubt(receiver.Retry))
		require.NoError(s, err)
		require.False(s, out.Replayed)
		require.Equal(s, 1, runs)

		unknown(r, "retry that fails")
		failed := errors.New("no")
		_, err = r.Do(background, "retry that fails", func(context.Context) ([]byte, error) { return nil, failed }, receiver.OnDoubt(receiver.Retry))
		require.ErrorIs(s, err, failed)
		_, err = r.Do(background, "retry that fails", s.never)
		require.ErrorIs(s, err, receiver.ErrInDoubt, "the first try may have happened still")

		unknown(r, "happened")
		resolution = receiver.Happened([]byte("found"))
		for range 2 {
			out, err = r.Do(background, "happened", s.never, receiver.OnDoubt(receiver.Resolve))
			require.NoError(s, err)
			require.True(s, out.Replayed)
			require.Equal(s, "found", string(out.Value))
		}
		require.Equal(s, 1, asked)

		unknown(r, "failed")
		resolution = receiver.Failed(errors.New("refused"))
		for range 2 {
			_, err = r.Do(background, "failed", s.never, receiver.OnDoubt(receiver.Resolve))
			var stored *receiver.StoredError
			require.ErrorAs(s, err, &stored)
		}

		unknown(r, "not")
		resolution = receiver.HappenedNot()
		_, err = r.Do(background, "not", func(context.Context) ([]byte, error) { return nil, failed }, receiver.OnDoubt(receiver.Resolve))
		require.ErrorIs(s, err, failed)
		out, err = r.Do(background, "not", value("v", &runs))
		require.NoError(s, err, "known not to have happened, and failed: free")
		require.False(s, out.Replayed)

		unknown(r, "nobody knows")
		resolveErr = errors.New("nobody knows")
		_, err = r.Do(background, "nobody knows", s.never, receiver.OnDoubt(receiver.Resolve))
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		require.ErrorIs(s, err, resolveErr)
		resolveErr, resolution = nil, receiver.Resolution{}
		_, err = r.Do(background, "nobody knows", s.never, receiver.OnDoubt(receiver.Resolve))
		require.ErrorIs(s, err, receiver.ErrInDoubt, "no resolution is none")
		_, err = s.plain().Do(background, "nobody knows", s.never, receiver.OnDoubt(receiver.Resolve))
		require.ErrorContains(s, err, "Options.Resolve")
		_, err = r.Do(background, "nobody knows", s.never, receiver.OnDoubt(7))
		require.Error(s, err)
	}},
	{"11 a resolution that is none leaves the doubt", func(s *suite) {
		r, _ := s.receiver(receiver.Options{Resolve: func(context.Context, receiver.Doubt) (receiver.Resolution, error) {
			return receiver.Failed(nil), nil
		}})
		_, err := r.Do(background, "k", func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) })
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		for range 2 {
			_, err = r.Do(background, "k", s.never, receiver.OnDoubt(receiver.Resolve), receiver.WithWait(0))
			require.ErrorIs(s, err, receiver.ErrInDoubt)
		}
		require.Error(s, r.Settle(background, "k", receiver.Failed(nil)))
		require.NoError(s, r.Settle(background, "k", receiver.Happened(nil)))
	}},
	{"11 waiters of a call that ends in doubt do as they were told", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "k")
		blocked := s.do(background, r, "k", s.never)
		await(s, waiting, 1)
		runs := 0
		retries := s.do(background, r, "k", value("second", &runs), receiver.OnDoubt(receiver.Retry))
		await(s, waiting, 1)
		b.finish("", receiver.Unknown(errors.New("no answer")))
		require.ErrorIs(s, await(s, first, 1).err, receiver.ErrInDoubt)
		require.ErrorIs(s, await(s, blocked, 1).err, receiver.ErrInDoubt)
		o := await(s, retries, 1)
		require.NoError(s, o.err)
		require.Equal(s, "second", string(o.Value))
		require.Equal(s, 1, runs)
	}},
	{"11 an intent that is running is in flight, not in doubt", func(s *suite) {
		if s.lacksIntents() {
			return
		}
		r := s.plain()
		b := newBlocker()
		first := s.do(background, r, "k", b.fn, intent)
		await(s, b.running, 1)
		require.Empty(s, s.doubts(r))
		_, err := r.Do(background, "k", s.never, receiver.WithWait(0))
		require.ErrorIs(s, err, receiver.ErrInFlight)
		require.ErrorIs(s, r.Settle(background, "k", receiver.HappenedNot()), receiver.ErrInFlight)
		st, err := r.Lookup(background, "k")
		require.NoError(s, err)
		require.Equal(s, receiver.StateInFlight, st.State)
		b.finish("v", nil)
		require.NoError(s, await(s, first, 1).err)
		require.Empty(s, s.doubts(r))
	}},
	{"11 another payload is refused for a key in doubt too", func(s *suite) {
		r := s.plain()
		_, err := r.Do(background, "k", func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) },
			receiver.WithPayload([]byte("a")))
		require.ErrorIs(s, err, receiver.ErrInDoubt)
		_, err = r.Do(background, "k", s.never, receiver.WithPayload([]byte("b")), receiver.OnDoubt(receiver.Retry))
		require.ErrorIs(s, err, receiver.ErrKeyReused)
		runs := 0
		_, err = r.Do(background, "k", value("", &runs), receiver.WithPayload([]byte("a")), receiver.OnDoubt(receiver.Retry))
		require.NoError(s, err)
		require.Equal(s, 1, runs)
	}},
	{"11 doubts of a sequence", func(s *suite) {
		if s.lacksIntents() || s.lacksMarks() {
			return
		}
		r := s.plain().Scope("scope")
		for seq := uint64(1); seq <= 3; seq++ {
			_, err := r.DoSeq(background, "source", seq, func(context.Context) ([]byte, error) {
				return nil, receiver.Unknown(errors.New("no answer"))
			}, intent, receiver.WithEpoch(9))
			require.ErrorIs(s, err, receiver.ErrInDoubt)
		}
		_, err := r.DoSeq(background, "source", 4, func(context.Context) ([]byte, error) { return nil, nil }, receiver.WithEpoch(9))
		require.NoError(s, err)
		require.Equal(s, map[string]string{
			"[]source 9 1": "charge 10", "[]source 9 2": "charge 10", "[]source 9 3": "charge 10",
		}, s.doubts(r))
		require.NoError(s, r.SettleSeq(background, "source", 9, 1, receiver.Happened(nil)))
		require.NoError(s, r.SettleSeq(background, "source", 9, 2, receiver.HappenedNot()))
		require.Equal(s, map[string]string{"[]source 9 3": "charge 10"}, s.doubts(r))
		var gaps []uint64
		for n, err := range r.Gaps(background, "source") {
			require.NoError(s, err)
			gaps = append(gaps, n)
		}
		require.Equal(s, []uint64{2, 3}, gaps)
		out, err := r.DoSeq(background, "source", 1, s.never, receiver.WithEpoch(9))
		require.NoError(s, err)
		require.True(s, out.Replayed)
		runs := 0
		_, err = r.DoSeq(background, "source", 2, value("", &runs), receiver.WithEpoch(9))
		require.NoError(s, err)
		require.Equal(s, 1, runs)
	}},
}
