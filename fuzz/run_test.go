package fuzz

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

var (
	crashRounds = flag.Int("crash.rounds", 0, "how often a process is killed in each test, and power cut twice as often in all of theirs; default 100, 10 with -short")
	crashSeed   = flag.Uint64("crash.seed", 0, "begin with this seed; what the scheduler does stays chance")
)

func rounds() int {
	switch {
	case *crashRounds > 0:
		return *crashRounds
	case testing.Short():
		return 10
	}
	return 100
}

// run is the parent's side.
type run struct {
	t      *testing.T
	rnd    *rand.Rand
	began  time.Time
	epoch  int64 // what time it was then
	round  uint64
	dir    string
	ledger *ledger
	total  tally
	seen   int // segments, those that were dropped included
}

func newRun(t *testing.T) *run {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-crash.seed=%d", seed)
	return &run{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), epoch: 1_000_000_000, ledger: newLedger()}
}

// clock is the time by which records expire. Each child continues it from when it was started, so it lags a little
// behind; no child sees a time that another saw before.
func (r *run) clock() int64 { return saturated(r.epoch, time.Since(r.began)) }

// pick returns one of the values.
func pick[T any](r *run, values ...T) T { return values[r.rnd.IntN(len(values))] }

// process is a running child.
type process struct {
	cmd    *exec.Cmd
	pipe   *os.File // the end that the child writes to; the parent puts its remarks in between
	said   chan []byte
	errs   bytes.Buffer
	stdin  io.Closer // tells the child when the parent is gone
	lines  [][]byte  // all that it said
	killed bool
	end    error         // how the child ended,
	ended  chan struct{} // once this is closed
}

// What the parent itself puts into the pipe, so that it is certain what was said before and after.
const (
	remarkTrouble = '!' // from here on calls may fail
	remarkCutting = '-' // the power is about to be cut: what is answered from here on nobody may have heard
	remarkDark    = '#' // it is cut: nothing happens any more
)

func (p *process) remark(what byte) {
	_, _ = p.pipe.Write([]byte{what, '\n'}) // fails if the child is gone, and then there is nothing to tell apart
}

// start starts a child.
func (r *run) start(j job) *process {
	r.round++
	j.Round, j.Seed, j.Clock = r.round, r.rnd.Uint64(), r.clock()
	text, err := json.Marshal(&j)
	require.NoError(r.t, err)
	self, err := os.Executable()
	require.NoError(r.t, err)
	p := &process{cmd: exec.Command(self), ended: make(chan struct{})}
	out, pipe, err := os.Pipe()
	require.NoError(r.t, err)
	// Far more than a child says in a round, so that neither it nor a remark waits for the parent.
	p.pipe, p.said = pipe, make(chan []byte, 1<<16)
	// Under the race detector a process that ends sleeps a second for threads still to report; by then all have ended.
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = pipe, &p.errs
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, p.cmd.Start())
	go func() {
		p.end = p.cmd.Wait()
		_ = pipe.Close() // the last one that could write
		close(p.ended)
	}()
	go func() {
		defer close(p.said)
		for in := bufio.NewReader(out); ; {
			line, err := in.ReadBytes('\n')
			if err != nil { // a line cut off announced what never began, or was an answer nobody heard
				return
			}
			p.said <- line
		}
	}()
	r.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = out.Close()
	})
	return p
}

// next reads what the child says next; false at the end.
func (p *process) next() (what byte, ok bool) {
	line, ok := <-p.said
	if !ok {
		return 0, false
	}
	p.lines = append(p.lines, line)
	return line[0], true
}

// after reads until the child has said n things of a kind; false if it has nothing more to say before.
func (p *process) after(what byte, n int) bool {
	for n > 0 {
		w, ok := p.next()
		if w == what {
			n--
		} else if !ok || w == sayDone || w == sayFailed {
			return false
		}
	}
	return true
}

// until is after for what must come.
func (r *run) until(p *process, what byte, n int) {
	r.t.Helper()
	if !p.after(what, n) {
		p.kill()
		r.bury(p)
		require.Fail(r.t, "a child ended too early")
	}
}

func (p *process) kill() {
	p.killed = true
	_ = p.cmd.Process.Kill() // fails if it is gone already, which bury finds out
}

