//go:build linux && amd64

package crash

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func requireSeen(t *testing.T, l *lint, all ...string) {
	t.Helper()
	for _, what := range all {
		require.Positive(t, l.seen[what], "the calls contain no %s", what)
	}
}

// The calls themselves keep the store's rules, with syncs and without.
func TestPromise1TheCallsAreInOrder(t *testing.T) {
	for _, never := range []bool{false, true} {
		for _, w := range []workload{solo(t, never), crowd(t, never)} {
			l := newLint(never)
			require.NoError(t, l.check(recordCalls(t, w.role, w.arg)), "%s", w.name)
			requireSeen(t, l, "seal", "drop-through", "sync mark", "snapshot", "manifest", "segment removed", "empty segment removed", "snapshot removed")
			if w.role == "solo" {
				requireSeen(t, l, "restored")
			}
			if !never {
				require.Greater(t, l.seen["answer that was looked up"], 50)
			}
			t.Logf("%s: %v", w.name, l.seen)
		}
	}
}

// A creation may be killed at any call. Who takes the directory over makes every name durable before there is a store,
// also those that the killed one had made and not synced.
func TestPromise1AKilledCreationIsTakenOver(t *testing.T) {
	calls := recordCalls(t, "solo", "")
	d := newDisk()
	kills := 0
	for _, c := range calls {
		if c.Name == "note" {
			break // the store is open
		}
		if c.Name != "end" {
			work := filepath.Join(memoryDir(t), "work")
			require.NoError(t, d.view().write(work))
			l := recoveryLint(d.killed())
			require.NoError(t, l.check(traced(t, work, "recover", fmt.Sprintf("solo %d", begins), nil)), "killed before %v", c)
			kills++
		}
		require.NoError(t, d.do(c))
	}
	require.Greater(t, kills, 20)
}

func init() {
	// The child whose sync fails: it tries the more.
	children["failing"] = func(dir, _ string) error {
		s := &service{dir: dir}
		s.clock.Store(begins)
		if err := s.open(); err != nil {
			return err
		}
		failures := 0
		for s.now = range 40 {
			if _, _, err := s.st.PutIfAbsent([]byte(fmt.Sprint("key ", s.now)), s.value(s.now), 0); err == nil {
				note(dir, fmt.Sprintf("answered %d put", s.now))
			} else {
				failures++
			}
		}
		_ = s.st.Snapshot()
		_ = s.st.Compact()
		_ = s.st.Close()
		if failures < 20 {
			return fmt.Errorf("%d of the calls after the sync failed", failures)
		}
		return nil
	}
}

// failing records a child of whose log one sync fails.
func failing(t *testing.T) []call {
	syncs := 0
	return traced(t, t.TempDir(), "failing", "", func(c call) syscall.Errno {
		if c.Name == "sync" && segmentPath.MatchString(c.Path) {
			if syncs++; syncs == 15 {
				return syscall.EIO
			}
		}
		return 0
	})
}

// A sync that fails is not tried again, nothing is written behind it, and nothing is answered any more.
func TestPromise3AFailedSyncIsTheLast(t *testing.T) {
	calls := failing(t)
	l := newLint(false)
	require.NoError(t, l.check(calls))
	require.True(t, l.fatal, "no sync failed")
	require.Positive(t, l.seen["answer that was looked up"])
}

