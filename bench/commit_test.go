//go:build linux

package bench

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/bench/limit"
	"github.com/oncelog/oncelog/wal"
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
var contenders = []contender{{"limit", openLimit}, {"wal", openWAL}, {"store", openStore}}

func openLimit(b *testing.B, dir string) rival {
	l := &limit.Log{}
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	return rival{
		prepare: func(ops int) error { return l.Prepare(dir, int64(ops)*frameSize) },
		writer: func() func() error {
			frame := make([]byte, frameSize)
			return func() error { return l.Commit(frame) }
		},
	}
}

func openWAL(b *testing.B, dir string) rival {
	dir = filepath.Join(dir, "wal")
	o := wal.Options{SegmentSize: 4 << 20, Meta: func() (meta [wal.MetaSize]byte) { return meta }}
	require.NoError(b, wal.Create(dir, o))
	l, err := wal.Open(dir, o, wal.Start{}, func(wal.Frame) error { return nil })
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, l.Close()) })
	var ids atomic.Uint64
	return rival{logged: func() uint64 { return l.Stats().Bytes }, writer: func() func() error {
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

// openStore is the whole way: a key that nobody has seen, looked up, claimed, logged and indexed.
func openStore(b *testing.B, dir string) rival {
	s, err := oncelog.Open(filepath.Join(dir, "store"), nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	var ids atomic.Uint64
	return rival{logged: func() uint64 { return s.Stats().LogBytes }, writer: func() func() error {
		key, value := make([]byte, keySize), make([]byte, valueSize)
		return func() error {
			nameKey(key, ids.Add(1))
			_, inserted, err := s.PutIfAbsent(key, value, 0)
			if err == nil && !inserted {
				err = errors.New("a fresh key exists")
			}
			return err
		}
	}}
}

// nameKey makes key the id's, in the form of a UUID.
func nameKey(key []byte, id uint64) {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], id*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(raw[8:], id)
	hex.Encode(key[:32], raw[:])
	copy(key[32:], "-key")
}

// BenchmarkCommit compares commits by 1, 8, 64 and 256 goroutines with the limit.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { compare(b, writers, contenders) })
	}
}
