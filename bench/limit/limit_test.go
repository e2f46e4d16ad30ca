//go:build linux

package limit

import (
	"bytes"
	"encoding/binary"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEachFrameIsWritten keeps the limit honest: a limit that loses or repeats frames, or lets its files grow,
// would be no measure.
func TestEachFrameIsWritten(t *testing.T) {
	const writers, each, size = 16, 600, 1024
	l := &Log{}
	require.NoError(t, l.Prepare(t.TempDir(), writers*each*size))
	defer func() { require.NoError(t, l.Close()) }()
	// The writers stop in pairs as they finish, so batches of many sizes are led.
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			frame := make([]byte, size)
			for i := range each - w*20 {
				id := uint64(w*each+i) + 1
				for at := 0; at < size; at += 8 {
					binary.LittleEndian.PutUint64(frame[at:], id)
				}
				if err := l.Commit(frame); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Positive(t, l.used, "one file was enough, so going on to the next is not tested")

	seen := map[uint64]int{}
	for _, f := range l.files {
		data, err := os.ReadFile(f.Name())
		require.NoError(t, err)
		require.Len(t, data, FileSize, "the file grew")
		for frame := data; len(frame) > 0; frame = frame[size:] {
			require.Equal(t, bytes.Repeat(frame[:8], size/8), frame[:size], "a frame is torn")
			if id := binary.LittleEndian.Uint64(frame); id != 0 {
				seen[id]++
			}
		}
	}
	for w := range writers {
		for i := range each - w*20 {
			require.Equal(t, 1, seen[uint64(w*each+i)+1], "writer %d, frame %d", w, i)
		}
	}
	require.Len(t, seen, writers*each-20*writers*(writers-1)/2)
	require.ErrorIs(t, (&Log{}).Commit(make([]byte, size)), ErrFull)
}
