package receivertest

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// contract is what a store must do, without a receiver.
var contract = []test{
	{"a new key is claimed once", func(s *suite) {
		c := s.claim("k")
		require.Equal(s, receiver.StateClaimed, c.State)
		require.NotZero(s, c.Token)
		require.Equal(s, receiver.StateInFlight, s.claim("k").State)
		require.Equal(s, receiver.StateClaimed, s.claim("other").State)
	}},
	{"one of many claims wins", func(s *suite) {
		const n = 100
		var wg sync.WaitGroup
		states := make(chan receiver.State, n)
		for range n {
			wg.Go(func() {
				c, err := s.Store.Claim(background, receiver.Request{Key: []byte("k")})
				if err == nil {
					states <- c.State
				}
			})
		}
		wg.Wait()
		close(states)
		count := map[receiver.State]int{}
		for st := range states {
			count[st]++
		}
		require.Equal(s, map[receiver.State]int{receiver.StateClaimed: 1, receiver.StateInFlight: n - 1}, count)
	}},
	{"a completed key has its result", func(s *suite) {
		for _, res := range []receiver.Result{
			{Kind: receiver.KindValue, Value: []byte("v\x00\xff")},
			{Kind: receiver.KindValue, Value: []byte{}},
			{Kind: receiver.KindFailure, Code: "E1", Message: "no"},
			{Kind: receiver.KindFailure, Message: ""},
			{Kind: receiver.KindGone},
		} {
			key := "k" + string(rune('0'+res.Kind)) + res.Code + string(res.Value)
			c := s.claimWith(receiver.Request{Key: []byte(key), Fingerprint: fingerprint("p")})
			until := s.complete(key, c.Token, res)
			got := s.claimWith(receiver.Request{Key: []byte(key), Fingerprint: fingerprint("p")})
			require.Equal(s, receiver.StateDone, got.State)
			require.Equal(s, res.Kind, got.Result.Kind)
			require.Equal(s, string(res.Value), string(got.Result.Value))
			require.Equal(s, res.Code, got.Result.Code)
			require.Equal(s, res.Message, got.Result.Message)
			require.Equal(s, fingerprint("p"), got.Fingerprint)
			require.WithinDuration(s, until, got.Until, time.Second)
		}
	}},
	{"a released key is free, and tokens grow", func(s *suite) {
		last := uint64(0)
		for range 10 {
			c := s.claim("k")
			require.Equal(s, receiver.StateClaimed, c.State)
			require.Greater(s, c.Token, last)
			last = c.Token
			require.NoError(s, s.Store.Release(background, []byte("k"), c.Token))
		}
	}},
	{"a claim that is over can do nothing", func(s *suite) {
		old := s.claim("k")
		require.NoError(s, s.Store.Release(background, []byte("k"), old.Token))
		require.ErrorIs(s, s.Store.Release(background, []byte("k"), old.Token), receiver.ErrStaleToken)
		c := s.claim("k")
		_, err := s.Store.Complete(background, []byte("k"), old.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("old")})
		require.ErrorIs(s, err, receiver.ErrStaleToken)
		require.ErrorIs(s, s.Store.Release(background, []byte("k"), old.Token), receiver.ErrStaleToken)
		require.Equal(s, receiver.StateInFlight, s.claim("k").State)
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("new")})
		require.ErrorIs(s, s.Store.Release(background, []byte("k"), c.Token), receiver.ErrStaleToken)
		require.Equal(s, "new", string(s.claim("k").Result.Value))
	}},
	{"completing again changes nothing", func(s *suite) {
		c := s.claim("k")
		until := s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("first")})
		again := s.complete("k", c.Token, receiver.Result{Kind: receiver.KindGone})
		require.WithinDuration(s, until, again, time.Second)
		require.Equal(s, "first", string(s.claim("k").Result.Value))
	}},
	{"a refused result leaves the claim", func(s *suite) {
		s.need(s.LargestValue > 0, "send a value that is too large")
		c := s.claim("k")
		_, err := s.Store.Complete(background, []byte("k"), c.Token, receiver.Result{
			Kind: receiver.KindValue, Value: make([]byte, s.LargestValue+1),
		})
		require.Error(s, err)
		require.NotErrorIs(s, err, receiver.ErrStaleToken)
		require.Equal(s, receiver.StateInFlight, s.claim("k").State)
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindGone})
		require.Equal(s, receiver.KindGone, s.claim("k").Result.Kind)
	}},
	{"the largest value comes back", func(s *suite) {
		s.need(s.LargestValue > 0, "send a value that is as large as can be")
		v := bytes.Repeat([]byte("v"), s.LargestValue)
		c := s.claim("k")
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, Value: v})
		require.True(s, bytes.Equal(v, s.claim("k").Result.Value))
	}},
	{"records end with their TTL", func(s *suite) {
		s.need(s.Advance != nil, "move its clock")
		c := s.claimWith(receiver.Request{Key: []byte("k"), TTL: 48 * time.Hour})
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, TTL: 48 * time.Hour})
		s.Advance(48*time.Hour - time.Millisecond)
		require.Equal(s, receiver.StateDone, s.claim("k").State)
		s.Advance(time.Millisecond)
		next := s.claim("k")
		require.Equal(s, receiver.StateClaimed, next.State)
		require.Greater(s, next.Token, c.Token)
	}},
	{"the TTL counts from the commit", func(s *suite) {
		s.need(s.Advance != nil, "move its clock")
		c := s.claimWith(receiver.Request{Key: []byte("k"), TTL: 48 * time.Hour})
		s.Advance(30 * time.Second)
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, TTL: 48 * time.Hour})
		s.Advance(48*time.Hour - time.Millisecond)
		require.Equal(s, receiver.StateDone, s.claim("k").State)
	}},
	{"results and tokens outlast a restart", func(s *suite) {
		s.need(s.Reopen != nil, "restart")
		done := s.claimWith(receiver.Request{Key: []byte("done"), Fingerprint: fingerprint("p")})
		s.complete("done", done.Token, receiver.Result{Kind: receiver.KindFailure, Code: "c", Message: "m"})
		freed := s.claim("freed")
		require.NoError(s, s.Store.Release(background, []byte("freed"), freed.Token))
		s.Store = s.Reopen()
		c := s.claim("done")
		require.Equal(s, receiver.StateDone, c.State)
		require.Equal(s, receiver.Result{Kind: receiver.KindFailure, Code: "c", Message: "m", Value: c.Result.Value}, c.Result)
		require.Equal(s, fingerprint("p"), c.Fingerprint)
		again := s.claim("freed")
		require.Greater(s, again.Token, max(freed.Token, done.Token))
		require.Equal(s, done.Token, s.tokenOf("done", done.Token))
	}},
	{"who waits is told, or polls", func(s *suite) {
		for _, end := range []func(token uint64){
			func(token uint64) { require.NoError(s, s.Store.Release(background, []byte("k"), token)) },
			func(token uint64) { s.complete("k", token, receiver.Result{Kind: receiver.KindGone}) },
		} {
			c := s.claim("k")
			other := s.claim("k")
			require.Equal(s, receiver.StateInFlight, other.State)
			if other.Changed == nil {
				return // it polls
			}
			select {
			case <-other.Changed:
				require.Fail(s, "nothing has changed")
			default:
			}
			end(c.Token)
			await(s, other.Changed, 1)
		}
	}},
	{"arguments are not kept", func(s *suite) {
		key, fp, v := []byte("key"), fingerprint("p"), []byte("value")
		c := s.claimWith(receiver.Request{Key: key, Fingerprint: fp})
		scribble(key, fp)
		key = []byte("key")
		_, err := s.Store.Complete(background, key, c.Token, receiver.Result{Kind: receiver.KindValue, Value: v})
		require.NoError(s, err)
		scribble(key, v)
		got := s.claim("key")
		require.Equal(s, receiver.StateDone, got.State)
		require.Equal(s, "value", string(got.Result.Value))
		require.Equal(s, fingerprint("p"), got.Fingerprint)
	}},
	{"what is returned is the caller's", func(s *suite) {
		c := s.claimWith(receiver.Request{Key: []byte("k"), Fingerprint: fingerprint("p")})
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("value")})
		got := s.claim("k")
		scribble(got.Result.Value, got.Fingerprint)
		_ = append(got.Result.Value, "and more"...)
		got = s.claim("k")
		require.Equal(s, "value", string(got.Result.Value))
		require.Equal(s, fingerprint("p"), got.Fingerprint)
	}},
	{"keys are bytes", func(s *suite) {
		keys := []string{"\x00", "\x00\x00", "a", "a\x00", "ä", "\xff\xfe", "a/b", strings.Repeat("k", 200)}
		for _, k := range keys {
			c := s.claim(k)
			require.Equal(s, receiver.StateClaimed, c.State, "%q", k)
			s.complete(k, c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte(k)})
		}
		for _, k := range keys {
			require.Equal(s, k, string(s.claim(k).Result.Value))
		}
	}},
	{"what can be refused is refused by Claim", func(s *suite) {
		if s.LongestKey > 0 {
			_, err := s.Store.Claim(background, receiver.Request{Key: make([]byte, s.LongestKey+1)})
			require.Error(s, err)
			require.Equal(s, receiver.StateClaimed, s.claim(strings.Repeat("k", s.LongestKey)).State)
		}
		for _, ttl := range []time.Duration{-1, s.ShortTTL} {
			if ttl != 0 {
				_, err := s.Store.Claim(background, receiver.Request{Key: []byte("k"), TTL: ttl})
				require.Error(s, err)
			}
		}
		require.Equal(s, receiver.StateClaimed, s.claim("k").State)
	}},
	{"inspecting changes nothing", func(s *suite) {
		in, ok := s.Store.(receiver.Inspector)
		s.need(ok, "be asked about keys")
		state := func() receiver.State {
			c, err := in.Inspect(background, []byte("k"))
			require.NoError(s, err)
			return c.State
		}
		require.Equal(s, receiver.StateAbsent, state())
		c := s.claim("k")
		require.Equal(s, receiver.StateInFlight, state())
		require.ErrorIs(s, in.Forget(background, []byte("k")), receiver.ErrInFlight)
		s.complete("k", c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("v")})
		require.Equal(s, receiver.StateDone, state())
		require.NoError(s, in.Forget(background, []byte("k")))
		require.Equal(s, receiver.StateAbsent, state())
		require.NoError(s, in.Forget(background, []byte("k")))
		next := s.claim("k")
		require.Equal(s, receiver.StateClaimed, next.State)
		require.Greater(s, next.Token, c.Token)
		_, err := s.Store.Complete(background, []byte("k"), c.Token, receiver.Result{Kind: receiver.KindGone})
		require.ErrorIs(s, err, receiver.ErrStaleToken)
	}},
}

func (s *suite) claim(key string) receiver.Claim {
	s.Helper()
	return s.claimWith(receiver.Request{Key: []byte(key)})
}

func (s *suite) claimWith(req receiver.Request) receiver.Claim {
	s.Helper()
	c, err := s.Store.Claim(background, req)
	require.NoError(s, err)
	return c
}

func (s *suite) complete(key string, token uint64, res receiver.Result) time.Time {
	s.Helper()
	until, err := s.Store.Complete(background, []byte(key), token, res)
	require.NoError(s, err)
	return until
}

// tokenOf shows that the claim with this token completed the key: completing again succeeds.
func (s *suite) tokenOf(key string, token uint64) uint64 {
	s.Helper()
	s.complete(key, token, receiver.Result{Kind: receiver.KindGone})
	return token
}

// fingerprint is 17 bytes, the first of which names the algorithm.
func fingerprint(of string) []byte {
	return append([]byte{1}, (of + strings.Repeat(".", 16))[:16]...)
}

func scribble(bs ...[]byte) {
	for _, b := range bs {
		for i := range b {
			b[i] = '#'
		}
	}
}
