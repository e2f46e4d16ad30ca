package oncelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/receiver/receivertest"
	"github.com/oncelog/oncelog/record"
)

func TestPromise12TheReceiver(t *testing.T) {
	receivertest.Run(t, func(t testing.TB) *receivertest.Backend {
		clock := clockAt(time.Now().UnixMilli())
		o := Options{MaxKeySize: 2000, MaxValueSize: 5000, Now: clock.now}
		dir := filepath.Join(t.TempDir(), "store")
		var s *Store
		end := func() {
			if s != nil {
				releaseAll(t, s)
				if err := s.Close(); err != nil {
					require.ErrorIs(t, err, ErrFailed)
				}
				s = nil
			}
		}
		t.Cleanup(end)
		reopen := func() receiver.Store {
			end()
			var err error
			s, err = Open(dir, &o)
			require.NoError(t, err)
			return backend{s}
		}
		b := &receivertest.Backend{
			Store: reopen(), Advance: clock.advance, Reopen: reopen,
			LongestKey: o.MaxKeySize, LargestValue: o.MaxValueSize, ShortTTL: 24 * time.Hour,
		}
		if breakStore != nil {
			b.Break = func() {
				breakStore(t, dir)
				_, _, err := s.PutIfAbsent([]byte("the write that fails"), nil, 0)
				require.ErrorIs(t, err, ErrFailed)
			}
		}
		return b
	})
}

// breakStore makes all writes of an open store fail, where the system allows that.
var breakStore func(t testing.TB, dir string)

// releaseAll ends the claims that a test has left, which Close would wait for.
func releaseAll(t testing.TB, s *Store) {
	for i := range s.leases.shards {
		for _, l := range s.leases.shards[i].m {
			if l.state == leaseRunning {
				require.NoError(t, backend{s}.Release(context.Background(), l.key, l.token))
			}
		}
	}
}

func receiverOf(t testing.TB, s *Store) *receiver.Receiver {
	r, err := s.Receiver(nil)
	require.NoError(t, err)
	return r
}

func returns(v string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(v), nil }
}

func TestReceiverKeysAreAKeyspaceOfTheirOwn(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	_, err := r.Do(t.Context(), "k", returns("receiver's"))
	require.NoError(t, err)
	for _, k := range []string{"k", "\x00k", "tokens"} {
		hasNot(t, s, k)
		require.Equal(t, "", state(t, s, k))
		put(t, s, k, "mine")
	}
	out, err := r.Do(t.Context(), "k", returns("again"))
	require.NoError(t, err)
	require.Equal(t, "receiver's", string(out.Value))
	n := 0
	for rec, err := range s.Records() {
		require.NoError(t, err)
		require.Equal(t, "mine", string(rec.Value))
		n++
	}
	require.Equal(t, 3, n)
	require.EqualValues(t, 4, s.Stats().Keys)
	require.NoError(t, s.Verify())
}

func TestReceiverOfAReadOnlyStore(t *testing.T) {
	s, dir := fresh(t)
	put(t, s, "k", "v")
	require.NoError(t, s.Close())
	r := receiverOf(t, open(t, dir, Options{ReadOnly: true}))
	st, err := r.Lookup(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, receiver.StateAbsent, st.State)
	_, err = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
		t.Error("fn ran")
		return nil, nil
	})
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, r.Forget(t.Context(), "k"), ErrReadOnly)
	require.ErrorIs(t, r.ForgetSource(t.Context(), "s"), ErrReadOnly)
	require.ErrorIs(t, r.Unpark(t.Context(), "t", 1), receiver.ErrNotParked)
}

