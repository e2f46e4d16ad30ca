package record_test

import (
	"encoding/binary"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// sealed ends hand-made bytes with the check that they need to be taken for what they say.
func sealed(b ...byte) []byte {
	return binary.LittleEndian.AppendUint32(b[:len(b):len(b)], uint32(xxhash.Sum64(b)))
}

// withAttrs is a state under the key "k", without a value, with these attributes.
func withAttrs(attrs ...byte) []byte {
	return sealed(append([]byte{0x86, 0, 1, 0, byte(len(attrs)), 'k'}, attrs...)...)
}

// What a later version writes must be refused as such. Read as damage it would send its owner to a backup; skipped,
// it would be acted on without what it says.
func TestKindsOfLaterVersionsAreUnknown(t *testing.T) {
	for kind := range byte(32) {
		for _, flags := range []byte{0, 0x40} {
			_, _, err := record.Parse(sealed(kind|flags, 0, 1, 1, 'k', 1), goldenBase)
			if kind >= 1 && kind <= 11 {
				require.NoError(t, err, "kind %d", kind)
				continue
			}
			require.ErrorIs(t, err, record.ErrUnknown, "kind %d", kind)
			_, _, err = record.Parse(sealed(kind|flags|0x20, 0, 1, 1, 1, 'k', 1), goldenBase)
			require.ErrorIs(t, err, record.ErrUnknown, "kind %d with a TTL", kind)
		}
	}
}

// A kind that never expires has no use for a TTL, so the bit is free for a later version to mean something.
func TestTTLOnWhatDoesNotExpireIsUnknown(t *testing.T) {
	for k := record.Result; k <= record.Tombstone; k++ {
		_, _, err := record.Parse(sealed(byte(k)|0x20, 0, 9, 1, 1, 'k', 1), goldenBase)
		if k.Expires() {
			require.NoError(t, err, k)
		} else {
			require.ErrorIs(t, err, record.ErrUnknown, k)
		}
	}
}

func TestTombstoneOfNothingKnownIsUnknown(t *testing.T) {
	for v := range 256 {
		_, _, err := record.Parse(sealed(11, 0, 1, 1, 'k', byte(v)), goldenBase)
		if v >= 1 && v <= 10 {
			require.NoError(t, err, v)
		} else {
			require.ErrorIs(t, err, record.ErrUnknown, v)
		}
	}
	_, _, err := record.Parse(sealed(11, 0, 1, 0, 'k'), goldenBase)
	require.ErrorIs(t, err, record.ErrUnknown)
	_, _, err = record.Parse(sealed(11, 0, 1, 2, 'k', 1, 1), goldenBase)
	require.ErrorIs(t, err, record.ErrUnknown)
}

// Parse itself must refuse: who never asks for a record's attributes would act on it without them.
func TestTagsOfLaterVersionsAreUnknown(t *testing.T) {
	for tag := 7; tag <= 255; tag++ {
		for _, attrs := range [][]byte{
			{byte(tag), 1, 'x'},
			{2, 1, 9, byte(tag), 1, 'x'},
			{byte(tag), 0}, // a flag, say: a tag whose presence is all it has to tell
			{byte(tag), 1, 'x', 0xff, 1, 'x'},
		} {
			_, _, err := record.Parse(withAttrs(attrs...), goldenBase)
			require.ErrorIs(t, err, record.ErrUnknown, "% x", attrs)
			_, err = (&record.Record{Attrs: attrs}).Attributes()
			require.ErrorIs(t, err, record.ErrUnknown, "% x", attrs)
		}
	}
}

// No version writes these, so behind a check that holds they are a writer's fault, not a later format.
func TestMalformedAttributesAreDamage(t *testing.T) {
	for name, attrs := range map[string][]byte{
		"tag 0":                         {0, 1, 'x'},
		"twice":                         {2, 1, 9, 2, 1, 9},
		"out of order":                  {4, 1, 'c', 2, 1, 9},
		"a tag alone":                   {2},
		"a length without its end":      {2, 0x80},
		"a length past the end":         {2, 2, 9},
		"a length of 64 bits":           {4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 'c'},
		"a length of more than 64 bits": {4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 'c'},
		"an empty code":                 {4, 0},
		"an empty number":               {2, 0},
		"a number without its end":      {2, 1, 0x80},
		"a number with something more":  {2, 2, 9, 9},
		"a number over 64 bits":         {2, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
		"a result TTL over 63 bits":     {3, 10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1},
		"a fingerprint without digest":  {1, 1, 1},
	} {
		_, _, err := record.Parse(withAttrs(attrs...), goldenBase)
		require.ErrorIs(t, err, record.ErrDamaged, name)
		_, err = (&record.Record{Attrs: attrs}).Attributes()
		require.ErrorIs(t, err, record.ErrDamaged, name)
	}
}

// Longer varints than needed, a TTL written although the base has it, an empty list of attributes: no writer of
// this version makes them, but they have one meaning only, so they are read.
func TestWhatIsOnlyLongerIsRead(t *testing.T) {
	plain := record.Record{Kind: record.Result, At: goldenAt + 1, Expires: goldenAt + 1 + goldenTTL, Key: []byte("k")}
	for name, b := range map[string][]byte{
		"time":         sealed(1, 0x81, 0x80, 0, 1, 0, 'k'),
		"length":       sealed(1, 1, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0, 'k'),
		"base's TTL":   sealed(0x21, 1, 0x80, 0xa8, 0xcc, 0x7b, 1, 0, 'k'),
		"no attribute": sealed(0x81, 1, 1, 0, 0, 'k'),
	} {
		r, n, err := record.Parse(b, goldenBase)
		require.NoError(t, err, name)
		require.Equal(t, len(b), n, name)
		requireSame(t, plain, r, name)
	}
	a, err := (&record.Record{Attrs: []byte{2, 2, 0x87, 0}}).Attributes()
	require.NoError(t, err)
	require.Equal(t, record.Attributes{Token: 7}, a)
}
