package oncelog

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/snapshot"
)

// A snapshot for which there is no room leaves nothing, and the store as it is.
func TestASnapshotWithoutRoom(t *testing.T) {
	o := quick
	o.still = true
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, o)
	for i := range 1500 { // what waits in the outbox is in the accounts, which come behind the pages
		require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit(fmt.Sprintf("topic %040d", i), nil) }))
	}
	require.Greater(t, len(s.appendAccounts(nil)), 64<<10)
	path := filepath.Join(dir, snapshotName)
	require.NoError(t, os.Mkdir(path, 0o700))
	smallDisk(t, path, "32k")
	for range 2 {
		require.ErrorIs(t, s.Snapshot(), syscall.ENOSPC)
		entries, err := os.ReadDir(path)
		require.NoError(t, err)
		require.Empty(t, entries)
		require.Zero(t, s.house.snapshot.through)
	}
	require.NoError(t, syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_REMOUNT, "size=4m"))
	require.NoError(t, s.Snapshot())
	paths, err := snapshot.List(path)
	require.NoError(t, err)
	require.Len(t, paths, 1)
	require.Equal(t, s.log.Visible(), s.house.snapshot.through)
}
