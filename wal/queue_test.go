package wal

import (
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// answer runs f on a goroutine of its own and returns where its answer will be.
func answer(f func() error) chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

// silent checks that there is no answer although every goroutine of the bubble has done what it can.
func silent(t *testing.T, c chan error, why string) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-c:
		require.Fail(t, why, "it answered %v", err)
	default:
	}
}

// Nobody has an answer before the leader has written and synced, and then everybody has.
func TestEveryoneWaitsForTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small(0)
		l := reopen(t, create(t, o), o, []string{})
		require.NoError(t, l.Ready(10))
		all := queue(t, l, "leads", "follows", "is seen")
		follows := answer(func() error { return l.Wait(all[1]) })
		var saw []chan error
		for _, c := range all {
			saw = append(saw, answer(func() error { return l.Await(c) }))
		}
		silent(t, follows, "the batch is not written")
		for _, c := range saw {
			silent(t, c, "the batch is not written")
		}
		require.Zero(t, l.Visible())
		require.Zero(t, l.Stats().Batches)

		require.NoError(t, l.Wait(all[0]))
		require.EqualValues(t, 3, l.Visible())
		require.NoError(t, <-follows)
		for i, c := range saw {
			require.NoError(t, <-c)
			require.NoError(t, l.Await(all[i]), "later as well")
		}
		require.NoError(t, l.Wait(all[2]))
		require.EqualValues(t, 1, l.Stats().Batches)
		require.NoError(t, l.Close())
	})
}

// holdWrites keeps the leader from writing to the active segment until release is called: it waits for the
// library's own lock.
func holdWrites(l *Log) (release func()) {
	lock := (*sync.RWMutex)(unsafe.Pointer(reflect.ValueOf(l.active.Load().lib).Elem().FieldByName("mu").UnsafeAddr()))
	lock.Lock()
	return lock.Unlock
}

// flying waits until a leader has taken the queue.
func flying(t *testing.T, l *Log) {
	t.Helper()
	until(t, "a leader writes", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.flying != nil
	})
}

// The next batch gathers while one is being written. Its first caller leads it, once the leader before is done, and
// all of it is one write.
func TestTheNextBatchGathersMeanwhile(t *testing.T) {
	o := small(0)
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	require.NoError(t, l.Ready(10))
	release := holdWrites(l)
	one := queue(t, l, "1", "2")
	first := answer(func() error { return l.Wait(one[0]) })
	flying(t, l)
	two := queue(t, l, "3", "4", "5")
	require.NotSame(t, one[0].batch, two[0].batch)
	var answers []chan error
	for _, c := range []*Commit{two[1], one[1], two[0], two[2]} {
		answers = append(answers, answer(func() error { return l.Wait(c) }))
	}
	seen := answer(func() error { return l.Await(two[0]) })
	require.Zero(t, l.Visible())
	require.Empty(t, first)
	require.Empty(t, seen)
	release()
	require.NoError(t, <-first)
	require.NoError(t, <-seen)
	for _, c := range answers {
		require.NoError(t, <-c)
	}
	require.EqualValues(t, 2, l.Stats().Batches)
	require.EqualValues(t, 5, l.Stats().Commits)
	require.NoError(t, l.Close())
	holds(t, dir, o, []string{"1", "2", "3", "4", "5"})
}

// The newest transaction leads whenever nobody does: a leader that finds nothing behind it hands the lead to nobody.
func TestTheLeadIsGivenBack(t *testing.T) {
	o := small(0)
	l := reopen(t, create(t, o), o, []string{})
	for i := range 3 {
		require.NoError(t, l.Ready(10))
		c := queue(t, l, "alone")[0]
		require.True(t, c.leads, i)
		require.NoError(t, l.Wait(c))
		require.False(t, l.leading)
	}
}

// With Options.Sync > 0 the log is synced each time that this has passed and something is new, and not otherwise.
func TestSyncEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := small(time.Minute)
		dir := create(t, o)
		l := reopen(t, dir, o, []string{})
		require.NoError(t, l.Ready(10))
		begun := l.Stats().Syncs
		for i, p := range []string{"1", "2"} {
			_, err := commit(l, p)
			require.NoError(t, err)
			require.EqualValues(t, i, l.synced.Load())
			require.EqualValues(t, i+1, l.Visible(), "acknowledged before it is synced")
			require.EqualValues(t, int(begun)+i, l.Stats().Syncs)
			time.Sleep(time.Minute) // the bubble's clock: it stands still while anything runs
			synctest.Wait()
			require.EqualValues(t, i+1, l.synced.Load())
			require.EqualValues(t, int(begun)+i+1, l.Stats().Syncs)
			time.Sleep(time.Hour)
			synctest.Wait()
			require.EqualValues(t, int(begun)+i+1, l.Stats().Syncs, "nothing is new")
		}
		_, err := commit(l, "3")
		require.NoError(t, err)
		require.NoError(t, l.Close())
		_, all := entries(t, pathOf(dir, 2))
		var synced []uint64
		for _, e := range all[1:] {
			synced = append(synced, e.frame.synced)
		}
		require.Equal(t, []uint64{0, 1, 2, 3}, synced)
	})
}
