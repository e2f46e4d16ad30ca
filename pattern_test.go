package oncelog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// What can wait for a transaction lock, or for what its holder holds, is refused inside the fn of a DoTx, whether its
// transaction is used yet or not: on the same goroutine there is nobody left to end the wait. Look-ups and plain writes
// go on.
func TestNothingWaitsForItselfInsideADoTx(t *testing.T) {
	s, _ := fresh(t)
	other, _ := fresh(t)
	r := receiverOf(t, s)
	read := func(*Tx) error { return nil }
	for _, used := range []bool{false, true} {
		_, err := r.DoTx(t.Context(), fmt.Sprint("k", used), func(ctx context.Context, tx receiver.Tx) ([]byte, error) {
			if used {
				require.NoError(t, tx.Set([]byte("state"), []byte("v")))
			}
			for name, call := range map[string]func() error{
				"Update":             func() error { return s.Update(read) },
				"View":               func() error { return s.View(read) },
				"Advance":            func() error { _, err := s.Advance("source", 1); return err },
				"ForgetSource":       func() error { return s.ForgetSource("source") },
				"Compact":            s.Compact,
				"Snapshot":           s.Snapshot,
				"Close":              s.Close,
				"Shutdown":           func() error { return s.Shutdown(ctx) },
				"another store's":    func() error { return other.Update(read) },
				"without its ctx":    func() error { _, err := r.DoTx(context.Background(), "other", useTx); return err },
				"two calls deep":     func() error { return inner(ctx, r, func() error { return s.Update(read) }) },
				"another store's tx": func() error { _, err := receiverOf(t, other).DoTx(ctx, "other", useTx); return err },
			} {
				require.ErrorIs(t, call(), ErrReentrant, name)
			}
			put(t, s, fmt.Sprint("k", used), "v")
			has(t, s, fmt.Sprint("k", used), "v")
			_, _, err := s.HighWater("source")
			require.NoError(t, err)
			require.NoError(t, s.Verify())
			_, err = r.Do(context.Background(), "plain", func(context.Context) ([]byte, error) { return nil, nil })
			require.NoError(t, err)
			_, err = r.DoSeq(ctx, "source", 1, func(context.Context) ([]byte, error) { return nil, nil })
			require.NoError(t, err)
			require.NoError(t, r.Forget(ctx, "plain"))
			return nil, nil
		})
		require.NoError(t, err)
	}
	require.NoError(t, s.Update(read), "outside it nothing is refused")
	require.NoError(t, s.Compact())
}

func useTx(_ context.Context, tx receiver.Tx) ([]byte, error) { return nil, tx.Set([]byte("a"), nil) }

func inner(ctx context.Context, r *receiver.Receiver, call func() error) error {
	_, err := r.Do(ctx, "inner", func(context.Context) ([]byte, error) { return nil, call() })
	return err
}

// Housekeeping waits for a key that a transaction holds; neither it nor anybody else stands still for that.
func TestHousekeepingBesideALongTransaction(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{SegmentSize: 4 << 10, Sync: SyncNever, Pace: -1})
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Set([]byte("state"), make([]byte, 1000)) }))
	for i := range 100 {
		put(t, s, fmt.Sprint("key ", i), string(make([]byte, 100)))
	}
	r := receiverOf(t, s)
	held, end := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := r.DoTx(context.Background(), "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			_, _, err := tx.Get([]byte("state"))
			close(held)
			<-end
			return nil, err
		})
		done <- err
	}()
	<-held
	for i := range 100 {
		_, err := s.Delete(fmt.Append(nil, "key ", i))
		require.NoError(t, err)
	}
	compacted := make(chan error, 1)
	go func() { compacted <- s.Compact() }()
	for i := range 200 { // in use as ever
		put(t, s, fmt.Sprint("more ", i), string(make([]byte, 100)))
		_, err := r.Do(t.Context(), fmt.Sprint("call ", i), func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(t, err)
	}
	close(end)
	require.NoError(t, <-done)
	require.NoError(t, <-compacted)
	requireRecounted(t, s)
}

