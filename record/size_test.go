package record_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// A caller sizes its buffer, and a frame its room, by MaxSize before anything is encoded.
func TestMaxSizeIsEnough(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 1 << 21, 16 << 20} {
		for _, c := range []struct {
			name string
			rec  record.Record
		}{
			{"key", record.Record{Kind: record.Result, Key: make([]byte, n)}},
			{"value", record.Record{Kind: record.Failure, Receiver: true, Value: make([]byte, n)}},
			{"attributes", record.Record{Kind: record.Gone, Attrs: make([]byte, n)}},
		} {
			// The longest time and the longest TTL that there are.
			base := record.Base{At: math.MinInt64 / 2, TTL: 1}
			c.rec.At, c.rec.Expires = math.MaxInt64/2, math.MaxInt64-1
			b := record.Append(nil, base, &c.rec)
			require.LessOrEqual(t, len(b), record.MaxSize(len(c.rec.Key), len(c.rec.Value), len(c.rec.Attrs)), "%s of %d", c.name, n)
			size, err := record.Size(b[:min(len(b), record.MaxHead)])
			require.NoError(t, err, "%s of %d", c.name, n)
			require.Equal(t, len(b), size, "%s of %d", c.name, n)
		}
	}
}

// A head with five varints of ten bytes each is the longest that Size takes, and MaxHead bytes hold it.
func TestMaxHeadIsEnough(t *testing.T) {
	long := func(low byte) []byte { return append([]byte{0x80 | low}, append(bytes.Repeat([]byte{0x80}, 8), 0)...) }
	head := []byte{0xa1}
	for range 4 {
		head = append(head, long(1)...)
	}
	head = append(head, long(3)...)
	require.Len(t, head, record.MaxHead)
	size, err := record.Size(head)
	require.NoError(t, err)
	require.Equal(t, len(head)+1+1+3+record.CheckSize, size)
	_, err = record.Size(head[:len(head)-1])
	require.ErrorIs(t, err, record.ErrShort)

	whole := sealed(append(head, 'k', 'v', 2, 1, 7)...)
	r, n, err := record.Parse(whole, goldenBase)
	require.NoError(t, err)
	require.Equal(t, size, n)
	require.Equal(t, "k", string(r.Key))
}

// A length past the limit is damage before anyone reads, or makes room for, what it claims.
func TestLengthsAreBounded(t *testing.T) {
	const limit = 16 << 20
	for field := range 3 {
		for _, n := range []uint64{limit, limit + 1, math.MaxInt32 + 1, math.MaxInt64, math.MaxUint64} {
			b := []byte{0x81, 0}
			for i := range 3 {
				v := uint64(0)
				if i == field {
					v = n
				}
				b = binary.AppendUvarint(b, v)
			}
			size, err := record.Size(b)
			_, _, perr := record.Parse(b, goldenBase)
			if n == limit {
				require.NoError(t, err)
				require.Equal(t, len(b)+limit+record.CheckSize, size)
				require.ErrorIs(t, perr, record.ErrShort)
			} else {
				require.ErrorIs(t, err, record.ErrDamaged, "field %d, %d", field, n)
				require.ErrorIs(t, perr, record.ErrDamaged, "field %d, %d", field, n)
			}
		}
	}
}

// More bytes will not end these varints, so asking for them (ErrShort) would ask for ever.
func TestVarintsAreBounded(t *testing.T) {
	for name, v := range map[string][]byte{
		"ten bytes that go on": bytes.Repeat([]byte{0xff}, 10),
		"eleven bytes":         append(bytes.Repeat([]byte{0x80}, 10), 0),
		"over 64 bits":         append(bytes.Repeat([]byte{0xff}, 9), 2),
	} {
		for at := range 5 {
			b := append([]byte{0xa1}, make([]byte, at)...)
			_, err := record.Size(append(b, v...))
			require.ErrorIs(t, err, record.ErrDamaged, "%s as number %d", name, at)
		}
	}
	_, err := record.Size(append([]byte{1}, bytes.Repeat([]byte{0xff}, 9)...))
	require.ErrorIs(t, err, record.ErrShort, "the tenth byte may still end it")
}
