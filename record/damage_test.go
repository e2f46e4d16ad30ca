package record_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// A record that ends early is always told apart from one that is wrong: the reader fetches more and tries again.
func TestEveryTruncationIsShort(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		for n := range b {
			r, used, err := record.Parse(b[:n:n], g.base)
			require.ErrorIs(t, err, record.ErrShort, "%s cut at %d", g.name, n)
			require.Zero(t, used, g.name)
			require.Zero(t, r, g.name)
		}
	}
}

// Size needs the head alone, and gives either the right length or ErrShort.
func TestSizeOfATruncation(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		head := len(b) - record.CheckSize - len(g.rec.Key) - len(g.rec.Value) - len(g.rec.Attrs)
		for n := range b {
			size, err := record.Size(b[:n:n])
			if n < head {
				require.ErrorIs(t, err, record.ErrShort, "%s cut at %d", g.name, n)
			} else {
				require.NoError(t, err, "%s cut at %d", g.name, n)
				require.Equal(t, len(b), size, "%s cut at %d", g.name, n)
			}
		}
	}
}

// No flipped bit of these records gets past the check. That is not a proof for all records: the check has 32 bits,
// so of damaged ones in general 1 in 4,294,967,296 passes. A flip in a length may also claim more bytes than there
// are, which is ErrShort; inside a whole frame that too is damage.
func TestEveryBitFlipIsAnError(t *testing.T) {
	more := bytes.Repeat([]byte{0x5a, 0, 0xff, 1}, 64) // what lies behind: lengths that grew a little stay inside it
	for _, g := range goldens() {
		whole := unhex(t, g.hex)
		for _, tail := range [][]byte{nil, whole, more, make([]byte, 256)} {
			for i := range len(whole) * 8 {
				b := append(bytes.Clone(whole), tail...)
				b[i/8] ^= 1 << (i % 8)
				r, n, err := record.Parse(b, g.base)
				require.Error(t, err, "%s bit %d", g.name, i)
				require.Zero(t, n, g.name)
				require.Zero(t, r, "%s bit %d", g.name, i)
				require.NotErrorIs(t, err, record.ErrUnknown, "%s bit %d: damage would be taken for a later version", g.name, i)
			}
		}
	}
}

// Prepared space is zeros, and zeros are no record, however many there are.
func TestZerosAreNoRecord(t *testing.T) {
	for n := range 100 {
		_, _, err := record.Parse(make([]byte, n), goldenBase)
		if n < 8 { // the head of a record without key and value, and its check
			require.ErrorIs(t, err, record.ErrShort, n)
		} else {
			require.ErrorIs(t, err, record.ErrDamaged, n)
		}
	}
}

// The check covers the record, not its place: two records that changed places both parse. The frame's check, and
// the key that a lookup compares, are what tells them apart.
func TestTheCheckDoesNotCoverThePlace(t *testing.T) {
	a := record.Record{Kind: record.State, At: goldenAt, Expires: record.Forever, Key: []byte("a"), Value: []byte("1")}
	b := record.Record{Kind: record.State, At: goldenAt, Expires: record.Forever, Key: []byte("b"), Value: []byte("2")}
	row := record.Append(record.Append(nil, goldenBase, &b), goldenBase, &a)
	got, _, err := record.Parse(row, goldenBase)
	require.NoError(t, err)
	requireSame(t, b, got, "b")
}
