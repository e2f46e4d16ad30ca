package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/decoders"
)

// FuzzHeader decodes a segment's header.
func FuzzHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		oneHeader(t, b)
		if b = headerPutRight(b); b != nil {
			oneHeader(t, b)
		}
	})
}

func oneHeader(t *testing.T, b []byte) {
	var h header
	var ok, tooNew bool
	decoders.Bounded(t, len(b), 2, func() { h, ok, tooNew = parseHeader(b) })
	switch {
	case !ok || tooNew:
		require.Zero(t, h)
		require.True(t, ok || !tooNew, "a header that is not whole says nothing of its version")
	default:
		require.Equal(t, b[1:headerEntry], h.encode(), "its parts are all that it says")
	}
}

// headerPutRight returns the bytes with the header's check right, or nil if they are too short for one.
func headerPutRight(b []byte) []byte {
	if len(b) < headerEntry {
		return nil
	}
	b = append([]byte(nil), b...)
	binary.LittleEndian.PutUint64(b[73:], xxhash.Sum64(b[1:73]))
	return b
}

// FuzzFrame decodes one entry as a frame of a segment.
func FuzzFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, nonce, first uint64) {
		oneFrame(t, b, nonce, first)
		if b, _ := framePutRight(b, nonce, first); b != nil {
			oneFrame(t, b, nonce, first)
		}
	})
}

func oneFrame(t *testing.T, b []byte, nonce, first uint64) {
	var f frame
	var ok bool
	decoders.Bounded(t, len(b), 2, func() { f, ok = parseFrame(b, nonce, first) })
	if !ok {
		return
	}
	require.LessOrEqual(t, f.size, len(b))
	require.Equal(t, f.payload, b[f.at:f.size])
	require.NotEmpty(t, f.payload)
	require.LessOrEqual(t, f.synced, f.number)
	_, elsewhere := parseFrame(b, nonce^1, first)
	require.False(t, elsewhere, "it is good under another nonce")
	_, cut := parseFrame(b[:f.size-1], nonce, first)
	require.False(t, cut, "it is good without its last byte")
	written := appendEntry(nil, appendFrame(nil, nonce, first, f.number, f.synced, f.payload))
	require.LessOrEqual(t, len(written), f.size, "the shortest form is longer")
	require.Equal(t, entrySize(first, f.number, f.synced, len(f.payload)), len(written))
	again, ok := parseFrame(written, nonce, first)
	require.True(t, ok)
	require.Equal(t, []any{f.number, f.synced, string(f.payload)}, []any{again.number, again.synced, string(again.payload)})
	if f.own() && f.payload[0] == kindSeal && len(f.payload) == sealPayload {
		sl := parseSeal(f.payload)
		require.Equal(t, f.payload, sl.encode())
	}
}

// framePutRight returns the bytes with the check of the frame they begin with right, and the frame's size. It returns
// nil for bytes that look like no frame.
func framePutRight(b []byte, nonce, first uint64) ([]byte, int) {
	f, _, ok := looksLike(b, first)
	if !ok {
		return nil, 0
	}
	b = append([]byte(nil), b...)
	_, used := binary.Uvarint(b)
	binary.LittleEndian.PutUint64(b[used:], frameSum(nonce, f.number, b[used+8:f.size]))
	return b, f.size
}

// segmentPutRight returns a segment with all checks right, as far as it looks like one.
func segmentPutRight(b []byte) []byte {
	if b = headerPutRight(b); b == nil {
		return nil
	}
	h, ok, tooNew := parseHeader(b)
	if !ok || tooNew {
		return b
	}
	for at := headerEntry; at < len(b); {
		rest, size := framePutRight(b[at:], h.nonce, h.first)
		if rest == nil {
			break
		}
		copy(b[at:], rest)
		at += size
	}
	return b
}

// FuzzSegment scans a segment's bytes, in order as recovery does it, and byte for byte as it looks for witnesses.
func FuzzSegment(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		oneSegment(t, b)
		if b = segmentPutRight(b); b != nil {
			oneSegment(t, b)
		}
	})
}