// The lint refuses calls of which one rule is broken: a real run's, doctored.
func TestTheLintRefuses(t *testing.T) {
	always, never, failed := recordCalls(t, "solo", ""), recordCalls(t, "solo", "never"), failing(t)
	for name, one := range map[string]struct {
		calls  []call
		doctor func(d *doctor)
		rule   string
		never  bool
	}{
		"an answer before the sync of its file": {always, func(d *doctor) {
			at := d.find("note", "answered 40 ")
			d.removeLastSyncs(at, d.written(at))
		}, "answer", false},
		"an answer before the sync of its segment's name": {always, func(d *doctor) {
			at := d.find("rename", "store/MANIFEST.tmp")
			d.removeSyncs(at, 1, func(c call) bool { return c.Path == "store/wal" })
		}, "answer: it is given, and the name store/wal/00000000000000000002 is", false},
		"an answer before the sync of its segment's directory": {always, func(d *doctor) {
			d.removeAllSyncs(func(c call) bool { return c.Path == path.Dir(segmentFile("store/wal", 2)) })
		}, "answer: it is given, and the name " + segmentFile("store/wal", 2), false},
		"a frame that says more than was synced": {always, func(d *doctor) {
			at := d.find("note", "answered 40 ")
			d.removeLastSyncs(at, d.written(at))
			d.calls = slices.DeleteFunc(d.calls, func(c call) bool { return strings.HasPrefix(c.Path, "answered 4") })
		}, "claim: frame", false},
		"a segment that begins before the seal is synced": {never, func(d *doctor) {
			d.removeLastSyncs(d.begins(3), segmentFile("store/wal", 2))
		}, "claim: segment 3", true},
		"a segment that goes before what says so is synced": {always, func(d *doctor) {
			at := d.unlinked(1)
			d.removeLastSyncs(at, d.written(at))
		}, "unlink: segment 1 goes by a drop-through", false},
		"a segment that goes before what says so is written": {always, func(d *doctor) {
			d.move(d.unlinked(1), d.find("note", "answered 3 "))
		}, "unlink: segment 1 goes, and no drop-through", false},
		"a segment that goes before an older one has": {always, func(d *doctor) {
			d.removeCalls(func(c call) bool {
				return (c.Name == "unlink" || c.Name == "rmdir") && strings.HasPrefix(c.Path, path.Dir(segmentFile("store/wal", 1)))
			})
		}, "which is older", false},
		"a snapshot that gets its name before it is synced": {always, func(d *doctor) {
			d.removeAllSyncs(func(c call) bool { return c.Path == "store/snapshot/tmp" })
		}, "rename: store/snapshot/", false},
		"a snapshot that gets its name before its log is synced": {never, func(d *doctor) {
			at := d.find("rename", "store/snapshot/tmp")
			d.removeLastSyncs(at, d.written(at))
		}, "rename: a snapshot through", true},
		"a snapshot whose name is not synced": {always, func(d *doctor) {
			d.removeSyncs(d.find("rename", "store/snapshot/tmp"), 1, func(c call) bool { return c.Path == "store/snapshot" })
		}, "rename: an answer, and store/snapshot", false},
		"a manifest before its log is synced": {always, func(d *doctor) {
			d.removeAllSyncs(func(c call) bool { return c.Path == segmentFile("store/wal", 1) })
		}, "rename: a manifest, and store/wal/", false},
		"a restored manifest before its log is synced": {always, func(d *doctor) {
			first := ""
			d.removeAllSyncs(func(c call) bool {
				if m := segmentPath.FindStringSubmatch(c.Path); first == "" && m != nil && m[1] == "restored-1/wal" {
					first = c.Path
				}
				return first != "" && c.Path == first
			})
		}, "rename: a manifest, and restored-1/wal/", false},
		"a manifest whose name is not synced": {always, func(d *doctor) {
			for range 2 { // the writer's, and the opening's
				d.removeSyncs(d.find("rename", "store/MANIFEST.tmp"), 1, func(c call) bool { return c.Path == "store" })
			}
		}, "answer: it is given, and the name store/MANIFEST", false},
		"RESTORING that goes before there is a manifest": {always, func(d *doctor) {
			d.removeSyncs(d.find("unlink", "restored-1/RESTORING"), -1, func(c call) bool { return c.Path == "restored-1" })
		}, "unlink: RESTORING", false},
		"a snapshot that goes too early": {always, func(d *doctor) {
			last := ""
			for _, c := range d.calls {
				if c.Name == "rename" && c.Path == "store/snapshot/tmp" {
					last = c.To
				}
			}
			d.insert(len(d.calls)-1, call{Name: "unlink", Path: last})
		}, "unlink: 0 newer", false},
		"a byte of the log that is changed": {always, func(d *doctor) {
			d.insert(d.find("note", "answered 40 "), call{Name: "write", Path: segmentFile("store/wal", 2), At: 100, Data: []byte("other")})
		}, "bytes: ", false},
		"zeros over a frame": {always, func(d *doctor) {
			d.insert(d.find("note", "answered 9 "), call{Name: "write", Path: segmentFile("store/wal", 2), At: 100, Data: make([]byte, 50)})
		}, "bytes: ", false},
		"a write behind a seal": {always, func(d *doctor) {
			d.insert(d.begins(3), call{Name: "write", Path: segmentFile("store/wal", 2), At: 20_000, Data: []byte("more")})
		}, "seal: ", false},
		"frames that are cut off": {always, func(d *doctor) {
			d.insert(d.find("note", "answered 9 "), call{Name: "truncate", Path: segmentFile("store/wal", 2), At: 100})
		}, "seal: frames are cut off", false},
		"LOCK unlinked": {always, func(d *doctor) {
			d.insert(len(d.calls)-1, call{Name: "unlink", Path: "store/LOCK"})
		}, "lock: ", false},
		"MANIFEST renamed": {always, func(d *doctor) {
			d.insert(len(d.calls)-1, call{Name: "rename", Path: "store/MANIFEST", To: "store/OLD"})
		}, "lock: ", false},
		"a failed sync that is tried again": {failed, func(d *doctor) {
			at := d.failed()
			d.insert(at+1, call{Name: "sync", Path: d.path(at)})
		}, "failed: a sync", false},
		"a write behind a failed sync": {failed, func(d *doctor) {
			at := d.failed()
			d.insert(at+1, call{Name: "write", Path: d.path(at), At: 30_000, Data: []byte("more")})
		}, "failed: a write", false},
		"an answer behind a failed sync": {failed, func(d *doctor) {
			d.insert(d.failed()+1, call{Name: "note", Path: "answered 39 put"})
		}, "failed: an answer", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := &doctor{t: t, calls: slices.Clone(one.calls)}
			one.doctor(d)
			err := newLint(one.never).check(d.calls)
			require.Error(t, err)
			require.Contains(t, err.Error(), one.rule)
			t.Log(err)
		})
	}
}

