//go:build linux && amd64

package crash

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

var recoveriesWanted = flag.Int("crash.recoveries", 0, "states of recoveries of recoveries to recover, of all workloads together; 0 = 2,000, or 200 with -short")

const (
	// deep is how many recoveries are cut, one behind the other, before the last is looked at.
	deep = 2
	// statesOfARecovery are made of each, about, if so many differ.
	statesOfARecovery = 40
)

// contentsOf are the questions of the workloads, by their children's names.
var contentsOf = map[string]func(*oncelog.Store) (string, error){"solo": soloContents}

func init() {
	// The child that opens what is there, and says what it has found when it has. Its argument is a workload's name and
	// the time.
	children["recover"] = func(dir, arg string) error {
		role, clock, _ := strings.Cut(arg, " ")
		at, err := strconv.ParseInt(clock, 10, 64)
		if err != nil {
			return err
		}
		_, err = lookAnd(filepath.Join(dir, "store"), at, contentsOf[role], func(found string) { note(dir, "found "+digest(found)) })
		return err
	}
}

func digest(contents string) string {
	sum := sha256.Sum256([]byte(contents))
	return hex.EncodeToString(sum[:])
}

// Recovery may itself be cut, at any of its calls, and the recovery of what that leaves. What it had not said yet it may
// find anew; what it has said stays, also when the process before it was killed and what that one wrote was only in the
// kernel's cache.
func TestPromise2CutsDuringRecovery(t *testing.T) {
	for _, never := range []bool{false, true} {
		for _, w := range []workload{solo(t, never), crowd(t, never)} {
			t.Run(w.name, func(t *testing.T) { cutRecoveries(t, w) })
		}
	}
}

func cutRecoveries(t *testing.T, w workload) {
	want := wanted(t, *recoveriesWanted, 2_000, 200) / 4
	seed := seedOf(t)
	rnd := rand.New(rand.NewPCG(seed, 3))
	c := cutting{t: t, w: w, rnd: rnd, seed: seed, base: memoryDir(t), seen: map[string]int{}}
	for recordings := 0; c.states[deep-1] < want; recordings++ {
		calls := w.calls(t)
		// The cuts are spread over the run; each gives some states of the last kind.
		cuts := map[int]bool{}
		for len(cuts) < min(len(calls)/4, 1+(want-c.states[deep-1])/statesOfARecovery) {
			cuts[rnd.IntN(len(calls))] = true
		}
		d, tr := newDisk(), w.begin()
		for i, one := range calls {
			if cuts[i] {
				c.behind = fmt.Sprintf("before %v of the workload", one)
				c.begin(d, tr)
			}
			if one.Name == "note" {
				require.NoError(t, tr.note(one.Path))
			}
			require.NoError(t, d.do(one))
		}
		t.Logf("%s: %d recoveries were cut, %d states of a first and %d of a second recovered", w.name, c.recoveries, c.states[0], c.states[1])
		t.Logf("the recoveries' calls: %v", c.seen)
	}
}

// cutting cuts recoveries.
type cutting struct {
	t          *testing.T
	w          workload
	rnd        *rand.Rand
	seed       uint64
	base       string
	behind     string
	recoveries int
	states     [deep]int
	seen       map[string]int
}

// lawful is what may be found: what is expected, or, once a recovery has said what it found, that.
type lawful struct {
	expectation
	found string
}

func (l lawful) check(got string) error {
	if l.found == "" {
		_, err := l.accepts(got)
		return err
	}
	if digest(got) != l.found {
		return errors.New("a recovery had said what it found, and it is other now")
	}
	return nil
}

// begin recovers what a cut, or else a kill, has left of the workload, and cuts that again.
func (c *cutting) begin(d *disk, tr tracker) {
	ex := lawful{expectation: tr.cut()}
	if c.rnd.IntN(2) == 0 {
		// What was handed to the kernel is there, until a cut takes it before recovery has said anything.
		c.cut(0, d.killed(), ex, lawful{expectation: tr.killed()}, "killed")
		return
	}
	c.cut(0, diskOf(d.state(c.rnd, aKeep(c.rnd), aKeep(c.rnd), "store")), ex, ex, "cut")
}

