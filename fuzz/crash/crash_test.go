//go:build linux && amd64

package crash

import (
	"encoding/gob"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

var (
	statesWanted = flag.Int("crash.states", 0, "states to recover, of all workloads together; 0 = 20,000, or 2,000 with -short")
	seedWanted   = flag.Uint64("crash.seed", 0, "the seed of a run that is to be repeated; 0 = the time's")
	callsWanted  = flag.String("crash.calls", "", "recorded calls, as a failure leaves them; with the seed they make the same states again")
)

// workload is what a traced child does, and how it is known what must be found after it.
type workload struct {
	name, role, arg string
	contents        func(*oncelog.Store) (string, error) // all that the store answers, in words
	begin           func() tracker
}

// tracker follows the child by its notes.
type tracker interface {
	note(what string) error
	over() bool
	cut() expectation    // what may be found when the power is cut now
	killed() expectation // when the process is killed now
}

// expectation is what may be found.
type expectation struct {
	behind   string // for people
	clock    int64
	key      uint64 // tells it from the others of its workload
	accepts  func(found string) (lost bool, err error)
	restored *restoredExpectation // also beside the store; nil = nothing
}

// restoredExpectation is what may be found where a backup is being restored: all of it, or no store.
type restoredExpectation struct {
	to       string
	clock    int64
	contents string
	answered bool // then all of it
	look     func(*oncelog.Store) (string, error)
}

func (r *restoredExpectation) check(dir string) error {
	store := filepath.Join(dir, r.to)
	segments, _ := filepath.Glob(filepath.Join(store, "wal", "0*"))
	got, err := look(store, r.clock, r.look)
	switch {
	case err == nil && got == r.contents:
		return nil
	case err == nil && !r.answered && len(segments) == 0:
		return nil // nothing of it was there: an empty directory is a place for a new store
	case err == nil:
		return fmt.Errorf("what was restored is other, %d segments:\n%s", len(segments), difference(r.contents, got))
	case r.answered || !errors.Is(err, oncelog.ErrForeign) || errors.Is(err, oncelog.ErrCorrupt):
		return fmt.Errorf("what was restored, answered %v: %w", r.answered, err)
	}
	return nil
}

func seedOf(t *testing.T) uint64 {
	seed := *seedWanted
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return seed
}

func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-crash-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// calls records the workload, or takes it from where a failure has left it.
func (w workload) calls(t *testing.T) (calls []call) {
	if *callsWanted == "" {
		return recordCalls(t, w.role, w.arg)
	}
	f, err := os.Open(*callsWanted)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, gob.NewDecoder(f).Decode(&calls))
	return calls
}

// Whatever a power cut leaves, at whatever moment, is recovered to what was answered, with what was in flight or
// without it. A restore is there whole, or no store.
func TestPromise2EveryLawfulStateIsRecovered(t *testing.T) { recoverStates(t, solo(t, false), 2) }

// Without syncs what was answered may be lost, from the end: what is recovered is what some earlier answer left, and
// none before the last that synced.
func TestPromise2LawfulStatesWithoutSyncs(t *testing.T) {
	require.Positive(t, recoverStates(t, solo(t, true), 8), "nothing was ever lost: these were no power cuts")
}

// The same of several callers at once.
func TestPromise2LawfulStatesOfACrowd(t *testing.T) { recoverStates(t, crowd(t, false), 4) }

// Without syncs too what is left is a beginning of what all of them did, in the order of their commits.
func TestPromise2LawfulStatesOfACrowdWithoutSyncs(t *testing.T) {
	require.Positive(t, recoverStates(t, crowd(t, true), 8), "nothing was ever lost: these were no power cuts")
}

func wanted(t *testing.T, flag, ci, short int) int {
	switch {
	case flag > 0:
		return flag
	case testing.Short():
		return short / slower
	}
	return ci / slower
}

const (
	// perRecording bounds what is made of one recorded run, since the next one differs in what its threads did at the
	// same time.
	perRecording = 5_000
	// tries is how many states are made for one that has not been there.
	tries = 4
)

