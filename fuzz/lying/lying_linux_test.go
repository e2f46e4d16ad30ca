package lying

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/fuzz/calls"
)

var (
	lyingCuts = flag.Int("lying.cuts", 0, "how often the power is cut, or a sync fails; 0 = 500, or 60 with -short")
	lyingSeed = flag.Uint64("lying.seed", 0, "begin with this seed; what the scheduler does stays chance")
)

// A share of all that is wanted.
type share struct {
	n     int
	bound time.Duration // and no longer than this, on a slow machine; 0 = as long as it takes
}

func part(of int) share {
	s := share{n: wanted(of), bound: 55 * time.Second / time.Duration(of)}
	if *lyingCuts > 0 {
		s.bound = 0
	}
	return s
}

func wanted(share int) int {
	n := 500
	if testing.Short() {
		n = 60
	}
	if *lyingCuts > 0 {
		n = *lyingCuts
	}
	return max(1, n/share)
}

// tally says whether a run had anything to find.
type tally struct {
	Cuts, Kills, Rest       int // how children ended: the power went, a signal, on their own, and then the power went
	InRecovery              int // of the cuts and kills: before the child had said what it found
	Answers, Found          int
	FailedSyncs, Reopenings int // and how often the same process opened the store again
	Errors                  int
	Restored, CopiesWhole   int
	CopiesNone              int
}

// life is one store on one disk, over many cuts.
type life struct {
	t       *testing.T
	rnd     *rand.Rand
	disk    *disk
	m       *mounted
	dir     string
	job     job
	ledgers []*calls.Ledger
	total   *tally

	copyState *calls.State // what the last copy must hold if it opens; nil = there is none
	copySure  bool         // and it must
}

func newLife(t *testing.T, rnd *rand.Rand, total *tally) *life {
	l := &life{t: t, rnd: rnd, disk: newDisk(rand.New(rand.NewPCG(rnd.Uint64(), 1))), dir: t.TempDir(), total: total}
	l.job = job{Dir: l.dir, Now: calls.Begins, Segment: []int64{4 << 10, 8 << 10, 32 << 10}[rnd.IntN(3)]}
	callers := 1 + 3*rnd.IntN(2)
	for i := range callers {
		l.ledgers = append(l.ledgers, calls.NewLedger(i))
		l.job.Next = append(l.job.Next, 1)
	}
	l.m = l.disk.mount(t, l.dir)
	return l
}

func (l *life) end() { l.m.unmount(l.t) }

// round is one child, until it is killed, with the power or alone, or has done what it had to.
func (l *life) round(fail bool) {
	d, rnd := l.disk, l.rnd
	at := 1 + rnd.IntN(300)
	if rnd.IntN(3) == 0 {
		at = 1 + rnd.IntN(30) // while it opens the store
	}
	d.mu.Lock()
	d.calls, d.cutAt, d.killAt, d.failAt, d.evictAt, d.failed = 0, 0, 0, 0, 0, false
	d.wentAt = make(chan struct{})
	switch {
	case rnd.IntN(5) > 0:
		d.cutAt = at
	default:
		d.killAt = at
	}
	if fail {
		d.failAt = 1 + rnd.IntN(1+at/3)
		d.evictAt = 1 + rnd.IntN(at)
	}
	d.mu.Unlock()
	l.job.Seed, l.job.Calls = rnd.Uint64(), 400
	if rnd.IntN(10) == 0 {
		l.job.Calls = 10 // it may have closed the store by then
	}
	l.job.Copy = len(l.ledgers) == 1 && l.job.Sync == oncelog.SyncAlways && !fail && rnd.IntN(4) == 0
	l.job.Now += rnd.Int64N(8 * 3600 * 1000)
	said := l.child()
	l.judge(said)
	d.mu.Lock()
	dark, failed, killed := d.dark, d.failed, d.killAt > 0
	d.mu.Unlock()
	if failed {
		l.total.FailedSyncs++
	}
	if !dark && killed && rnd.IntN(2) == 0 {
		return // the next child finds it in the page cache
	}
	l.m.unmount(l.t)
	d.cut()
	d.forget()
	l.m = d.mount(l.t, l.dir)
}

// child runs one, and returns what it has said.
func (l *life) child() []byte {
	text, err := json.Marshal(&l.job)
	require.NoError(l.t, err)
	out, pipe, err := os.Pipe()
	require.NoError(l.t, err)
	defer out.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GORACE=atexit_sleep_ms=0", "GOCOVERDIR="+l.t.TempDir())
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = pipe, &errs
	require.NoError(l.t, cmd.Start())
	require.NoError(l.t, pipe.Close())
	l.disk.mu.Lock()
	went := l.disk.wentAt
	l.disk.mu.Unlock()
	over := make(chan struct{})
	killed := make(chan bool, 1)
	go func() {
		select {
		case <-went:
			// A machine stops at once. What the child says until it is killed rests on what it had done by then.
			_ = cmd.Process.Kill()
			killed <- true
		case <-over:
			killed <- false
		}
	}()
	var said bytes.Buffer
	_, err = said.ReadFrom(out)
	require.NoError(l.t, err)
	close(over)
	ended := cmd.Wait()
	switch {
	case <-killed:
	case ended != nil:
		l.t.Fatalf("a child ended with %v, and said:\n%s", ended, &errs)
	}
	if errs.Len() > 0 {
		l.t.Fatalf("a child says on standard error:\n%s", &errs)
	}
	return said.Bytes()
}

