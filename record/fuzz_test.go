package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/decoders"
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
	var r record.Record
	var n int
	var err error
	decoders.Bounded(t, len(b), 2, func() { r, n, err = record.Parse(b, base) })
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
	id, whole, err := record.Identity(b, base)
	require.NoError(t, err)
	require.Equal(t, n, whole)
	require.Equal(t, []any{r.Kind, r.Receiver, r.At, r.Expires, string(r.Key)}, []any{id.Kind, id.Receiver, id.At, id.Expires, string(id.Key)})
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
	if r.Kind == record.Mark {
		markOf(t, r.Value)
	}
}

// FuzzAttributes decodes what need not come from a record whose check holds.
func FuzzAttributes(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var a record.Attributes
		var err error
		decoders.Bounded(t, len(b), 2, func() { a, err = (&record.Record{Attrs: b}).Attributes() })
		if err != nil {
			requireOneOf(t, err, record.ErrDamaged, record.ErrUnknown)
			return
		}
		written := record.AppendAttributes(nil, &a)
		require.LessOrEqual(t, len(written), len(b), "the shortest form is longer")
		again, err := (&record.Record{Attrs: written}).Attributes()
		require.NoError(t, err)
		require.Equal(t, a, again)
		require.Equal(t, written, record.AppendAttributes(nil, &again))
	})
}

// FuzzMark decodes the value of a mark.
func FuzzMark(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { markOf(t, b) })
}

func markOf(t *testing.T, b []byte) {
	var m record.MarkValue
	var err error
	decoders.Bounded(t, len(b), 2, func() { m, err = record.ParseMark(b) })
	if err != nil {
		require.ErrorIs(t, err, record.ErrDamaged)
		return
	}
	written := record.AppendMark(nil, m)
	require.LessOrEqual(t, len(written), len(b), "the shortest form is longer")
	again, err := record.ParseMark(written)
	require.NoError(t, err)
	require.Equal(t, m.Number, again.Number)
	require.Equal(t, m.Epoch, again.Epoch)
	require.Equal(t, string(bytes.TrimRight(m.Window, "\x00")), string(again.Window))
}

func requireOneOf(t *testing.T, err error, targets ...error) {
	for _, target := range targets {
		if errors.Is(err, target) {
			return
		}
	}
	require.Fail(t, "an error of no kind", "%v", err)
}

func TestSeeds(t *testing.T) {
	var attributes []decoders.Seed
	for _, g := range goldens() {
		if len(g.rec.Attrs) > 0 {
			attributes = append(attributes, decoders.Seed{Name: strings.ReplaceAll(g.name, " ", "-"), Args: []any{g.rec.Attrs}})
		}
	}
	decoders.Seeds(t, "FuzzAttributes", decoders.Damaged(attributes))
	var marks []decoders.Seed
	for name, m := range map[string]record.MarkValue{
		"beginning": {}, "number": {Number: 4711}, "epoch": {Number: 7, Epoch: 3}, "window": {Number: 100, Window: []byte{0xff, 0x0f, 0x80}},
		"largest": {Number: math.MaxUint64, Epoch: math.MaxUint64, Window: bytes.Repeat([]byte{0x55}, 128)},
	} {
		marks = append(marks, decoders.Seed{Name: name, Args: []any{record.AppendMark(nil, m)}})
	}
	longer := decoders.Seed{Name: "longer-than-needed", Args: []any{[]byte{0x81, 0x80, 0x00, 0x82, 0x00, 1, 0}}}
	decoders.Seeds(t, "FuzzMark", append(decoders.Damaged(marks), longer))
}
