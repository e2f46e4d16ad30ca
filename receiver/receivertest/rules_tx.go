package receivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// lacks reports that the store can't do something, after making sure that it says so before fn runs. try makes a call
// with a fn that must not run.
func (s *suite) lacks(can bool, try func(fn func(context.Context) ([]byte, error)) error) bool {
	s.Helper()
	if can {
		return false
	}
	require.ErrorIs(s, try(s.never), errors.ErrUnsupported)
	return true
}

func (s *suite) lacksTx() bool {
	_, can := s.Store.(receiver.Transactor)
	return s.lacks(can, func(fn func(context.Context) ([]byte, error)) error {
		_, err := s.plain().DoTx(background, "k", func(ctx context.Context, _ receiver.Tx) ([]byte, error) { return fn(ctx) })
		return err
	})
}

// state reads a piece of application state in a transaction of its own.
func (s *suite) state(r *receiver.Receiver, key string) string {
	s.Helper()
	var value []byte
	_, err := r.DoTx(background, "read "+key, func(_ context.Context, tx receiver.Tx) (_ []byte, err error) {
		value, _, err = tx.Get([]byte(key))
		require.NoError(s, err)
		return nil, errRead
	})
	require.ErrorIs(s, err, errRead)
	return string(value)
}

var errRead = errors.New("only read")

type fnTx = func(ctx context.Context, tx receiver.Tx) ([]byte, error)

func (s *suite) neverTx(context.Context, receiver.Tx) ([]byte, error) {
	s.Error("fn ran")
	return nil, nil
}

// set is a fn that sets a piece of state and returns it.
func set(key, value string) fnTx {
	return func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		return []byte(value), tx.Set([]byte(key), []byte(value))
	}
}

// doTx runs DoTx on a goroutine of its own.
func (s *suite) doTx(r *receiver.Receiver, key string, fn fnTx) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		out, err := r.DoTx(background, key, fn)
		c <- outcome{out, err}
	}()
	return c
}