// A process that dies under an intent leaves a doubt, with its note; one that dies without leaves nothing.
func TestPromise14AnIntentOutlivesItsProcess(t *testing.T) {
	s, dir := fresh(t)
	r := receiverOf(t, s).Scope("tenant")
	images := make(chan string, 2)
	for _, opts := range [][]receiver.CallOption{nil, {receiver.WithIntent([]byte("charge 10")), receiver.WithPayload([]byte("p"))}} {
		_, err := r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
			images <- crashed(t, dir)
			return nil, errors.New("no")
		}, opts...)
		require.Error(t, err)
	}
	s = open(t, <-images, Options{})
	require.Zero(t, s.Stats().Doubts)
	s = open(t, <-images, Options{})
	require.Equal(t, 1, s.Stats().Doubts)
	requireRecounted(t, s)
	for range 2 { // through a snapshot too
		r = receiverOf(t, s)
		n := 0
		for d, err := range r.Doubts(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, receiver.Doubt{Scope: []string{"tenant"}, Key: "k", Note: []byte("charge 10")}, d)
			n++
		}
		require.Equal(t, 1, n)
		for range r.Scope("another").Doubts(t.Context()) {
			t.Error("a doubt of another scope")
		}
		_, err := r.Scope("tenant").Do(t.Context(), "k", func(context.Context) ([]byte, error) {
			t.Error("fn ran")
			return nil, nil
		})
		require.ErrorIs(t, err, receiver.ErrInDoubt)
		_, err = r.Scope("tenant").Do(t.Context(), "k", nil, receiver.WithPayload([]byte("another")))
		require.ErrorIs(t, err, receiver.ErrKeyReused)
		require.NoError(t, s.Compact())
		dir := crashed(t, filepath.Dir(s.house.snapshot.dir))
		require.NoError(t, s.Close())
		s = open(t, dir, Options{})
	}
	require.NoError(t, receiverOf(t, s).Scope("tenant").Settle(t.Context(), "k", receiver.Happened([]byte("v"))))
	require.Zero(t, s.Stats().Doubts)
}

// The intent is durable before fn runs, and the end of it before anybody hears of it.
func TestAnIntentCostsASync(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	nothing := func(context.Context) ([]byte, error) { return nil, nil }
	_, err := r.Do(t.Context(), "first", nothing) // raises the tokens
	require.NoError(t, err)
	before := s.Stats().Commits
	_, err = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
		require.Equal(t, before+1, s.Stats().Commits)
		return nil, nil
	}, receiver.WithIntent(nil))
	require.NoError(t, err)
	require.Equal(t, before+2, s.Stats().Commits)
}

// A batch of a hundred costs one sync.
func TestABatchCostsOneSync(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{})
	r := receiverOf(t, s)
	nothing := func(context.Context) ([]byte, error) { return []byte("v"), nil }
	_, err := r.Do(t.Context(), "first", nothing) // raises the tokens
	require.NoError(t, err)
	var keys, numbers []receiver.Call
	for i := range 100 {
		keys = append(keys, receiver.Call{Key: fmt.Sprint(i), Fn: nothing})
		numbers = append(numbers, receiver.Call{Source: "source", Seq: uint64(i), Fn: nothing})
	}
	for _, calls := range [][]receiver.Call{keys, numbers} {
		before := s.Stats()
		outs, err := r.DoAll(t.Context(), calls)
		require.NoError(t, err)
		require.Len(t, outs, 100)
		after := s.Stats()
		require.EqualValues(t, 1, after.Commits-before.Commits)
		require.EqualValues(t, 1, after.Batches-before.Batches)
		require.EqualValues(t, 1, after.Syncs-before.Syncs)
		_, err = r.DoAll(t.Context(), calls)
		require.NoError(t, err)
		require.Equal(t, after.Commits, s.Stats().Commits, "duplicates write nothing")
	}
}

// A sequence of empty results is one small record that is written again and again, and keys that cost nothing.
func TestASequenceLeavesOneMark(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	for seq := range uint64(3000) {
		if seq%3 == 1 {
			seq = seq - seq%2 // out of order, and again
		}
		_, err := r.DoSeq(t.Context(), "source", seq, func(context.Context) ([]byte, error) { return nil, nil })
		require.NoError(t, err)
	}
	require.Zero(t, s.Stats().Keys)
	require.NoError(t, s.Compact())
	require.Less(t, s.Stats().LiveBytes, int64(300))
	requireRecounted(t, s)
}