func oneSegment(t *testing.T, b []byte) {
	s := &Segment{number: 1 << 32, path: "a segment"}
	h, headerOK, tooNew := parseHeader(b)
	if headerOK && !tooNew {
		s.number = h.number
	}
	var frames int
	var found found
	var err error
	decoders.Bounded(t, len(b), 2, func() {
		frames = 0
		found, err = s.scanFrames(b, 7, func(Frame) error { frames++; return nil })
	})
	if err != nil {
		requireKind(t, err)
		return
	}
	require.Equal(t, headerOK, found.headerOK)
	require.LessOrEqual(t, found.end, int64(len(b)))
	require.True(t, found.sealed || found.reason != "", "what ends it must be said")
	if !found.headerOK {
		require.Zero(t, found.end)
		require.EqualValues(t, 7, found.last)
		return
	}
	// Written again, each frame in its shortest form, the segment says the same.
	written := append([]byte{headerSize}, found.header.encode()...)
	said, last := []string{}, h.first-1
	for at := int64(headerEntry); at < found.end; {
		f, ok := parseFrame(b[at:], h.nonce, h.first)
		require.True(t, ok)
		if !f.own() {
			require.Equal(t, last+1, f.number)
			last = f.number
			said = append(said, string(f.payload))
		}
		if found.sealed && at == found.sealAt {
			next := &Segment{number: found.seal.next, nonce: found.seal.nextNonce}
			data, end := appendSeal(nil, &Segment{nonce: h.nonce, first: h.first}, f.number, f.synced, int64(len(written)), next)
			written = appendEntry(written, data)
			require.EqualValues(t, len(written), end)
		} else {
			written = appendEntry(written, appendFrame(nil, h.nonce, h.first, f.number, f.synced, f.payload))
		}
		at += int64(f.size)
	}
	again := []string{}
	twin, err := s.scanFrames(written, 7, func(f Frame) error {
		if f.Payload != nil {
			require.Equal(t, string(f.Payload), string(written[f.Offset:][:len(f.Payload)]), "it does not lie where the scanner says")
			again = append(again, string(f.Payload))
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, said, again)
	require.Equal(t, found.last, last)
	require.Equal(t,
		[]any{found.last, found.synced, found.sealed, found.dropped, found.note, found.seal.next, found.seal.nextNonce},
		[]any{twin.last, twin.synced, twin.sealed, twin.dropped, twin.note, twin.seal.next, twin.seal.nextNonce})

	// The search finds what lies in order, as if the header were all that is good.
	if h.first == 0 || h.first > 1<<62 {
		return
	}
	var proven uint64
	var any bool
	decoders.Bounded(t, len(b), 2, func() {
		proven = searchFrames(b[headerEntry:], h.nonce, h.first, h.first-1)
		any = anyFrame(b[headerEntry:], h.nonce, h.first)
	})
	if found.synced >= h.first {
		require.GreaterOrEqual(t, proven, found.synced)
	}
	if found.end > headerEntry {
		require.True(t, any)
	}
}

func requireKind(t *testing.T, err error) {
	t.Helper()
	require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTooNew), "%v", err)
	var damage *CorruptError
	if errors.As(err, &damage) {
		require.NotEmpty(t, damage.File)
		require.NotEmpty(t, damage.Reason)
	}
}

// FuzzTail opens a log whose last segment is anything. What is not refused is recovered, stays what it is however
// often it is opened, and can be gone on with.
func FuzzTail(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		oneTail(t, b)
		if b = segmentPutRight(b); b != nil {
			oneTail(t, b)
		}
	})
}

