package oncelog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// The other way round: bytes made by the document's rules, for the store to read.

func docFrameBytes(h docHeader, number, synced uint64, payload []byte) []byte {
	body := binary.AppendUvarint(nil, number+1-h.first)
	body = binary.AppendUvarint(body, number-synced)
	body = append(body, payload...)
	b := binary.AppendUvarint(nil, uint64(8+len(body)))
	b = binary.LittleEndian.AppendUint64(b, docFrameCheck(h.nonce, number, body))
	return append(b, body...)
}

func docHeaderBytes(h docHeader) []byte {
	b := append([]byte{80}, "oncewal\x00\x01\x00\x00\x00\x00\x00\x00\x00"...)
	b = append(b, h.id[:]...)
	for _, x := range []uint64{h.segment, h.nonce, h.first, uint64(h.baseTime), uint64(h.baseTTL)} {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b[1:]))
}

func docSealBytes(h docHeader, last uint64, end int, next, nonce uint64) []byte {
	const length = 1 + 8 + 1 + 1 + 33 // of a seal whose two varints take a byte each
	p := []byte{docSeal}
	for _, x := range []uint64{last, uint64(end + length), next, nonce} {
		p = binary.LittleEndian.AppendUint64(p, x)
	}
	return docFrameBytes(h, last, last, p)
}

func docWriteSegment(t testing.TB, dir string, number uint64, b []byte) {
	path := docSegmentPath(dir, number)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

func writeDocExample(t testing.TB, dir string) {
	manifest := docExample(t, "manifest")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "MANIFEST"), manifest, 0o600))
	h := docHeader{id: [16]byte(manifest[16:32]), segment: 1, nonce: 42, first: 1, baseTime: 1_700_000_000_000}
	b := docHeaderBytes(h)
	b = append(b, docSealBytes(h, 0, len(b), 2, 0x0123456789abcdef)...)
	docWriteSegment(t, dir, 1, b)
	docWriteSegment(t, dir, 2, docExample(t, "segment"))
	docWriteSegment(t, dir, 3, nil)
}

// docVerdict is what a reader says of a directory: it refuses it, or reads this.
type docVerdict struct {
	refusal  error
	contents map[string]string
}

func (h *docHistory) decoderSays(dir string) (docVerdict, *docStore) {
	d, err := docDecode(dir)
	for _, refusal := range []error{errDocDamage, errDocTooNew} {
		if errors.Is(err, refusal) {
			return docVerdict{refusal: refusal}, d
		}
	}
	require.NoError(h.t, err)
	return docVerdict{contents: h.decoded(d)}, d
}

func (h *docHistory) storeSays(dir string, readOnly bool) docVerdict {
	s, err := docOpen(dir, &h.clock, oncelog.Options{ReadOnly: readOnly})
	switch {
	case errors.Is(err, oncelog.ErrCorrupt):
		return docVerdict{refusal: errDocDamage}
	case errors.Is(err, oncelog.ErrTooNew):
		return docVerdict{refusal: errDocTooNew}
	}
	require.NoError(h.t, err)
	v := docVerdict{contents: h.contents(s)}
	require.NoError(h.t, s.Verify())
	require.NoError(h.t, s.Close())
	return v
}

// requireOneVerdict: decoder and store say the same of a directory, and where the store recovers it, it leaves what
// the document says. It returns the verdict in a word.
func (h *docHistory) requireOneVerdict(dir, what string) string {
	want, d := h.decoderSays(dir)
	if want.refusal == nil || h.random.IntN(30) == 0 { // a reader beside an owner takes its time before it says damage
		require.Equal(h.t, want, h.storeSays(dir, true), "%s: read-only", what)
	}
	require.Equal(h.t, want, h.storeSays(dir, false), what)
	if want.refusal != nil {
		return want.refusal.Error()
	}
	if len(d.torn) > 0 {
		name := fmt.Sprintf("%020d-%d", d.segments[len(d.segments)-1].number, d.tornAt)
		cut, err := os.ReadFile(filepath.Join(dir, "wal", "torn", name))
		require.NoError(h.t, err, what)
		require.Equal(h.t, d.torn[:min(len(d.torn), 1<<20)], cut, what)
	}
	again, after := h.decoderSays(dir)
	require.Equal(h.t, want, again, "%s: after recovery", what)
	require.True(h.t, after.clean, "%s: after recovery", what)
	if d.clean {
		return "clean"
	}
	return "torn"
}