// Close waits for a running fn and what it records; who comes meanwhile is turned away.
func TestCloseWaitsForARunningDo(t *testing.T) {
	s, dir := fresh(t)
	r := receiverOf(t, s)
	running, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := r.Do(context.Background(), "k", func(context.Context) ([]byte, error) {
			close(running)
			<-end
			return []byte("v"), nil
		})
		done <- err
	}()
	<-running
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Shutdown(ended), context.Canceled)
	_, err := r.Do(t.Context(), "other", returns("v"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = r.Lookup(t.Context(), "k")
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, r.Forget(t.Context(), "k"), ErrClosed)
	close(end)
	require.NoError(t, <-done)
	require.NoError(t, s.Close())

	s = open(t, dir, quick)
	out, err := receiverOf(t, s).Do(t.Context(), "k", returns("again"))
	require.NoError(t, err)
	require.Equal(t, "v", string(out.Value))
	require.True(t, out.Replayed)
}

// A fn that fails or panics, and a Forget, leave nothing that Close would wait for, and no room set aside.
func TestNothingIsLeftOfAClaim(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	no := errors.New("no")
	for range 100 {
		_, err := r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { return nil, no })
		require.Equal(t, no, err)
		require.Panics(t, func() {
			_, _ = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { panic(no) })
		})
		_, err = r.Do(t.Context(), "k", returns("v"))
		require.NoError(t, err)
		require.NoError(t, r.Forget(t.Context(), "k"))
	}
	for i := range s.leases.shards {
		require.Empty(t, s.leases.shards[i].m)
	}
	require.Zero(t, s.log.Stats().Reserved)
	requireNoClaims(t, s)
	require.NoError(t, s.Close())
}

// Tokens grow over restarts, killed ones too, and a claim that left no record counts.
func TestTokensGrowOverCrashes(t *testing.T) {
	s, dir := fresh(t)
	last := uint64(0)
	for range 5 {
		held := s
		t.Cleanup(func() { releaseAll(t, held) })
		for i := range 3 {
			c, err := backend{s}.Claim(t.Context(), receiver.Request{Key: []byte("k")})
			require.NoError(t, err)
			require.Greater(t, c.Token, last)
			last = c.Token
			if i < 2 {
				require.NoError(t, backend{s}.Release(t.Context(), []byte("k"), c.Token))
			}
		}
		dir = crashed(t, dir)
		s = open(t, dir, quick) // what a process held that is gone is free
	}
}

// The limit is raised ahead of use, by one commit however many come at once.
func TestTokensAreRaisedOnce(t *testing.T) {
	s, _ := fresh(t)
	var wg sync.WaitGroup
	seen := make(chan uint64, 64)
	for range 64 {
		wg.Go(func() {
			n, err := s.tokens.next(s)
			if err == nil {
				seen <- n
			}
		})
	}
	wg.Wait()
	close(seen)
	all := map[uint64]bool{}
	for n := range seen {
		require.False(t, all[n])
		all[n] = true
	}
	require.Len(t, all, 64)
	require.EqualValues(t, 1, s.Stats().Commits)

	s.tokens.given = s.tokens.limit - 1
	for i := range uint64(3) {
		n, err := s.tokens.next(s)
		require.NoError(t, err)
		require.EqualValues(t, tokenStep+i, n)
	}
	require.EqualValues(t, 2, s.Stats().Commits)
}

func TestADuplicateAllocatesItsValueOnly(t *testing.T) {
	most := 1.0
	if raced {
		most = 2 // a sync.Pool forgets at random then
	}
	s, _ := fresh(t)
	r := receiverOf(t, s).Scope("scope")
	fn := returns("value")
	ctx := t.Context()
	for range 2 {
		_, err := r.Do(ctx, "order-4711", fn)
		require.NoError(t, err)
	}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		if out, err := r.Do(ctx, "order-4711", fn); err != nil || !out.Replayed {
			t.Fatal(out, err)
		}
	}), most)
}

// A record's Until is never later than the store's clock or the wall's makes it.
func TestUntil(t *testing.T) {
	wall := time.UnixMilli(1_000_000)
	for _, c := range []struct{ expires, now, want int64 }{
		{1_000_500, 1_000_000, 1_000_500},
		{1_000_500, 1_000_200, 1_000_300}, // the store is ahead
		{1_000_500, 999_000, 1_000_500},   // the store is behind
	} {
		require.Equal(t, time.UnixMilli(c.want), until(c.expires, c.now, wall))
	}
	require.Zero(t, until(record.Forever, 0, wall))
}

