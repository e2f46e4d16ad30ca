package wal

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func init() {
	children["recover"] = traced(recoverChild)
	children["write"] = traced(writeChild)
}

// recoverChild opens each log in the traced directory, one after the other, and says when it is open.
func recoverChild() {
	dirs, err := os.ReadDir(tracedDir())
	check(err)
	for _, d := range dirs {
		note("opening %s", d.Name())
		l, err := Open(filepath.Join(tracedDir(), d.Name()), small(never), Start{}, func(Frame) error { return nil })
		check(err)
		note("open %s", d.Name())
		check(l.Close())
	}
}

// tornStates are logs as a kill leaves them, each of which needs another part of the repair, and what they hold.
func tornStates(t *testing.T) (states map[string]string, holding map[string][]string) {
	o := small(never)
	killed, tail, ends, numbers := tornLog(t, o, 40)
	states, holding = map[string]string{}, map[string][]string{}
	state := func(name string, last int, change func(dir string)) {
		dir := copyLog(t, killed)
		change(dir)
		states[name], holding[name] = dir, payloads(last)
	}
	path := func(dir string) string { return pathOf(dir, tail.number) }
	state("killed", 40, func(string) {})
	state("torn", numbers[2], func(dir string) { patch(t, path(dir), ends[2]+3, []byte("torn")...) })
	state("torn, nothing behind", numbers[2], func(dir string) {
		require.NoError(t, os.RemoveAll(segmentDir(dir, tail.number+1)))
		patch(t, path(dir), ends[2]+3, []byte("torn")...)
	})
	state("no header", numbers[0]-1, func(dir string) { patch(t, path(dir), 5, []byte("torn")...) })
	state("no frame", numbers[0]-1, func(dir string) { patch(t, path(dir), headerEntry+2, []byte("torn")...) })
	state("nothing at all", numbers[0]-1, func(dir string) { require.NoError(t, os.Truncate(path(dir), 0)) })
	state("unsealed, a header behind", numbers[0]-1, func(dir string) {
		unseal(t, dir, tail.number-1)
		require.NoError(t, os.Truncate(path(dir), headerEntry))
	})
	return states, holding
}

// content is a log's files without what was set aside.
func content(t testing.TB, dir string) map[string]string {
	files := tree(t, dir)
	maps.DeleteFunc(files, func(path, _ string) bool { return strings.HasPrefix(path, tornDir) })
	return files
}

// Recovery may be killed at any point, and that recovery again, and comes to the same log: not only what it holds,
// each byte of it.
func TestRecoveryMayBeKilledAnywhere(t *testing.T) {
	states, holding := tornStates(t)
	moments := 0
	// snapshots has the logs in base recovered and returns a copy of each as it was before every call that changed it.
	snapshots := func(base string) string {
		before := memoryDir(t)
		count := map[string]int{}
		traceCalls(t, "recover", base, func(c call) syscall.Errno {
			name, _, _ := strings.Cut(c.path, "/")
			if c.name == "note" || !c.changes() && c.name != "fsync" {
				return 0
			}
			count[name]++
			copyTo(t, filepath.Join(base, name), filepath.Join(before, fmt.Sprintf("%s, %d", name, count[name])))
			return 0
		})
		return before
	}
	for name, dir := range states {
		base := memoryDir(t)
		copyTo(t, dir, filepath.Join(base, "log"))
		once := snapshots(base)
		final := content(t, filepath.Join(base, "log"))
		require.NotEqual(t, content(t, dir), final, name)
		twice := snapshots(copyOf(t, once))
		for _, killed := range []string{once, twice} {
			dirs, err := os.ReadDir(killed)
			require.NoError(t, err)
			moments += len(dirs)
			for _, d := range dirs {
				what := fmt.Sprintf("%s, killed before call %s", name, d.Name())
				l, got, err := read(filepath.Join(killed, d.Name()), small(never))
				require.NoError(t, err, what)
				require.Equal(t, holding[name], got, what)
				require.NoError(t, l.Close())
				require.Equal(t, final, content(t, filepath.Join(killed, d.Name())), what)
			}
		}
		goesOn(t, filepath.Join(base, "log"), small(never), holding[name], name)
	}
	t.Logf("%d moments", moments)
	require.Greater(t, moments, 200)
}

func copyOf(t *testing.T, dir string) string {
	to := filepath.Join(memoryDir(t), "copy")
	copyTo(t, dir, to)
	return to
}

// recovering returns the calls with which a log is recovered, opening and closing left out.
func recovering(t *testing.T, dir string) (calls []string) {
	base := memoryDir(t)
	copyTo(t, dir, filepath.Join(base, "log"))
	traceCalls(t, "recover", base, func(c call) syscall.Errno {
		if c.name != "openat" && c.name != "close" {
			calls = append(calls, c.String())
		}
		return 0
	})
	return calls
}

