package oncelog

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

// What is no use as a snapshot costs time and nothing else; one of a later version is not passed over.
func TestSnapshotsOfNoUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	o := quick
	o.still = true
	s := open(t, dir, o)
	put(t, s, "key", "value")
	require.NoError(t, s.Close())
	paths, err := filepath.Glob(filepath.Join(dir, snapshotName, "0*"))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	whole, err := os.ReadFile(paths[0])
	require.NoError(t, err)
	header := func(change func(b []byte)) []byte {
		b := append([]byte(nil), whole...)
		change(b)
		binary.LittleEndian.PutUint64(b[160:], xxhash.Sum64(b[:160]))
		return b
	}
	for name, b := range map[string][]byte{
		"another seed": header(func(b []byte) { b[32]++ }),
		"accounts with more than there is to them": header(func(b []byte) { // a byte of the table counts to them
			pages, accounts := binary.LittleEndian.Uint64(b[80:]), binary.LittleEndian.Uint64(b[96:])
			at := 4096 + pages
			binary.LittleEndian.PutUint64(b[at:], binary.LittleEndian.Uint64(b[at:])+1) // the ledger's length
			binary.LittleEndian.PutUint64(b[112:], xxhash.Sum64(b[at:at+accounts]))
		}),
		"half of a shard": header(func(b []byte) {
			n := binary.LittleEndian.Uint64(b[128:])
			table := b[uint64(len(b))-20*n:]
			table[1]++ // its depth: the other page is missing
			binary.LittleEndian.PutUint64(b[120:], xxhash.Sum64(table))
		}),
	} {
		require.NoError(t, os.WriteFile(paths[0], b, 0o600))
		s = open(t, dir, o)
		has(t, s, "key", "value")
		require.NoError(t, s.Verify(), name)
		require.NoError(t, s.Close())
	}
	require.NoError(t, os.WriteFile(paths[0], header(func(b []byte) { b[8]++ }), 0o600))
	_, err = Open(dir, &o)
	require.ErrorIs(t, err, ErrTooNew)
}

// A log, or a place of snapshots, that is something else altogether.
func TestFilesWhereDirectoriesMustBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "store") // and what is missing above it is made
	s := open(t, dir, quick)
	put(t, s, "key", "value")
	require.NoError(t, s.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, snapshotName)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, snapshotName), nil, 0o600))
	_, err := Open(dir, &quick)
	require.ErrorContains(t, err, snapshotName)
	require.NoError(t, os.Remove(filepath.Join(dir, snapshotName)))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, walName)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, walName), nil, 0o600))
	_, err = Open(dir, &quick)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "not a directory")
	_, err = Open(filepath.Join(dir, walName, "below", "a file"), nil)
	require.ErrorContains(t, err, "not a directory")
}

// Housekeeping by hand is refused where there is nobody to do it.
func TestHousekeepingOfWhatIsNotOpenForWriting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, quick)
	put(t, s, "key", "value")
	require.ErrorContains(t, s.copySegment(99), "99")
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Snapshot(), ErrClosed)
	require.ErrorIs(t, s.Compact(), ErrClosed)
	o := quick
	o.ReadOnly = true
	s = open(t, dir, o)
	require.ErrorIs(t, s.Snapshot(), ErrReadOnly)
	require.ErrorIs(t, s.Compact(), ErrReadOnly)
	require.NoError(t, s.Close())
}
