package record_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// A lookup parses on every hit and a commit appends; neither may feed the garbage collector.
func TestParseDoesNotAllocate(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		n := testing.AllocsPerRun(100, func() {
			if r, _, err := record.Parse(b, g.base); err != nil || len(r.Key) == 0 {
				t.Fail()
			}
		})
		require.Zero(t, n, g.name)
	}
}

// ErrShort is the answer to every first read that was too small, so it belongs to the path of a hit.
func TestShortDoesNotAllocate(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, _, err := record.Parse(b[:len(b)-1], g.base); err == nil {
				t.Fail()
			}
			if _, err := record.Size(b); err != nil {
				t.Fail()
			}
		}), g.name)
	}
}

func TestAttributesDoNotAllocate(t *testing.T) {
	for _, g := range goldens() {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, err := g.rec.Attributes(); err != nil {
				t.Fail()
			}
		}), g.name)
	}
}

func TestAppendDoesNotAllocateWithRoom(t *testing.T) {
	dst := make([]byte, 0, 256)
	for _, g := range goldens() {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			dst = record.Append(dst[:0], g.base, &g.rec)
		}), g.name)
	}
}

// Parsed slices must not let an append run into what lies behind them: that is the next record's bytes, or the
// page cache's.
func TestParsedSlicesEndWhereTheyEnd(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		r, _, err := record.Parse(b, g.base)
		require.NoError(t, err, g.name)
		require.Equal(t, len(r.Key), cap(r.Key), g.name)
		require.Equal(t, len(r.Value), cap(r.Value), g.name)
		require.Equal(t, len(r.Attrs), cap(r.Attrs), g.name)
		a, err := r.Attributes()
		require.NoError(t, err, g.name)
		for _, s := range [][]byte{a.Fingerprint, a.Code, a.MessageKey} {
			require.Equal(t, len(s), cap(s), g.name)
		}
	}
}