// judge enters what a child said.
func (l *life) judge(said []byte) {
	d := l.disk
	d.mu.Lock()
	dark, failed, at, killAt := d.dark, d.failed, d.calls, d.killAt
	d.mu.Unlock()
	fail := func(err error) {
		require.NoError(l.t, err, "dark %v, a sync failed %v, call %d of it; job %+v", dark, failed, at, l.job)
	}
	recovered, openings, failures := false, 0, 0
	in := bufio.NewScanner(bytes.NewReader(said))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var line calls.Line
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			break // cut off
		}
		if f := line.Failure; f != nil {
			failures++
			l.total.Errors++
			if line.What != copied && !dark && !(failed && openings < lives) {
				fail(fmt.Errorf("%s failed on a sound disk: %s", line.What, f.Text))
			}
			if line.What != copied && !f.Failed && !f.Lost && !slices.Contains(f.Errnos, syscall.EIO) {
				fail(fmt.Errorf("%s failed with what is not the disk's error: %s", line.What, f.Text))
			}
		}
		switch line.What {
		case opening:
			openings++
			if openings > 1 {
				l.total.Reopenings++
			}
		case found:
			if line.Failure != nil {
				break
			}
			recovered = true
			l.total.Found++
			if err := l.ledgers[line.Caller].Found(line.Contents, line.Now); err != nil {
				fail(err)
			}
		case begin:
			l.ledgers[line.Caller].Begin(*line.Op, line.Now)
			l.job.Next[line.Caller] = line.Op.N + 1
		case answer:
			l.total.Answers++
			if err := l.ledgers[line.Caller].Answer(line.Answer, line.Failure); err != nil {
				fail(err)
			}
		case restoring:
			l.job.Copies++
			l.copyState, l.copySure = l.ledgers[0].Now(), false
		case restored:
			if line.Failure == nil {
				l.copySure = true
				l.total.Restored++
			}
		case copied:
			fail(l.copied(line, dark))
			l.copyState = nil // it is being removed
		case closed:
			if line.Failure == nil {
				for _, g := range l.ledgers {
					g.Synced()
				}
			}
		}
	}
	switch {
	case killAt > 0 && at >= killAt:
		l.total.Kills++
	case dark:
		l.total.Cuts++
	default:
		l.total.Rest++
	}
	if !recovered {
		l.total.InRecovery++
	}
}

// copied judges what became of a restored copy.
func (l *life) copied(line calls.Line, dark bool) error {
	switch f := line.Failure; {
	case l.copyState == nil:
		return nil
	case f == nil && line.Contents == l.copyState.Contents(0, line.Now):
		l.total.CopiesWhole++
		return nil
	case f == nil:
		return fmt.Errorf("the restored copy differs:\n%s", calls.Difference(l.copyState.Contents(0, line.Now), line.Contents))
	case dark && slices.Contains(f.Errnos, syscall.EIO):
		return nil
	case l.copySure:
		return fmt.Errorf("a copy that was restored does not open: %s", f.Text)
	}
	l.total.CopiesNone++
	return nil
}

// rounds lets stores live until the power went so often, and returns what that was worth.
func rounds(t *testing.T, want share, o func(*life), fail bool) tally {
	seed := *lyingSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-lying.seed=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var total tally
	began := time.Now()
	count := func() int {
		if fail {
			return total.FailedSyncs
		}
		return total.Cuts
	}
	enough := func() bool {
		return count() >= want.n || want.bound > 0 && count() > 0 && time.Since(began) > want.bound
	}
	for !enough() {
		l := newLife(t, rnd, &total)
		o(l)
		for i := 0; i < 25 && !enough(); i++ {
			l.round(fail)
		}
		l.disk.mu.Lock()
		l.disk.cutAt, l.disk.killAt, l.disk.failAt, l.disk.evictAt, l.disk.failed = 0, 0, 0, 0, false
		l.disk.mu.Unlock()
		l.job.Calls = 0
		l.judge(l.child()) // and once more, undisturbed
		l.end()
	}
	t.Logf("%v: %+v", time.Since(began).Round(time.Millisecond), total)
	return total
}

// Whatever such a disk makes of what was not synced, all that was answered is there, and nothing else.
func TestPromise1OnADiskThatKeepsOnlyWhatWasSynced(t *testing.T) {
	total := rounds(t, part(2), func(*life) {}, false)
	require.Positive(t, total.Cuts)
	require.Positive(t, total.Answers)
	if total.Cuts >= 200 {
		require.Positive(t, total.Kills)
		require.Positive(t, total.InRecovery)
		require.Positive(t, total.Restored)
		require.Positive(t, total.CopiesWhole)
	}
}

// Without syncs the newest answers may go, in their order; what a store has shown when it was opened stays.
func TestPromise2WithoutSyncsOnADiskThatKeepsOnlyWhatWasSynced(t *testing.T) {
	rounds(t, part(10), func(l *life) {
		l.job.Sync = oncelog.SyncNever
		for _, g := range l.ledgers {
			g.Lazy = true
		}
	}, false)
}

// A sync fails, once, and the pages that it should have written are gone or will be. Nobody is told that they are safe.
func TestPromise1OnADiskWhoseSyncFailsOnce(t *testing.T) {
	for _, atOnce := range []bool{true, false} {
		t.Run(map[bool]string{true: "dropped at once", false: "clean until evicted"}[atOnce], func(t *testing.T) {
			total := rounds(t, part(5), func(l *life) { l.disk.atOnce = atOnce }, true)
			require.Positive(t, total.FailedSyncs)
			require.Positive(t, total.Errors)
		})
	}
}