// Quotas count what the log holds: over random claims, failures, expiry, deletion, housekeeping and reopenings.
func TestQuotasAreARecountOfTheLog(t *testing.T) {
	clock := clockAt(1_700_000_000_000)
	o := Options{TTL: 32 << 20 * time.Millisecond, RetryWindow: NoRetryWindow, Now: clock.now, Sync: SyncNever, SegmentSize: 16 << 10, Pace: -1, still: true}
	dir := filepath.Join(memoryDir(t), "store")
	s := open(t, dir, o)
	step := int64(1) << stepShift(o.TTL.Milliseconds())
	random := rand.New(rand.NewPCG(3, 3))
	limit := receiver.Quota{Keys: 200, Bytes: 20_000}
	refused, accepted := 0, 0
	for turn := range 60 {
		r, err := s.Receiver(&receiver.Options{Quota: func(string) receiver.Quota { return limit }})
		require.NoError(t, err)
		for range 200 {
			sc := r.Scope(fmt.Sprint("tenant ", random.IntN(4)))
			key := fmt.Sprint("key ", random.IntN(2000))
			switch random.IntN(10) {
			case 0:
				require.NoError(t, sc.Forget(t.Context(), key))
			case 1:
				_, err := sc.Do(t.Context(), key, func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) })
				if errors.Is(err, receiver.ErrInDoubt) {
					_ = sc.Settle(t.Context(), key, receiver.HappenedNot())
				}
			default:
				_, err := sc.Do(t.Context(), key, func(context.Context) ([]byte, error) { return make([]byte, random.IntN(200)), nil })
				if err == nil {
					accepted++
				} else {
					require.ErrorIs(t, err, receiver.ErrQuota)
					refused++
				}
			}
		}
		switch turn % 5 {
		case 0:
			require.NoError(t, s.Close())
			s = open(t, dir, o)
		case 1:
			s.keepHouse()
		case 2:
			require.NoError(t, s.Snapshot())
		case 3:
			require.NoError(t, s.Compact())
		}
		clock.advance(time.Duration(random.Int64N(8*step)) * time.Millisecond)
		// What has expired counts to the end of its step, while the log may have dropped it: so look when they agree.
		now := clock.ms.Load()
		clock.advance(time.Duration((now+step-1)/step*step-now) * time.Millisecond)
		requireRecountedNow(t, s)
		for _, sc := range s.scopes.m {
			require.LessOrEqual(t, sc.keys, limit.Keys)
			require.LessOrEqual(t, sc.bytes, limit.Bytes+300, "the last one may pass it")
		}
	}
	require.Positive(t, refused)
	require.Greater(t, accepted, 1000)
	clock.advance(2 * o.TTL)
	require.NoError(t, s.Compact())
	requireRecountedNow(t, s)
	require.Empty(t, s.scopes.m, "nothing is left to count")
}

// When its result's time is over, a record that is copied leaves the result behind.
func TestACopyLeavesAnOldResultBehind(t *testing.T) {
	clock := clockAt(1_700_000_000_000)
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{Now: clock.now, SegmentSize: 16 << 10})
	r := receiverOf(t, s)
	_, err := r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { return make([]byte, 10_000), nil }, receiver.WithResultTTL(time.Hour))
	require.NoError(t, err)
	// Only a segment that nobody writes to any more is compacted, and where the next one is not ready it goes on.
	passOn := func() {
		last := s.log.Segments()[len(s.log.Segments())-1].Number()
		require.Eventually(t, func() bool {
			put(t, s, "x", string(make([]byte, 100)))
			_, err := s.Delete([]byte("x"))
			require.NoError(t, err)
			retired := s.log.Retired()
			return s.log.Dropped() >= last || len(retired) > 0 && retired[len(retired)-1].Number() >= last
		}, time.Minute, time.Microsecond)
	}
	passOn()
	require.NoError(t, s.Compact())
	require.Greater(t, s.Stats().LiveBytes, int64(10_000))
	clock.advance(time.Hour)
	passOn()
	require.NoError(t, s.Compact())
	require.Less(t, s.Stats().LiveBytes, int64(1000))
	_, err = r.Do(t.Context(), "k", nil)
	require.ErrorIs(t, err, receiver.ErrResultGone)
	requireRecounted(t, s)
}

