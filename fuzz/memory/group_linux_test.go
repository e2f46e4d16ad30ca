package memory

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// group is a control group with a limit of memory, of version 1 or 2.
type group struct {
	t    *testing.T
	path string
	v2   bool
}

// newGroup makes one, or skips the test.
func newGroup(t *testing.T, limit int64) *group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to limit the memory of a process")
	}
	// Version 1 has a tree for memory. In version 2 the root of the only tree may have groups beside processes.
	const v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
	parent, file, swap := v1, "memory.limit_in_bytes", ""
	g := &group{t: t}
	if _, err := os.Stat(filepath.Join(v1, file)); err != nil {
		on, err := os.ReadFile(filepath.Join(v2, "cgroup.subtree_control"))
		if err != nil || !bytes.Contains(on, []byte("memory")) {
			t.Skipf("needs control groups that limit memory, at %s or %s: %v", v1, v2, err)
		}
		parent, file, swap, g.v2 = v2, "memory.max", "memory.swap.max", true
	}
	g.path = filepath.Join(parent, fmt.Sprint("oncelog-test-", os.Getpid()))
	if err := os.Mkdir(g.path, 0o700); err != nil {
		t.Skipf("needs a control group of its own: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, os.Remove(g.path)) })
	require.NoError(t, os.WriteFile(filepath.Join(g.path, file), strconv.AppendInt(nil, limit, 10), 0o600))
	if swap != "" {
		_ = os.WriteFile(filepath.Join(g.path, swap), []byte("0"), 0o600) // there may be no swap to limit
	} else { // a page that is not used is not written out instead
		require.NoError(t, os.WriteFile(filepath.Join(g.path, "memory.swappiness"), []byte("0"), 0o600))
	}
	return g
}

// procs is the file into which a process writes 0 to join.
func (g *group) procs() string { return filepath.Join(g.path, "cgroup.procs") }

// reached is how often the limit was met.
func (g *group) reached() int64 {
	if g.v2 {
		return g.number("memory.events", "max ")
	}
	return g.number("memory.failcnt", "")
}

// killed is how many processes the kernel has killed for it.
func (g *group) killed() int64 {
	if g.v2 {
		return g.number("memory.events", "oom_kill ")
	}
	return g.number("memory.oom_control", "oom_kill ")
}

// number reads a number from a line of a file that begins so.
func (g *group) number(file, prefix string) int64 {
	b, err := os.ReadFile(filepath.Join(g.path, file))
	require.NoError(g.t, err)
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, prefix); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			require.NoError(g.t, err)
			return n
		}
	}
	require.Fail(g.t, "not there", "%s in %s", prefix, file)
	return 0
}
