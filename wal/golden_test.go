package wal

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The bytes are a promise: what one version wrote, every later one reads. These tests hold them against hexadecimal
// that no code here made, and against docs/FORMAT.md.

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// example returns the worked example of a segment in docs/FORMAT.md.
func example(t testing.TB) []byte {
	t.Helper()
	page, err := os.ReadFile("../docs/FORMAT.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```hex segment\n")
	require.True(t, ok)
	block, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	var b []byte
	for line := range strings.Lines(block) {
		at, digits, ok := strings.Cut(strings.TrimSpace(line), "  ")
		require.True(t, ok, line)
		require.Equal(t, fmt.Sprintf("%04x", len(b)), at)
		b = append(b, unhex(t, digits)...)
	}
	return b
}

const exampleNonce = 0x0123456789abcdef

var exampleHeader = header{
	id: testID, number: 2, nonce: exampleNonce, first: 1,
	meta: [MetaSize]byte{0, 0x68, 0xe5, 0xcf, 0x8b, 1, 0, 0, 0, 0x14, 0x73, 0x0f},
}

func TestGoldenHeader(t *testing.T) {
	golden := unhex(t, `
		6f6e636577616c00 01 00000000000000
		a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
		0200000000000000 efcdab8967452301 0100000000000000
		0068e5cf8b010000 0014730f00000000 f2f6b1a797e46e60`)
	require.Equal(t, golden, exampleHeader.encode())
	require.Equal(t, golden, example(t)[1:headerEntry])
	h, ok, tooNew := parseHeader(append([]byte{0x50}, golden...))
	require.True(t, ok)
	require.False(t, tooNew)
	require.Equal(t, exampleHeader, h)

	// No field equal to another, and none with a zero byte: nothing can hide in another's place.
	full := header{number: 0x1817161514131211, nonce: 0x2827262524232221, first: 0x3837363534333231}
	for i := range 16 {
		full.id[i], full.meta[i] = byte(0xc1+i), byte(0xe1+i)
	}
	golden = unhex(t, `
		6f6e636577616c00 01 00000000000000
		c1c2c3c4c5c6c7c8c9cacbcccdcecfd0
		1112131415161718 2122232425262728 3132333435363738
		e1e2e3e4e5e6e7e8 e9eaebecedeeeff0 f6722f013d3b13b8`)
	require.Equal(t, golden, full.encode())
	h, ok, tooNew = parseHeader(append([]byte{0x50}, golden...))
	require.True(t, ok && !tooNew)
	require.Equal(t, full, h)
}

// A header that a later version wrote is whole, so it is neither a torn one nor damage, and it is not guessed at.
func TestGoldenHeadersOfLaterVersions(t *testing.T) {
	for name, golden := range map[string]string{
		"version 2": `50 6f6e636577616c00 02 00000000000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
			0200000000000000 efcdab8967452301 0100000000000000 0068e5cf8b010000 0014730f00000000 d966e7815ed14e58`,
		"version 0": `50 6f6e636577616c00 00 00000000000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
			0200000000000000 efcdab8967452301 0100000000000000 0068e5cf8b010000 0014730f00000000 0f7478f4229400e6`,
		"first reserved byte": `50 6f6e636577616c00 01 01000000000000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
			0200000000000000 efcdab8967452301 0100000000000000 0068e5cf8b010000 0014730f00000000 7cd4803cfda37570`,
		"last reserved byte": `50 6f6e636577616c00 01 00000000000080 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf
			0200000000000000 efcdab8967452301 0100000000000000 0068e5cf8b010000 0014730f00000000 ae08e63d55fe4f97`,
	} {
		b := unhex(t, golden)
		_, ok, tooNew := parseHeader(b)
		require.True(t, ok, name)
		require.True(t, tooNew, name)

		// In a log, it is the answer wherever the header stands: first, last, or behind the tail.
		for number := uint64(1); number <= 3; number++ {
			dir := exampleLog(t)
			require.NoError(t, os.WriteFile(pathOf(dir, number), b, 0o600))
			if number == 3 {
				require.NoError(t, os.Truncate(pathOf(dir, 2), 0xb6)) // without its seal it is the tail
			}
			before := tree(t, dir)
			_, _, err := read(dir, Options{ID: testID})
			require.ErrorIs(t, err, ErrTooNew, "%s in segment %d", name, number)
			require.NotErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, pathOf(dir, number))
			require.Equal(t, before, tree(t, dir), "what is not understood is not touched")
		}
	}
	// The same without a good check is a header that is not whole.
	b := append([]byte{0x50}, exampleHeader.encode()...)
	b[9] = 2
	_, ok, _ := parseHeader(b)
	require.False(t, ok)
}

