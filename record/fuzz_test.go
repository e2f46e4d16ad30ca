package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// FuzzParse feeds bytes as they come and, since chance never finds a check that holds, once more with the check
// put right. The seeds in testdata are the golden records.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, at, ttl int64) {
		base := record.Base{At: at, TTL: ttl}
		parseOne(t, b, base)
		if size, err := record.Size(b); err == nil && size <= len(b) {
			b = bytes.Clone(b)
			body := size - record.CheckSize
			binary.LittleEndian.PutUint32(b[body:], uint32(xxhash.Sum64(b[:body])))
			parseOne(t, b, base)
		}
	})
}

// parseOne holds for any bytes: an error of the three and nothing else, or a record that means the same when it is
// written again.
func parseOne(t *testing.T, b []byte, base record.Base) {
	before := bytes.Clone(b)
	r, n, err := record.Parse(b, base)
	require.True(t, bytes.Equal(before, b), "parsing changed its input")
	size, serr := record.Size(b)
	if err != nil {
		require.Zero(t, r)
		require.Zero(t, n)
		requireOneOf(t, err, record.ErrShort, record.ErrDamaged, record.ErrUnknown)
		if serr != nil {
			requireOneOf(t, serr, record.ErrShort, record.ErrDamaged)
			require.Equal(t, err, serr)
		}
		return
	}
	require.NoError(t, serr)
	require.Equal(t, size, n)
	require.LessOrEqual(t, n, len(b))
	require.GreaterOrEqual(t, r.At, base.At)
	require.GreaterOrEqual(t, r.Expires, r.At)
	for _, cut := range []int{0, 1, n / 2, n - record.CheckSize, n - 1} {
		_, _, err := record.Parse(b[:cut], base)
		require.ErrorIs(t, err, record.ErrShort, "cut at %d of %d", cut, n)
	}

	again, _, err := record.Parse(record.Append(nil, base, &r), base)
	require.NoError(t, err)
	requireSame(t, r, again, "written again")
	a, err := r.Attributes()
	require.NoError(t, err)
	same, err := (&record.Record{Attrs: record.AppendAttributes(nil, &a)}).Attributes()
	require.NoError(t, err)
	require.Equal(t, a, same)
	if r.Kind != record.Mark {
		return
	}
	m, err := record.ParseMark(r.Value)
	if err != nil {
		require.ErrorIs(t, err, record.ErrDamaged)
		return
	}
	m.Window = bytes.TrimRight(m.Window, "\x00")
	twin, err := record.ParseMark(record.AppendMark(nil, m))
	require.NoError(t, err)
	require.Equal(t, m.Number, twin.Number)
	require.Equal(t, m.Epoch, twin.Epoch)
	require.Equal(t, string(m.Window), string(twin.Window))
}

func requireOneOf(t *testing.T, err error, targets ...error) {
	for _, target := range targets {
		if errors.Is(err, target) {
			return
		}
	}
	require.Fail(t, "an error of no kind", "%v", err)
}
