package wal

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The numbers of transactions and segments do not wrap: these logs begin where they are about to.

// late writes a log whose first segment has this number and holds these frames, the first of which is first; what
// came before it was dropped.
func late(t testing.TB, segment, first uint64, frames ...[]byte) (dir string, s *Segment) {
	t.Helper()
	dir = filepath.Join(memoryDir(t), "wal")
	s = &Segment{number: segment, nonce: 7, path: filepath.Join(segmentDir(dir, segment), segmentFile)}
	b := appendEntry(nil, s.header(testID, first, [MetaSize]byte{}))
	b = appendEntry(b, appendFrame(nil, s.nonce, first, first-1, first-1, dropFrame(segment-1, 0)))
	for _, f := range frames {
		b = appendEntry(b, f)
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(s.path), 0o700))
	require.NoError(t, os.WriteFile(s.path, b, 0o600))
	return dir, s
}

// open opens the log as an owner does, and returns the numbers of its transactions.
func open(dir string, o Options) (*Log, []uint64, error) {
	var numbers []uint64
	l, err := Open(dir, o, Start{}, func(f Frame) error {
		if f.Payload != nil {
			numbers = append(numbers, f.Number)
		}
		return nil
	})
	if err == nil {
		l.Swept(l.Dropped())
	}
	return l, numbers, err
}

func TestTheLastTransactionIsTheLast(t *testing.T) {
	const first = math.MaxUint64 - 40
	dir, _ := late(t, 5, first, appendFrame(nil, 7, first, first, first-1, []byte("one")))
	next := uint64(first) + 1
	for turn := range 4 {
		l, numbers, err := open(dir, small(0))
		require.NoError(t, err)
		require.Equal(t, next-1, numbers[len(numbers)-1])
		for range 15 {
			c, err := commit(l, "payload")
			if next == math.MaxUint64 {
				require.ErrorIs(t, err, ErrFull)
				require.ErrorContains(t, err, "used up")
				if turn == 2 { // the process that took the last number; those after it have not begun a segment
					_, err = l.Reserve(1)
					require.ErrorIs(t, err, ErrFull)
					require.ErrorIs(t, l.Enqueue(NewCommit([]byte("payload"))), ErrFull)
				}
				break
			}
			require.NoError(t, err)
			require.Equal(t, next, c.Number())
			next++
		}
		if retired := l.Retired(); len(retired) > 0 { // what is dead still goes
			require.NoError(t, l.Drop(retired[0].Number(), 0))
		}
		require.NoError(t, l.Close())
	}
	require.EqualValues(t, uint64(math.MaxUint64), next)
}

func TestTheLastSegmentIsTheLast(t *testing.T) {
	dir, _ := late(t, math.MaxUint64-1, 9, appendFrame(nil, 7, 9, 9, 8, []byte("one")))
	l, _, err := open(dir, small(0))
	require.NoError(t, err)
	c, err := commit(l, "payload") // into the last segment
	require.NoError(t, err)
	require.EqualValues(t, 10, c.Number())
	require.NoError(t, l.Close())

	l, numbers, err := open(dir, small(0))
	require.NoError(t, err)
	require.Equal(t, []uint64{9, 10}, numbers)
	_, err = commit(l, "payload")
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "used up")
	require.NoError(t, l.Close())
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%020d", uint64(math.MaxUint64)), names[len(names)-1].Name())
	require.NotEqual(t, fmt.Sprintf("%020d", 0), names[0].Name())
}

// A bound on the numbers that are looked for must not wrap and so hide every frame behind a damaged one.
func TestDamageNearTheLastTransaction(t *testing.T) {
	const first = math.MaxUint64 - 5
	frame := func(n uint64) []byte { return appendFrame(nil, 7, first, n, n-1, make([]byte, 100)) }
	t.Run("in the tail", func(t *testing.T) {
		bad := frame(first + 1)
		bad[20] ^= 1
		dir, s := late(t, 5, first, frame(first), bad, frame(first+2))
		_, _, err := open(dir, small(0))
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, s.path)
	})
	t.Run("behind it", func(t *testing.T) {
		seal := func(end int) []byte {
			sl := seal{last: first, end: uint64(end), next: 6, nextNonce: 7}
			return appendFrame(nil, 7, first, first, first, sl.encode())
		}
		dir, s := late(t, 5, first, frame(first))
		fi, err := os.Stat(s.path)
		require.NoError(t, err)
		end := int(fi.Size()) + 1 + len(seal(0))
		b, err := os.ReadFile(s.path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(s.path, appendEntry(b, seal(end)), 0o600))
		for n, content := range map[uint64][]byte{6: nil, 7: frame(first + 1)} {
			one := &Segment{number: n, nonce: 7}
			data := appendEntry(nil, one.header(testID, first, [MetaSize]byte{}))
			if n == 6 {
				data = binary.AppendUvarint(nil, 0)
			} else {
				data = appendEntry(data, content)
			}
			path := filepath.Join(segmentDir(dir, n), segmentFile)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}
		_, _, err = open(dir, small(0))
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "behind it holds frames")
	})
}