func TestGoldenFrames(t *testing.T) {
	page := example(t)
	for _, g := range []struct {
		name                         string
		nonce, first, number, synced uint64
		payload, golden              string
		at                           int // in the page's example; 0 = not there
	}{
		{name: "first", nonce: exampleNonce, first: 1, number: 1, synced: 0, payload: `
			01e8070a026f726465722d343731316f6b49a0f8fd07e80706036f7264657273e724009d8f4056`, golden: `
			31 9bb2a6eb36e61b38 01 01
			01e8070a026f726465722d343731316f6b49a0f8fd07e80706036f7264657273e724009d8f4056`, at: 0x51},
		{name: "second", nonce: exampleNonce, first: 1, number: 2, synced: 1, payload: `
			e2d00fe0d403050208 7061792d31 6e6f 020107 0403453432 e5f63750`, golden: `
			26 c6a95b0e607cff72 02 01 e2d00fe0d403050208 7061792d31 6e6f 020107 0403453432 e5f63750`, at: 0x83},
		{name: "sync mark", nonce: exampleNonce, first: 1, number: 2, synced: 2, payload: `1d`, golden: `
			0b d7b8469139 46d354 02 00 1d`, at: 0xaa},
		{name: "seal", nonce: exampleNonce, first: 1, number: 2, synced: 2, payload: `
			1e 0200000000000000 e200000000000000 0300000000000000 3333333333333333`, golden: `
			2b 3a54c13bcde16f4c 02 00
			1e 0200000000000000 e200000000000000 0300000000000000 3333333333333333`, at: 0xb6},
		{name: "sync mark of a segment without a transaction", nonce: 0xf1f2f3f4f5f6f7f8, first: 1000, number: 999, synced: 999,
			payload: `1d`, golden: `0b cb9cc1fbe0a57cea 00 00 1d`},
		{name: "two-byte varints, and a length of one byte at its most", nonce: 0xf1f2f3f4f5f6f7f8, first: 1000, number: 1127, synced: 999,
			payload: strings.Repeat("5a", 115), golden: `7f d91d0f78a40b02d5 8001 8001 ` + strings.Repeat("5a", 115)},
		{name: "a length of two bytes at its least", nonce: 0xf1f2f3f4f5f6f7f8, first: 1000, number: 1127, synced: 999,
			payload: strings.Repeat("5a", 116), golden: `8001 7a525850eaf016a7 8001 8001 ` + strings.Repeat("5a", 116)},
		{name: "the largest numbers", nonce: 0xffffffffffffffff, first: 1, number: 0xffffffffffffffff, synced: 0,
			payload: `00`, golden: `1d 5ea5edd41e4aad65 ffffffffffffffffff01 ffffffffffffffffff01 00`},
	} {
		payload, golden := unhex(t, g.payload), unhex(t, g.golden)
		require.Equal(t, golden, appendEntry(nil, appendFrame(nil, g.nonce, g.first, g.number, g.synced, payload)), g.name)
		require.Equal(t, len(golden), entrySize(g.first, g.number, g.synced, len(payload)), g.name)
		require.LessOrEqual(t, len(golden)-len(payload), frameRoom, g.name)
		f, ok := parseFrame(append(golden, 0xff), g.nonce, g.first)
		require.True(t, ok, g.name)
		require.Equal(t, frame{number: g.number, synced: g.synced, payload: payload, at: len(golden) - len(payload), size: len(golden)}, f, g.name)
		if g.at > 0 {
			require.Equal(t, golden, page[g.at:g.at+len(golden)], g.name)
		}
	}
}