// A store that is closed ends its Relay.
func TestRelayEndsWithItsStore(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("topic", []byte("m")) }))
	handed := make(chan receiver.Message, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- r.Relay(context.Background(), func(_ context.Context, m receiver.Message) error { handed <- m; return nil })
	}()
	require.Equal(t, "m", string((<-handed).Payload))
	require.ErrorIs(t, receiverOf(t, s).Relay(t.Context(), nil), receiver.ErrRelayed)
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("topic", []byte("n")) }))
	require.Equal(t, "n", string((<-handed).Payload), "it waits for more")
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-ended, ErrClosed)
}

// A panic of publish goes up where Relay was called.
func TestAPanicOfPublish(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("topic", []byte("m")) }))
	require.PanicsWithValue(t, "no", func() {
		_ = r.Relay(t.Context(), func(context.Context, receiver.Message) error { panic("no") })
	})
	for m, err := range r.Outgoing(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, "m", string(m.Payload), "it waits")
	}
}

// A DoTx that fails after it has seen what is staged waits until that is durable: its answer rests on it.
func TestPromise1AFailedDoTxWaitsForWhatItSaw(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	n, err := s.name(record.States, []byte("state"))
	require.NoError(t, err)
	c, err := s.holdCurrent(n)
	require.NoError(t, err)
	_, err = r.Do(t.Context(), "raises the tokens", func(context.Context) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	ch := []change{{c, record.Record{Kind: record.State, At: s.clock.millis(), Expires: record.Forever, Key: []byte("state"), Value: []byte("v")}}}
	commit, err := s.stage(100, 0, ch, nil) // in the queue, and its leader is this test
	require.NoError(t, err)
	s.claims.release(c, true)
	saw, done := make(chan string, 1), make(chan error, 1)
	failed := errors.New("no")
	go func() {
		_, err := r.DoTx(context.Background(), "k", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			v, _, err := tx.Get([]byte("state"))
			saw <- string(v)
			return nil, errors.Join(err, failed)
		})
		done <- err
	}()
	require.Equal(t, "v", <-saw)
	requireWaiting(t, done)
	require.NoError(t, s.settle(commit, ch))
	require.ErrorIs(t, <-done, failed)
}

// requireWaiting gives a call all the time that it would need, and fails if it has answered.
func requireWaiting(t *testing.T, done <-chan error) {
	t.Helper()
	for range 1000 {
		runtime.Gosched()
	}
	select {
	case err := <-done:
		require.Fail(t, "it did not wait", "%v", err)
	case <-time.After(20 * time.Millisecond):
	}
}

// A source that is handled strictly in order may be about to begin, or to have begun, by a transaction that nobody has
// written yet. Who is refused because of it, or runs because of it, waits: a crash could take it, and then the source
// begins with another number.
func TestPromise1AStrictSourceWaitsForItsBeginning(t *testing.T) {
	failed := errors.New("no")
	for _, c := range []struct {
		name  string
		first uint64 // of a mark at 1: 2 says that 1 is awaited, 1 that it was handled
		want  error  // for 2
	}{{"awaited", 2, receiver.ErrOutOfOrder}, {"handled", 1, failed}} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := fresh(t)
			r, err := s.Receiver(&receiver.Options{Window: receiver.Strict})
			require.NoError(t, err)
			_, err = r.Do(t.Context(), "raises the tokens", func(context.Context) ([]byte, error) { return nil, nil })
			require.NoError(t, err)
			n, err := s.name(record.ReceiverMarks, modelSource{"", "source"}.encoded())
			require.NoError(t, err)
			held, err := s.holdCurrent(n)
			require.NoError(t, err)
			m := mark{MarkValue: record.MarkValue{Number: 1}, first: c.first}
			ch := []change{{held, m.record(n.key, s.clock.millis())}}
			commit, err := s.stage(200, 0, ch, nil) // in the queue, and its leader is this test
			require.NoError(t, err)
			s.claims.release(held, true)
			done := make(chan error, 1)
			go func() {
				_, err := r.DoSeq(context.Background(), "source", 2, func(context.Context) ([]byte, error) { return nil, failed })
				done <- err
			}()
			requireWaiting(t, done)
			require.NoError(t, s.settle(commit, ch))
			require.ErrorIs(t, <-done, c.want)
		})
	}
}