// txRules are about DoTx.
var txRules = []test{
	{"1 DoTx commits state and result together, once", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		runs := 0
		for i := range 3 {
			out, err := r.DoTx(background, "k", func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
				runs++
				got, ok := receiver.TxFrom(ctx)
				require.True(s, ok)
				require.Equal(s, tx, got)
				return set("balance", "10")(ctx, tx)
			})
			require.NoError(s, err)
			require.Equal(s, "10", string(out.Value))
			require.Equal(s, i > 0, out.Replayed)
		}
		require.Equal(s, 1, runs)
		require.Equal(s, "10", s.state(r, "balance"))
		_, err := r.Do(background, "k", s.never)
		require.NoError(s, err, "a key is a key, with a transaction or without")
		_, ok := receiver.TxFrom(background)
		require.False(s, ok)
	}},
	{"1 what a DoTx read is what it commits on", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		const each, callers = 20, 8
		var all sync.WaitGroup
		for c := range callers {
			all.Go(func() {
				for i := range each {
					_, err := r.DoTx(background, fmt.Sprint(c, " ", i), func(_ context.Context, tx receiver.Tx) ([]byte, error) {
						n, _, err := tx.Get([]byte("n"))
						if err != nil {
							return nil, err
						}
						return nil, tx.Set([]byte("n"), append(n, 'x'))
					})
					if err != nil {
						s.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.Len(s, s.state(r, "n"), each*callers)
	}},
	{"3 a DoTx that fails, panics or exits leaves nothing", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		for i, end := range []func(){nil, func() { panic("no") }, runtime.Goexit} {
			failed := errors.New("no")
			done := make(chan error, 1)
			go func() {
				defer func() {
					if i > 0 {
						_ = recover()
						done <- failed
					}
				}()
				_, err := r.DoTx(background, "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
					require.NoError(s, tx.Set([]byte("balance"), []byte("wrong")))
					if end != nil {
						end()
					}
					return nil, failed
				})
				done <- err
			}()
			require.ErrorIs(s, await(s, done, 1), failed)
			require.Empty(s, s.state(r, "balance"))
		}
		out, err := r.DoTx(background, "k", set("balance", "10"))
		require.NoError(s, err)
		require.False(s, out.Replayed)
		require.Equal(s, "10", s.state(r, "balance"))
	}},
	{"3 a permanent failure is recorded and its changes are undone", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		for i := range 2 {
			_, err := r.DoTx(background, "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
				require.Zero(s, i)
				require.NoError(s, tx.Set([]byte("balance"), []byte("wrong")))
				return nil, receiver.Permanent(errors.New("no funds"))
			})
			var stored *receiver.StoredError
			require.ErrorAs(s, err, &stored)
			require.Equal(s, "no funds", stored.Message)
		}
		require.Empty(s, s.state(r, "balance"))
	}},
	{"3 what had been done already commits its changes", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		out, err := r.DoTx(background, "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			require.NoError(s, tx.Set([]byte("balance"), []byte("10")))
			return nil, receiver.Already([]byte("before"))
		})
		require.NoError(s, err)
		require.True(s, out.Replayed)
		require.Equal(s, "before", string(out.Value))
		require.Equal(s, "10", s.state(r, "balance"))
	}},
	{"5 a value too large costs a DoTx its result, not its changes", func(s *suite) {
		if s.lacksTx() {
			return
		}
		s.need(s.LargestValue > 0, "say how large a value may be")
		r := s.plain()
		large := make([]byte, s.LargestValue+1)
		out, err := r.DoTx(background, "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			return large, tx.Set([]byte("balance"), []byte("10"))
		})
		require.NoError(s, err)
		require.Len(s, out.Value, len(large))
		_, err = r.DoTx(background, "k", s.neverTx)
		require.ErrorIs(s, err, receiver.ErrResultGone)
		require.Equal(s, "10", s.state(r, "balance"))
	}},
	{"5 a transaction that can't be committed has not happened", func(s *suite) {
		if s.lacksTx() {
			return
		}
		s.need(s.LargestValue > 0, "say how large a value may be")
		r := s.plain()
		swallowed := 0
		_, err := r.DoTx(background, "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			require.NoError(s, tx.Set([]byte("balance"), []byte("wrong")))
			for i := 0; ; i++ { // more than fits into one transaction
				if err := tx.Set(fmt.Append(nil, "large ", i), make([]byte, s.LargestValue)); err != nil {
					swallowed++
					return []byte("done"), nil
				}
			}
		})
		require.Error(s, err)
		require.Equal(s, 1, swallowed)
		require.NotErrorIs(s, err, receiver.ErrUnrecorded)
		require.Empty(s, s.state(r, "balance"))
		out, err := r.DoTx(background, "k", set("balance", "10"))
		require.NoError(s, err)
		require.False(s, out.Replayed, "the key was free")
	}},
	{"7 a transaction inside a transaction", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		for _, used := range []bool{false, true} {
			key := fmt.Sprint("k", used)
			_, err := r.DoTx(background, key, func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
				if used {
					require.NoError(s, tx.Set([]byte("a"), nil))
				}
				_, err := r.DoTx(ctx, "other", s.neverTx)
				require.ErrorIs(s, err, receiver.ErrReentrant)
				_, err = r.Scope("x").DoTx(ctx, "other", s.neverTx)
				require.ErrorIs(s, err, receiver.ErrReentrant)
				out, err := r.Do(ctx, "between"+key, func(ctx context.Context) ([]byte, error) {
					_, ok := receiver.TxFrom(ctx)
					require.False(s, ok, "the outer transaction is not the inner call's")
					_, err := r.DoTx(ctx, "other", s.neverTx)
					require.ErrorIs(s, err, receiver.ErrReentrant, "two calls deep")
					return []byte("inner"), nil
				})
				require.NoError(s, err)
				return out.Value, nil
			})
			require.NoError(s, err)
		}
		_, err := r.Do(background, "outer", func(ctx context.Context) ([]byte, error) {
			_, err := r.DoTx(ctx, "inner", set("a", "1"))
			return nil, err
		})
		require.NoError(s, err, "inside a plain Do a transaction is welcome")
	}},
	{"7 a circle through the transaction lock", func(s *suite) {
		if s.lacksTx() {
			return
		}
		// The holder of the lock wants key b, whose runner wants the lock. Whoever comes second turns back.
		for _, first := range []string{"lock", "key"} {
			r, waiting := s.receiver(receiver.Options{})
			key := func(name string) string { return name + " " + first }
			holding := make(chan struct{}, 2)
			wantLock, wantKey := make(chan struct{}), make(chan struct{})
			a := s.doTx(r, key("a"), func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
				require.NoError(s, tx.Set([]byte("x"), nil))
				holding <- struct{}{}
				<-wantKey
				_, err := r.Do(ctx, key("b"), func(context.Context) ([]byte, error) { return []byte("by a"), nil })
				return nil, err
			})
			await(s, holding, 1)
			b := s.doTx(r, key("b"), func(_ context.Context, tx receiver.Tx) ([]byte, error) {
				holding <- struct{}{}
				<-wantLock
				return []byte("by b"), tx.Set([]byte("x"), []byte("b"))
			})
			await(s, holding, 1)
			if first == "key" {
				close(wantKey)
				await(s, waiting, 1)
				close(wantLock)
				require.ErrorIs(s, await(s, b, 1).err, receiver.ErrReentrant, "b closes the circle")
				require.NoError(s, await(s, a, 1).err)
				continue
			}
			close(wantLock)
			s.blockedOn(b)
			close(wantKey)
			require.ErrorIs(s, await(s, a, 1).err, receiver.ErrReentrant, "a closes the circle")
			require.NoError(s, await(s, b, 1).err)
		}
	}},
	{"5 a transaction that could not be opened has not happened", func(s *suite) {
		if s.lacksTx() {
			return
		}
		// As above, but the fn that is refused swallows the error and says that it is done.
		r, waiting := s.receiver(receiver.Options{})
		holding, go1 := make(chan struct{}, 2), make(chan struct{})
		a := s.doTx(r, "a", func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
			require.NoError(s, tx.Set([]byte("x"), nil))
			holding <- struct{}{}
			<-go1
			_, err := r.Do(ctx, "b", func(context.Context) ([]byte, error) { return []byte("by a"), nil })
			return nil, err
		})
		await(s, holding, 1)
		go2 := make(chan struct{})
		b := s.doTx(r, "b", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			holding <- struct{}{}
			<-go2
			_ = tx.Set([]byte("x"), []byte("b"))
			return []byte("by b"), nil
		})
		await(s, holding, 1)
		close(go1)
		await(s, waiting, 1)
		close(go2)
		require.ErrorIs(s, await(s, b, 1).err, receiver.ErrReentrant, "it set nothing")
		require.NoError(s, await(s, a, 1).err)
		out, err := r.Do(background, "b", s.never)
		require.NoError(s, err)
		require.Equal(s, "by a", string(out.Value))
	}},
	{"7 slow work before the transaction is used delays nobody", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		slow := make(chan struct{})
		running := make(chan struct{}, 1)
		first := s.doTx(r, "slow", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			running <- struct{}{}
			<-slow // as long as it takes
			return nil, tx.Set([]byte("slow"), []byte("done"))
		})
		await(s, running, 1)
		for i := range 20 {
			_, err := r.DoTx(background, fmt.Sprint("quick ", i), set("quick", fmt.Sprint(i)))
			require.NoError(s, err)
		}
		close(slow)
		require.NoError(s, await(s, first, 1).err)
		require.Equal(s, "done", s.state(r, "slow"))
	}},
	{"7 a transaction is over when fn has returned", func(s *suite) {
		if s.lacksTx() {
			return
		}
		r := s.plain()
		for _, use := range []bool{false, true} {
			var kept receiver.Tx
			_, err := r.DoTx(background, fmt.Sprint("k", use), func(_ context.Context, tx receiver.Tx) ([]byte, error) {
				kept = tx
				if use {
					return nil, tx.Set([]byte("a"), nil)
				}
				return nil, nil
			})
			require.NoError(s, err)
			_, _, err = kept.Get([]byte("a"))
			require.ErrorIs(s, err, receiver.ErrTxDone)
			require.ErrorIs(s, kept.Set([]byte("a"), nil), receiver.ErrTxDone)
			require.ErrorIs(s, kept.Delete([]byte("a")), receiver.ErrTxDone)
			require.ErrorIs(s, kept.Emit("t", nil), receiver.ErrTxDone)
			_, err = kept.Advance("s", 1)
			require.ErrorIs(s, err, receiver.ErrTxDone)
		}
	}},
	{"10 DoSeqTx moves the mark with the state", func(s *suite) {
		if s.lacksTx() || s.lacksMarks() {
			return
		}
		r := s.plain()
		failed := errors.New("no")
		_, err := r.DoSeqTx(background, "source", 7, func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			require.NoError(s, tx.Set([]byte("n"), []byte("wrong")))
			return nil, failed
		})
		require.ErrorIs(s, err, failed)
		_, ok, err := r.HighWater(background, "source")
		require.NoError(s, err)
		require.False(s, ok)
		for i := range 2 {
			out, err := r.DoSeqTx(background, "source", 7, set("n", "7"))
			require.NoError(s, err)
			require.Equal(s, i > 0, out.Replayed)
			require.Equal(s, "7", string(out.Value))
		}
		require.Equal(s, "7", s.state(r, "n"))
		seq, ok, err := r.HighWater(background, "source")
		require.NoError(s, err)
		require.True(s, ok)
		require.EqualValues(s, 7, seq)
	}},
	{"messages are emitted with the result, and handed on in order", func(s *suite) {
		if s.lacksTx() {
			return
		}
		if _, ok := s.Store.(receiver.Outbox); !ok {
			return
		}
		r := s.plain()
		emit := func(key string, err error, payloads ...string) {
			_, got := r.DoTx(background, key, func(_ context.Context, tx receiver.Tx) ([]byte, error) {
				for _, p := range payloads {
					require.NoError(s, tx.Emit("mail", []byte(p)))
					require.NoError(s, tx.Emit("log", []byte(p)))
				}
				return nil, err
			})
			require.ErrorIs(s, got, err)
		}
		emit("a", nil, "1", "2")
		emit("b", errors.New("no"), "lost")
		emit("c", nil, "3")
		emit("a", nil, "not again")
		var waiting []string
		keys := map[string]bool{}
		for m, err := range r.Outgoing(background) {
			require.NoError(s, err)
			waiting = append(waiting, m.Topic+string(m.Payload))
			keys[m.Key] = true
		}
		slices.Sort(waiting)
		require.Equal(s, []string{"log1", "log2", "log3", "mail1", "mail2", "mail3"}, waiting)
		require.Len(s, keys, 6, "each with a key of its own")
		got := s.relay(r, 6, func(m receiver.Message) error { return nil })
		require.Equal(s, []string{"1", "2", "3"}, got["mail"])
		require.Equal(s, []string{"1", "2", "3"}, got["log"])
		for range r.Outgoing(background) {
			s.Error("it was handed on")
		}
	}},
	{"a message that is refused is parked, and one that fails waits", func(s *suite) {
		if s.lacksTx() {
			return
		}
		if _, ok := s.Store.(receiver.Outbox); !ok {
			return
		}
		r := s.plain()
		_, err := r.DoTx(background, "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			for _, p := range []string{"1", "poison", "3"} {
				require.NoError(s, tx.Emit("bad", []byte(p)))
			}
			require.NoError(s, tx.Emit("failing", []byte("again and again")))
			return nil, tx.Emit("good", []byte("1"))
		})
		require.NoError(s, err)
		tries, keys := 0, map[string]bool{}
		got := s.relay(r, 4, func(m receiver.Message) error {
			switch {
			case m.Topic == "failing":
				keys[m.Key] = true
				if tries++; tries < 3 {
					return errors.New("later")
				}
			case string(m.Payload) == "poison":
				return receiver.Permanent(errors.New("no such address"))
			}
			return nil
		})
		require.Equal(s, map[string][]string{"bad": {"1", "3"}, "good": {"1"}, "failing": {"again and again"}}, got)
		require.Len(s, keys, 1, "the same key each time")
		var parked []receiver.Message
		for m, err := range r.Parked(background) {
			require.NoError(s, err)
			parked = append(parked, m)
		}
		require.Len(s, parked, 1)
		require.Equal(s, "poison", string(parked[0].Payload))
		require.Equal(s, "no such address", parked[0].Reason)
		require.NoError(s, r.Unpark(background, "bad", parked[0].Ordinal))
		require.ErrorIs(s, r.Unpark(background, "bad", parked[0].Ordinal), receiver.ErrNotParked)
		var again receiver.Message
		got = s.relay(r, 1, func(m receiver.Message) error { again = m; return nil })
		require.Equal(s, map[string][]string{"bad": {"poison"}}, got)
		require.Equal(s, parked[0].Key, again.Key)
	}},
}

// relay runs a Relay until so many messages were handed on, and returns their payloads by topic.
func (s *suite) relay(r *receiver.Receiver, n int, publish func(m receiver.Message) error) map[string][]string {
	s.Helper()
	ctx, stop := context.WithTimeout(background, deadline)
	defer stop()
	var mu sync.Mutex
	got := map[string][]string{}
	err := r.Relay(ctx, func(_ context.Context, m receiver.Message) error {
		mu.Lock()
		defer mu.Unlock()
		err := publish(m)
		if err == nil {
			got[m.Topic] = append(got[m.Topic], string(m.Payload))
			if n--; n == 0 {
				stop()
			}
		}
		return err
	})
	require.ErrorIs(s, err, context.Canceled)
	return got
}

// blockedOn returns when a goroutine of DoTx waits for the transaction lock: nothing but its stack tells.
func (s *suite) blockedOn(<-chan outcome) {
	buf := make([]byte, 1<<20)
	for end := time.Now().Add(deadline); time.Now().Before(end); runtime.Gosched() {
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "sync.Mutex.Lock") && strings.Contains(g, ".Begin(") {
				return
			}
		}
	}
	require.FailNow(s, "nobody waits for the lock")
}
