package receivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

func (s *suite) lacksBatches() bool {
	_, can := s.Store.(receiver.Batcher)
	return s.lacks(can, func(fn func(context.Context) ([]byte, error)) error {
		_, err := s.plain().DoAll(background, []receiver.Call{{Key: "k", Fn: fn}})
		return err
	})
}

// moreRules are about batches, quotas, and results that go before their key.
var moreRules = []test{
	{"what a store lacks is said at once", func(s *suite) {
		r := s.plain()
		if _, ok := s.Store.(receiver.Outbox); !ok {
			require.ErrorIs(s, r.Relay(background, nil), errors.ErrUnsupported)
			require.ErrorIs(s, r.Unpark(background, "topic", 1), errors.ErrUnsupported)
			for _, err := range r.Outgoing(background) {
				require.ErrorIs(s, err, errors.ErrUnsupported)
			}
			for _, err := range r.Parked(background) {
				require.ErrorIs(s, err, errors.ErrUnsupported)
			}
		}
		if _, ok := s.Store.(receiver.Marker); !ok {
			_, _, err := r.HighWater(background, "source")
			require.ErrorIs(s, err, errors.ErrUnsupported)
			require.ErrorIs(s, r.ForgetSource(background, "source"), errors.ErrUnsupported)
			for _, err := range r.Gaps(background, "source") {
				require.ErrorIs(s, err, errors.ErrUnsupported)
			}
			_, err = r.DoSeqTx(background, "source", 1, s.neverTx)
			require.ErrorIs(s, err, errors.ErrUnsupported)
		}
	}},
	{"1 a batch runs in order and replays", func(s *suite) {
		if s.lacksBatches() {
			return
		}
		r := s.plain()
		_, err := r.Do(background, "3", func(context.Context) ([]byte, error) { return []byte("before"), nil })
		require.NoError(s, err)
		var order []int
		calls := func(keys ...int) (all []receiver.Call) {
			for _, k := range keys {
				all = append(all, receiver.Call{Key: fmt.Sprint(k), Fn: func(context.Context) ([]byte, error) {
					order = append(order, k)
					return fmt.Append(nil, "value ", k), nil
				}})
			}
			return all
		}
		outs, err := r.DoAll(background, calls(1, 2, 3, 2, 4))
		require.NoError(s, err)
		require.Equal(s, []int{1, 2, 4}, order)
		for i, want := range []struct {
			value    string
			replayed bool
		}{{"value 1", false}, {"value 2", false}, {"before", true}, {"value 2", true}, {"value 4", false}} {
			require.Equal(s, want.value, string(outs[i].Value))
			require.Equal(s, want.replayed, outs[i].Replayed)
			require.False(s, outs[i].Until.IsZero())
		}
		outs, err = r.DoAll(background, calls(4, 1))
		require.NoError(s, err)
		require.True(s, outs[0].Replayed && outs[1].Replayed)
		outs, err = r.DoAll(background, nil)
		require.NoError(s, err)
		require.Empty(s, outs)
	}},
	{"6 the fns of a batch may share a buffer", func(s *suite) {
		if s.lacksBatches() {
			return
		}
		r := s.plain()
		buf := make([]byte, 0, 10)
		fn := func(v string) func(context.Context) ([]byte, error) {
			return func(context.Context) ([]byte, error) { return append(buf[:0], v...), nil }
		}
		outs, err := r.DoAll(background, []receiver.Call{{Key: "1", Fn: fn("one")}, {Key: "2", Fn: fn("two")}})
		require.NoError(s, err)
		for i, want := range []string{"one", "two"} {
			require.Equal(s, want, string(outs[i].Value))
			out, err := r.Do(background, fmt.Sprint(i+1), s.never)
			require.NoError(s, err)
			require.Equal(s, want, string(out.Value))
		}
	}},
	{"10 a batch of a source that is handled strictly in order", func(s *suite) {
		if s.lacksBatches() || s.lacksMarks() {
			return
		}
		r, _ := s.receiver(receiver.Options{Window: receiver.Strict})
		runs := 0
		var calls []receiver.Call
		for seq := uint64(5); seq < 10; seq++ {
			calls = append(calls, receiver.Call{Source: "source", Seq: seq, Fn: value("", &runs)})
		}
		outs, err := r.DoAll(background, calls)
		require.NoError(s, err)
		require.Len(s, outs, 5)
		require.Equal(s, 5, runs)
	}},
	{"3 a batch stops at the first error", func(s *suite) {
		if s.lacksBatches() {
			return
		}
		r := s.plain()
		failed, runs := errors.New("no"), 0
		fail := func(context.Context) ([]byte, error) { return nil, failed }
		outs, err := r.DoAll(background, []receiver.Call{
			{Key: "1", Fn: value("1", &runs)}, {Key: "2", Fn: fail}, {Key: "3", Fn: s.never},
		})
		require.ErrorIs(s, err, failed)
		require.ErrorContains(s, err, "call 1")
		require.Len(s, outs, 1)
		outs, err = r.DoAll(background, []receiver.Call{
			{Key: "1", Fn: s.never},
			{Key: "2", Fn: func(context.Context) ([]byte, error) { return nil, receiver.Permanent(failed) }},
			{Key: "3", Fn: s.never},
		})
		var stored *receiver.StoredError
		require.ErrorAs(s, err, &stored)
		require.ErrorContains(s, err, "call 1")
		require.Len(s, outs, 1)
		require.Panics(s, func() {
			_, _ = r.DoAll(background, []receiver.Call{
				{Key: "3", Fn: value("3", &runs)}, {Key: "4", Fn: func(context.Context) ([]byte, error) { panic("no") }},
			})
		})
		outs, err = r.DoAll(background, []receiver.Call{{Key: "3", Fn: s.never}, {Key: "4", Fn: value("4", &runs)}})
		require.NoError(s, err, "what was done before the panic is recorded, and the rest is free")
		require.Len(s, outs, 2)
		outs, err = r.DoAll(background, []receiver.Call{{Key: "5", Fn: value("5", &runs)}, {Fn: s.never}})
		require.ErrorIs(s, err, receiver.ErrEmptyKey)
		require.Len(s, outs, 1)
	}},
	{"5 a value too large costs its own result in a batch", func(s *suite) {
		if s.lacksBatches() {
			return
		}
		s.need(s.LargestValue > 0, "say how large a value may be")
		r, runs := s.plain(), 0
		large := func(context.Context) ([]byte, error) { return make([]byte, s.LargestValue+1), nil }
		outs, err := r.DoAll(background, []receiver.Call{
			{Key: "1", Fn: value("1", &runs)}, {Key: "2", Fn: large}, {Key: "3", Fn: value("3", &runs)},
		})
		require.NoError(s, err)
		require.Len(s, outs[1].Value, s.LargestValue+1)
		_, err = r.Do(background, "2", s.never)
		require.ErrorIs(s, err, receiver.ErrResultGone)
		for _, key := range []string{"1", "3"} {
			out, err := r.Do(background, key, s.never)
			require.NoError(s, err)
			require.Equal(s, key, string(out.Value))
		}
	}},
	{"7 batches that hold what the other wants", func(s *suite) {
		if s.lacksBatches() {
			return
		}
		r, waiting := s.receiver(receiver.Options{})
		b := newBlocker()
		runs := 0
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := r.DoAll(background, []receiver.Call{{Key: "a", Fn: b.fn}, {Key: "b", Fn: value("b", &runs)}})
			first <- err
		}()
		await(s, b.running, 1)
		go func() {
			_, err := r.DoAll(background, []receiver.Call{{Key: "c", Fn: value("c", &runs)}, {Key: "a", Fn: s.never}, {Key: "b", Fn: s.never}})
			second <- err
		}()
		await(s, waiting, 1)
		out, err := r.Do(background, "c", s.never)
		require.NoError(s, err, "what a batch has done is recorded before it waits")
		require.Equal(s, "c", string(out.Value))
		b.finish("a", nil)
		require.NoError(s, await(s, first, 1))
		require.NoError(s, await(s, second, 1))
	}},
	{"7 a fn of a batch that wants what the batch has not recorded yet", func(s *suite) {
		if s.lacksBatches() {
			return
		}
		r, runs := s.plain(), 0
		outs, err := r.DoAll(background, []receiver.Call{
			{Key: "a", Fn: value("a", &runs)},
			{Key: "b", Fn: func(ctx context.Context) ([]byte, error) {
				for _, key := range []string{"a", "b"} {
					_, err := r.Do(ctx, key, s.never)
					require.ErrorIs(s, err, receiver.ErrReentrant)
				}
				return nil, nil
			}},
		})
		require.NoError(s, err)
		require.Len(s, outs, 2)
	}},
	{"10 a batch of a sequence", func(s *suite) {
		if s.lacksBatches() || s.lacksMarks() {
			return
		}
		r, runs := s.plain(), 0
		for turn := range 2 {
			var calls []receiver.Call
			for seq := uint64(1); seq <= 50; seq++ {
				calls = append(calls, receiver.Call{Source: "source", Seq: seq, Fn: value("", &runs)})
			}
			outs, err := r.DoAll(background, calls)
			require.NoError(s, err)
			require.Len(s, outs, 50)
			for _, out := range outs {
				require.Equal(s, turn > 0, out.Replayed)
			}
		}
		require.Equal(s, 50, runs)
		seq, _, err := r.HighWater(background, "source")
		require.NoError(s, err)
		require.EqualValues(s, 50, seq)
		for range r.Gaps(background, "source") {
			s.Error("a gap")
		}
		_, err = r.DoAll(background, []receiver.Call{{Key: "k", Source: "source", Fn: s.never}})
		require.Error(s, err)
	}},
	{"4 a quota is refused before fn, and nothing live goes for it", func(s *suite) {
		limits := map[string]receiver.Quota{"few": {Keys: 3}, "small": {Bytes: 500}}
		r, _ := s.receiver(receiver.Options{Quota: func(scope string) receiver.Quota { return limits[scope] }})
		runs := 0
		_, err := r.Scope("few").Do(background, "0", value("", &runs))
		if errors.Is(err, errors.ErrUnsupported) {
			require.Zero(s, runs)
			return
		}
		require.NoError(s, err)
		few := r.Scope("few")
		b := newBlocker()
		_, err = few.Do(background, "1", value("", &runs))
		require.NoError(s, err)
		running := s.do(background, few, "2", b.fn)
		await(s, b.running, 1)
		_, err = few.Do(background, "3", s.never)
		require.ErrorIs(s, err, receiver.ErrQuota, "what is running counts")
		b.finish("", errors.New("no"))
		require.Error(s, await(s, running, 1).err)
		_, err = few.Do(background, "3", value("", &runs))
		require.NoError(s, err, "what failed does not")
		_, err = few.Do(background, "4", s.never)
		require.ErrorIs(s, err, receiver.ErrQuota)
		for _, key := range []string{"0", "1", "3"} {
			out, err := few.Do(background, key, s.never)
			require.NoError(s, err)
			require.True(s, out.Replayed)
		}
		_, err = r.Do(background, "4", value("", &runs))
		require.NoError(s, err, "another scope")
		_, err = few.Scope("below").Do(background, "4", value("", &runs))
		require.NoError(s, err, "a scope below is another scope")
		require.NoError(s, few.Forget(background, "1"))
		_, err = few.Do(background, "4", value("", &runs))
		require.NoError(s, err)
		_, err = few.Do(background, "5", s.never)
		require.ErrorIs(s, err, receiver.ErrQuota)

		small := r.Scope("small")
		n := 0
		for ; err == nil || n == 0; n++ {
			require.Less(s, n, 100)
			_, err = small.Do(background, fmt.Sprint(n), func(context.Context) ([]byte, error) { return make([]byte, 100), nil })
		}
		require.ErrorIs(s, err, receiver.ErrQuota)
		require.Greater(s, n, 3)
		s.need(s.Reopen != nil && s.Advance != nil, "restart and move a clock")
		s.Store = s.Reopen()
		r, _ = s.receiver(receiver.Options{Quota: func(scope string) receiver.Quota { return limits[scope] }})
		_, err = r.Scope("few").Do(background, "5", s.never)
		require.ErrorIs(s, err, receiver.ErrQuota, "it is counted over restarts")
		s.Advance(1000 * 24 * time.Hour)
		_, err = r.Scope("few").Do(background, "5", value("", &runs))
		require.NoError(s, err)
		_, err = r.Scope("small").Do(background, "x", value("", &runs))
		require.NoError(s, err)
	}},
	{"9 a result that goes before its key", func(s *suite) {
		r, runs := s.plain(), 0
		_, err := r.Do(background, "k", value("v", &runs), receiver.WithResultTTL(time.Hour))
		if errors.Is(err, errors.ErrUnsupported) {
			require.Zero(s, runs)
			return
		}
		require.NoError(s, err)
		out, err := r.Do(background, "k", s.never)
		require.NoError(s, err)
		require.Equal(s, "v", string(out.Value))
		_, err = r.Do(background, "other", s.never, receiver.WithResultTTL(-1))
		require.Error(s, err)
		s.need(s.Advance != nil, "move a clock")
		s.Advance(time.Hour - time.Millisecond)
		_, err = r.Do(background, "k", s.never)
		require.NoError(s, err)
		s.Advance(time.Millisecond)
		for range 2 {
			_, err = r.Do(background, "k", s.never)
			require.ErrorIs(s, err, receiver.ErrResultGone)
			if s.Reopen != nil {
				s.Store = s.Reopen()
				r = s.plain()
			}
		}
		s.Advance(1000 * 24 * time.Hour)
		_, err = r.Do(background, "k", value("v", &runs))
		require.NoError(s, err)
		require.Equal(s, 2, runs)
	}},
}
