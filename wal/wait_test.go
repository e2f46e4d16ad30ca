package wal

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the owner still has to find out is waited for once, before anything is replayed, also when nothing is to be.
func TestOpenWaitsBeforeItReplays(t *testing.T) {
	dir, l := filled(t, 60, small(never))
	require.NoError(t, l.Close())
	for _, after := range []uint64{0, 30, 60} {
		waits, got := 0, []string{}
		l, err := Open(dir, small(never), Start{After: after, Synced: after, Wait: func() error {
			require.Empty(t, got)
			waits++
			return nil
		}}, func(f Frame) error {
			got = append(got, string(f.Payload))
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, waits)
		require.Equal(t, payloads(60)[after:], got)
		require.NoError(t, l.Close())
	}
}

// If the owner finds that it knows nothing, the log stays as it is: what a torn tail needs was judged by what the owner
// said.
func TestOpenWaitsBeforeItWrites(t *testing.T) {
	o := small(0)
	dir, tail, ends, _ := tornLog(t, o, 60)
	patch(t, pathOf(dir, tail.number), ends[len(ends)-1], junk(rand.New(rand.NewPCG(1, 1)), 20)...)
	require.NoError(t, os.Mkdir(segmentDir(dir, tail.number+2), 0o700))
	before := tree(t, dir)
	no := errors.New("no")
	for _, after := range []uint64{0, 60} {
		_, err := Open(dir, o, Start{After: after, Wait: func() error { return no }}, func(Frame) error {
			t.Error("a transaction was replayed")
			return nil
		})
		require.ErrorIs(t, err, no)
		require.Equal(t, before, tree(t, dir))
	}
	holds(t, dir, o, payloads(60))
	require.NotEqual(t, before, tree(t, dir), "there was nothing to repair")
}
