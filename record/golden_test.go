package record_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

const (
	goldenAt  = 1_700_000_000_000 // 2023-11-14T22:13:20Z
	goldenTTL = 72 * 60 * 60 * 1000
)

var goldenBase = record.Base{At: goldenAt, TTL: goldenTTL}

// golden is a record and its bytes, written down once. A record that comes out differently cannot be read by what
// is deployed, so a red line here is fixed in the code and never in the table.
type golden struct {
	name string
	base record.Base
	rec  record.Record
	hex  string
}

func attributes(a record.Attributes) []byte { return record.AppendAttributes(nil, &a) }

func mark(m record.MarkValue) []byte { return record.AppendMark(nil, m) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

func goldens() []golden {
	const at, usual = goldenAt + 1000, goldenAt + 1000 + goldenTTL
	order, ok, note := []byte("order-4711"), []byte("ok"), []byte("try 1")
	digest := []byte{0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8}
	return []golden{
		{
			"result", goldenBase,
			record.Record{Kind: record.Result, At: at, Expires: usual, Key: order, Value: ok},
			`01 e8 07 0a 02  6f726465722d34373131  6f6b  49a0f8fd`,
		},
		{
			"result of the base's first millisecond, without a value", goldenBase,
			record.Record{Kind: record.Result, At: goldenAt, Expires: goldenAt + goldenTTL, Key: order},
			`01 00 0a 00  6f726465722d34373131  ba20c4f3`,
		},
		{
			"result with a TTL of its own", goldenBase,
			record.Record{Kind: record.Result, At: at, Expires: at + 60_000, Key: order, Value: ok},
			`21 e8 07 e0 d4 03 0a 02  6f726465722d34373131  6f6b  b61a7247`,
		},
		{
			"result for ever", goldenBase,
			record.Record{Kind: record.Result, At: at, Expires: record.Forever, Key: order, Value: ok},
			`21 e8 07 00 0a 02  6f726465722d34373131  6f6b  c827e69d`,
		},
		{
			"result for ever, as its base", record.Base{At: goldenAt, TTL: record.Forever},
			record.Record{Kind: record.Result, At: at, Expires: record.Forever, Key: order, Value: ok},
			`01 e8 07 0a 02  6f726465722d34373131  6f6b  49a0f8fd`,
		},
		{
			"result with a TTL in a base of for ever", record.Base{At: goldenAt, TTL: record.Forever},
			record.Record{Kind: record.Result, At: at, Expires: usual, Key: order, Value: ok},
			`21 e8 07 80 a8 cc 7b 0a 02  6f726465722d34373131  6f6b  94b277f1`,
		},
		{
			"result of the receiver", goldenBase,
			record.Record{Kind: record.Result, Receiver: true, At: at, Expires: usual, Key: order, Value: ok},
			`41 e8 07 0a 02  6f726465722d34373131  6f6b  c3442362`,
		},
		{
			"result with attributes", goldenBase,
			record.Record{
				Kind: record.Result, At: at, Expires: usual, Key: order, Value: ok,
				Attrs: attributes(record.Attributes{Algorithm: 1, Fingerprint: digest, Token: 300, ResultTTL: 5000}),
			},
			`81 e8 07 0a 02 13  6f726465722d34373131  6f6b  01 09 01 a1 a2 a3 a4 a5 a6 a7 a8 02 02 ac 02 03 02 88 27  199ef214`,
		},
		{
			"result of the receiver with a TTL of its own and attributes", goldenBase,
			record.Record{
				Kind: record.Result, Receiver: true, At: at, Expires: at + 1, Key: order, Value: ok,
				Attrs: attributes(record.Attributes{Token: 1}),
			},
			`e1 e8 07 01 0a 02 03  6f726465722d34373131  6f6b  02 01 01  1ac19367`,
		},
		{
			"failure", goldenBase,
			record.Record{
				Kind: record.Failure, Receiver: true, At: at, Expires: usual, Key: order, Value: []byte("declined"),
				Attrs: attributes(record.Attributes{Token: 7, Code: []byte("E42")}),
			},
			`c2 e8 07 0a 08 08  6f726465722d34373131  6465636c696e6564  02 01 07 04 03 45 34 32  9ac15999`,
		},
		{
			"failure for ever", goldenBase,
			record.Record{Kind: record.Failure, At: at, Expires: record.Forever, Key: order, Value: []byte("declined")},
			`22 e8 07 00 0a 08  6f726465722d34373131  6465636c696e6564  29933193`,
		},
		{
			"gone", goldenBase,
			record.Record{Kind: record.Gone, At: at, Expires: usual, Key: order},
			`03 e8 07 0a 00  6f726465722d34373131  7fc0d536`,
		},
		{
			"gone with a TTL of its own", goldenBase,
			record.Record{Kind: record.Gone, Receiver: true, At: at, Expires: at + 60_000, Key: order},
			`63 e8 07 e0 d4 03 0a 00  6f726465722d34373131  fc9eb5cf`,
		},
		{
			"intent", goldenBase,
			record.Record{
				Kind: record.Intent, Receiver: true, At: at, Expires: record.Forever, Key: order, Value: note,
				Attrs: attributes(record.Attributes{Token: 7}),
			},
			`c4 e8 07 0a 05 03  6f726465722d34373131  7472792031  02 01 07  028e3130`,
		},
		{
			"doubt", goldenBase,
			record.Record{
				Kind: record.Doubt, Receiver: true, At: at, Expires: record.Forever, Key: order, Value: note,
				Attrs: attributes(record.Attributes{Algorithm: 1, Fingerprint: digest, Token: 7}),
			},
			`c5 e8 07 0a 05 0e  6f726465722d34373131  7472792031  01 09 01 a1 a2 a3 a4 a5 a6 a7 a8 02 01 07  2ce2e206`,
		},
		{
			"state", goldenBase,
			record.Record{Kind: record.State, At: at, Expires: record.Forever, Key: []byte("n"), Value: []byte{0, 1, 0xff}},
			`06 e8 07 01 03  6e  0001ff  b7b5065f`,
		},
		{
			"state of the receiver", goldenBase,
			record.Record{Kind: record.State, Receiver: true, At: at, Expires: record.Forever, Key: []byte("n")},
			`46 e8 07 01 00  6e  87fbf829`,
		},
		{
			"mark", goldenBase,
			record.Record{
				Kind: record.Mark, At: at, Expires: record.Forever, Key: []byte("orders"),
				Value: mark(record.MarkValue{Number: 4711}),
			},
			`07 e8 07 06 03  6f7264657273  e72400  9d8f4056`,
		},
		{
			"mark of the receiver with window and epoch", goldenBase,
			record.Record{
				Kind: record.Mark, Receiver: true, At: at, Expires: record.Forever, Key: []byte("orders"),
				Value: mark(record.MarkValue{Number: 4711, Epoch: 3, Window: []byte{0x05, 0x80, 0, 0}}),
			},
			`47 e8 07 06 05  6f7264657273  e724030580  5c91f53b`,
		},
		{
			"outgoing", goldenBase,
			record.Record{
				Kind: record.Outgoing, At: at, Expires: record.Forever, Key: []byte("mail"), Value: []byte("hello"),
				Attrs: attributes(record.Attributes{Ordinal: 128, MessageKey: []byte("m-1")}),
			},
			`88 e8 07 04 05 09  6d61696c  68656c6c6f  05 02 80 01 06 03 6d 2d 31  7bc1874f`,
		},
		{
			"outgoing of the receiver", goldenBase,
			record.Record{
				Kind: record.Outgoing, Receiver: true, At: at, Expires: record.Forever, Key: []byte("mail"), Value: []byte("hello"),
				Attrs: attributes(record.Attributes{Ordinal: 1, MessageKey: []byte("m-1")}),
			},
			`c8 e8 07 04 05 08  6d61696c  68656c6c6f  05 01 01 06 03 6d 2d 31  96219948`,
		},
		{
			"sent", goldenBase,
			record.Record{
				Kind: record.Sent, At: at, Expires: record.Forever, Key: []byte("mail"),
				Attrs: attributes(record.Attributes{Ordinal: 128}),
			},
			`89 e8 07 04 00 04  6d61696c  05 02 80 01  00e139ac`,
		},
		{
			"parked", goldenBase,
			record.Record{
				Kind: record.Parked, At: at, Expires: record.Forever, Key: []byte("mail"), Value: []byte("no such box"),
				Attrs: attributes(record.Attributes{Ordinal: 128, MessageKey: []byte("m-1")}),
			},
			`8a e8 07 04 0b 09  6d61696c  6e6f207375636820626f78  05 02 80 01 06 03 6d 2d 31  62d55cea`,
		},
		{
			"tombstone of a result", goldenBase,
			record.Record{Kind: record.Tombstone, At: at, Expires: record.Forever, Key: order, Value: []byte{1}},
			`0b e8 07 0a 01  6f726465722d34373131  01  4ef32c23`,
		},
		{
			"tombstone of a mark of the receiver", goldenBase,
			record.Record{Kind: record.Tombstone, Receiver: true, At: at, Expires: record.Forever, Key: []byte("orders"), Value: []byte{7}},
			`4b e8 07 06 01  6f7264657273  07  75ad32fd`,
		},
		{
			"state with every attribute", goldenBase,
			record.Record{
				Kind: record.State, At: at, Expires: record.Forever, Key: []byte("n"), Value: ok,
				Attrs: attributes(record.Attributes{
					Algorithm: 1, Fingerprint: digest, Token: 2, ResultTTL: 3, Code: []byte("c"), Ordinal: 5, MessageKey: []byte("m"),
				}),
			},
			`86 e8 07 01 02 1a  6e  6f6b  01 09 01 a1 a2 a3 a4 a5 a6 a7 a8 02 01 02 03 01 03 04 01 63 05 01 05 06 01 6d  cb74e82c`,
		},
	}
}

func TestGoldenEncode(t *testing.T) {
	for _, g := range goldens() {
		require.Equal(t, unhex(t, g.hex), record.Append(nil, g.base, &g.rec), g.name)
	}
}

// The bytes behind the record must not matter: a lookup reads more than it needs.
func TestGoldenParse(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		for _, tail := range []string{"", "\x00", "\xff\xff\xff\xff"} {
			got, n, err := record.Parse(append(b[:len(b):len(b)], tail...), g.base)
			require.NoError(t, err, g.name)
			require.Equal(t, len(b), n, g.name)
			requireSame(t, g.rec, got, g.name)
			size, err := record.Size(append(b[:len(b):len(b)], tail...))
			require.NoError(t, err, g.name)
			require.Equal(t, len(b), size, g.name)
		}
	}
}