// The order of recovery is what makes it safe: what is cut is kept first; then what was read is written again and
// synced, since a sync alone may find pages that a failed one left clean; only then does a mark say so.
func TestTheOrderOfRecovery(t *testing.T) {
	states, _ := tornStates(t)
	tail := func(dir string) (file, seg, before string, end int64) {
		numbers, err := listSegments(dir)
		require.NoError(t, err)
		n := numbers[len(numbers)-2]
		_, all := entries(t, pathOf(dir, n))
		if len(all) > 0 {
			end = all[len(all)-1].end
		}
		return fmt.Sprintf("log/%020d/%s", n, segmentFile), fmt.Sprintf("log/%020d", n), fmt.Sprintf("log/%020d", n-1), end
	}

	dir := states["torn"]
	file, seg, _, end := tail(dir)
	behind := fmt.Sprintf("log/%020d", segmentOf(seg)+1)
	torn := fmt.Sprintf("log/torn/%020d-%d", segmentOf(seg), end)
	junk := int64(len(strings.TrimRight(string(readAll(t, pathOf(dir, segmentOf(seg)))), "\x00"))) - end
	require.Equal(t, []string{
		"note opening log",
		"mkdirat log/torn", fmt.Sprintf("write %s +%d", torn, junk), "fsync " + torn,
		fmt.Sprintf("pwrite64 %s 0+%d", file, end), "fsync " + file, "fsync " + seg, "fsync log",
		fmt.Sprintf("pwrite64 %s %d+%d", file, end, junk), "fsync " + file,
		"unlinkat " + behind + "/" + segmentFile, "unlinkat " + behind, "unlinkat " + behind, "fsync log",
		"note open log",
	}, recovering(t, dir))

	// What the segment before the tail holds was never proven to be durable either.
	dir = states["nothing at all"]
	file, seg, before, _ := tail(dir)
	_, all := entries(t, pathOf(dir, segmentOf(before)))
	calls := recovering(t, dir)
	require.Equal(t, []string{
		"note opening log", "fsync " + file, "fsync " + seg,
		fmt.Sprintf("pwrite64 %s/%s 0+%d", before, segmentFile, all[len(all)-1].end), "fsync " + before + "/" + segmentFile, "fsync " + before,
		"fsync log",
		fmt.Sprintf("pwrite64 %s 0+%d", file, headerEntry+12), "fsync " + file,
	}, calls[:9])

	// A log that holds nothing above W is not written again.
	dir = copyLog(t, states["killed"])
	holds(t, dir, small(never), payloads(40))
	require.Equal(t, []string{"note opening log", "note open log"}, recovering(t, dir))
}

// writeChild writes transactions in a log of its own and says when each is acknowledged.
func writeChild() {
	dir := filepath.Join(tracedDir(), "log")
	o := small(0)
	if os.Getenv("ONCELOG_WAL_POLICY") == "never" {
		o.Sync = never
	}
	check(Create(dir, o))
	note("created")
	for life := range 2 {
		l, err := Open(dir, o, Start{}, func(Frame) error { return nil })
		check(err)
		for i := range 20 {
			_, err := commit(l, payload(life*20+i+1))
			check(err)
			note("acknowledged %d", life*20+i+1)
			for !settled(l) {
				runtime.Gosched()
			}
		}
		check(l.Close())
		note("closed")
	}
}

// disk follows the calls and knows of every file and name whether a power cut would leave it.
type disk struct {
	unsynced map[string]bool // files with writes that no sync has followed
	unnamed  map[string]bool // names made, of which the directory is not synced
	wrote    map[uint64]bool // segments that hold anything
}

func (d *disk) see(t *testing.T, c call, base string) {
	dir, file := filepath.Dir(c.path), c.path
	switch c.name {
	case "mkdirat":
		d.unnamed[file] = true
	case "openat":
		if _, err := os.Stat(filepath.Join(base, file)); err != nil {
			d.unnamed[file] = true
		}
	case "write", "pwrite64":
		d.unsynced[file] = true
		if n := segmentOf(file); !d.wrote[n] {
			d.wrote[n] = true
			require.False(t, d.unnamed[file], "%s: its name is not durable", c)
			require.False(t, d.unnamed[dir], "%s: its directory's name is not durable", c)
			if n > 1 {
				before := fmt.Sprintf("log/%020d/%s", n-1, segmentFile)
				require.False(t, d.unsynced[before], "%s: the seal before is not durable", c)
				_, all := entries(t, filepath.Join(base, before))
				require.EqualValues(t, kindSeal, all[len(all)-1].frame.payload[0], "%s: the segment before is not sealed", c)
			}
		}
	case "fsync", "fdatasync":
		delete(d.unsynced, file)
		for name := range d.unnamed {
			if filepath.Dir(name) == file {
				delete(d.unnamed, name)
			}
		}
	}
}

// Nothing is acknowledged before everything that it needs is on stable storage: its bytes, the name of its file, the
// name of its segment, and the seal before.
func TestTheOrderOfWriting(t *testing.T) {
	for _, policy := range []string{"always", "never"} {
		t.Setenv("ONCELOG_WAL_POLICY", policy)
		base := memoryDir(t)
		d := disk{map[string]bool{}, map[string]bool{}, map[uint64]bool{}}
		acknowledged := 0
		traceCalls(t, "write", base, func(c call) syscall.Errno {
			if c.name != "note" {
				d.see(t, c, base)
				return 0
			}
			if policy == "never" && strings.HasPrefix(c.path, "acknowledged") {
				return 0
			}
			acknowledged++
			// The next segment may be in preparation; nothing rests on it.
			maps.DeleteFunc(d.unnamed, func(path string, _ bool) bool { return !d.wrote[segmentOf(path)] && segmentOf(path) > 0 })
			require.Empty(t, slices.Collect(maps.Keys(d.unsynced)), c)
			delete(d.unnamed, "log") // the caller's
			require.Empty(t, slices.Collect(maps.Keys(d.unnamed)), c)
			return 0
		})
		require.Greater(t, len(d.wrote), 5)
		require.GreaterOrEqual(t, acknowledged, 3)
		holds(t, filepath.Join(base, "log"), small(0), payloads(40))
	}
}