func oneTail(t *testing.T, b []byte) {
	dir := filepath.Join(memoryDir(t), "wal")
	require.NoError(t, os.MkdirAll(segmentDir(dir, 2), 0o700))
	require.NoError(t, os.MkdirAll(segmentDir(dir, 1), 0o700))
	require.NoError(t, os.WriteFile(pathOf(dir, 1), firstSegment(), 0o600))
	require.NoError(t, os.WriteFile(pathOf(dir, 2), b, 0o600))
	o := small(0)
	o.ReadOnly = true
	open := func() (got []string, err error) {
		in := map[uint64][]string{}
		l, err := Open(dir, o, Start{}, func(f Frame) error {
			if f.Payload != nil {
				in[f.Segment.number] = append(in[f.Segment.number], string(f.Payload))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, n := range []uint64{1, 2, 3, 4} {
			if n > l.Dropped() {
				got = append(got, in[n]...)
			}
		}
		return got, errors.Join(l.Verify(func(Frame) error { return nil }), l.Close())
	}
	// For reading alone first: nothing else has the files, so both must say the same.
	want, refused := open()
	if refused != nil {
		requireKind(t, refused)
		require.Equal(t, string(b), string(readAll(t, pathOf(dir, 2))))
	}
	o.ReadOnly = false
	for range 2 {
		got, err := open()
		if refused != nil {
			require.Equal(t, refused.Error(), err.Error())
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	l, err := Open(dir, o, Start{}, func(Frame) error { return nil })
	require.NoError(t, err)
	if l.Visible() > math.MaxUint64-10 {
		require.NoError(t, l.Close())
		return // the numbers of transactions end here, in some 10^11 years
	}
	_, err = commit(l, "more")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	got, err := open()
	require.NoError(t, err)
	require.Equal(t, append(want, "more"), got)
}

// The log that FuzzTail's bytes are the end of: one segment with two transactions, sealed.
const tailNonce, tailFirst = 0x7461696c, 3

func firstSegment() []byte {
	s := &Segment{number: 1, nonce: 0x6f6e65}
	b := append([]byte{headerSize}, s.header(testID, 1, [MetaSize]byte{})...)
	for n := uint64(1); n < tailFirst; n++ {
		b = appendEntry(b, appendFrame(nil, s.nonce, s.first, n, n-1, []byte(payload(int(n)))))
	}
	data, _ := appendSeal(nil, s, tailFirst-1, tailFirst-1, int64(len(b)), &Segment{number: 2, nonce: tailNonce})
	return appendEntry(b, data)
}

// tail makes such an end, of some frames.
func tail(own ...[]byte) []byte {
	s := &Segment{number: 2, nonce: tailNonce}
	b := append([]byte{headerSize}, s.header(testID, tailFirst, [MetaSize]byte{1})...)
	for n := uint64(tailFirst); n < tailFirst+4; n++ {
		b = appendEntry(b, appendFrame(nil, s.nonce, s.first, n, n-1, []byte(payload(int(n)))))
		if i := int(n - tailFirst); i < len(own) {
			b = appendEntry(b, appendFrame(nil, s.nonce, s.first, n, n, own[i]))
		}
	}
	return b
}

func TestSeeds(t *testing.T) {
	mark := []byte{kindSyncMark}
	segments := []decoders.Seed{
		{Name: "frames", Args: []any{tail()}},
		{Name: "a-sync-mark", Args: []any{tail(mark)}},
		{Name: "a-drop-through", Args: []any{tail(dropFrame(1, 5), mark)}},
		{Name: "a-drop-through-of-itself", Args: []any{tail(dropFrame(2, 5))}},
		{Name: "prepared-space", Args: []any{append(tail(mark), make([]byte, 100)...)}},
		{Name: "a-header", Args: []any{tail()[:headerEntry]}},
		{Name: "sealed", Args: []any{firstSegment()}},
		{Name: "of-the-page", Args: []any{example(t)}},
		{Name: "an-own-frame-of-another-length", Args: []any{tail(append(mark, 1))}},
		{Name: "nothing", Args: []any{[]byte{}}},
	}
	decoders.Seeds(t, "FuzzSegment", decoders.Damaged(segments))
	decoders.Seeds(t, "FuzzTail", decoders.Damaged(segments))
	var headers, frames []decoders.Seed
	for _, s := range segments[6:8] {
		headers = append(headers, decoders.Seed{Name: s.Name, Args: []any{s.Args[0].([]byte)[:headerEntry]}})
	}
	decoders.Seeds(t, "FuzzHeader", decoders.Damaged(headers))
	for i, p := range [][]byte{[]byte("a transaction"), mark, dropFrame(3, -1), (&seal{last: 9, end: 400, next: 4, nextNonce: 5}).encode(), make([]byte, 300)} {
		b := appendEntry(nil, appendFrame(nil, tailNonce, tailFirst, uint64(tailFirst+i*100), tailFirst, p))
		frames = append(frames, decoders.Seed{Name: fmt.Sprint("frame-", i), Args: []any{b, uint64(tailNonce), uint64(tailFirst)}})
	}
	decoders.Seeds(t, "FuzzFrame", decoders.Damaged(frames))
}
