package linear

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

var (
	historiesWanted  = flag.Int("linear.histories", 0, "histories; 0 = 50, or 5 with -short")
	operationsWanted = flag.Int("linear.operations", 300, "operations of a history")
	livesWanted      = flag.Int("linear.lives", 3, "processes of a history at least; most but the last are killed")
	seedWanted       = flag.Uint64("linear.seed", 0, "seed of the first history; 0 = by the time")
)

func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-linear-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Every operation of store and receiver, by eight clients of a process that is killed now and then.
func TestLinearizable(t *testing.T) {
	histories := *historiesWanted
	switch {
	case histories > 0:
	case testing.Short():
		histories = 5
	default:
		histories = 50
	}
	seed := *seedWanted
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	// On a disk the syncs give the calls time to meet; in memory a history takes a tenth of that. Of a short run, so many
	// are on the disk as it does in some seconds, however slow it is.
	disk, memory := t.TempDir(), memoryDir(t)
	onDisk := time.Duration(0)
	seen := map[string]int{}
	returned, kills, lives, longest := 0, 0, 0, time.Duration(0)
	for h := range histories {
		store, began := filepath.Join(memory, fmt.Sprint(h)), time.Now()
		slow := h%2 == 0 && (*historiesWanted > 0 || onDisk < 15*time.Second)
		if slow {
			store = filepath.Join(disk, fmt.Sprint(h))
		}
		r := record(t, store, seed+uint64(h), *operationsWanted, *livesWanted)
		if slow {
			onDisk += time.Since(began)
		}
		require.NoError(t, os.RemoveAll(store))
		longest = max(longest, check(t, r.ops, seed+uint64(h)))
		returned, kills, lives = returned+r.returns, kills+r.kills, lives+r.lives
		count(seen, r.ops)
	}
	t.Logf("%d histories, %d operations returned, %d were in flight in %d kills of %d processes; the longest search took %v",
		histories, returned, seen["killed"], kills, lives, longest)
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%7d × %s", seen[what], what)
	}
	if histories < 20 {
		return
	}
	for _, k := range kinds {
		require.NotZero(t, seen[k.op], k.op)
	}
	for _, what := range []string{
		"killed", "do, fn ran", "do, replayed", "do seq, fn ran", "do, in flight", "do, reused", "do, in doubt", "do, permanent",
		"settle, not in doubt", "settle, settled", "do seq, too old", "do seq, out of order", "do seq, fenced",
	} {
		require.NotZero(t, seen[what], what)
	}
}

// check looks for an order that explains a history, and returns how long it took for the group that took longest. A
// history without one is kept, as far as it goes wrong.
func check(t *testing.T, history []porcupine.Operation, seed uint64) (longest time.Duration) {
	for _, part := range model.Partition(expand(history)) {
		began := time.Now()
		result, _ := porcupine.CheckOperationsVerbose(model, part, 5*time.Minute)
		longest = max(longest, time.Since(began))
		switch result {
		case porcupine.Ok:
			continue
		case porcupine.Unknown: // says nothing of the store, and proves nothing either
			t.Errorf("seed %d: undecided: whether an order explains %d calls of a group was not found out in five minutes", seed, len(part))
			continue
		}
		bad := shortest(part)
		text := ""
		for _, op := range bad[max(0, len(bad)-40):] {
			text += fmt.Sprintf("%d..%d client %d: %s\n", op.Call, op.Return, op.ClientId, model.DescribeOperation(op.Input, op.Output))
		}
		_, info := porcupine.CheckOperationsVerbose(model, bad, time.Minute)
		path := filepath.Join(t.ArtifactDir(), fmt.Sprintf("history-%d.html", seed))
		require.NoError(t, porcupine.VisualizePath(model, info, path))
		t.Fatalf("seed %d: illegal: no order explains what the clients saw; see %s (-artifacts keeps it). It ends with\n%s", seed, path, text)
	}
	return longest
}

// count counts what was seen.
func count(seen map[string]int, history []porcupine.Operation) {
	for _, op := range history {
		i, o := op.Input.(in), op.Output.(out)
		seen[i.Op]++
		switch {
		case o.killed:
			seen["killed"]++
		case o.Err != "":
			seen[i.Op+", "+o.Err]++
		case o.Ran:
			seen[i.Op+", fn ran"]++
		case i.Op == "do" || i.Op == "do seq":
			seen[i.Op+", replayed"]++
		case i.Op == "settle":
			seen["settle, settled"]++
		}
	}
}

// shortest is the shortest beginning of a history of one group that has no order.
func shortest(part []porcupine.Operation) []porcupine.Operation {
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Return - b.Return) })
	begun := func(n int) []porcupine.Operation {
		h := slices.Clone(part[:n])
		for _, op := range part[n:] { // what is not over may have happened
			if n > 0 && op.Call < part[n-1].Return {
				op.Output = out{killed: true}
				h = append(h, op)
			}
		}
		return h
	}
	n := sort.Search(len(part), func(n int) bool {
		result, _ := porcupine.CheckOperationsVerbose(model, begun(n), time.Minute)
		return result == porcupine.Illegal
	})
	return begun(n)
}
