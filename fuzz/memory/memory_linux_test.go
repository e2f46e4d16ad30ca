package memory

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

var large = flag.Bool("memory.large", false, "512 MiB of log in 64 MiB of memory, instead of 64 in 40")

// A child with a store that is being written takes 35 MiB if Go's collector is told to keep to 24: the index, which is not
// in Go's heap, takes 4 at least, the library keeps a segment in memory, and the next one's buffer is there already. Told
// nothing the collector lets the heap grow to twice what lives, to 60 MiB; a service with a limit tells it. The log is
// larger than what is left many times, so most of what is asked for has left the cache.
const (
	limit, data           = 40 << 20, 64 << 20
	largeLimit, largeData = 64 << 20, 512 << 20
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var j job
		err := json.Unmarshal([]byte(text), &j)
		if err == nil {
			err = j.run()
		}
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// What is stored is found, and more can be stored, with memory for a fraction of it.
func TestPromise1WithLessMemoryThanData(t *testing.T) {
	if raced {
		return // not a skip: what it would say is said without the race detector
	}
	j := job{Dir: filepath.Join(t.TempDir(), "store"), Bytes: data}
	most := int64(limit)
	if *large {
		j.Bytes, most = largeData, largeLimit
	}
	var st syscall.Statfs_t
	require.NoError(t, syscall.Statfs(filepath.Dir(j.Dir), &st))
	const tmpfs = 0x01021994
	if st.Type == tmpfs {
		t.Skip("needs a directory on a disk: in a tmpfs the log itself is memory; set TMPDIR")
	}
	j.GoLimit = most * 3 / 5
	g := newGroup(t, most)
	j.Procs = g.procs()
	for _, step := range []step{stepWork, stepOpen, stepReplay} {
		if step == stepReplay {
			require.NoError(t, os.RemoveAll(filepath.Join(j.Dir, "snapshot")))
		}
		before := g.reached()
		j.Step = step
		r := start(t, j)
		t.Logf("%s: %+v; the limit of %d MiB was met %d times", step, r, most>>20, g.reached()-before)
		require.Zero(t, g.killed())
		require.Greater(t, r.LogBytes, most)
		require.Less(t, r.IndexBytes, 20*r.Keys+4<<20) // the second is what an empty one takes
		if step != stepOpen {                          // with a snapshot hardly anything is read
			require.Greater(t, g.reached(), before, "the limit was not met, so nothing was proven")
		}
	}
}

// start runs a child to its end and returns what it reports.
func start(t *testing.T, j job) (r report) {
	text, err := json.Marshal(j)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		require.Fail(t, "the child was killed", "%s: %v %s", j.Step, err, errs.String())
	}
	require.NoError(t, err, "%s: %s", j.Step, errs.String())
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	return r
}
