//go:build linux && amd64

package crash

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var recoveriesWanted = flag.Int("crash.recoveries", 0, "recoveries to cut; 0 = 60, or 8 with -short")

const statesOfARecovery = 40 / slower

// recovering is the child that opens what is there, and says what it has found when it has.
func recovering(dir, clock string) error {
	at, err := strconv.ParseInt(clock, 10, 64)
	if err != nil {
		return err
	}
	_, err = lookAnd(filepath.Join(dir, "store"), at, func(found string) { note(dir, "found "+digest(found)) })
	return err
}

func digest(contents string) string {
	sum := sha256.Sum256([]byte(contents))
	return hex.EncodeToString(sum[:])
}

// Recovery may itself be cut, at any of its calls. What it had not said yet it may find anew; what it has said stays,
// also when the process before it was killed and what that one wrote was only in the kernel's cache.
func TestPromise2CutsDuringRecovery(t *testing.T) {
	want := *recoveriesWanted
	switch {
	case want > 0:
	case testing.Short():
		want = 4
	default:
		want = 60
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	for _, never := range []bool{false, true} {
		moments := expected(t, never)
		calls := recordCalls(t, never)
		cuts := map[int]bool{}
		for len(cuts) < want/2 {
			cuts[rnd.IntN(len(calls))] = true
		}
		d := newDisk()
		answered, synced, states := 0, 0, 0
		for i, c := range calls {
			if cuts[i] {
				from := answered
				if never {
					from = synced
				}
				states += cutRecovery(t, rnd, d, moments, from, answered, rnd.IntN(2) == 0)
			}
			if c.name == "note" {
				answered++
				if slices.Contains([]string{"close", "snapshot", "open", "reopen"}, moments[answered].step) {
					synced = answered
				}
				continue
			}
			require.NoError(t, d.do(c))
		}
		t.Logf("without syncs %v: %d recoveries were cut in %d states", never, len(cuts), states)
	}
}

// cutRecovery recovers what a cut, or else a kill, has left of the disk, and cuts that again.
func cutRecovery(t *testing.T, rnd *rand.Rand, before *disk, moments []moment, from, answered int, killed bool) (states int) {
	base := memoryDir(t)
	work := filepath.Join(base, "work")
	var d *disk
	if killed {
		require.NoError(t, before.view(work))
		d = before.clone()
		from = answered // what was handed to the kernel is there
	} else {
		require.NoError(t, before.state(work, rnd, keep(rnd.IntN(int(keeps))), keep(rnd.IntN(int(keeps)))))
	}
	if d == nil {
		var err error
		d, err = load(work)
		require.NoError(t, err)
	}
	d.cutting = true
	if dir := filepath.Join(work, "store"); os.MkdirAll(dir, 0o700) == nil && d.root.entries["store"] == nil {
		n := newDir()
		d.root.entries["store"], d.root.kept["store"] = n, n
	}
	clock := moments[answered].clock
	calls := traced(t, work, recoverEnv+"="+fmt.Sprint(clock))
	found := ""
	cutFrom := from
	if killed { // before recovery has said anything, a cut may still take what was not synced
		cutFrom = 0
		if from == answered && !unsynced(before) {
			cutFrom = from
		}
	}
	for i, c := range calls {
		for due := (i + 1) * statesOfARecovery / len(calls); states < due; states++ {
			dir := filepath.Join(base, fmt.Sprint(states))
			data, names := keep(rnd.IntN(int(keeps))), keep(rnd.IntN(int(keeps)))
			require.NoError(t, d.state(dir, rnd, data, names))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "store"), 0o700))
			got, err := look(filepath.Join(dir, "store"), clock)
			require.NoError(t, err, "before call %d of recovery, %v; behind answer %d, killed %v", i, c, answered, killed)
			if found != "" {
				require.Equal(t, found, digest(got), "recovery had said what it found: before call %d, %v; behind answer %d, killed %v", i, c, answered, killed)
			} else {
				n := min(answered+1, len(moments)-1)
				for n >= cutFrom && got != moments[n].contents {
					n--
				}
				require.GreaterOrEqual(t, n, cutFrom, "before call %d of recovery, %v; behind answer %d, killed %v:\n%s",
					i, c, answered, killed, difference(moments[answered].contents, got))
			}
			require.NoError(t, os.RemoveAll(dir))
		}
		if c.name == "note" {
			found = strings.TrimPrefix(c.path, "found ")
			continue
		}
		require.NoError(t, d.do(c), "call %d of recovery: %v", i, c)
	}
	require.NotEmpty(t, found)
	require.NoError(t, os.RemoveAll(base))
	return states
}

// unsynced reports whether the disk has anything that a cut may take.
func unsynced(d *disk) bool {
	var any func(n *node) bool
	any = func(n *node) bool {
		if len(n.pending) > 0 || len(n.moves) > 0 {
			return true
		}
		for _, e := range n.entries {
			if any(e) {
				return true
			}
		}
		return false
	}
	return any(d.root)
}
