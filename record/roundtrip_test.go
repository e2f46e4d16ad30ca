package record_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/record"
)

func drawBase(t *rapid.T) record.Base {
	return record.Base{
		At:  rapid.Int64Range(-1<<40, 1<<50).Draw(t, "base"),
		TTL: rapid.OneOf(rapid.Int64Range(1, 1<<40), rapid.Just(int64(record.Forever))).Draw(t, "base TTL"),
	}
}

func drawAttributes(t *rapid.T) record.Attributes {
	a := record.Attributes{
		Token:     rapid.Uint64().Draw(t, "token"),
		ResultTTL: rapid.Int64Range(0, math.MaxInt64).Draw(t, "result TTL"),
		Ordinal:   rapid.Uint64().Draw(t, "ordinal"),
	}
	bytes := rapid.SliceOfN(rapid.Byte(), 1, 200)
	if rapid.Bool().Draw(t, "has fingerprint") {
		a.Algorithm = rapid.Byte().Draw(t, "algorithm")
		a.Fingerprint = bytes.Draw(t, "fingerprint")
	}
	if rapid.Bool().Draw(t, "has code") {
		a.Code = bytes.Draw(t, "code")
	}
	if rapid.Bool().Draw(t, "has message key") {
		a.MessageKey = bytes.Draw(t, "message key")
	}
	return a
}

// drawRecord makes a record that a store could write: its time is not before the base, and it lives a while.
func drawRecord(t *rapid.T, base record.Base) record.Record {
	r := record.Record{
		Kind:     record.Kind(rapid.IntRange(int(record.Result), int(record.Tombstone)).Draw(t, "kind")),
		Receiver: rapid.Bool().Draw(t, "receiver"),
		At:       base.At + rapid.Int64Range(0, 1<<60).Draw(t, "after the base"),
		Expires:  record.Forever,
		Key:      rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key"),
		Value:    rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
	}
	if r.Kind == record.Tombstone {
		r.Value = []byte{byte(rapid.IntRange(int(record.Result), int(record.Parked)).Draw(t, "cleared"))}
	}
	if r.Kind.Expires() {
		switch rapid.IntRange(0, 2).Draw(t, "life") {
		case 0:
			r.Expires = r.At + rapid.Int64Range(1, 1<<60).Draw(t, "TTL")
		case 1:
			if base.TTL != record.Forever {
				r.Expires = r.At + base.TTL
			}
		}
	}
	if rapid.Bool().Draw(t, "has attributes") {
		a := drawAttributes(t)
		r.Attrs = record.AppendAttributes(nil, &a)
	}
	return r
}

// What is written is read, record after record, whatever the kinds, and nothing is left over.
func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := drawBase(t)
		var in []record.Record
		var b []byte
		for range rapid.IntRange(1, 8).Draw(t, "records") {
			r := drawRecord(t, base)
			before := len(b)
			b = record.Append(b, base, &r)
			if n := len(b) - before; n > record.MaxSize(len(r.Key), len(r.Value), len(r.Attrs)) {
				t.Fatalf("%d bytes, more than MaxSize", n)
			}
			in = append(in, r)
		}
		for _, want := range in {
			size, err := record.Size(b[:min(len(b), record.MaxHead)])
			require.NoError(t, err)
			got, n, err := record.Parse(b, base)
			require.NoError(t, err)
			require.Equal(t, size, n)
			same(t, want, got)
			b = b[n:]
		}
		require.Empty(t, b)
	})
}

func TestAttributesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawAttributes(t)
		got, err := (&record.Record{Attrs: record.AppendAttributes(nil, &want)}).Attributes()
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// A token or ordinal uses all of its 64 bits: an encoder that writes what its own decoder calls damage would make
// a record that is lost the moment it is acknowledged.
func TestAttributesAtTheirLargest(t *testing.T) {
	want := record.Attributes{Token: math.MaxUint64, ResultTTL: math.MaxInt64, Ordinal: math.MaxUint64}
	got, err := (&record.Record{Attrs: record.AppendAttributes(nil, &want)}).Attributes()
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// A negative result TTL has no bytes. As a varint it would be 64 bits long, which the decoder refuses.
func TestNegativeResultTTLIsNotWritten(t *testing.T) {
	require.Empty(t, record.AppendAttributes(nil, &record.Attributes{ResultTTL: -1}))
}

func TestAttributesOfNoneAreNone(t *testing.T) {
	require.Empty(t, record.AppendAttributes(nil, &record.Attributes{Algorithm: 1}))
	a, err := (&record.Record{}).Attributes()
	require.NoError(t, err)
	require.Zero(t, a)
}

func TestMarksRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := record.MarkValue{
			Number: rapid.Uint64().Draw(t, "number"),
			Epoch:  rapid.Uint64().Draw(t, "epoch"),
			Window: rapid.SliceOfN(rapid.Byte(), 0, 128).Draw(t, "window"),
		}
		got, err := record.ParseMark(record.AppendMark(nil, want))
		require.NoError(t, err)
		require.Equal(t, want.Number, got.Number)
		require.Equal(t, want.Epoch, got.Epoch)
		// Zero bytes at the end say nothing and are the only thing that may be missing.
		cut := want.Window[len(got.Window):]
		require.Equal(t, string(want.Window[:len(got.Window)]), string(got.Window))
		require.Equal(t, string(make([]byte, len(cut))), string(cut))
		if n := len(got.Window); n > 0 {
			require.NotZero(t, got.Window[n-1])
		}
	})
}

func TestMalformedMarksAreDamage(t *testing.T) {
	over := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}
	for name, b := range map[string][]byte{
		"empty":                     nil,
		"number without its end":    {0x80},
		"number over 64 bits":       append(over[:10:10], 0),
		"no epoch":                  {1},
		"epoch without its end":     {1, 0x80},
		"epoch over 64 bits":        append([]byte{1}, over...),
		"epoch of eleven bytes":     {1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0},
		"number of 64 bits, no end": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		_, err := record.ParseMark(b)
		require.ErrorIs(t, err, record.ErrDamaged, name)
	}
}

func TestBasesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := record.Base{At: rapid.Int64().Draw(t, "at"), TTL: rapid.Int64().Draw(t, "TTL")}
		require.Equal(t, b, record.DecodeBase(b.Encode()))
	})
}

func same(t *rapid.T, want, got record.Record) {
	require.Equal(t, want.Kind, got.Kind)
	require.Equal(t, want.Receiver, got.Receiver)
	require.Equal(t, want.At, got.At)
	require.Equal(t, want.Expires, got.Expires)
	require.Equal(t, string(want.Key), string(got.Key))
	require.Equal(t, string(want.Value), string(got.Value))
	require.Equal(t, string(want.Attrs), string(got.Attrs))
}
