//go:build linux

package bench

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/oncelog/oncelog/wal"
	"github.com/stretchr/testify/require"
)

// A frame holds a record with a key and a value of these sizes; the format promises to put at most 28 bytes around
// them, of which the log's own part is about 14.
const (
	keySize   = 36
	valueSize = 256
	frameSize = keySize + valueSize + 28
	ownPart   = 14
)

// contenders: the limit first, the others are compared with it.
var contenders = []contender{{"limit", openLimit}, {"wal", openWAL}}

func openLimit(b *testing.B, dir string) rival {
	l := &limit{}
	b.Cleanup(func() { require.NoError(b, l.close()) })
	return rival{
		prepare: func(ops int) error { return l.prepare(dir, int64(ops)*frameSize) },
		writer: func() func() error {
			frame := make([]byte, frameSize)
			return func() error { return l.commit(frame) }
		},
	}
}

func openWAL(b *testing.B, dir string) rival {
	dir = filepath.Join(dir, "wal")
	o := wal.Options{SegmentSize: 4 << 20}
	require.NoError(b, wal.Create(dir, o))
	l, err := wal.Open(dir, o, func(wal.Frame) error { return nil })
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	var ids atomic.Uint64
	return rival{writer: func() func() error {
		payload := make([]byte, frameSize-ownPart)
		payload[0] = 1 // not one of the log's own kinds
		c := wal.NewCommit(nil)
		return func() error {
			binary.LittleEndian.PutUint64(payload[1:], ids.Add(1))
			c.Reset(payload)
			if err := l.Ready(len(payload)); err != nil {
				return err
			}
			if err := l.Enqueue(c); err != nil {
				return err
			}
			return l.Wait(c)
		}
	}}
}

// BenchmarkCommit compares commits by 1, 8, 64 and 256 goroutines with the limit.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { compare(b, writers, contenders) })
	}
}
