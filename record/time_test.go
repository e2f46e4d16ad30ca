package record_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// A sum that wraps would put an expiry into the past, and a key forgotten early runs twice.
func TestTimesSaturate(t *testing.T) {
	const most = math.MaxUint64
	for _, c := range []struct {
		name        string
		base        record.Base
		at, ttl     uint64 // as written; the TTL only where own
		own         bool
		wantAt, end int64
	}{
		{"time and TTL at their largest", record.Base{At: goldenAt, TTL: 1}, most, most, true, record.Forever, record.Forever},
		{"time of 63 bits", record.Base{At: goldenAt, TTL: 1}, math.MaxInt64, 1, true, record.Forever, record.Forever},
		{"time of 64 bits", record.Base{At: goldenAt, TTL: 1}, 1 << 63, 1, true, record.Forever, record.Forever},
		{"time of 63 bits from before 1970", record.Base{At: -10, TTL: 1}, math.MaxInt64, 1, true, record.Forever, record.Forever},
		{"time of 64 bits from before 1970", record.Base{At: -10, TTL: 1}, 1 << 63, 1, true, record.Forever, record.Forever},
		{"last time before for ever", record.Base{At: 5, TTL: 1}, math.MaxInt64 - 6, 1, true, record.Forever - 1, record.Forever},
		{"sum is for ever exactly", record.Base{At: 5, TTL: 1}, math.MaxInt64 - 5, 1, true, record.Forever, record.Forever},
		{"TTL of 63 bits", record.Base{At: goldenAt, TTL: 1}, 0, math.MaxInt64, true, goldenAt, record.Forever},
		{"TTL of 63 bits in a time before 1970", record.Base{At: -10, TTL: 1}, 0, math.MaxInt64, true, -10, record.Forever},
		{"TTL of 64 bits", record.Base{At: goldenAt, TTL: 1}, 0, 1 << 63, true, goldenAt, record.Forever},
		{"TTL that just passes the end", record.Base{At: goldenAt, TTL: 1}, 0, math.MaxInt64 - goldenAt + 1, true, goldenAt, record.Forever},
		{"TTL that just does not", record.Base{At: goldenAt, TTL: 1}, 0, math.MaxInt64 - goldenAt - 1, true, goldenAt, record.Forever - 1},
		{"TTL 0", record.Base{At: goldenAt, TTL: 1}, 0, 0, true, goldenAt, record.Forever},
		{"base's TTL", record.Base{At: goldenAt, TTL: 5}, 1, 0, false, goldenAt + 1, goldenAt + 6},
		{"base's TTL for ever", record.Base{At: goldenAt, TTL: record.Forever}, 1, 0, false, goldenAt + 1, record.Forever},
		{"base's TTL 0", record.Base{At: goldenAt}, 1, 0, false, goldenAt + 1, record.Forever},
		{"base's TTL negative", record.Base{At: goldenAt, TTL: -5}, 1, 0, false, goldenAt + 1, record.Forever},
		{"base at its smallest", record.Base{At: math.MinInt64, TTL: 5}, 1, 0, false, math.MinInt64 + 1, math.MinInt64 + 6},
		{"base at its largest", record.Base{At: math.MaxInt64, TTL: 5}, 1, 0, false, record.Forever, record.Forever},
	} {
		b := []byte{1}
		if c.own {
			b[0] = 0x21
		}
		b = binary.AppendUvarint(b, c.at)
		if c.own {
			b = binary.AppendUvarint(b, c.ttl)
		}
		r, _, err := record.Parse(sealed(append(b, 1, 0, 'k')...), c.base)
		require.NoError(t, err, c.name)
		require.Equal(t, c.wantAt, r.At, c.name)
		require.Equal(t, c.end, r.Expires, c.name)
	}
}

// 0 on disk is "for ever". A record that ends with the millisecond it was made in, or before, must not become that;
// it is kept one millisecond, the shortest that can be said.
func TestNoLifeIsNotForEver(t *testing.T) {
	for _, life := range []int64{0, -1, -goldenTTL, math.MinInt64 / 2} {
		for _, ttl := range []int64{goldenTTL, record.Forever, 0} {
			base := record.Base{At: goldenAt, TTL: ttl}
			in := record.Record{Kind: record.Result, At: goldenAt + 7, Expires: goldenAt + 7 + life, Key: []byte("k")}
			out := reparse(t, base, &in)
			require.Equal(t, in.At, out.At, "life %d, base %d", life, ttl)
			require.Equal(t, in.At+1, out.Expires, "life %d, base %d", life, ttl)
		}
	}
}

// A life of more than 63 bits, which only a store that ran before 1970 could ask for, is for ever and not the past.
func TestLifeOverTheEndIsForEver(t *testing.T) {
	in := record.Record{Kind: record.Result, At: -10, Expires: record.Forever - 1, Key: []byte("k")}
	base := record.Base{At: -10, TTL: goldenTTL}
	out := reparse(t, base, &in)
	require.Equal(t, int64(record.Forever), out.Expires)
	ever := in
	ever.Expires = record.Forever
	require.Equal(t, record.Append(nil, base, &ever), record.Append(nil, base, &in), "for ever has one spelling")
}

// The distance from the base has no sign. A record from before it must neither become one of the far future nor
// live longer for it.
func TestOlderThanTheBase(t *testing.T) {
	for _, c := range []struct {
		name          string
		at, expires   int64
		wantAt, until int64
	}{
		{"alive", goldenAt - 1000, goldenAt + 500, goldenAt, goldenAt + 500},
		{"with the base's TTL", goldenAt - 1000, goldenAt - 1000 + goldenTTL, goldenAt, goldenAt - 1000 + goldenTTL},
		{"for ever", goldenAt - 1000, record.Forever, goldenAt, record.Forever},
		{"gone", goldenAt - 1000, goldenAt - 500, goldenAt, goldenAt + 1},
	} {
		in := record.Record{Kind: record.Result, At: c.at, Expires: c.expires, Key: []byte("k")}
		out := reparse(t, goldenBase, &in)
		require.Equal(t, c.wantAt, out.At, c.name)
		require.Equal(t, c.until, out.Expires, c.name)
	}
}

// What never expires must not, whatever its writer left in the field.
func TestKindsThatStayIgnoreExpires(t *testing.T) {
	for k := record.Intent; k <= record.Tombstone; k++ {
		in := record.Record{Kind: k, At: goldenAt + 1, Expires: goldenAt + 2, Key: []byte("k"), Value: []byte{1}}
		require.Equal(t, int64(record.Forever), reparse(t, goldenBase, &in).Expires, k)
	}
}

func reparse(t testing.TB, base record.Base, r *record.Record) record.Record {
	t.Helper()
	b := record.Append(nil, base, r)
	out, n, err := record.Parse(b, base)
	require.NoError(t, err)
	require.Equal(t, len(b), n)
	return out
}
