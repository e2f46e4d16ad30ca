//go:build linux && amd64

package crash

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// killedAt runs the calls of a workload until one that is wanted is about to begin, and returns the disk as a kill leaves
// it then, with the calls of its recovery.
func killedAt(t *testing.T, calls []call, wanted func(c call, d *disk) bool) (d *disk, recovery []call) {
	d = newDisk()
	for _, c := range calls {
		if wanted(c, d) {
			return d.killed(), recoveryOf(t, d)
		}
		require.NoError(t, d.do(c))
	}
	require.Fail(t, "the calls have no such moment")
	return nil, nil
}

func recoveryOf(t *testing.T, d *disk) []call {
	work := filepath.Join(memoryDir(t), "work")
	require.NoError(t, d.view().write(work))
	return traced(t, work, "recover", fmt.Sprintf("solo %d", begins), nil)
}

// The lint refuses recoveries of which one rule is broken.
func TestTheLintRefusesARecovery(t *testing.T) {
	calls := recordCalls(t, "solo", "")
	isSegment := func(c call) bool { return segmentPath.MatchString(c.Path) }
	written := func() (*disk, []call) {
		frames := 0
		return killedAt(t, calls, func(c call, d *disk) bool { // frames are written and not synced
			if c.Name == "sync" && isSegment(c) {
				_, _, n := d.find(c.Path)
				if s := scan(n.content); s.whole && !s.sealed && len(n.pending) > 0 && s.number < 4 {
					frames++
				}
			}
			return frames == 12
		})
	}
	torn := func() (*disk, []call) { // of the last frame the beginning is missing, and the rest is to be cut
		d, _ := written()
		for _, n := range (&lint{d: d}).segments("store/wal") {
			if s := scan(n.content); s.whole && !s.sealed {
				last := s.frames[len(s.frames)-1]
				n.content = slices.Concat(n.content[:last.at], make([]byte, 4), n.content[last.at+4:])
			}
		}
		d = diskOf(d.view())
		return d, recoveryOf(t, d)
	}
	prepared := func() (*disk, []call) {
		return killedAt(t, calls, func(c call, d *disk) bool { // and the next segment is there
			if c.Name != "sync" || !isSegment(c) {
				return false
			}
			_, _, n := d.find(c.Path)
			s := scan(n.content)
			_, _, next := d.find(segmentFile("store/wal", s.number+1))
			return s.whole && s.number > 1 && !s.sealed && len(n.pending) > 0 && next != nil
		})
	}
	dropped := func() (*disk, []call) {
		return killedAt(t, calls, func(c call, d *disk) bool {
			_, _, n := d.find(c.Path)
			return c.Name == "unlink" && isSegment(c) && n != nil && len(scan(n.content).frames) > 0
		})
	}
	for name, one := range map[string]struct {
		state  func() (*disk, []call)
		doctor func(d *doctor)
		rule   string
	}{
		"kept frames that are not written again": {written, func(d *doctor) {
			d.removeCalls(func(c call) bool { return c.Name == "write" && isSegment(c) && c.At == 0 })
		}, "was not written again"},
		"kept frames that are written again and not synced": {written, func(d *doctor) {
			d.removeSyncs(d.find("write", "store/wal/"), 1, isSegment)
		}, "is not synced from"},
		"other bytes over kept frames": {written, func(d *doctor) {
			at := d.find("write", "store/wal/")
			d.insert(at, call{Name: "write", Path: d.calls[at].Path, At: 90, Data: []byte("other")})
		}, "bytes: "},
		"a prepared segment that goes before the mark is synced": {prepared, func(d *doctor) {
			d.removeSyncs(d.find("unlink", "store/wal/"), -1, isSegment)
		}, "goes before what recovery has written"},
		"what was found said before it is durable": {written, func(d *doctor) {
			d.move(d.find("note", "found "), 0)
		}, "rewrite: recovery says what it found"},
		"something left behind the last frame": {written, func(d *doctor) {
			at := d.find("write", "store/wal/")
			d.insert(d.find("note", "found "), call{Name: "write", Path: d.calls[at].Path, At: 30_000, Data: []byte("junk")})
		}, "something is left"},
		"cut bytes that are not made zeros": {torn, func(d *doctor) {
			for i, c := range d.calls {
				if zeros := len(c.Data) - len(bytes.TrimRight(c.Data, "\x00")); c.Name == "write" && isSegment(c) && c.At > 0 && zeros > 0 {
					d.calls[i].Data = c.Data[:len(c.Data)-zeros]
				}
			}
		}, "something is left"},
		"a dropped segment that goes before what says so is written again": {dropped, func(d *doctor) {
			d.removeCalls(func(c call) bool { return c.Name == "write" && isSegment(c) })
		}, "unlink: segment "},
	} {
		t.Run(name, func(t *testing.T) {
			disk, calls := one.state()
			require.NoError(t, recoveryLint(disk.killed()).check(calls))
			d := &doctor{t: t, calls: slices.Clone(calls)}
			one.doctor(d)
			err := recoveryLint(disk).check(d.calls)
			require.Error(t, err)
			require.Contains(t, err.Error(), one.rule)
			t.Log(strings.SplitN(err.Error(), "\n", 2)[0])
		})
	}
}