// docStoreToChange is a small store to make damaged copies of, closed or as its crash would have left it.
func docStoreToChange(t testing.TB, seed uint64, closed bool) (h *docHistory, copied func() string) {
	h = newDocHistory(t, seed)
	h.sessions(3, 30)
	crashed := h.crashed()
	require.NoError(t, h.store.Close())
	from, dir, n := crashed, docMemoryDir(t), 0
	if closed {
		from = h.dir
	}
	return h, func() string {
		n++
		to := filepath.Join(dir, fmt.Sprint(n))
		require.NoError(t, os.CopyFS(to, os.DirFS(from)))
		require.NoError(t, os.RemoveAll(filepath.Join(to, "snapshot"))) // the log is the whole content
		return to
	}
}

// Whatever happens to a segment's bytes, the decoder and the store say the same: both refuse it, or both cut it at
// the same place and read the same.
func TestDecoderAndStoreJudgeDamageAlike(t *testing.T) {
	for _, c := range []struct {
		name   string
		closed bool
		n      int
	}{{"closed", true, 200}, {"crashed", false, 60}} {
		t.Run(c.name, func(t *testing.T) {
			h, copied := docStoreToChange(t, 3, c.closed)
			verdicts := map[string]int{}
			for i := range c.n {
				dir := copied()
				numbers, err := docSegmentNumbers(filepath.Join(dir, "wal"))
				require.NoError(t, err)
				number := numbers[h.random.IntN(len(numbers))]
				if h.random.IntN(2) == 0 { // more at the tail, where it is decided what a crash explains
					number = h.tail(dir)
				}
				what := fmt.Sprintf("change %d, segment %d: %s", i, number, h.damage(docSegmentPath(dir, number)))
				verdicts[h.requireOneVerdict(dir, what)]++
				require.NoError(t, os.RemoveAll(dir))
			}
			t.Log(verdicts)
			require.Greater(t, verdicts["damage"], 10)
			require.Greater(t, verdicts["torn"], 3)
		})
	}
}

func (h *docHistory) tail(dir string) uint64 {
	d, err := docDecode(dir)
	require.NoError(h.t, err)
	return d.segments[len(d.segments)-1].number
}

// damage changes a file and says how.
func (h *docHistory) damage(path string) string {
	b, err := os.ReadFile(path)
	require.NoError(h.t, err)
	used := len(bytes.TrimRight(b, "\x00")) // most of the prepared space says nothing
	at := h.random.IntN(used + min(len(b)-used, 20) + 1)
	how := ""
	switch h.random.IntN(4) {
	case 0, 1:
		if at < len(b) {
			b[at] ^= 1 << h.random.IntN(8)
		}
		how = fmt.Sprintf("bit flipped at %d", at)
	case 2:
		b = b[:at]
		how = fmt.Sprintf("truncated to %d", at)
	case 3:
		n := min(1+h.random.IntN(600), len(b)-at)
		clear(b[at : at+n])
		how = fmt.Sprintf("%d zeros at %d", n, at)
	}
	require.NoError(h.t, os.WriteFile(path, b, 0o600))
	return how
}

// The same where the checks hold: bytes of records, frames, headers and the manifest are changed, and the checks made
// good again. What the two then say is only in what the document says about each field.
func TestDecoderAndStoreJudgeFieldsAlike(t *testing.T) {
	h, copied := docStoreToChange(t, 4, true)
	verdicts := map[string]int{}
	for i := range 150 {
		dir := copied()
		what := fmt.Sprintf("change %d: %s", i, h.forge(dir))
		verdicts[h.requireOneVerdict(dir, what)]++
		require.NoError(t, os.RemoveAll(dir))
	}
	t.Log(verdicts)
	require.Greater(t, verdicts["damage"], 20)
	require.Positive(t, verdicts["too new"])
	require.Greater(t, verdicts["clean"], 20)
}

