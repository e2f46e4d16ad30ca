package fuzz

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// cuts is how often the power is cut, or twice that, in each test on each file system: 200 times when 100 processes are
// killed.
func cuts() int { return max(2*rounds()/25, 2) }

// matrix is one test on all file systems.
type matrix struct {
	mu   sync.Mutex
	left remains
}

func (m *matrix) add(o remains) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left.add(o)
}

func (m *matrix) zeroTails() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left.ZeroTails
}

// onEach runs a test on each file system.
func onEach(t *testing.T, m *matrix, test func(t *testing.T, r *run, d *disk)) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t, fs, t.TempDir())
			d.matrix = m
			test(t, newRun(t), d)
			t.Logf("left of the log: %+v", d.left)
		})
	}
}

// demandZeroTails has all cuts together leave zeros where frames had been written. Without, only the easy cuts were
// tested, after which a file just ends or all of it is there.
func (m *matrix) demandZeroTails(t *testing.T) {
	t.Cleanup(func() { // after the tests that run side by side
		if !t.Failed() && m.left.Cuts > 0 && m.left.ZeroTails == 0 {
			t.Errorf("none of %d cuts left zeros where a frame had been written, so nothing was proven", m.left.Cuts)
		}
	})
}

// lifeOn begins a new store on the disk now and then, so that long runs do not fill it.
func (r *run) lifeOn(d *disk, round int) {
	if round%6 != 0 {
		return
	}
	if r.dir != "" {
		r.check(job{Dir: r.dir})
		r.endLife()
		require.NoError(r.t, os.RemoveAll(r.dir))
	}
	// Never the same name twice: a cut may bring back what was removed.
	r.life(filepath.Join(d.path, fmt.Sprint("store", round)))
}

// Every answer is a promise, also one about what a killed process has left in the kernel's cache, synced by nobody:
// the successor says "it exists", the power goes, and it exists.
func TestPromise1PowerCutServedIsStillThere(t *testing.T) {
	onEach(t, new(matrix), func(t *testing.T, r *run, d *disk) {
		served := 0
		for i := 0; !enough(i, cuts(), func() bool { return served > 0 && r.worth().KillsInFlight > 0 }); i++ {
			r.lifeOn(d, i)
			// Without syncs all that a process wrote is still in the cache when it dies, with them what was in flight.
			j := job{Dir: r.dir, Do: doWrite, Sync: []oncelog.SyncPolicy{oncelog.SyncNever, oncelog.SyncAlways}[i%2], Segment: r.segmentSize(), Mix: single}
			p := r.start(j)
			r.until(p, sayAnswer, 2*groups+50+r.rnd.IntN(600))
			p.kill()
			r.bury(p)

			before := r.ledger.tally.Duplicates
			j.Do, j.Sync = doAsk, oncelog.SyncAlways
			p = r.start(j)
			r.until(p, sayDone, 1)
			d.cut(p)
			p.kill()
			r.bury(p)
			served += r.ledger.tally.Duplicates - before
			d.restore()
			r.check(j)
		}
		r.endLife()
		t.Logf("%d cuts, %d records served in between: %+v", cuts(), served, r.total)
		require.Positive(t, served)
		require.Positive(t, r.total.KillsInFlight)
	})
}

// Acknowledged is on stable storage at that moment: the power is cut while answers are being given, and while a
// process opens the store.
func TestPromise1PowerCutAcknowledgedStays(t *testing.T) {
	m := new(matrix)
	m.demandZeroTails(t)
	onEach(t, m, func(t *testing.T, r *run, d *disk) {
		n := 0
		// One cut in ten comes between the write of a frame and its sync.
		for i := 0; !enough(i, 2*cuts(), func() bool {
			u := r.worth()
			return m.zeroTails() > 0 && u.KillsInFlight > 0 && u.Errors > 0
		}); i++ {
			n++
			r.lifeOn(d, i)
			p := r.start(job{Dir: r.dir, Do: doWrite, Segment: r.segmentSize(), Mix: single})
			if i%4 == 3 {
				r.until(p, sayOpening, 1)
				r.pause()
			} else {
				r.until(p, sayAnswer, 2*groups+50+r.rnd.IntN(600))
			}
			d.cut(p)
			if i%2 == 0 {
				p.after(sayDone, 1) // everybody has met the error
			}
			p.kill()
			r.bury(p)
			d.restore()
			if i%3 == 0 { // else the next round's process is the first to look
				r.check(job{Dir: r.dir})
			}
		}
		r.check(job{Dir: r.dir})
		r.endLife()
		t.Logf("%d cuts: %+v", n, r.total)
		require.Positive(t, r.total.Inserted)
		require.Positive(t, r.total.Committed)
		require.Positive(t, r.total.KillsInFlight)
		require.Positive(t, r.total.Errors)
	})
}

// Without syncs a power cut takes the newest transactions, and no other: what stays is whole, a beginning of the
// order in which they committed, and all of it that was there when the store was last opened.
func TestPromise2PowerCutLeavesABeginning(t *testing.T) {
	m := new(matrix)
	m.demandZeroTails(t)
	onEach(t, m, func(t *testing.T, r *run, d *disk) {
		r.ledger.mayLose = true
		left := 0
		n := 0
		for i := 0; !enough(i, 2*cuts(), func() bool { return m.zeroTails() > 0 && left > 0 && r.worth().Lost > 0 }); i++ {
			n++
			r.lifeOn(d, i)
			j := job{Dir: r.dir, Do: doWrite, Sync: oncelog.SyncNever, Segment: r.segmentSize(), Mix: mix{Get: 3, Look: 3, Aborts: true}}
			if i%2 == 1 {
				j.Sync = oncelog.SyncEvery(5 * time.Millisecond)
			}
			p := r.start(j)
			r.until(p, sayAnswer, 2*groups+50+r.rnd.IntN(600))
			if i%4 == 2 { // what it leaves in the cache is being recovered
				p.kill()
				r.bury(p)
				p = r.start(j)
				r.until(p, sayOpening, 1)
				r.pause()
			}
			d.cut(p)
			p.kill()
			r.bury(p)
			d.restore()
			r.check(job{Dir: r.dir})
			left += len(r.ledger.chain)
		}
		r.endLife()
		t.Logf("%d cuts, %d transactions found after them: %+v", n, left, r.total)
		require.Positive(t, r.total.Lost, "nothing was lost, so nothing was proven")
		require.Positive(t, left, "everything was lost")
	})
}
