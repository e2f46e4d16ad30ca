package oncelog

import (
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who reads from the disk again and again keeps nobody waiting for longer than a few of these reads: here every read
// counts as one, and there is one processor.
func TestAReadThatWaitedLetsOthersGoFirst(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer func(d time.Duration) { waited = d }(waited)
	waited = 0
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{TTL: Forever, Sync: SyncNever, still: true})
	_, _, err := s.PutIfAbsent([]byte("key"), []byte("value"), 0)
	require.NoError(t, err)
	seg := s.log.Segments()[0]
	var other atomic.Bool
	go other.Store(true)
	b := new(buffer)
	for range 4 * timed { // the scheduler may choose the one that gives way, once
		_, err := b.read(seg, b.first[:10], 0)
		require.NoError(t, err)
	}
	require.True(t, other.Load(), "nobody else had a turn")
}
