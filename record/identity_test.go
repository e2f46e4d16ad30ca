package record_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// Replay asks for keyspace and key of what the index names, and reads no more than those.
func TestIdentityNeedsHeadAndKeyOnly(t *testing.T) {
	for _, g := range goldens() {
		if g.rec.Kind == record.Tombstone {
			continue
		}
		b := unhex(t, g.hex)
		need := len(b) - record.CheckSize - len(g.rec.Attrs) - len(g.rec.Value)
		for n := range need {
			_, _, err := record.Identity(b[:n:n], g.base)
			require.ErrorIs(t, err, record.ErrShort, "%s cut at %d", g.name, n)
		}
		r, size, err := record.Identity(b[:need:need], g.base)
		require.NoError(t, err, g.name)
		require.Equal(t, g.rec.Space(), r.Space(), g.name)
		require.Equal(t, string(g.rec.Key), string(r.Key), g.name)
		require.Equal(t, len(r.Key), cap(r.Key), "%s: the value lies behind the key", g.name)
		require.Equal(t, len(b), size, g.name)
		want, _, err := record.Parse(b, g.base)
		require.NoError(t, err, g.name)
		require.Equal(t, []int64{want.At, want.Expires}, []int64{r.At, r.Expires}, g.name)
	}
}

func TestIdentityOfADamagedHead(t *testing.T) {
	_, _, err := record.Identity([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}, record.Base{})
	require.ErrorIs(t, err, record.ErrDamaged)
}