// A key that gets its record while it is claimed counts once.
func TestAClaimAndItsRecordCountOnce(t *testing.T) {
	var s scopes
	key := []byte("\x00k") // of the root scope
	two := receiver.Quota{Keys: 2}
	require.NoError(t, s.claim(key, two, 0))
	s.change(key, nil, &compaction.Entry{Expires: record.Forever, Size: 10})
	require.NoError(t, s.claim([]byte("\x00l"), two, 0))
	require.ErrorIs(t, s.claim([]byte("\x00m"), two, 0), receiver.ErrQuota)
	s.unclaim(key)
	require.ErrorIs(t, s.claim([]byte("\x00m"), two, 0), receiver.ErrQuota)
	s.unclaim([]byte("\x00l"))
	require.NoError(t, s.claim([]byte("\x00m"), two, 0))
}

// A batch larger than the log takes at once goes through in parts, and waits for none of its own.
func TestABatchOfManyMegabytes(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	var calls []receiver.Call
	big := make([]byte, 1<<20)
	for i := range 40 {
		calls = append(calls, receiver.Call{Key: fmt.Sprint(i), Fn: func(context.Context) ([]byte, error) { return big, nil }})
	}
	outs, err := r.DoAll(t.Context(), calls)
	require.NoError(t, err)
	require.Len(t, outs, 40)
	requireRecounted(t, s)
}

// What quotas count is the same after a crash, though segments were dropped since the last snapshot.
func TestQuotasOverADrop(t *testing.T) {
	o := quick
	o.SegmentSize, o.still = 16<<10, true
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, o)
	r := receiverOf(t, s)
	for i := range 5 {
		_, err := r.Do(t.Context(), fmt.Sprint("k", i), func(context.Context) ([]byte, error) { return []byte("v"), nil })
		require.NoError(t, err)
	}
	for i := range 60 {
		put(t, s, fmt.Sprint("x", i), string(make([]byte, 1<<10)))
		_, err := s.Delete(fmt.Append(nil, "x", i))
		require.NoError(t, err)
	}
	require.NoError(t, s.Snapshot())
	require.NoError(t, r.Forget(t.Context(), "k4"))
	require.Eventually(t, func() bool { // a segment just sealed is housekeeping's only once its file is closed
		require.NoError(t, s.Compact())
		return s.log.Dropped() > 0
	}, time.Minute, time.Millisecond)
	requireRecountedNow(t, s)
	require.EqualValues(t, 4, s.scopes.m["\x00"].keys)
	s = open(t, crashed(t, dir), o)
	require.EqualValues(t, 4, s.scopes.m["\x00"].keys)
	requireRecountedNow(t, s)
}

// Who waits for a key whose work was done and could not be recorded hears of it.
func TestWhoWaitsForAnOrphanHearsOfIt(t *testing.T) {
	if breakStore == nil {
		t.Skip("nothing here makes a store fail")
	}
	s, dir := fresh(t)
	b := backend{s}
	key := []byte("\x00k")
	c, err := b.Claim(t.Context(), receiver.Request{Key: key})
	require.NoError(t, err)
	second, err := b.Claim(t.Context(), receiver.Request{Key: key})
	require.NoError(t, err)
	require.Equal(t, receiver.StateInFlight, second.State)
	breakStore(t, dir)
	_, err = b.Complete(t.Context(), key, c.Token, receiver.Result{Kind: receiver.KindDoubt})
	require.Error(t, err)
	<-second.Changed
	_, err = b.Claim(t.Context(), receiver.Request{Key: key})
	require.ErrorIs(t, err, receiver.ErrUnrecorded)
}

// A doubt that was resolved, whose work then failed on a store that has failed too: the claim ends all the same.
func TestAResolvedDoubtOnAFailedStore(t *testing.T) {
	if breakStore == nil {
		t.Skip("nothing here makes a store fail")
	}
	s, dir := fresh(t)
	r, err := s.Receiver(&receiver.Options{Resolve: func(context.Context, receiver.Doubt) (receiver.Resolution, error) {
		return receiver.HappenedNot(), nil
	}})
	require.NoError(t, err)
	_, err = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) })
	require.ErrorIs(t, err, receiver.ErrInDoubt)
	failed := errors.New("no")
	_, err = r.Do(t.Context(), "k", func(context.Context) ([]byte, error) {
		breakStore(t, dir)
		return nil, failed
	}, receiver.OnDoubt(receiver.Resolve))
	require.ErrorIs(t, err, failed)
	for i := range s.leases.shards {
		require.Empty(t, s.leases.shards[i].m)
	}
}
