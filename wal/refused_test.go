package wal

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A log that has failed is not dropped from, nor synced: what it holds is not known.
func TestDroppingFromAFailedLog(t *testing.T) {
	_, l := filled(t, 60, small(never))
	failure := l.latch(errors.New("no"))
	require.ErrorIs(t, l.Drop(2, 0), ErrFailed)
	require.ErrorIs(t, l.Sync(), failure)
	require.Zero(t, l.Dropped())
}

// Segments that need not be read are still looked at: a header of another store, or of a later version.
func TestHeadersThatAreNotRead(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	require.NoError(t, l.Close())
	for _, n := range []uint64{1, 3} {
		for name, c := range map[string]struct {
			at   int64
			want error
		}{"another version": {9, ErrTooNew}, "another store": {17, ErrCorrupt}} {
			work := copyLog(t, dir)
			b := []byte(readAll(t, pathOf(work, n)))
			b[c.at]++
			require.NoError(t, os.WriteFile(pathOf(work, n), headerPutRight(b), 0o600))
			_, _, _, err := readFrom(work, small(never), Start{After: 59})
			require.ErrorIs(t, err, c.want, name)
		}
	}
	// A caller's error ends it, also one about a drop-through.
	l, _, _, err := readFrom(dir, small(never), Start{})
	require.NoError(t, err)
	require.NoError(t, l.Drop(2, 7))
	require.NoError(t, l.Close())
	no := errors.New("no")
	_, err = Open(dir, small(never), Start{}, func(f Frame) error {
		if f.Payload == nil {
			return no
		}
		return nil
	})
	require.ErrorIs(t, err, no)
}
