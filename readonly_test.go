package oncelog

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who reads a store beside its owner keeps what it found: an owner that gives the space of dropped segments back must not
// take it from under a reader.
func TestAReaderKeepsWhatItsOwnerDrops(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	clock := clockAt(1_700_000_000_000)
	o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, Now: clock.now, SegmentSize: 1 << 20}
	owner := open(t, dir, o)
	value := string(bytes.Repeat([]byte("v"), 1000))
	const n = 4000
	for i := range n {
		put(t, owner, fmt.Sprint("key ", i), value)
	}
	reads := Options{ReadOnly: true, TTL: time.Hour, RetryWindow: NoRetryWindow, Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) }}
	first, late := open(t, dir, reads), open(t, dir, reads)
	for i := range n { // of the other nothing is mapped yet
		has(t, first, fmt.Sprint("key ", i), value)
	}
	clock.advance(2 * time.Hour)
	put(t, owner, "the last", value)
	retired(t, owner)
	require.NoError(t, owner.Compact())
	require.GreaterOrEqual(t, owner.log.Dropped(), uint64(2)) // the first one has no frame, and the others are as large as the next comes late
	for _, s := range []*Store{late, first} {
		for i := range n {
			has(t, s, fmt.Sprint("key ", i), value)
		}
		require.NoError(t, s.Verify())
		require.NoError(t, s.Backup(io.Discard))
	}
}
