package record_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// These tests read docs/FORMAT.md the way a stranger would: with a decoder of their own, made from that page, and
// none of this package's. Then the two are compared.

func formatPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/FORMAT.md")
	require.NoError(t, err)
	return string(b)
}

// dump returns the bytes of the page's hexadecimal example of that name.
func dump(t *testing.T, name string) []byte {
	t.Helper()
	_, rest, ok := strings.Cut(formatPage(t), "```hex "+name+"\n")
	require.True(t, ok, "the page has no example %q", name)
	block, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	var b []byte
	for line := range strings.Lines(block) {
		offset, digits, ok := strings.Cut(strings.TrimSpace(line), "  ")
		require.True(t, ok, line)
		require.Equal(t, fmt.Sprintf("%04x", len(b)), offset)
		part, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		require.NoError(t, err)
		b = append(b, part...)
	}
	return b
}

// reader takes numbers off the front of bytes, and fails the test where there are none.
type reader struct {
	t *testing.T
	b []byte
}

func (r *reader) bytes(n uint64) []byte {
	r.t.Helper()
	require.LessOrEqual(r.t, n, uint64(len(r.b)))
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u64() uint64 {
	r.t.Helper()
	return binary.LittleEndian.Uint64(r.bytes(8))
}

func (r *reader) varint() (v uint64) {
	r.t.Helper()
	for shift := 0; ; shift += 7 {
		b := r.bytes(1)[0]
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

type strangersFrame struct {
	number, synced uint64
	payload        []byte
}

type strangersHeader struct {
	id                   []byte
	number, nonce, first uint64
	base                 record.Base
}

func strangersSegment(t *testing.T, file []byte) (h strangersHeader, frames []strangersFrame) {
	t.Helper()
	r := &reader{t, file}
	require.Equal(t, uint64(80), r.varint())
	head := r.bytes(80)
	require.Equal(t, binary.LittleEndian.Uint64(head[72:]), xxhash.Sum64(head[:72]))
	hr := &reader{t, head}
	require.Equal(t, "oncewal\x00", string(hr.bytes(8)))
	require.Equal(t, []byte{1, 0, 0, 0, 0, 0, 0, 0}, hr.bytes(8))
	h.id = hr.bytes(16)
	h.number, h.nonce, h.first = hr.u64(), hr.u64(), hr.u64()
	h.base = record.Base{At: int64(hr.u64()), TTL: int64(hr.u64())}
	for len(r.b) > 0 && r.b[0] != 0 {
		f := &reader{t, r.bytes(r.varint())}
		sum, body := f.u64(), f.b
		number := f.varint() + h.first - 1
		var d xxhash.Digest
		d.ResetWithSeed(h.nonce ^ number*0x9E3779B97F4A7C15)
		_, _ = d.Write(body)
		require.Equal(t, d.Sum64(), sum)
		frames = append(frames, strangersFrame{number, number - f.varint(), f.b})
	}
	return h, frames
}

func strangersRecords(t *testing.T, base record.Base, payload []byte) (records []record.Record) {
	t.Helper()
	for r := (&reader{t, payload}); len(r.b) > 0; {
		start := r.b
		head := r.bytes(1)[0]
		rec := record.Record{Kind: record.Kind(head & 0x1f), Receiver: head&0x40 != 0, Expires: record.Forever}
		rec.At = base.At + int64(r.varint())
		ttl := base.TTL
		if head&0x20 != 0 {
			ttl = int64(r.varint())
		}
		if rec.Kind <= 3 && ttl != 0 && ttl != record.Forever {
			rec.Expires = rec.At + ttl
		}
		key, value, attrs := r.varint(), r.varint(), uint64(0)
		if head&0x80 != 0 {
			attrs = r.varint()
		}
		rec.Key, rec.Value, rec.Attrs = r.bytes(key), r.bytes(value), r.bytes(attrs)
		sum := uint32(xxhash.Sum64(start[:len(start)-len(r.b)]))
		require.Equal(t, sum, binary.LittleEndian.Uint32(r.bytes(4)))
		records = append(records, rec)
	}
	return records
}

func TestFormatExampleSegment(t *testing.T) {
	file := dump(t, "segment")
	h, frames := strangersSegment(t, file)
	require.Equal(t, unhex(t, "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"), h.id)
	require.Equal(t, uint64(2), h.number)
	require.Equal(t, uint64(0x0123456789abcdef), h.nonce)
	require.Equal(t, uint64(1), h.first)
	require.Equal(t, goldenBase, h.base)
	require.Equal(t, record.DecodeBase([16]byte(file[1+56:])), h.base)

	require.Len(t, frames, 4)
	for i, want := range []struct{ number, synced uint64 }{{1, 0}, {2, 1}, {2, 2}, {2, 2}} {
		require.Equal(t, want.number, frames[i].number, "frame %d", i)
		require.Equal(t, want.synced, frames[i].synced, "frame %d", i)
	}
	require.Equal(t, []byte{29}, frames[2].payload)
	seal := &reader{t, frames[3].payload}
	require.Equal(t, byte(30), seal.bytes(1)[0])
	require.Equal(t, []uint64{2, uint64(len(file)), 3, 0x3333333333333333}, []uint64{seal.u64(), seal.u64(), seal.u64(), seal.u64()})
	require.Empty(t, seal.b)

	want := [][]record.Record{
		{
			{Kind: record.Result, At: goldenAt + 1000, Expires: 1_700_259_201_000, Key: []byte("order-4711"), Value: []byte("ok")},
			{
				Kind: record.Mark, At: goldenAt + 1000, Expires: record.Forever, Key: []byte("orders"),
				Value: mark(record.MarkValue{Number: 4711}),
			},
		},
		{{
			Kind: record.Failure, Receiver: true, At: goldenAt + 2000, Expires: 1_700_000_062_000,
			Key: []byte("pay-1"), Value: []byte("no"),
			Attrs: attributes(record.Attributes{Token: 7, Code: []byte("E42")}),
		}},
	}
	for i, wants := range want {
		payload := frames[i].payload
		var b []byte
		for _, w := range wants {
			b = record.Append(b, h.base, &w)
		}
		require.Equal(t, payload, b, "frame %d", i+1)
		strangers := strangersRecords(t, h.base, payload)
		require.Len(t, strangers, len(wants))
		for j, w := range wants {
			got, n, err := record.Parse(payload, h.base)
			require.NoError(t, err)
			requireSame(t, w, got, "ours")
			requireSame(t, w, strangers[j], "the stranger's")
			payload = payload[n:]
		}
		require.Empty(t, payload)
	}
}

func TestFormatExampleManifest(t *testing.T) {
	b := dump(t, "manifest")
	require.Len(t, b, 48)
	require.Equal(t, "onceman\x00\x01\x00\x00\x00\x00\x00\x00\x00", string(b[:16]))
	require.Equal(t, unhex(t, "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"), b[16:32])
	require.Equal(t, uint64(0x0102030405060708), binary.LittleEndian.Uint64(b[32:]))
	require.Equal(t, xxhash.Sum64(b[:40]), binary.LittleEndian.Uint64(b[40:]))
	require.Equal(t, uint64(0xef46db3751d8e999), xxhash.Sum64(nil), "the page says so, for strangers to try theirs")
}

// Every golden record must come out of the stranger's decoder too: the page says enough for all kinds.
func TestFormatPageDecodesEveryGolden(t *testing.T) {
	for _, g := range goldens() {
		got := strangersRecords(t, g.base, unhex(t, g.hex))
		require.Len(t, got, 1, g.name)
		requireSame(t, g.rec, got[0], g.name)
	}
}

// A kind that is added to the code is added to the page.
func TestFormatPageNamesEveryKind(t *testing.T) {
	page := formatPage(t)
	for k := record.Result; k <= record.Tombstone; k++ {
		expires := "no"
		if k.Expires() {
			expires = "yes"
		}
		require.Contains(t, page, fmt.Sprintf("\n| %d | %v | %s |", byte(k), k, expires))
	}
	require.NotContains(t, page, "| 12 | ")
	require.Equal(t, "kind(12)", record.Kind(12).String())
}