// forge changes a byte of a field and makes the checks good again.
func (h *docHistory) forge(dir string) string {
	d, err := docDecode(dir)
	require.NoError(h.t, err)
	if h.random.IntN(20) == 0 {
		path := filepath.Join(dir, "MANIFEST")
		b, err := os.ReadFile(path)
		require.NoError(h.t, err)
		how := h.change(b[:40])
		binary.LittleEndian.PutUint64(b[40:], xxhash.Sum64(b[:40]))
		require.NoError(h.t, os.WriteFile(path, b, 0o600))
		return "manifest: " + how
	}
	i := len(d.segments) - 1
	if h.random.IntN(2) == 0 {
		i = h.random.IntN(len(d.segments))
	}
	seg, how := d.segments[i], ""
	if h.random.IntN(10) == 0 || len(seg.frames) == 0 {
		how = h.change(seg.data[1:73])
		binary.LittleEndian.PutUint64(seg.data[73:], xxhash.Sum64(seg.data[1:73]))
		how = "header: " + how
	} else {
		f := seg.frames[h.random.IntN(len(seg.frames))]
		body := seg.data[f.end-int(docFrameLength(seg.data[f.offset:])) : f.end]
		if !f.own() && h.random.IntN(5) > 0 { // payload is a slice of the file
			var starts []int
			for at, n := 0, 0; at < len(f.payload); at += n {
				starts = append(starts, at)
				_, n, err = seg.header.record(f.payload[at:])
				require.NoError(h.t, err)
			}
			at := starts[h.random.IntN(len(starts))]
			_, n, _ := seg.header.record(f.payload[at:])
			r := f.payload[at : at+n]
			how = fmt.Sprintf("record at %d: %s", at, h.change(r[:min(len(r)-4, 12)])) // its fields, more than its value
			binary.LittleEndian.PutUint32(r[n-4:], uint32(xxhash.Sum64(r[:n-4])))
		} else {
			how = "frame: " + h.change(body[8:min(len(body), 46)])
		}
		distance, _ := binary.Uvarint(body[8:])
		binary.LittleEndian.PutUint64(body, docFrameCheck(seg.header.nonce, seg.header.first-1+distance, body[8:]))
		how = fmt.Sprintf("frame at %d: %s", f.offset, how)
	}
	require.NoError(h.t, os.WriteFile(seg.path, seg.data, 0o600))
	return fmt.Sprintf("segment %d: %s", seg.number, how)
}

func docFrameLength(b []byte) uint64 {
	length, _ := binary.Uvarint(b)
	return length
}

// change gives one byte of b another value.
func (h *docHistory) change(b []byte) string {
	at := h.random.IntN(len(b))
	before := b[at]
	for b[at] == before {
		switch h.random.IntN(3) {
		case 0:
			b[at] ^= 1 << h.random.IntN(8)
		case 1:
			b[at] = []byte{0, 1, 0x7f, 0x80, 0xff, 28, 29, 30}[h.random.IntN(8)]
		case 2:
			b[at] = byte(h.random.Uint32())
		}
	}
	return fmt.Sprintf("byte %d from %02x to %02x", at, before, b[at])
}

// docRecordBytes makes a record; the TTL is written if the head says so, and so are the attributes.
func docRecordBytes(head byte, distance, ttl uint64, key, value, attributes string) []byte {
	b := binary.AppendUvarint([]byte{head}, distance)
	if head&0x20 != 0 {
		b = binary.AppendUvarint(b, ttl)
	}
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = binary.AppendUvarint(b, uint64(len(value)))
	if head&0x80 != 0 {
		b = binary.AppendUvarint(b, uint64(len(attributes)))
	}
	return docChecked(append(b, key+value+attributes...))
}

func docChecked(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, uint32(xxhash.Sum64(b))) }

