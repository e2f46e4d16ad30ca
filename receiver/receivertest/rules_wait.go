package receivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// waitRules are about duplicates of a key that is running.
var waitRules = []test{
	{"1 ten thousand duplicates run fn once and leave no goroutine", func(s *suite) {
		const n = 10_000
		before := runtime.NumGoroutine()
		r, waiting := s.receiver(receiver.Options{})
		var runs atomic.Int64
		end := make(chan struct{})
		results := make(chan outcome, n)
		for range n {
			go func() {
				out, err := r.Do(background, "k", func(context.Context) ([]byte, error) {
					runs.Add(1)
					<-end
					return []byte("v"), nil
				})
				results <- outcome{out, err}
			}()
		}
		await(s, waiting, n-1)
		close(end)
		fresh := 0
		for range n {
			o := await(s, results, 1)
			require.NoError(s, o.err)
			require.Equal(s, "v", string(o.Value))
			if !o.Replayed {
				fresh++
			}
		}
		require.Equal(s, int64(1), runs.Load())
		require.Equal(s, 1, fresh)
		require.Eventually(s, func() bool { return runtime.NumGoroutine() <= before+5 }, deadline, time.Millisecond)
	}},
	{"1 every waiter has a value of its own", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b := newBlocker()
		all := []<-chan outcome{s.do(background, r, "k", b.fn)}
		await(s, b.running, 1)
		for range 8 {
			all = append(all, s.do(background, r, "k", s.never))
		}
		await(s, waiting, 8)
		b.finish("value", nil)
		for _, c := range all {
			o := await(s, c, 1)
			require.Equal(s, "value", string(o.Value))
			scribble(o.Value)
		}
	}},
	{"3 a failed run hands over to the longest waiting", func(s *suite) {
		for _, how := range []string{"error", "panic", "exit"} {
			r, waiting := s.receiver(receiver.Options{})
			key := "k " + how
			mine := errors.New("mine")
			const n = 5
			ran := make(chan int, n+1)
			proceed := make(chan struct{})
			results := make([]chan outcome, n)
			for i := range n {
				results[i] = make(chan outcome, 1)
				go func() {
					finished := false
					defer func() {
						p := recover()
						if !finished {
							results[i] <- outcome{err: fmt.Errorf("left by %v", p)}
						}
					}()
					out, err := r.Do(background, key, func(context.Context) ([]byte, error) {
						ran <- i
						<-proceed
						if i == n-1 {
							return []byte("v"), nil
						}
						switch how {
						case "panic":
							panic(i)
						case "exit":
							runtime.Goexit()
						}
						return nil, fmt.Errorf("%d: %w", i, mine)
					})
					finished = true
					results[i] <- outcome{out, err}
				}()
				if i == 0 {
					await(s, ran, 1)
				} else {
					await(s, waiting, 1) // the order in which they came
				}
			}
			for i := range n - 1 {
				proceed <- struct{}{}
				require.Equal(s, i+1, await(s, ran, 1), "the next in line runs its own fn")
				o := await(s, results[i], 1)
				require.Error(s, o.err)
				if how == "error" {
					require.Equal(s, fmt.Sprintf("%d: mine", i), o.err.Error(), "nobody gets another's error")
				}
				require.Empty(s, ran, "and nobody else runs")
			}
			proceed <- struct{}{}
			o := await(s, results[n-1], 1)
			require.NoError(s, o.err)
			require.False(s, o.Replayed)
		}
	}},
	{"3 the turn outlives waiters that leave", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r, "k")
		ctx, cancel := context.WithCancel(background)
		leaves := s.do(ctx, r, "k", s.never)
		await(s, waiting, 1)
		stays := s.do(background, r, "k", func(context.Context) ([]byte, error) { return []byte("mine"), nil })
		await(s, waiting, 1)
		cancel()
		require.ErrorIs(s, await(s, leaves, 1).err, receiver.ErrInFlight)
		b.finish("", errors.New("no"))
		require.Error(s, await(s, first, 1).err)
		o := await(s, stays, 1)
		require.NoError(s, o.err)
		require.Equal(s, "mine", string(o.Value))
		require.False(s, o.Replayed)
	}},
	{"3 who comes late does not push in", func(s *suite) {
		r, waiting := s.receiver(receiver.Options{})
		b, next := newBlocker(), newBlocker()
		first := s.do(background, r, "k", b.fn)
		await(s, b.running, 1)
		second := s.do(background, r, "k", next.fn)
		await(s, waiting, 1)
		b.finish("", errors.New("no"))
		require.Error(s, await(s, first, 1).err)
		late := s.do(background, r, "k", s.never)
		await(s, next.running, 1)
		await(s, waiting, 1)
		next.finish("second", nil)
		require.False(s, await(s, second, 1).Replayed)
		require.Equal(s, "second", string(await(s, late, 1).Value))
	}},
	{"3 two receivers over one store share the line", func(s *suite) {
		r1, _ := s.receiver(receiver.Options{})
		r2, waiting := s.receiver(receiver.Options{})
		b, first := s.running(r1.Scope("a"), "k")
		second := s.do(background, r2.Scope("a"), "k", s.never)
		await(s, waiting, 1)
		b.finish("v", nil)
		require.NoError(s, await(s, first, 1).err)
		require.Equal(s, "v", string(await(s, second, 1).Value))
	}},
	{"duplicates wait as long as they are told", func(s *suite) {
		for _, c := range []struct {
			opts receiver.Options
			call []receiver.CallOption
		}{
			{receiver.Options{InFlight: receiver.Reject}, nil},
			{receiver.Options{}, []receiver.CallOption{receiver.WithWait(0)}},
			{receiver.Options{}, []receiver.CallOption{receiver.WithWait(time.Millisecond)}},
			{receiver.Options{InFlight: receiver.Reject}, []receiver.CallOption{receiver.WithWait(time.Millisecond)}},
		} {
			r, _ := s.receiver(c.opts)
			b, first := s.running(r, "k")
			require.ErrorIs(s, await(s, s.do(background, r, "k", s.never, c.call...), 1).err, receiver.ErrInFlight)
			b.finish("", errors.New("no"))
			require.Error(s, await(s, first, 1).err)
		}
		// Reject is what duplicates do, unless the call says otherwise.
		r, waiting := s.receiver(receiver.Options{InFlight: receiver.Reject})
		b, first := s.running(r, "k")
		second := s.do(background, r, "k", s.never, receiver.WithWait(time.Hour))
		await(s, waiting, 1)
		b.finish("v", nil)
		require.NoError(s, await(s, first, 1).err)
		require.NoError(s, await(s, second, 1).err)
	}},
}
