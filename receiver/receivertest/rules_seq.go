package receivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

func (s *suite) lacksMarks() bool {
	_, can := s.Store.(receiver.Marker)
	return s.lacks(can, func(fn func(context.Context) ([]byte, error)) error {
		_, err := s.plain().DoSeq(background, "source", 1, fn)
		return err
	})
}

// seqRules are about sequences.
var seqRules = []test{
	{"10 the first number is new whatever it is", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r := s.plain()
		for i, first := range []uint64{0, 1, 77, 1<<64 - 1} {
			source, runs := fmt.Sprint("source ", i), 0
			for n := range 2 {
				out, err := r.DoSeq(background, source, first, value("", &runs))
				require.NoError(s, err)
				require.Equal(s, n > 0, out.Replayed)
				require.Empty(s, out.Value)
			}
			require.Equal(s, 1, runs)
			seq, ok, err := r.HighWater(background, source)
			require.NoError(s, err)
			require.True(s, ok)
			require.Equal(s, first, seq)
		}
		_, ok, err := r.HighWater(background, "another")
		require.NoError(s, err)
		require.False(s, ok)
	}},
	{"10 a window of numbers, and gaps", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, _ := s.receiver(receiver.Options{Window: 8})
		runs := 0
		do := func(seq uint64) (bool, error) {
			before := runs
			out, err := r.DoSeq(background, "source", seq, value("", &runs))
			require.Equal(s, err == nil && runs == before, out.Replayed)
			return runs > before, err
		}
		gaps := func() (all []uint64) {
			for n, err := range r.Gaps(background, "source") {
				require.NoError(s, err)
				all = append(all, n)
			}
			return all
		}
		for _, step := range []struct {
			seq  uint64
			runs bool
			err  error
			gaps []uint64
		}{
			{seq: 100, runs: true},
			{seq: 101, runs: true},
			{seq: 104, runs: true, gaps: []uint64{102, 103}},
			{seq: 100}, {seq: 101, gaps: nil, err: nil},
			{seq: 103, runs: true, gaps: []uint64{102}},
			{seq: 103, gaps: []uint64{102}},
			{seq: 104, gaps: []uint64{102}},
			{seq: 99, runs: true, gaps: []uint64{102}}, // before the first, and within the window
			{seq: 96, runs: true, gaps: []uint64{97, 98, 102}},
			{seq: 95, err: receiver.ErrTooOld, gaps: []uint64{97, 98, 102}},
			{seq: 110, runs: true, gaps: []uint64{102, 105, 106, 107, 108, 109}},
			{seq: 102, runs: true, gaps: []uint64{105, 106, 107, 108, 109}},
			{seq: 101, err: receiver.ErrTooOld, gaps: []uint64{105, 106, 107, 108, 109}}, // it was handled, and that is forgotten
			{seq: 1000, runs: true, gaps: []uint64{992, 993, 994, 995, 996, 997, 998, 999}},
			{seq: 110, err: receiver.ErrTooOld, gaps: []uint64{992, 993, 994, 995, 996, 997, 998, 999}},
			{seq: 992, runs: true, gaps: []uint64{993, 994, 995, 996, 997, 998, 999}},
			{seq: 991, err: receiver.ErrTooOld, gaps: []uint64{993, 994, 995, 996, 997, 998, 999}},
		} {
			ran, err := do(step.seq)
			require.ErrorIs(s, err, step.err, "%d", step.seq)
			require.Equal(s, step.runs, ran, "%d", step.seq)
			if step.gaps != nil {
				require.Equal(s, step.gaps, gaps(), "after %d", step.seq)
			}
		}
		require.NoError(s, r.ForgetSource(background, "source"))
		ran, err := do(5)
		require.NoError(s, err)
		require.True(s, ran)
		require.Empty(s, gaps())
	}},
	{"10 results of numbers come back, and are missed when they are gone", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r := s.plain()
		runs := 0
		for range 2 {
			for seq := uint64(1); seq <= 5; seq++ {
				out, err := r.DoSeq(background, "source", seq, value(fmt.Sprint("result ", seq), &runs))
				require.NoError(s, err)
				require.Equal(s, fmt.Sprint("result ", seq), string(out.Value))
			}
		}
		require.Equal(s, 5, runs)
		_, err := r.DoSeq(background, "source", 6, func(context.Context) ([]byte, error) {
			return nil, receiver.Permanent(errors.New("no"))
		})
		require.Error(s, err)
		_, err = r.DoSeq(background, "source", 6, s.never)
		require.ErrorContains(s, err, "no")
		out, err := r.DoSeq(background, "source", 7, value("", &runs))
		require.NoError(s, err)
		require.False(s, out.Replayed)
		s.need(s.Advance != nil, "move a clock")
		s.Advance(100 * 24 * time.Hour)
		for seq := uint64(1); seq <= 7; seq++ {
			out, err := r.DoSeq(background, "source", seq, s.never)
			if seq == 7 {
				require.NoError(s, err, "an empty result is nothing that could go")
				require.True(s, out.Replayed)
				continue
			}
			require.ErrorIs(s, err, receiver.ErrResultGone, "the result has expired, the mark has not")
		}
		// Of a source that never had results nothing is gone.
		for range 2 {
			_, err := r.DoSeq(background, "silent", 1, value("", &runs))
			require.NoError(s, err)
			s.Advance(100 * 24 * time.Hour)
		}
	}},
	{"10 a number that fails is free again", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r := s.plain()
		failed := errors.New("no")
		fail := func(context.Context) ([]byte, error) { return nil, failed }
		runs := 0
		_, err := r.DoSeq(background, "source", 1, fail)
		require.ErrorIs(s, err, failed)
		_, err = r.DoSeq(background, "source", 2, value("", &runs))
		require.NoError(s, err)
		_, err = r.DoSeq(background, "source", 1, value("", &runs))
		require.NoError(s, err)
		require.Equal(s, 2, runs)
		_, err = r.DoSeq(background, "", 1, s.never)
		require.ErrorIs(s, err, receiver.ErrEmptyKey)
	}},
	{"10 strictly in order", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		for _, first := range []uint64{0, 1, 41} {
			store, source := s.Store, fmt.Sprint("source ", first)
			open := func() *receiver.Receiver {
				r, err := receiver.New(store, &receiver.Options{Window: receiver.Strict})
				require.NoError(s, err)
				return r
			}
			r, runs := open(), 0
			do := func(seq uint64) error {
				_, err := r.DoSeq(background, source, seq, value("", &runs))
				return err
			}
			fail := func(seq uint64) {
				failed := errors.New("no")
				_, err := r.DoSeq(background, source, seq, func(context.Context) ([]byte, error) { return nil, failed })
				require.ErrorIs(s, err, failed)
			}
			fail(first)
			require.ErrorIs(s, do(first+1), receiver.ErrOutOfOrder, "the first has failed")
			if s.Reopen != nil {
				store = s.Reopen()
				s.Store = store
				r = open()
				require.ErrorIs(s, do(first+1), receiver.ErrOutOfOrder, "that is remembered")
			}
			_, ok, err := r.HighWater(background, source)
			require.NoError(s, err)
			require.False(s, ok, "nothing was handled yet")
			require.NoError(s, do(first))
			require.NoError(s, do(first+1))
			require.ErrorIs(s, do(first+3), receiver.ErrOutOfOrder)
			fail(first + 2)
			require.ErrorIs(s, do(first+3), receiver.ErrOutOfOrder)
			require.NoError(s, do(first+2))
			require.NoError(s, do(first+3))
			require.Equal(s, 4, runs)
			require.NoError(s, do(first+1), "a duplicate")
			require.Equal(s, 4, runs)
			for range r.Gaps(background, source) {
				s.Error("a gap")
			}
		}
	}},
	{"10 strict numbers that run at the same time", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, _ := s.receiver(receiver.Options{Window: receiver.Strict})
		b := newBlocker()
		first := make(chan error, 1)
		go func() {
			_, err := r.DoSeq(background, "source", 10, b.fn)
			first <- err
		}()
		await(s, b.running, 1)
		_, err := r.DoSeq(background, "source", 11, s.never)
		require.ErrorIs(s, err, receiver.ErrOutOfOrder)
		b.finish("", nil)
		require.NoError(s, await(s, first, 1))
		runs := 0
		_, err = r.DoSeq(background, "source", 11, value("", &runs))
		require.NoError(s, err)
	}},
	{"10 a number that falls behind the window while it runs", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, _ := s.receiver(receiver.Options{Window: 8})
		b, runs := newBlocker(), 0
		slow := make(chan error, 1)
		go func() {
			_, err := r.DoSeq(background, "source", 1, b.fn)
			slow <- err
		}()
		await(s, b.running, 1)
		for seq := uint64(2); seq < 20; seq++ {
			_, err := r.DoSeq(background, "source", seq, value("", &runs))
			require.NoError(s, err)
		}
		b.finish("", nil)
		require.NoError(s, await(s, slow, 1))
		out, err := r.DoSeq(background, "source", 1, s.never)
		require.NoError(s, err, "it has a record of its own")
		require.True(s, out.Replayed)
		_, err = r.DoSeq(background, "source", 2, s.never)
		require.ErrorIs(s, err, receiver.ErrTooOld)
	}},
	{"10 a larger window does not bring back what a smaller one has forgotten", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		small, _ := s.receiver(receiver.Options{Window: 8})
		large, runs := s.plain(), 0
		for seq := uint64(1); seq <= 20; seq++ {
			_, err := small.DoSeq(background, "source", seq, value("", &runs))
			require.NoError(s, err)
		}
		for seq := uint64(1); seq < 12; seq++ {
			_, err := large.DoSeq(background, "source", seq, s.never)
			require.ErrorIs(s, err, receiver.ErrTooOld)
		}
		for seq := uint64(12); seq <= 20; seq++ {
			out, err := large.DoSeq(background, "source", seq, s.never)
			require.NoError(s, err)
			require.True(s, out.Replayed)
		}
	}},
	{"10 strict numbers that begin a source at the same moment", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, _ := s.receiver(receiver.Options{Window: receiver.Strict})
		for round := range 200 {
			source := fmt.Sprint("source ", round)
			results := make(chan error, 2)
			for _, seq := range []uint64{5, 7} {
				go func() {
					runs := 0
					_, err := r.DoSeq(background, source, seq, value("", &runs))
					results <- err
				}()
			}
			refused := 0
			for range 2 {
				if err := await(s, results, 1); err != nil {
					require.ErrorIs(s, err, receiver.ErrOutOfOrder)
					refused++
				}
			}
			require.Equal(s, 1, refused, "one began the source, and the other is not its next")
		}
	}},
	{"10 settling what is not in doubt changes nothing", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, _ := s.receiver(receiver.Options{Window: receiver.Strict})
		require.ErrorIs(s, r.SettleSeq(background, "source", 0, 7, receiver.HappenedNot()), receiver.ErrNotInDoubt)
		runs := 0
		for seq := uint64(1); seq <= 3; seq++ {
			_, err := r.DoSeq(background, "source", seq, value("", &runs))
			require.NoError(s, err)
		}
		require.ErrorIs(s, r.SettleSeq(background, "source", 1, 1, receiver.HappenedNot()), receiver.ErrNotInDoubt)
		_, err := r.DoSeq(background, "source", 4, value("", &runs))
		require.NoError(s, err)
		require.Equal(s, 4, runs)
	}},
	{"10 epochs", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, runs := s.plain(), 0
		do := func(seq, epoch uint64) (receiver.Outcome, error) {
			return r.DoSeq(background, "source", seq, value("v", &runs), receiver.WithEpoch(epoch))
		}
		for _, seq := range []uint64{100, 101} {
			_, err := do(seq, 0)
			require.NoError(s, err)
		}
		out, err := do(1, 5)
		require.NoError(s, err)
		require.False(s, out.Replayed, "a source that begins anew")
		out, err = do(100, 5)
		require.NoError(s, err)
		require.False(s, out.Replayed, "100 of epoch 5 is not 100 of epoch 0")
		_, err = do(102, 0)
		require.ErrorIs(s, err, receiver.ErrFenced)
		_, err = do(102, 4)
		require.ErrorIs(s, err, receiver.ErrFenced)
		out, err = do(1, 5)
		require.NoError(s, err)
		require.True(s, out.Replayed)
		require.Equal(s, 4, runs)
	}},
	{"10 sources are scoped, and never meet keys", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, runs := s.plain(), 0
		var keys []string
		fn := func(ctx context.Context) ([]byte, error) {
			runs++
			key, _ := receiver.KeyFrom(ctx)
			keys = append(keys, key, receiver.Derive(ctx, "step"))
			return []byte("v"), nil
		}
		for _, call := range []func() (receiver.Outcome, error){
			func() (receiver.Outcome, error) { return r.DoSeq(background, "source", 5, fn) },
			func() (receiver.Outcome, error) { return r.Scope("a").DoSeq(background, "source", 5, fn) },
			func() (receiver.Outcome, error) { return r.Do(background, "source#5", fn) },
			func() (receiver.Outcome, error) { return r.Scope("source").Do(background, "\x00\x05", fn) },
			func() (receiver.Outcome, error) { return r.Do(background, "source", fn) },
		} {
			out, err := call()
			require.NoError(s, err)
			require.False(s, out.Replayed)
		}
		require.Equal(s, 5, runs)
		require.Equal(s, keys[0], keys[4], "a name for people")
		derived := map[string]bool{}
		for i := 1; i < len(keys); i += 2 {
			derived[keys[i]] = true
		}
		require.Len(s, derived, 5)
	}},
	{"10 duplicates of a number wait for it", func(s *suite) {
		if s.lacksMarks() {
			return
		}
		r, waiting := s.receiver(receiver.Options{})
		b := newBlocker()
		results := make(chan outcome, 4)
		do := func() {
			out, err := r.DoSeq(background, "source", 5, b.fn)
			results <- outcome{out, err}
		}
		go do()
		await(s, b.running, 1)
		for range 3 {
			go do()
		}
		await(s, waiting, 3)
		b.finish("v", nil)
		replayed := 0
		for range 4 {
			o := await(s, results, 1)
			require.NoError(s, o.err)
			require.Equal(s, "v", string(o.Value))
			if o.Replayed {
				replayed++
			}
		}
		require.Equal(s, 3, replayed)
	}},
}