func TestGoldenSeal(t *testing.T) {
	s := seal{last: 0x1817161514131211, end: 0x2827262524232221, next: 0x3837363534333231, nextNonce: 0x4847464544434241}
	golden := unhex(t, `1e 1112131415161718 2122232425262728 3132333435363738 4142434445464748`)
	require.Equal(t, golden, s.encode())
	require.Equal(t, s, parseSeal(golden))
	_, end := appendSeal(nil, &Segment{first: 1, nonce: exampleNonce}, 2, 2, 0xb6, &Segment{number: 3, nonce: 0x3333333333333333})
	require.EqualValues(t, 0xe2, end)
}

// exampleLog is a log whose second segment is the page's example, byte for byte.
func exampleLog(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(memoryDir(t), "wal")
	write := func(number uint64, b []byte) {
		require.NoError(t, os.MkdirAll(segmentDir(dir, number), 0o700))
		require.NoError(t, os.WriteFile(pathOf(dir, number), b, 0o600))
	}
	one := &Segment{number: 1, nonce: 0x1111111111111111, first: 1}
	b := appendEntry(nil, one.header(testID, 1, exampleHeader.meta))
	sealed, _ := appendSeal(nil, one, 0, 0, int64(len(b)), &Segment{number: 2, nonce: exampleNonce})
	write(1, appendEntry(b, sealed))
	write(2, example(t))
	write(3, nil)
	return dir
}

// The log reads the page's example, sets a header with the announced nonce behind it, and goes on.
func TestGoldenLog(t *testing.T) {
	dir := exampleLog(t)
	page := example(t)
	want := []string{string(page[0x5c:0x83]), string(page[0x8e:0xaa])}
	o := small(0)
	l := reopen(t, dir, o, want)
	require.Equal(t, exampleHeader.meta, l.Segment(2).Meta())
	require.EqualValues(t, 0xe2, l.Segment(2).End())
	_, err := commit(l, "third")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Equal(t, string(page), tree(t, dir)["00000000000000000002/00000000000000000001"])

	h, all := entries(t, pathOf(dir, 3))
	require.Equal(t, header{id: testID, number: 3, nonce: 0x3333333333333333, first: 3, meta: o.Meta()}, h)
	require.EqualValues(t, kindSyncMark, all[1].frame.payload[0])
	require.EqualValues(t, kindSeal, all[2].frame.payload[0])
	holds(t, dir, o, append(want, "third"))
}

// A frame of the log's own that is longer or shorter than drawn says something that is not known here: too new, for
// the log as a whole.
func TestGoldenFramesThatAreTooNew(t *testing.T) {
	for what, payload := range map[string]string{
		"drop-through, longer":  `1c 0100000000000000 0000000000000000 00`,
		"drop-through, shorter": `1c 0100000000000000`,
		"sync mark, longer":     `1d 00`,
		"seal, longer":          `1e 0200000000000000 e300000000000000 0300000000000000 3333333333333333 00`,
		"seal, shorter":         `1e 0200000000000000 da00000000000000 0300000000000000`,
	} {
		dir := exampleLog(t)
		page := example(t)
		f := appendEntry(nil, appendFrame(nil, exampleNonce, 1, 2, 2, unhex(t, payload)))
		require.NoError(t, os.WriteFile(pathOf(dir, 2), append(page[:0xb6:0xb6], f...), 0o600))
		before := tree(t, dir)
		_, _, err := read(dir, small(0))
		require.ErrorIs(t, err, ErrTooNew, what)
		require.ErrorContains(t, err, pathOf(dir, 2)+" at offset 182", what)
		require.Equal(t, before, tree(t, dir), what)
	}
}