// Append must leave what lies before the record alone and keep it out of the check: a frame is records in a row.
func TestGoldenInARow(t *testing.T) {
	var all, want []byte
	for _, g := range goldens() {
		if g.base == goldenBase {
			all = record.Append(all, goldenBase, &g.rec)
			want = append(want, unhex(t, g.hex)...)
		}
	}
	require.Equal(t, want, all)
	for _, g := range goldens() {
		if g.base != goldenBase {
			continue
		}
		got, n, err := record.Parse(all, goldenBase)
		require.NoError(t, err, g.name)
		requireSame(t, g.rec, got, g.name)
		all = all[n:]
	}
	require.Empty(t, all)
}

func TestGoldenBase(t *testing.T) {
	b := record.Base{At: 0x0102030405060708, TTL: goldenTTL}.Encode()
	require.Equal(t, unhex(t, "08 07 06 05 04 03 02 01  00 14 73 0f 00 00 00 00"), b[:])
	b = record.Base{At: -1, TTL: record.Forever}.Encode()
	require.Equal(t, unhex(t, "ff ff ff ff ff ff ff ff  ff ff ff ff ff ff ff 7f"), b[:])
	require.Equal(t, record.Base{At: -1, TTL: record.Forever}, record.DecodeBase(b))
}

// requireSame compares what two records say; an empty slice and none are the same on disk.
func requireSame(t testing.TB, want, got record.Record, name string) {
	t.Helper()
	require.Equal(t, want.Kind, got.Kind, name)
	require.Equal(t, want.Receiver, got.Receiver, name)
	require.Equal(t, want.At, got.At, name)
	require.Equal(t, want.Expires, got.Expires, name)
	require.Equal(t, string(want.Key), string(got.Key), name)
	require.Equal(t, string(want.Value), string(got.Value), name)
	require.Equal(t, string(want.Attrs), string(got.Attrs), name)
	require.Equal(t, want.Space(), got.Space(), name)
}
