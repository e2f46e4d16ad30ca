package receivertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

type coded string

func (c coded) Error() string { return "refused: " + string(c) }
func (c coded) Code() string  { return string(c) }

// broken can be made, and not be encoded.
type broken struct{ how string }

func (b broken) MarshalJSON() ([]byte, error) {
	if b.how == "panic" {
		panic("no")
	}
	return nil, errors.New("no")
}

// oneWay can be encoded, and not be decoded.
type oneWay struct{ N int }

func (oneWay) UnmarshalJSON([]byte) error { return errors.New("no") }

// recordRules are about what is recorded, and what is refused.
var recordRules = []test{
	{"4 what can be refused is refused before fn", func(s *suite) {
		r := s.plain()
		_, err := r.Do(background, "", s.never)
		require.ErrorIs(s, err, receiver.ErrEmptyKey)
		_, err = r.Do(background, "k", s.never, receiver.WithTTL(-1))
		require.Error(s, err)
		if s.LongestKey > 0 {
			_, err = r.Do(background, strings.Repeat("k", s.LongestKey+1), s.never)
			require.Error(s, err)
			_, err = r.Scope(strings.Repeat("s", s.LongestKey)).Do(background, "k", s.never)
			require.Error(s, err, "the scope counts")
		}
		if s.ShortTTL > 0 {
			_, err = r.Do(background, "k", s.never, receiver.WithTTL(s.ShortTTL))
			require.Error(s, err)
		}
		runs := 0
		_, err = r.Do(background, "k", value("v", &runs))
		require.NoError(s, err, "what was refused left nothing behind")
	}},
	{"4 a store that is broken runs nothing", func(s *suite) {
		s.need(s.Break != nil, "break it")
		r, runs := s.plain(), 0
		_, err := r.Do(background, "before", value("v", &runs))
		require.NoError(s, err)
		s.Break()
		_, err = r.Do(background, "k", s.never)
		require.Error(s, err)
	}},
	{"5 a value too large costs the result, never the key", func(s *suite) {
		s.need(s.LargestValue > 0, "send a value that is too large")
		r, runs := s.plain(), 0
		v := strings.Repeat("v", s.LargestValue+1)
		out, err := r.Do(background, "k", value(v, &runs))
		require.NoError(s, err)
		require.Equal(s, len(v), len(out.Value), "the first caller gets its value")
		require.False(s, out.Replayed)
		for range 2 {
			out, err = r.Do(background, "k", s.never)
			require.ErrorIs(s, err, receiver.ErrResultGone)
			require.True(s, out.Replayed)
			require.Nil(s, out.Value)
			if s.Reopen != nil {
				s.Store = s.Reopen()
				r = s.plain()
			}
		}
		require.Equal(s, 1, runs)
	}},
	{"5 duplicates that wait for a value too large get none", func(s *suite) {
		s.need(s.LargestValue > 0, "send a value that is too large")
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "k")
		second := s.do(background, r, "k", s.never)
		await(s, waiting, 1)
		b.finish(strings.Repeat("v", s.LargestValue+1), nil)
		require.NoError(s, await(s, first, 1).err)
		require.ErrorIs(s, await(s, second, 1).err, receiver.ErrResultGone)
	}},
	{"5 a value that can't be encoded costs the result, never the key", func(s *suite) {
		r := s.plain()
		for _, how := range []string{"error", "panic"} {
			for i := range 3 {
				got, err := receiver.Do(background, r, how, func(context.Context) (broken, error) {
					require.Zero(s, i, "fn ran again")
					return broken{how}, nil
				})
				if i == 0 {
					require.NoError(s, err)
					require.Equal(s, how, got.Value.how)
					continue
				}
				require.ErrorIs(s, err, receiver.ErrResultGone)
				require.True(s, got.Replayed)
			}
		}
		for i := range 2 {
			got, err := receiver.Do(background, r, "one way", func(context.Context) (oneWay, error) {
				require.Zero(s, i, "fn ran again")
				return oneWay{7}, nil
			})
			if i == 0 {
				require.NoError(s, err)
				require.Equal(s, 7, got.Value.N)
			} else {
				require.ErrorIs(s, err, receiver.ErrResultGone)
			}
		}
	}},
	{"5 a result that can't be made durable", func(s *suite) {
		s.need(s.Break != nil, "break it")
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "k")
		second := s.do(background, r, "k", s.never)
		await(s, waiting, 1)
		s.Break()
		b.finish("v", nil)
		for _, c := range []<-chan outcome{first, second} {
			o := await(s, c, 1)
			require.ErrorIs(s, o.err, receiver.ErrUnrecorded, "for waiters too")
			require.Equal(s, "v", string(o.Value))
		}
		_, err := r.Do(background, "k", s.never, receiver.WithWait(0))
		require.Error(s, err, "the key stays claimed")
	}},
	{"5 a permanent failure is the result", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "k")
		second := s.do(background, r, "k", s.never)
		await(s, waiting, 1)
		b.finish("", fmt.Errorf("charging: %w", receiver.Permanent(coded("E42"))))
		stored := func(err error, replayed bool) {
			var e *receiver.StoredError
			require.ErrorAs(s, err, &e)
			require.Equal(s, receiver.StoredError{Code: "E42", Message: "charging: refused: E42", Replayed: replayed}, *e)
			require.ErrorIs(s, err, &receiver.StoredError{Code: "E42"})
			require.ErrorIs(s, err, coded("E42"))
			require.NotErrorIs(s, err, coded("E43"))
		}
		stored(await(s, first, 1).err, false)
		stored(await(s, second, 1).err, true)
		if s.Reopen != nil {
			s.Store = s.Reopen()
			r = s.plain()
		}
		out, err := r.Do(background, "k", s.never)
		stored(err, true)
		require.True(s, out.Replayed)
	}},
	{"5 what had been done already is a success", func(s *suite) {
		r := s.plain()
		out, err := r.Do(background, "k", func(context.Context) ([]byte, error) {
			return nil, fmt.Errorf("inserting: %w", receiver.Already([]byte("theirs")))
		})
		require.NoError(s, err)
		require.Equal(s, "theirs", string(out.Value))
		require.True(s, out.Replayed)
		out, err = r.Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, "theirs", string(out.Value))
		require.True(s, out.Replayed)
	}},
	{"6 durable before anyone sees it", func(s *suite) {
		s.need(s.Reopen != nil, "restart")
		r, runs := s.plain(), 0
		out, err := r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		s.Store = s.Reopen()
		again, err := s.plain().Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, out.Value, again.Value)
		require.WithinDuration(s, out.Until, again.Until, time.Second)
	}},
	{"8 fingerprints are compared where both sides have one", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		a, other := receiver.WithPayload([]byte("a")), receiver.WithPayload([]byte("b"))
		b := newBlocker()
		first := s.do(background, r, "k", b.fn, a)
		await(s, b.running, 1)
		// In flight: the payload is compared before anything else, whether the call would wait or not.
		for _, wait := range []time.Duration{0, time.Hour} {
			_, err := r.Do(background, "k", s.never, other, receiver.WithWait(wait))
			require.ErrorIs(s, err, receiver.ErrKeyReused)
		}
		same := s.do(background, r, "k", s.never, a)
		without := s.do(background, r, "k", s.never)
		await(s, waiting, 2)
		b.finish("v", nil)
		for _, c := range []<-chan outcome{first, same, without} {
			require.NoError(s, await(s, c, 1).err)
		}
		// Done.
		_, err := r.Do(background, "k", s.never, other)
		require.ErrorIs(s, err, receiver.ErrKeyReused)
		_, err = r.Do(background, "k", s.never, receiver.WithPayload(nil))
		require.ErrorIs(s, err, receiver.ErrKeyReused, "no bytes are a payload too")
		for _, opts := range [][]receiver.CallOption{{a}, nil} {
			_, err = r.Do(background, "k", s.never, opts...)
			require.NoError(s, err)
		}
		// Recorded without one: nothing to compare with.
		_, err = r.Do(background, "bare", func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(s, err)
		_, err = r.Do(background, "bare", s.never, other)
		require.NoError(s, err)
	}},
	{"8 the line is compared again with whoever ran in the end", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, next := newBlocker(), newBlocker()
		first := s.do(background, r, "k", b.fn)
		await(s, b.running, 1)
		second := s.do(background, r, "k", next.fn, receiver.WithPayload([]byte("a")))
		await(s, waiting, 1)
		third := s.do(background, r, "k", s.never, receiver.WithPayload([]byte("b")))
		await(s, waiting, 1)
		b.finish("", errors.New("no"))
		require.Error(s, await(s, first, 1).err)
		await(s, next.running, 1)
		next.finish("v", nil)
		require.NoError(s, await(s, second, 1).err)
		require.ErrorIs(s, await(s, third, 1).err, receiver.ErrKeyReused)
	}},
	{"scopes never meet", func(s *suite) {
		r := s.plain()
		for _, sc := range []*receiver.Receiver{
			r, r.Scope(""), r.Scope("a"), r.Scope("a").Scope("b"), r.Scope("a/b"), r.Scope("ab"), r.Scope("b").Scope("a"),
		} {
			runs := 0
			_, err := sc.Do(background, "k", value("v", &runs))
			require.NoError(s, err)
			require.Equal(s, 1, runs)
		}
	}},
	{"looking up and forgetting", func(s *suite) {
		_, ok := s.Store.(receiver.Inspector)
		r := s.plain().Scope("s")
		if !ok {
			_, err := r.Lookup(background, "k")
			require.ErrorIs(s, err, errors.ErrUnsupported)
			require.ErrorIs(s, r.Forget(background, "k"), errors.ErrUnsupported)
			return
		}
		status := func(key string) receiver.Status {
			st, err := r.Lookup(background, key)
			require.NoError(s, err)
			return st
		}
		require.Equal(s, receiver.StateAbsent, status("k").State)
		runs := 0
		_, err := r.Do(background, "k", func(ctx context.Context) ([]byte, error) {
			require.Equal(s, receiver.StateInFlight, status("k").State)
			require.ErrorIs(s, r.Forget(ctx, "k"), receiver.ErrInFlight)
			runs++
			return []byte("v"), nil
		}, receiver.WithPayload([]byte("p")))
		require.NoError(s, err)
		st := status("k")
		require.Equal(s, receiver.StateDone, st.State)
		require.Equal(s, "v", string(st.Result.Value))
		require.NotEmpty(s, st.Fingerprint)
		require.NoError(s, r.Forget(background, "k"))
		require.Equal(s, receiver.StateAbsent, status("k").State)
		_, err = r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, 2, runs)
		_, err = r.Lookup(background, "")
		require.ErrorIs(s, err, receiver.ErrEmptyKey)
		require.ErrorIs(s, r.Forget(background, ""), receiver.ErrEmptyKey)
	}},
}