// What no store of today writes, and the document has a word about: the payload of a frame behind the example's last
// transaction (or, for a frame of the log's own, behind its sync mark), and what a reader must say.
func TestReadersOfWhatNoStoreWritesYet(t *testing.T) {
	const base = 1_700_000_000_000
	record := func(head byte, value string) []byte { return docRecordBytes(head, 5, 0, "k", value, "") }
	message := func(head byte, value, a string) []byte { return docRecordBytes(head|0x80, 5, 0, "topic", value, a) }
	attributes := func(a string) []byte { return docRecordBytes(0x81, 5, 0, "k", "v", a) }
	dropThrough := func(segment uint64, time int64) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{28}, segment), uint64(time))
	}
	timed := func(distance, ttl uint64) []byte { return docRecordBytes(0x21, distance, ttl, "k", "v", "") }
	for name, c := range map[string]struct {
		payload []byte
		verdict string // "torn", which here is good and without a sync mark
	}{
		"result":                    {record(1, "v"), "torn"},
		"failure":                   {record(2, "v"), "torn"},
		"gone":                      {record(3, ""), "torn"},
		"intent":                    {record(4, "v"), "torn"},
		"doubt":                     {record(5, "v"), "torn"},
		"of a receiver":             {record(0x41, "v"), "torn"},
		"two of a key":              {append(record(1, "v"), record(4, "w")...), "torn"},
		"result and its tombstone":  {append(record(1, "v"), record(11, "\x01")...), "torn"},
		"result, another tombstone": {append(record(1, "v"), record(11, "\x06")...), "torn"},
		"kind 0":                    {record(0, "v"), "too new"},
		"message":                   {message(8, "v", "\x05\x01\x01\x06\x01k"), "torn"},
		"message, receiver's":       {message(0x48, "v", "\x05\x01\x01\x06\x01k"), "too new"},
		"message without ordinal":   {message(8, "v", "\x06\x01k"), "too new"},
		"message that was sent":     {append(message(9, "", "\x05\x01\x07"), message(8, "v", "\x05\x01\x07")...), "torn"},
		"message and its copy":      {append(message(8, "v", "\x05\x01\x01\x06\x01k"), message(8, "w", "\x05\x01\x01\x06\x01k")...), "torn"},
		"message, the one before":   {message(8, "v", "\x05\x01\x02\x06\x01k"), "damage"},
		"sent":                      {message(9, "", "\x05\x01\x07"), "torn"},
		"sent without ordinal":      {record(9, ""), "too new"},
		"parked":                    {message(10, "v", "\x04\x02no\x05\x01\x02\x06\x01k"), "torn"},
		"parked, and its tombstone": {append(message(10, "v", "\x05\x01\x02"), message(11, "\x0a", "\x05\x01\x02")...), "torn"},
		"tombstone of a message":    {message(11, "\x08", "\x05\x01\x02"), "too new"},
		"tombstone of a sent":       {message(11, "\x09", "\x05\x01\x02"), "too new"},
		"tombstone of no parked":    {message(11, "\x0a", "\x05\x01\x09"), "torn"},
		"kind 12":                   {record(12, "v"), "too new"},
		"kind 29 behind another":    {append(record(1, "v"), record(29, "v")...), "too new"},
		"kind 31":                   {record(31, "v"), "too new"},
		"TTL on an intent":          {record(0x24, "v"), "too new"},
		"TTL on a state":            {record(0x26, "v"), "too new"},
		"TTL on a tombstone":        {record(0x2b, "\x01"), "too new"},
		"tombstone of the example":  {docRecordBytes(11, 5, 0, "order-4711", "\x05", ""), "torn"},
		"tombstone, receiver's":     {docRecordBytes(0x4b, 5, 0, "order-4711", "\x01", ""), "torn"},
		"tombstone of nothing":      {record(11, ""), "too new"},
		"tombstone of 0":            {record(11, "\x00"), "too new"},
		"tombstone of 8":            {record(11, "\x08"), "too new"},
		"tombstone of 11":           {record(11, "\x0b"), "too new"},
		"tombstone of two":          {record(11, "\x01\x01"), "too new"},
		"mark with a window":        {record(7, "\x09\x03\xff\x01"), "torn"},
		"mark, the highest":         {record(7, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"), "torn"},
		"mark below the example's":  {docRecordBytes(7, 5, 0, "orders", "\x09\x00", ""), "torn"},
		"mark without an epoch":     {record(7, "\x09"), "damage"},
		"mark without anything":     {record(7, ""), "damage"},
		"empty key":                 {docRecordBytes(1, 5, 0, "", "v", ""), "torn"},
		"fingerprint":               {attributes("\x01\x02\x01\x09"), "torn"},
		"fingerprint, unknown":      {attributes("\x01\x02\x02\x09"), "torn"},
		"all attributes":            {attributes("\x01\x02\x01\x09\x02\x01\x01\x03\x02\x80\x7f\x04\x01x\x05\x01\x01\x06\x01y"), "torn"},
		"attributes on a state":     {docRecordBytes(0x86, 5, 0, "k", "v", "\x02\x01\x09"), "torn"},
		"token, a longer form":      {attributes("\x02\x02\x89\x00"), "torn"},
		"no digest":                 {attributes("\x01\x01\x01"), "damage"},
		"token and a byte":          {attributes("\x02\x02\x09\x09"), "damage"},
		"token without end":         {attributes("\x02\x01\x89"), "damage"},
		"token without content":     {attributes("\x02\x00"), "damage"},
		"result TTL of 2^63":        {attributes("\x03\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "damage"},
		"code without content":      {attributes("\x04\x00"), "damage"},
		"attribute 0":               {attributes("\x00\x01\x01"), "damage"},
		"attribute 2 twice":         {attributes("\x02\x01\x01\x02\x01\x01"), "damage"},
		"attribute 2 behind 4":      {attributes("\x04\x01\x01\x02\x01\x01"), "damage"},
		"attribute over the end":    {attributes("\x02\x02\x01"), "damage"},
		"attribute 7 over the end":  {attributes("\x07\x02\x01"), "damage"},
		"attribute 7":               {attributes("\x07\x01\x01"), "too new"},
		"attribute 7, empty":        {attributes("\x07\x00"), "too new"},
		"TTL 0":                     {timed(5, 0), "torn"},
		"TTL that ends now":         {timed(5, 2995), "torn"},
		"TTL that has passed":       {timed(5, 2994), "torn"},
		"TTL with a ms to go":       {timed(5, 2996), "torn"},
		"TTL of 63 bits":            {timed(5, 1<<63-1), "torn"},
		"TTL of 64 bits":            {timed(5, 1<<64-1), "torn"},
		"TTL to the last ms":        {timed(5, 1<<63-1-base-6), "torn"},
		"TTL to never":              {timed(5, 1<<63-1-base-5), "torn"},
		"far time":                  {timed(1<<62, 5), "torn"},
		"longer forms":              {docChecked([]byte("\x01\x85\x80\x00\x81\x00\x81\x80\x00kv")), "torn"},
		"a varint of 11 bytes":      {docChecked([]byte("\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01\x01kv")), "damage"},
		"a varint of 65 bits":       {docChecked([]byte("\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02\x01\x01kv")), "damage"},
		"record cut short":          {record(1, "v")[:8], "damage"},
		"record and a byte":         {append(record(1, "v"), 29), "damage"},
		"check":                     {append(record(1, "v")[:9], 1), "damage"},
		"drop-through":              {dropThrough(1, 0), "clean"},
		"drop-through of its own":   {dropThrough(2, 0), "damage"},
		"drop-through of nothing":   {dropThrough(0, 0), "clean"},
		"drop-through, later":       {dropThrough(1, base+1<<40), "clean"},
		"drop-through, longer":      {append([]byte{28}, make([]byte, 20)...), "too new"},
		"sync mark":                 {[]byte{29}, "clean"},
		"sync mark, longer":         {[]byte{29, 0}, "too new"},
		"seal, shorter":             {[]byte{30, 2}, "too new"},
		"seal, longer":              {append([]byte{30}, make([]byte, 33)...), "too new"},
	} {
		t.Run(name, func(t *testing.T) {
			h, tail := newDocExample(t)
			number := uint64(3)
			if c.payload[0] >= docDropThrough && c.payload[0] <= docSeal {
				number = 2
			}
			tail.data = append(tail.data, docFrameBytes(tail.header, number, 2, c.payload)...)
			docWriteSegment(t, h.dir, 2, tail.data)
			require.Equal(t, c.verdict, h.requireOneVerdict(h.dir, name))
		})
	}
}

// newDocExample is the document's example as a store whose tail is segment 2, ended by its sync mark.
func newDocExample(t testing.TB) (h *docHistory, tail docSegment) {
	h = newDocHistory(t, 5)
	h.clock.Store(1_700_000_003_000)
	writeDocExample(t, h.dir)
	require.NoError(t, os.RemoveAll(filepath.Dir(docSegmentPath(h.dir, 3))))
	tail = docSegment{number: 2, data: docExample(t, "segment")[:0xb6]}
	tail.header, _, _ = docReadHeader(tail.data)
	docWriteSegment(t, h.dir, 2, tail.data)
	h.keys["order-4711"], h.sources["orders"] = true, true
	return h, tail
}

// The same for whole files: what may be missing, and what may lie behind the tail.
func TestReadersOfSegmentsThatAreNotAsTheyShould(t *testing.T) {
	const seal3 = 0x3333333333333333
	k := docRecordBytes(1, 5, 0, "k", "v", "")
	for name, c := range map[string]struct {
		verdict string
		change  func(t *testing.T, dir string, h docHeader) // h is that of segment 3
	}{
		"an empty segment 3": {"torn", func(t *testing.T, dir string, h docHeader) {}},
		"a header and no frame": {"clean", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
		}},
		"half a header": {"torn", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, docHeaderBytes(h)[:40])
		}},
		"no segment 3": {"damage", func(t *testing.T, dir string, h docHeader) {
			require.NoError(t, os.RemoveAll(filepath.Dir(docSegmentPath(dir, 3))))
		}},
		"no file in segment 3": {"damage", func(t *testing.T, dir string, h docHeader) {
			require.NoError(t, os.Remove(docSegmentPath(dir, 3)))
		}},
		"no segment 1": {"damage", func(t *testing.T, dir string, h docHeader) {
			require.NoError(t, os.RemoveAll(filepath.Dir(docSegmentPath(dir, 1))))
		}},
		"another nonce": {"damage", func(t *testing.T, dir string, h docHeader) {
			h.nonce++
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
		}},
		"another first frame": {"damage", func(t *testing.T, dir string, h docHeader) {
			h.first++
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
		}},
		"another store": {"damage", func(t *testing.T, dir string, h docHeader) {
			h.id[0]++
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
		}},
		"another number": {"damage", func(t *testing.T, dir string, h docHeader) {
			h.segment++
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
		}},
		"a Base TTL below 0, and a Base time": {"torn", func(t *testing.T, dir string, h docHeader) {
			h.baseTTL, h.baseTime = -5, -5
			docWriteSegment(t, dir, 3, append(docHeaderBytes(h), docFrameBytes(h, 3, 2, k)...))
		}},
		"a bad header and frame 3": {"torn", func(t *testing.T, dir string, h docHeader) {
			b := docHeaderBytes(h)
			b[20]++
			docWriteSegment(t, dir, 3, append(b, docFrameBytes(h, 3, 2, k)...))
		}},
		"a bad header, and frame 3 was durable": {"damage", func(t *testing.T, dir string, h docHeader) {
			b := docHeaderBytes(h)
			b[20]++
			b = append(b, docFrameBytes(h, 3, 2, k)...)
			docWriteSegment(t, dir, 3, append(b, docFrameBytes(h, 4, 3, k)...))
		}},
		"frame 4 in place of 3": {"torn", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, append(docHeaderBytes(h), docFrameBytes(h, 4, 2, k)...))
		}},
		"frame 4 in place of 3, which was durable": {"damage", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, append(docHeaderBytes(h), docFrameBytes(h, 4, 3, k)...))
		}},
		"a number that has no room": {"torn", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, append(docHeaderBytes(h), docFrameBytes(h, 90, 89, k)...))
		}},
		"segment 4, empty": {"torn", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
			docWriteSegment(t, dir, 4, nil)
		}},
		"segment 4, a header": {"torn", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
			h.segment = 4
			docWriteSegment(t, dir, 4, docHeaderBytes(h))
		}},
		"segment 4, a header that proves frame 3": {"damage", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
			h.segment, h.first = 4, 4
			docWriteSegment(t, dir, 4, docHeaderBytes(h))
		}},
		"segment 4, a frame far behind its header": {"damage", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 3, docHeaderBytes(h))
			h.segment = 4
			docWriteSegment(t, dir, 4, append(append(docHeaderBytes(h), 9, 0, 0, 7), docFrameBytes(h, 3, 2, k)...))
		}},
		"bytes behind the seal": {"torn", func(t *testing.T, dir string, h docHeader) {
			docWriteSegment(t, dir, 2, append(docExample(t, "segment"), 1, 2, 3))
		}},
		"a seal that names segment 4": {"damage", func(t *testing.T, dir string, h docHeader) {
			b := docExample(t, "segment")[:0xb6]
			two, _, _ := docReadHeader(b)
			docWriteSegment(t, dir, 2, append(b, docSealBytes(two, 2, len(b), 4, seal3)...))
		}},
		"a seal of another place": {"torn", func(t *testing.T, dir string, h docHeader) {
			b := docExample(t, "segment")[:0xb6]
			two, _, _ := docReadHeader(b)
			docWriteSegment(t, dir, 2, append(b, docSealBytes(two, 2, len(b)+1, 3, seal3)...))
			require.NoError(t, os.RemoveAll(filepath.Dir(docSegmentPath(dir, 3)))) // a good seal would miss it
		}},
		"names that mean nothing": {"torn", func(t *testing.T, dir string, h docHeader) {
			for _, name := range []string{"x", "0004", "00000000000000000000", "000000000000000000004", "+0000000000000000004"} {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, "wal", name), 0o700))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "wal", "00000000000000000004"), nil, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "MANIFEST.tmp"), []byte{1}, 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h, tail := newDocExample(t)
			writeDocExample(t, h.dir)
			c.change(t, h.dir, docHeader{id: tail.header.id, segment: 3, nonce: seal3, first: 3, baseTime: tail.header.baseTime})
			require.Equal(t, c.verdict, h.requireOneVerdict(h.dir, name))
		})
	}
}