// A fingerprint that a later version made can't be compared.
func TestAFingerprintOfAnotherAlgorithm(t *testing.T) {
	s, _ := fresh(t)
	c, err := backend{s}.Claim(t.Context(), receiver.Request{Key: []byte("\x00k"), Fingerprint: []byte{2, 'x'}})
	require.NoError(t, err)
	_, err = backend{s}.Complete(t.Context(), []byte("\x00k"), c.Token, receiver.Result{Kind: receiver.KindValue})
	require.NoError(t, err)
	r := receiverOf(t, s)
	_, err = r.Do(t.Context(), "k", returns("again"), receiver.WithPayload(nil))
	require.ErrorIs(t, err, ErrTooNew)
	out, err := r.Do(t.Context(), "k", returns("again"))
	require.NoError(t, err)
	require.True(t, out.Replayed)
}

// A claim's room is its own: when others have taken all the rest, that its work was done can still be recorded.
func TestPromise12AClaimKeepsItsRoom(t *testing.T) {
	o := quick
	o.still = true // what housekeeping writes when there is no room has to be reserved too
	s := open(t, filepath.Join(t.TempDir(), "store"), o)
	c, err := backend{s}.Claim(t.Context(), receiver.Request{Key: []byte("k")})
	require.NoError(t, err)
	var others []int64
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			reserved, err := s.log.Reserve(size)
			if err != nil {
				require.ErrorIs(t, err, ErrFull)
				break
			}
			others = append(others, reserved)
		}
	}
	require.NotEmpty(t, others)
	_, _, err = s.PutIfAbsent([]byte("other"), nil, 0)
	require.ErrorIs(t, err, ErrFull)
	_, err = backend{s}.Complete(t.Context(), []byte("k"), c.Token, receiver.Result{Kind: receiver.KindGone})
	require.NoError(t, err, "what was claimed has its room")
	for _, reserved := range others {
		s.log.Unreserve(reserved)
	}
	require.Zero(t, s.log.Stats().Reserved)
	put(t, s, "other", "v")
}

// More in flight than any segment holds is refused, and clears up.
func TestMoreInFlightThanThereIsRoom(t *testing.T) {
	s, _ := fresh(t)
	var held []uint64
	key := func(i int) []byte { return append(make([]byte, 1000), fmt.Sprint(i)...) }
	var err error
	for {
		var c receiver.Claim
		if c, err = (backend{s}).Claim(t.Context(), receiver.Request{Key: key(len(held))}); err != nil {
			break
		}
		held = append(held, c.Token)
	}
	require.ErrorIs(t, err, ErrFull)
	require.Greater(t, len(held), 10_000)
	_, err = backend{s}.Complete(t.Context(), key(0), held[0], receiver.Result{Kind: receiver.KindGone})
	require.NoError(t, err, "what was claimed has its room")
	for i, token := range held[1:] {
		require.NoError(t, backend{s}.Release(t.Context(), key(i+1), token))
	}
	put(t, s, "k", "v")
	c, err := backend{s}.Claim(t.Context(), receiver.Request{Key: key(1)})
	require.NoError(t, err)
	require.NoError(t, backend{s}.Release(t.Context(), key(1), c.Token))
}

// What was recorded between a claim's look-up and its lease is found by the second look-up.
// Lookup looks for a lease, and then for a record. Somebody may claim the key under an intent in between: what is found
// is an intent without a lease, and nevertheless not a doubt.
func TestWhatIsRunningIsNotInDoubt(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{})
	r := receiverOf(t, s)
	n, err := s.name(record.ReceiverRecords, append([]byte{0}, "key"...))
	require.NoError(t, err)
	state := func() receiver.State {
		c, err := s.inspected(n, receiver.Claim{}, false) // there was no lease when it was looked for
		require.NoError(t, err)
		return c.State
	}
	require.Equal(t, receiver.StateAbsent, state())
	_, err = r.Do(t.Context(), "key", func(context.Context) ([]byte, error) {
		require.Equal(t, receiver.StateInFlight, state())
		return nil, receiver.Unknown(os.ErrDeadlineExceeded)
	}, receiver.WithIntent(nil))
	require.ErrorIs(t, err, receiver.ErrInDoubt)
	require.Equal(t, receiver.StateInDoubt, state())
	require.NoError(t, r.Settle(t.Context(), "key", receiver.Happened(nil)))
	require.Equal(t, receiver.StateDone, state())
}