// doctor changes recorded calls.
type doctor struct {
	t     *testing.T
	calls []call
}

// find returns where the first call of a name begins whose path begins so.
func (d *doctor) find(name, path string) int {
	i := slices.IndexFunc(d.calls, func(c call) bool { return c.Name == name && strings.HasPrefix(c.Path, path) })
	require.GreaterOrEqual(d.t, i, 0, "%s %s", name, path)
	return i
}

// unlinked returns where a segment goes that held something, 0 = it stays.
func (d *doctor) unlinked(number uint64) int {
	at := 0
	for i, c := range d.calls {
		if c.Name == "unlink" && c.Path == segmentFile("store/wal", number) {
			at = i
		}
	}
	return at
}

// begins returns where a segment gets its header.
func (d *doctor) begins(number uint64) int {
	return slices.IndexFunc(d.calls, func(c call) bool {
		return c.Name == "write" && c.Path == segmentFile("store/wal", number) && scan(c.Data).whole
	})
}

// written returns the segment that a frame was written to last before a call. One that is being prepared is filled with zeros,
// and synced, at any moment.
func (d *doctor) written(at int) string {
	for i := at - 1; i >= 0; i-- {
		c := d.calls[i]
		if c.Name == "write" && segmentPath.MatchString(c.Path) && len(bytes.Trim(c.Data, "\x00")) > 0 {
			return c.Path
		}
	}
	require.Fail(d.t, "no frame was written")
	return ""
}

// removeSyncs takes out the one sync of its kind that is nearest to a call, before it or behind it.
func (d *doctor) removeSyncs(at, step int, which func(c call) bool) {
	for i := at; i >= 0 && i < len(d.calls); i += step {
		if c := d.calls[i]; c.Name == "sync" && which(c) {
			d.remove(map[int]bool{c.ID: true})
			return
		}
	}
	require.Fail(d.t, "there is no such sync")
}

// removeLastSyncs takes out the syncs of a file between what was written to it last and a call: one is not enough where
// closing a sealed segment syncs it too.
func (d *doctor) removeLastSyncs(at int, file string) {
	ids := map[int]bool{}
	for i := at - 1; i >= 0; i-- {
		switch c := d.calls[i]; {
		case c.Path != file:
		case c.Name == "sync":
			ids[c.ID] = true
		case c.Name == "write":
			require.NotEmpty(d.t, ids)
			d.remove(ids)
			return
		}
	}
	require.Fail(d.t, "nothing was written to it")
}

func (d *doctor) removeAllSyncs(which func(c call) bool) {
	d.removeCalls(func(c call) bool { return c.Name == "sync" && which(c) })
}

func (d *doctor) removeCalls(which func(c call) bool) {
	ids := map[int]bool{}
	for _, c := range d.calls {
		if c.Name != "end" && which(c) {
			ids[c.ID] = true
		}
	}
	require.NotEmpty(d.t, ids)
	d.remove(ids)
}

func (d *doctor) remove(ids map[int]bool) {
	d.calls = slices.DeleteFunc(slices.Clone(d.calls), func(c call) bool { return ids[c.ID] })
}

// move makes a call at another place.
func (d *doctor) move(at, to int) {
	c := d.calls[at]
	c.ID = d.fresh()
	d.insert(to, c)
}

func (d *doctor) fresh() int { return 1_000_000 + len(d.calls) }

// insert makes a call before the one at a place, with its end.
func (d *doctor) insert(at int, c call) {
	c.ID = d.fresh()
	all := []call{c}
	if c.Name != "note" {
		all = append(all, call{ID: c.ID, Name: "end"})
	}
	d.calls = slices.Insert(slices.Clone(d.calls), at, all...)
}

// failed returns where a sync ended that failed.
func (d *doctor) failed() int {
	for i, c := range d.calls {
		if c.Name == "end" && c.Errno == syscall.EIO {
			return i
		}
	}
	require.Fail(d.t, "no sync failed")
	return 0
}

// path is that of a call which ends there.
func (d *doctor) path(at int) string {
	for _, c := range d.calls {
		if c.ID == d.calls[at].ID && c.Name != "end" {
			return c.Path
		}
	}
	return ""
}
