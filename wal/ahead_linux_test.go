package wal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Headers are looked at ahead of what is known to be wanted. Where that ends, and at an error, the rest is closed, and
// the log is the same wherever it is opened from.
func TestSegmentsThatAreLookedAtAhead(t *testing.T) {
	const n = 1200
	dir, l := filled(t, n, small(never))
	firsts := []uint64{}
	for _, s := range l.Segments() {
		firsts = append(firsts, s.first)
	}
	require.NoError(t, l.Close())
	require.Greater(t, len(firsts), 140)
	for i, first := range firsts {
		if i%16 > 2 && i < len(firsts)-2 {
			continue
		}
		l, got, _, err := readFrom(dir, small(never), Start{After: first, Synced: first})
		require.NoError(t, err)
		require.Equal(t, payloads(n)[first:], append([]string{}, got...))
		require.Len(t, l.all(), len(firsts))
		require.Equal(t, len(firsts), descriptors(t, dir), "from segment %d on", i+1)
		require.NoError(t, l.Close())
		require.Zero(t, descriptors(t, dir))
	}
	for _, bad := range []uint64{130, 100, 70, 64, 2} {
		b := []byte(readAll(t, pathOf(dir, bad)))
		b[17]++ // another store's
		require.NoError(t, os.WriteFile(pathOf(dir, bad), headerPutRight(b), 0o600))
		_, _, _, err := readFrom(dir, small(never), Start{After: n, Synced: n})
		var damage *CorruptError
		require.ErrorAs(t, err, &damage)
		require.Equal(t, pathOf(dir, bad), damage.File, "of several that are damaged the oldest is named")
		require.Zero(t, descriptors(t, dir))
	}
}

// descriptors counts the files below dir that this process has open.
func descriptors(t *testing.T, dir string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range all {
		if path, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(path, dir) {
			n++
		}
	}
	return n
}