// bury reads what is left, waits for the end, and enters all that was said into the ledger.
func (r *run) bury(p *process) {
	for {
		if _, ok := p.next(); !ok {
			break
		}
	}
	<-p.ended
	var exit *exec.ExitError
	require.True(r.t, p.end == nil || errors.As(p.end, &exit), "%v", p.end)
	if p.errs.Len() > 0 {
		r.t.Fatalf("child %d says on standard error:\n%s", r.round, p.errs.String())
	}
	for _, line := range p.lines {
		r.enter(line[0], line[1:])
	}
	r.ledger.mayFail, r.ledger.cutting, r.ledger.dark = false, false, false
	r.ledger.died(r.clock())
	for _, c := range r.ledger.contradictions[:min(3, len(r.ledger.contradictions))] {
		r.t.Errorf("child %d: %s", r.round, c)
	}
	require.False(r.t, r.t.Failed(), "%d contradictions", len(r.ledger.contradictions))
	if !p.killed {
		require.NoError(r.t, p.end)
	}
}

func (r *run) enter(what byte, text []byte) {
	decode := func(v any) { require.NoError(r.t, json.Unmarshal(text, v), "%c%s", what, text) }
	if r.ledger.dark {
		return
	}
	switch what {
	case sayOpening, sayDone:
	case remarkTrouble:
		r.ledger.mayFail = true
	case remarkCutting:
		r.ledger.mayFail, r.ledger.cutting = true, true
	case remarkDark:
		r.ledger.dark = true
	case sayRecovered:
		var v recovered
		decode(&v)
		r.ledger.recovered(&v)
	case sayIntent:
		v := new(op)
		decode(v)
		r.ledger.intent(v)
	case sayAnswer:
		v := new(answer)
		decode(v)
		r.ledger.answer(v)
	case sayFailed:
		if !r.ledger.mayFail {
			r.ledger.contradict("a child could not go on: %s", text)
		}
	default:
		require.Fail(r.t, "a child says what it cannot mean", "%c%s", what, text)
	}
}

// check lets a child look at everything and end as it should.
func (r *run) check(j job) {
	r.t.Helper()
	j.Do = doClose
	p := r.start(j)
	r.bury(p)
	require.Equal(r.t, byte(sayDone), p.lines[len(p.lines)-1][0])
}

// pause lets a moment pass that differs from time to time, for a crash that shall come neither at once nor at an
// event. What it waits for is nothing.
func (r *run) pause() {
	for range r.rnd.IntN(3000) {
		runtime.Gosched()
	}
}

// life begins a new store, so that long runs do not read ever longer logs.
func (r *run) life(dir string) {
	r.dir = dir
	l := newLedger()
	l.mayLose = r.ledger.mayLose
	r.ledger = l
}

// enough ends a test before round i, after so many of them if it has shown by then what it is for. What depends on chance, or
// on which of two processes gets a processor first, it may go on for.
func enough(i, rounds int, shown func() bool) bool { return i >= rounds && (i >= 10*rounds || shown()) }

// endLife adds up what the life was worth.
func (r *run) endLife() {
	segments, err := filepath.Glob(filepath.Join(r.dir, "wal", "0*"))
	require.NoError(r.t, err)
	r.seen += segmentNumber(r.t, segments)
	r.total = r.worth()
}

// worth is what all lives were worth so far.
func (r *run) worth() tally {
	sum, u := r.total, &r.ledger.tally
	t := &sum
	for _, c := range []struct{ to, from *int }{
		{&t.Inserted, &u.Inserted}, {&t.Duplicates, &u.Duplicates}, {&t.Exists, &u.Exists}, {&t.Deleted, &u.Deleted},
		{&t.Fresh, &u.Fresh}, {&t.Stale, &u.Stale}, {&t.Committed, &u.Committed}, {&t.Aborted, &u.Aborted}, {&t.Expired, &u.Expired},
		{&t.InFlight, &u.InFlight}, {&t.KillsInFlight, &u.KillsInFlight}, {&t.FoundWhole, &u.FoundWhole},
		{&t.FoundNot, &u.FoundNot}, {&t.Lost, &u.Lost}, {&t.Errors, &u.Errors},
	} {
		*c.to += *c.from
	}
	return sum
}

// segmentSize is small, so that a round crosses several.
func (r *run) segmentSize() int64 { return pick(r, int64(16<<10), 64<<10, 256<<10) }

func policies() []oncelog.SyncPolicy {
	return []oncelog.SyncPolicy{oncelog.SyncAlways, oncelog.SyncEvery(2 * time.Millisecond), oncelog.SyncNever}
}

// segmentNumber returns the number of the newest of the segments: as many there were in all.
func segmentNumber(t testing.TB, paths []string) (n int) {
	for _, path := range paths {
		number, err := strconv.Atoi(filepath.Base(path))
		require.NoError(t, err)
		n = max(n, number)
	}
	return n
}