func TestRecordedBetweenLookUpAndLease(t *testing.T) {
	s, _ := fresh(t)
	n, err := s.name(record.ReceiverRecords, []byte("k"))
	require.NoError(t, err)
	req := receiver.Request{Key: n.key}
	_, ok, err := s.recorded(n, nil)
	require.NoError(t, err)
	require.False(t, ok)
	c, err := backend{s}.Claim(t.Context(), req)
	require.NoError(t, err)
	_, err = backend{s}.Complete(t.Context(), n.key, c.Token, receiver.Result{Kind: receiver.KindValue, Value: []byte("v")})
	require.NoError(t, err)
	l, _, err := s.leases.take(n, nil)
	require.NoError(t, err)
	c, err = backend{s}.admit(n, l, req)
	require.NoError(t, err)
	require.Equal(t, receiver.StateDone, c.State)
	require.Equal(t, "v", string(c.Result.Value))
	s.endLease(l)
}

// Work that was done and could not be recorded is not run again by this process, and does not keep it from closing.
func TestPromise12TheOrphanOfABrokenStore(t *testing.T) {
	if breakStore == nil {
		t.Skip("writes can't be made to fail on this system")
	}
	s, dir := fresh(t)
	r := receiverOf(t, s)
	runs := 0
	out, err := r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
		runs++
		breakStore(t, dir)
		return []byte("v"), nil
	})
	require.ErrorIs(t, err, receiver.ErrUnrecorded)
	require.ErrorIs(t, err, ErrFailed)
	require.Equal(t, "v", string(out.Value))
	for range 2 {
		_, err = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { runs++; return nil, nil })
		require.ErrorIs(t, err, receiver.ErrUnrecorded)
		require.ErrorIs(t, r.Forget(t.Context(), "k"), receiver.ErrUnrecorded)
	}
	require.Equal(t, 1, runs)
	st, err := r.Lookup(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, receiver.StateInFlight, st.State)
	require.ErrorIs(t, s.Close(), ErrFailed)
}

// A record whose result goes before its key does is a key that was handled and has no answer any more.
func TestAResultThatGoesBeforeItsKey(t *testing.T) {
	clock := clockAt(1_000_000_000_000)
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{Now: clock.now})
	n, err := s.name(record.ReceiverRecords, []byte("k"))
	require.NoError(t, err)
	require.NoError(t, s.ready(100))
	c, _ := s.claims.hold(n, nil)
	at := s.clock.millis()
	r := record.Record{
		Kind: record.Result, Receiver: true, Key: n.key, Value: []byte("answer"), At: at, Expires: at + 1000_000,
		Attrs: record.AppendAttributes(nil, &record.Attributes{Token: 1, ResultTTL: 1000}),
	}
	require.NoError(t, s.commit(100, change{c, r}))
	for _, step := range []struct {
		ms   int64
		kind receiver.Kind
	}{{999, receiver.KindValue}, {1, receiver.KindGone}, {998_999, receiver.KindGone}} {
		clock.ms.Add(step.ms)
		claim, err := backend{s}.Claim(context.Background(), receiver.Request{Key: n.key})
		require.NoError(t, err)
		require.Equal(t, receiver.StateDone, claim.State)
		require.Equal(t, step.kind, claim.Result.Kind)
		require.Equal(t, step.kind == receiver.KindValue, string(claim.Result.Value) == "answer")
	}
	clock.ms.Add(1)
	claim, err := backend{s}.Claim(context.Background(), receiver.Request{Key: n.key})
	require.NoError(t, err)
	require.Equal(t, receiver.StateClaimed, claim.State)
	require.NoError(t, backend{s}.Release(context.Background(), n.key, claim.Token))
}
