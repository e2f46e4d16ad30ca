package wal

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A process that is killed between writing a seal and syncing it leaves a tail without a header, and a seal that a
// power cut may still take. Recovery puts a header and a mark into that tail, which say that the seal was durable, so
// it must make it so first, even where every frame before the seal is proven durable already.
func TestASealIsMadeDurableBeforeTheTailBehindIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	o := Options{Meta: small(0).Meta, SegmentSize: 64 << 10}
	require.NoError(t, Create(dir, o))
	l, err := Open(dir, o, Start{}, func(Frame) error { return nil })
	require.NoError(t, err)
	commit := func(size int) *Segment {
		payload := make([]byte, size)
		payload[0] = 1
		c := NewCommit(payload)
		require.NoError(t, l.Ready(size))
		require.NoError(t, l.Enqueue(c))
		require.NoError(t, l.Wait(c))
		s, _ := c.Position()
		return s
	}
	first := commit(40 << 10)
	require.Eventually(t, func() bool { return l.spare.ready.Load() != nil }, 10*time.Second, time.Millisecond)
	second := commit(40 << 10)
	require.Greater(t, second.number, first.number, "the second did not fit: its batch was preceded by a seal alone")

	// The state in between: the seal is written, the next segment is prepared.
	crashed := filepath.Join(t.TempDir(), "crashed")
	require.NoError(t, os.CopyFS(crashed, os.DirFS(dir)))
	require.NoError(t, l.Close())
	tail := filepath.Join(segmentDir(crashed, second.number), segmentFile)
	require.NoError(t, os.WriteFile(tail, make([]byte, 64<<10), 0o600))
	sealed := filepath.Join(segmentDir(crashed, first.number), segmentFile)
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(sealed, past, past))

	frames := 0
	l, err = Open(crashed, o, Start{}, func(Frame) error { frames++; return nil })
	require.NoError(t, err)
	require.Equal(t, 1, frames)
	fi, err := os.Stat(sealed)
	require.NoError(t, err)
	require.True(t, fi.ModTime().After(past.Add(time.Minute)), "the segment with the seal was not written again")
	require.NoError(t, l.Close())
}
