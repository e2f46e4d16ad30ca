package fuzz

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// lifeRounds is how many rounds a store lives through.
const lifeRounds = 30

// killRounds kills n children that write, each at a random moment: mostly after a number of answers, sometimes while
// it is opening what the one before has left.
func (r *run) killRounds(n int, sync func() oncelog.SyncPolicy, m mix) {
	for i := range n {
		if i%lifeRounds == 0 {
			r.life(filepath.Join(r.t.TempDir(), fmt.Sprint("life", i)))
		}
		j := job{Dir: r.dir, Do: doWrite, Sync: sync(), Segment: r.segmentSize(), Mix: m}
		p := r.start(j)
		switch i % 8 {
		case 2: // at once
			r.pause()
		case 4, 5: // while it recovers
			p.after(sayOpening, 1)
			r.pause()
		case 7: // right behind an answer, before others hear theirs
			p.after(sayAnswer, 2*groups+1+r.rnd.IntN(50))
		default:
			p.after(sayAnswer, 2*groups+1+r.rnd.IntN(600))
			r.pause()
		}
		p.kill()
		r.bury(p)
		if i == n-1 || i%lifeRounds == lifeRounds-1 {
			r.check(j) // and once more after a clean end
			r.check(j)
			r.endLife()
		}
	}
	r.t.Logf("%d kills, %d segments: %+v", n, r.seen, r.total)
}

// Acknowledged is durable, however the process dies: single calls and transactions on the same keys, answers of
// every kind, and records that expire meanwhile.
func TestPromise1KillRounds(t *testing.T) {
	m := mix{Put: 35, Delete: 15, Get: 10, Advance: 12, Mark: 3, Look: 3, TTLs: true, Aborts: true}
	t.Run("SyncAlways", func(t *testing.T) {
		r := newRun(t)
		r.killRounds(rounds(), func() oncelog.SyncPolicy { return oncelog.SyncAlways }, m)
		r.meaningful()
	})
	// What was handed to the kernel survives a killed process at once, whatever the policy; the next one may have
	// another.
	t.Run("AnySync", func(t *testing.T) {
		r := newRun(t)
		r.killRounds(max(rounds()/4, 6), func() oncelog.SyncPolicy { return pick(r, policies()...) }, m)
		r.meaningful()
	})
}

// meaningful demands that the run could have found something.
func (r *run) meaningful() {
	t := r.total
	require.Positive(r.t, t.Inserted)
	require.Positive(r.t, t.Duplicates)
	require.Positive(r.t, t.Exists)
	require.Positive(r.t, t.Deleted)
	require.Positive(r.t, t.Fresh)
	require.Positive(r.t, t.Stale)
	require.Positive(r.t, t.Committed)
	require.Positive(r.t, t.Aborted)
	require.Positive(r.t, t.KillsInFlight)
	require.Greater(r.t, r.seen, 2)
}

// Transactions are found whole or not at all, and what is found is a beginning of the order in which they committed:
// transactions on records, state and marks, many in flight at a time, each building on those before it.
func TestPromise2KillRoundsWholeTransactions(t *testing.T) {
	r := newRun(t)
	r.killRounds(rounds(), func() oncelog.SyncPolicy { return oncelog.SyncAlways }, mix{Get: 5, Look: 5, Aborts: true})
	u := r.total
	require.Positive(t, u.Committed)
	require.Positive(t, u.Aborted)
	require.Positive(t, u.Exists)
	require.Positive(t, u.Stale)
	require.Positive(t, u.KillsInFlight)
	require.Positive(t, u.FoundWhole+u.FoundNot, "no transaction was interrupted")
	require.Greater(t, r.seen, 2)
}