// weights says of each call how many of the states are due before it: more where more was not synced, and next to none
// behind a sync, where there is but one state.
func weights(t *testing.T, calls []call) (all []int64, sum int64) {
	d := newDisk()
	for i, c := range calls {
		w := int64(1)
		if i == 0 || calls[i-1].Name != "end" { // what ends changes only what must be there
			w += 4 * min(int64(d.unsynced()), 16)
		}
		all = append(all, w)
		sum += w
		require.NoError(t, d.do(c), "call %d: %v", i, c)
	}
	return all, sum
}

// recoverStates returns how many states had lost something that was answered. States that are equal, with the same
// answers before them, are recovered and counted once.
func recoverStates(t *testing.T, w workload, part int) (lost int64) {
	want := int64(wanted(t, *statesWanted, 20_000, 2_000) / part)
	seed := seedOf(t)
	recordings, recovered, made := 0, int64(0), 0
	for ; recovered < want; recordings++ {
		p, n := recoverRecorded(t, w, seed+uint64(recordings), min(want-recovered, perRecording), part)
		made += n
		recovered += p.recovered.Load()
		lost += p.lost.Load()
		if want > perRecording {
			t.Logf("%d of %d states, %d made", recovered, want, made)
		}
	}
	t.Logf("%s: %d states were recovered, no two the same, of %d that were made of %d recorded runs; %d had lost something", w.name, recovered, made, recordings, lost)
	return lost
}

func recoverRecorded(t *testing.T, w workload, seed uint64, want int64, part int) (p *pool, made int) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	calls := w.calls(t)
	d, tr := newDisk(), w.begin()
	p = newPool(t, w)
	p.kept = func(dir string) { keepCalls(t, dir, calls) }
	weight, sum := weights(t, calls)
	fresh, due := int64(0), int64(0)
	for i, c := range calls {
		// Before the call, as many states as are due by now.
		due += weight[i]
		for n := tries * (1 + want*weight[i]/sum); n > 0 && fresh < due*want/sum && !p.failed(); n-- {
			ex := tr.cut()
			tops := []string{"store"}
			if ex.restored != nil {
				tops = append(tops, ex.restored.to)
			}
			data, names := aKeep(rnd), aKeep(rnd)
			made++
			if p.check(job{
				image: d.state(rnd, data, names, tops...), ex: ex, twice: rnd.IntN(8) == 0,
				what: fmt.Sprintf("state %d, before %v, data %d, names %d; again: -crash.seed=%d -crash.states=%d", made, c, data, names, seed, want*int64(part)),
			}) {
				fresh++
			}
		}
		if c.Name == "note" {
			require.NoError(t, tr.note(c.Path))
		}
		require.NoError(t, d.do(c), "call %d: %v", i, c)
	}
	p.wait()
	require.True(t, tr.over(), "the child did not tell all")
	return p, made
}

// keepCalls leaves what is needed to repeat a run.
func keepCalls(t *testing.T, dir string, calls []call) {
	f, err := os.Create(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	require.NoError(t, errors.Join(gob.NewEncoder(f).Encode(calls), f.Close()))
}

// look opens a store, says what is in it, and closes it.
func look(store string, clock int64, contents func(*oncelog.Store) (string, error)) (string, error) {
	return lookAnd(store, clock, contents, func(string) {})
}

func lookAnd(store string, clock int64, contents func(*oncelog.Store) (string, error), say func(contents string)) (string, error) {
	var at atomic.Int64
	at.Store(clock)
	st, err := oncelog.Open(store, options(&at))
	if err != nil {
		return "", err
	}
	got, err := contents(st)
	if err == nil {
		say(got)
		err = st.Verify()
	}
	if closing := st.Close(); err == nil {
		err = closing
	}
	return got, err
}

// difference shows the lines that only one has.
func difference(want, got string) string {
	w, g := map[string]bool{}, map[string]bool{}
	for _, l := range strings.Split(want, "\n") {
		w[l] = true
	}
	for _, l := range strings.Split(got, "\n") {
		g[l] = true
	}
	var b strings.Builder
	for l := range w {
		if !g[l] {
			fmt.Fprintf(&b, "- %.200s\n", l)
		}
	}
	for l := range g {
		if !w[l] {
			fmt.Fprintf(&b, "+ %.200s\n", l)
		}
	}
	return b.String()
}