// cut recovers a disk, and makes states of that recovery. uncut is what it must find itself.
func (c *cutting) cut(level int, d *disk, ex, uncut lawful, how string) {
	t, rnd := c.t, c.rnd
	work := filepath.Join(c.base, fmt.Sprint("work-", level))
	require.NoError(t, d.view().write(work))
	defer os.RemoveAll(work)
	from := d.killed()
	calls := traced(t, work, "recover", fmt.Sprintf("%s %d", c.w.role, ex.clock), nil)
	c.recoveries++
	c.lint(recoveryLint(d.killed()), from, calls, how)
	deeper := rnd.IntN(len(calls))
	seen := map[uint64]bool{}
	said := ""
	for i, one := range calls {
		what := func(kind string) string {
			return fmt.Sprintf("%s, %s, then %s before %v of recovery %d, seed %d", c.behind, how, kind, one, level+1, c.seed)
		}
		for due, n := (i+1)*statesOfARecovery/len(calls), 2*tries; len(seen) < due && n > 0; n-- {
			im := d.state(rnd, aKeep(rnd), aKeep(rnd), "store")
			if key := im.sum(); !seen[key] {
				seen[key] = true
				c.recovered(im, ex, from, calls, what("cut"))
				c.states[level]++
			}
		}
		if i == deeper && level+1 < deep {
			if rnd.IntN(2) == 0 {
				// A process that was killed has not taken anything from the kernel. So the next one finds what this one would.
				c.cut(level+1, d.killed(), ex, uncut, what("killed"))
			} else {
				c.cut(level+1, diskOf(d.state(rnd, aKeep(rnd), aKeep(rnd), "store")), ex, ex, what("cut"))
			}
		}
		if said2, ok := strings.CutPrefix(one.Path, "found "); ok && one.Name == "note" {
			said = said2
			ex.found, uncut.found = or(ex.found, said), or(uncut.found, said)
		}
		require.NoError(t, d.do(one), "%s", what("call"))
	}
	// And what it said was lawful.
	require.NotEmpty(t, said)
	c.recovered(d.view(), uncut, from, calls, c.behind+", "+how+", not cut")
	if uncut.found != said {
		require.Fail(t, "a recovery found other than one before it", "%s, %s", c.behind, how)
	}
	got, err := look(filepath.Join(work, "store"), ex.clock, c.w.contents)
	require.NoError(t, err)
	require.Equal(t, said, digest(got))
	_, err = uncut.accepts(got)
	require.NoError(t, err, "%s, %s", c.behind, how)
}

// lint checks that the recovery's calls are in order.
func (c *cutting) lint(l *lint, from *disk, calls []call, how string) {
	if err := l.check(calls); err != nil {
		kept := c.t.ArtifactDir()
		_ = from.view().write(filepath.Join(kept, "before"))
		keepCalls(c.t, kept, calls)
		require.NoError(c.t, err, "%s, %s; what was recovered is in %s (go test -artifacts keeps it)", c.behind, how, kept)
	}
	for what, n := range l.seen {
		c.seen[what] += n
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// recovered recovers a state and says what is wrong.
func (c *cutting) recovered(im image, ex lawful, from *disk, calls []call, what string) {
	dir := filepath.Join(c.base, "state")
	require.NoError(c.t, im.write(dir))
	got, err := look(filepath.Join(dir, "store"), ex.clock, c.w.contents)
	if err == nil {
		err = ex.check(got)
	}
	if err != nil {
		kept := c.t.ArtifactDir()
		_ = im.write(filepath.Join(kept, "state"))
		_ = from.view().write(filepath.Join(kept, "before"))
		keepCalls(c.t, kept, calls)
		require.NoError(c.t, err, "%s; behind %s; the state is in %s (go test -artifacts keeps it)", what, ex.behind, kept)
	}
	require.NoError(c.t, os.RemoveAll(dir))
}
