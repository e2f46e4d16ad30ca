package wal

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// closedLog makes a log of n transactions in several segments and two lives, and closes it.
func closedLog(t testing.TB, o Options, n int) string {
	t.Helper()
	dir := create(t, o)
	want := []string{}
	for _, through := range []int{n / 2, n} {
		l := reopen(t, dir, o, want)
		fill(t, l, through)
		want = payloads(through)
		require.NoError(t, l.Close())
	}
	return dir
}

// damaged opens a log that must be refused as damage, for writing and for reading alone, with nothing changed, and
// returns where it says the damage is.
func damaged(t testing.TB, dir string, what string) *CorruptError {
	t.Helper()
	before := tree(t, dir)
	var damage *CorruptError
	for _, readOnly := range []bool{false, true} {
		o := small(0)
		o.ReadOnly = readOnly
		l, err := Open(dir, o, Start{}, func(Frame) error { return nil }) // an owner that objects to nothing
		require.Nil(t, l, what)
		require.ErrorIs(t, err, ErrCorrupt, what)
		require.ErrorAs(t, err, &damage, what)
		require.ErrorContains(t, err, damage.File)
	}
	require.Equal(t, before, tree(t, dir), "%s: what is damaged is left to whoever repairs it", what)
	return damage
}

// One flipped bit anywhere in a closed log is an error that says where, or does no harm. It does none in the last
// sync mark alone: without it the log is recovered as after a kill.
func TestFlippedBits(t *testing.T) {
	for name, policy := range map[string]time.Duration{"always": 0, "never": never} {
		t.Run(name, func(t *testing.T) {
			o := small(policy)
			dir := closedLog(t, o, 40)
			numbers, err := listSegments(dir)
			require.NoError(t, err)
			require.Greater(t, len(numbers), 5)
			work := filepath.Join(memoryDir(t), "wal")
			copyTo(t, dir, work)
			random := rand.New(rand.NewPCG(2, uint64(policy)))
			harmless := 0
			for _, n := range numbers {
				path := pathOf(work, n)
				_, all := entries(t, path)
				for i, e := range all {
					mark := n == numbers[len(numbers)-1] && i == len(all)-1
					for at := e.at; at < e.end; at++ {
						bits := random.Perm(8)[:1]
						if at == e.at && !testing.Short() {
							bits = []int{0, 1, 2, 3, 4, 5, 6, 7} // the length: each bit is another way to go astray
						}
						for _, bit := range bits {
							good := readAll(t, path)[at]
							patch(t, path, at, good^1<<bit)
							if mark {
								holds(t, work, o, payloads(40))
								copyTo(t, dir, work)
								harmless++
								continue
							}
							d := damaged(t, work, path)
							require.Equal(t, path, d.File)
							require.Equal(t, e.at, d.Offset, "byte %d", at)
							patch(t, path, at, good)
						}
					}
				}
			}
			require.Positive(t, harmless)
			holds(t, work, o, payloads(40))
		})
	}
}

// Damage under an open log is found by whoever looks.
func TestVerifyFindsDamage(t *testing.T) {
	o := small(0)
	dir := closedLog(t, o, 20)
	l := reopen(t, dir, o, payloads(20))
	fill(t, l, 40)
	ok := func(Frame) error { return nil }
	require.NoError(t, l.Verify(ok))
	for slot := uint16(1); l.Segment(slot) != nil; slot++ {
		s := l.Segment(slot)
		_, all := entries(t, s.Path())
		for _, e := range all {
			at := (e.at + e.end) / 2
			b := make([]byte, 1)
			_, err := s.ReadAt(b, at)
			require.NoError(t, err)
			patch(t, s.Path(), at, b[0]^4)
			var d *CorruptError
			require.ErrorAs(t, l.Verify(ok), &d)
			require.Equal(t, s.Path(), d.File)
			require.Equal(t, e.at, d.Offset)
			patch(t, s.Path(), at, b[0])
		}
	}
	// Cut short, and another file altogether, which is good in itself.
	s := l.Segment(3)
	whole := readAll(t, s.Path())
	require.NoError(t, os.Truncate(s.Path(), s.End()-1))
	require.ErrorIs(t, l.Verify(ok), ErrCorrupt)
	require.NoError(t, os.WriteFile(s.Path(), whole, 0o600))
	other := &Segment{number: s.number, nonce: s.nonce + 1}
	b := appendEntry(nil, other.header(testID, s.first, s.meta))
	for f, at := (frame{}), int64(headerEntry); at < s.End(); at += int64(f.size) {
		f, _ = parseFrame(whole[at:], s.nonce, s.first)
		b = appendEntry(b, appendFrame(nil, other.nonce, s.first, f.number, f.synced, f.payload))
	}
	require.Len(t, b, len(whole))
	patch(t, s.Path(), 0, b...)
	require.ErrorIs(t, l.Verify(ok), ErrCorrupt)
	patch(t, s.Path(), 0, whole...)

	require.NoError(t, l.Verify(ok))
	stop := errors.New("the owner found something")
	require.ErrorIs(t, l.Verify(func(Frame) error { return stop }), stop)
}

// A frame is missing, and one behind it says that it was on stable storage: that is no torn tail.
func TestDamageWithDurableFramesBehindIt(t *testing.T) {
	o := small(0)
	o.SegmentSize = 1024
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	fill(t, l, 10)
	tail := l.active.Load()
	require.EqualValues(t, 2, tail.number)
	dir = copyLog(t, dir)
	path := pathOf(dir, 2)
	_, all := entries(t, path)
	require.Len(t, all, 11)
	whole := readAll(t, path)
	// Each transaction waited for the one before it, so all but the last are known to have been durable.
	for i := 1; i <= 9; i++ {
		for what, b := range map[string][]byte{
			"zeros":            make([]byte, all[i].end-all[i].at),
			"a zero length":    {0},
			"a huge length":    {0xff, 0xff, 0xff, 0xff, 0x07},
			"one that is less": {whole[all[i].at] - 1},
			"one that is more": {whole[all[i].at] + 1},
		} {
			patch(t, path, all[i].at, b...)
			d := damaged(t, dir, what)
			require.Equal(t, path, d.File)
			require.Equal(t, all[i].at, d.Offset, what)
			patch(t, path, all[i].at, whole[all[i].at:all[i].end]...)
		}
	}
	// All frames from one on but the very last, whose word is enough.
	for i := 1; i <= 9; i++ {
		patch(t, path, all[i].at, make([]byte, all[10].at-all[i].at)...)
		require.Equal(t, all[i].at, damaged(t, dir, "").Offset)
		patch(t, path, all[i].at, whole[all[i].at:]...)
	}
	// The header is gone; the nonce that finds the frames is in the seal before.
	patch(t, path, 20, ^whole[20])
	require.Zero(t, damaged(t, dir, "header").Offset)
	patch(t, path, 20, whole[20])
	// The last frame may be lost: whoever wrote it was never told that it is durable.
	patch(t, path, all[10].at+3, ^whole[all[10].at+3])
	holds(t, dir, o, payloads(9))
}

// The search for durable frames behind the end begins at every byte, also within what was cut.
func TestDamageHidesNothingBehindIt(t *testing.T) {
	o := small(0)
	o.SegmentSize = 1024
	dir := create(t, o)
	l := reopen(t, dir, o, []string{})
	fill(t, l, 5)
	dir = copyLog(t, dir)
	path := pathOf(dir, 2)
	h, all := entries(t, path)
	witness := appendEntry(nil, appendFrame(nil, h.nonce, h.first, 7, 5, []byte("witness")))
	work := copyLog(t, dir)
	path = pathOf(work, 2)
	for gap := range int64(70) {
		for _, fill := range []byte{0x00, 0x01, 0x0b, 0x7f, 0x80, 0xff} {
			b := make([]byte, gap)
			for i := range b {
				b[i] = fill
			}
			require.NoError(t, os.Truncate(path, all[5].at))
			patch(t, path, all[5].at, append(b, witness...)...) // 5 is missing, and 7 says that 5 was durable
			require.Equal(t, all[5].at, damaged(t, work, "witness").Offset, "%d bytes %02x", gap, fill)
		}
	}
	// A witness of what is there proves no damage.
	innocent := appendEntry(nil, appendFrame(nil, h.nonce, h.first, 7, 4, []byte("witness")))
	require.NoError(t, os.Truncate(path, all[5].at))
	patch(t, path, all[5].at, append([]byte{1}, innocent...)...)
	holds(t, work, o, payloads(4))
}

// unseal takes the seal off the end of a segment: it could be the tail then.
func unseal(t testing.TB, dir string, n uint64) {
	t.Helper()
	path := pathOf(dir, n)
	_, all := entries(t, path)
	last := all[len(all)-1]
	require.EqualValues(t, kindSeal, last.frame.payload[0])
	require.NoError(t, os.Truncate(path, last.at))
}

func TestMissingSegments(t *testing.T) {
	o := small(0)
	closed := closedLog(t, o, 40)
	numbers, err := listSegments(closed)
	require.NoError(t, err)
	last := numbers[len(numbers)-1]
	require.Greater(t, last, uint64(5))
	work := filepath.Join(memoryDir(t), "wal")
	for _, n := range numbers {
		copyTo(t, closed, work)
		require.NoError(t, os.RemoveAll(segmentDir(work, n)))
		d := damaged(t, work, "a directory")
		switch n {
		case last: // named by the seal before
			require.Equal(t, pathOf(work, last-1), d.File)
			require.Equal(t, int64(len(readAll(t, d.File))), d.Offset)
			require.Contains(t, d.Reason, "missing")
		default:
			require.Equal(t, pathOf(work, n+1), d.File)
			require.Contains(t, d.Reason, "missing")
		}
		copyTo(t, closed, work)
		require.NoError(t, os.Remove(pathOf(work, n)))
		require.Equal(t, pathOf(work, n), damaged(t, work, "a file").File)

		copyTo(t, closed, work)
		require.NoError(t, os.Truncate(pathOf(work, n), 0))
		if n == last {
			// Nothing is left that says what it held, so this is what a torn tail looks like (docs/FORMAT.md). What the
			// other segments hold is there.
			h, _ := entries(t, pathOf(closed, n))
			holds(t, work, o, payloads(int(h.first)-1))
			continue
		}
		require.Equal(t, pathOf(work, n), damaged(t, work, "content").File)
	}
	// All behind one, with it; and the first ones.
	copyTo(t, closed, work)
	for n := uint64(4); n <= last; n++ {
		require.NoError(t, os.RemoveAll(segmentDir(work, n)))
	}
	require.Equal(t, pathOf(work, 3), damaged(t, work, "the end").File)
	copyTo(t, closed, work)
	for n := uint64(1); n <= 3; n++ {
		require.NoError(t, os.RemoveAll(segmentDir(work, n)))
	}
	require.Equal(t, pathOf(work, 4), damaged(t, work, "the front").File)
}

// swap exchanges two segments' files.
func swap(t testing.TB, dir string, a, b uint64) {
	t.Helper()
	x, y := readAll(t, pathOf(dir, a)), readAll(t, pathOf(dir, b))
	require.NoError(t, os.WriteFile(pathOf(dir, a), y, 0o600))
	require.NoError(t, os.WriteFile(pathOf(dir, b), x, 0o600))
}

func TestMisplacedSegments(t *testing.T) {
	o := small(0)
	closed := closedLog(t, o, 40)
	work := filepath.Join(memoryDir(t), "wal")
	copyTo(t, closed, work)
	swap(t, work, 3, 4)
	d := damaged(t, work, "swapped")
	require.Equal(t, pathOf(work, 3), d.File)
	require.EqualValues(t, 32, d.Offset, "its number")

	other := closedLog(t, o, 40)
	for n := uint64(1); n <= 5; n++ {
		copyTo(t, closed, work)
		require.NoError(t, os.WriteFile(pathOf(work, n), readAll(t, pathOf(other, n)), 0o600))
		if n == 1 {
			require.Equal(t, pathOf(work, 2), damaged(t, work, "of another life").File, "its seal announced another")
			continue
		}
		d = damaged(t, work, "of another life")
		require.Equal(t, pathOf(work, n), d.File)
		require.EqualValues(t, 40, d.Offset, "its nonce")
	}

	copyTo(t, closed, work)
	stranger := small(0)
	stranger.ID[0]++
	_, _, err := read(work, stranger)
	require.ErrorAs(t, err, &d)
	require.Equal(t, pathOf(work, 1), d.File)
	require.EqualValues(t, 16, d.Offset, "its store")

	// A first segment that does not begin with the first transaction, and a later one that leaves some out.
	for _, n := range []uint64{1, 4} {
		copyTo(t, closed, work)
		h, all := entries(t, pathOf(work, n))
		s := &Segment{number: n, nonce: h.nonce}
		b := appendEntry(nil, s.header(testID, h.first+1, h.meta))
		for _, e := range all[1:] {
			f := e.frame
			if f.payload[0] == kindSeal {
				sl := parseSeal(f.payload)
				sl.last++
				f.payload = sl.encode()
			}
			b = appendEntry(b, appendFrame(nil, h.nonce, h.first+1, f.number+1, f.synced, f.payload))
		}
		require.NoError(t, os.WriteFile(pathOf(work, n), b, 0o600))
		require.Equal(t, pathOf(work, n), damaged(t, work, "numbers").File)
	}
}

// What lies behind the tail was prepared for it: nothing, or a header at most. It goes. A frame there says that the
// log went on, and that the tail's seal is lost.
func TestSegmentsBehindTheTail(t *testing.T) {
	o := small(0)
	closed := closedLog(t, o, 40)
	numbers, err := listSegments(closed)
	require.NoError(t, err)
	last := numbers[len(numbers)-1]
	work := filepath.Join(memoryDir(t), "wal")
	fresh := func() { t.Helper(); copyTo(t, closed, work) }

	for _, n := range numbers[:len(numbers)-1] {
		fresh()
		path := pathOf(work, n)
		_, all := entries(t, path)
		unseal(t, work, n)
		d := damaged(t, work, "a seal is lost")
		require.Equal(t, path, d.File)
		require.Equal(t, all[len(all)-1].at, d.Offset)
	}

	// One frame is enough, wherever it lies, and a sync mark is one.
	fresh()
	for n := uint64(5); n <= last; n++ {
		require.NoError(t, os.RemoveAll(segmentDir(work, n)))
	}
	unseal(t, work, 3)
	h, all := entries(t, pathOf(work, 4))
	four := readAll(t, pathOf(work, 4))
	header := four[:headerEntry]
	mark := appendEntry(nil, appendFrame(nil, h.nonce, h.first, h.first-1, h.first-1, []byte{kindSyncMark}))
	for what, b := range map[string][]byte{
		"the first frame": four[:all[1].end], "the last frame alone": slices.Concat(header, make([]byte, 100), four[all[2].at:all[2].end]),
		"behind junk": slices.Concat(header, []byte("junk"), four[all[1].at:all[1].end]), "a sync mark": slices.Concat(header, mark),
	} {
		require.NoError(t, os.WriteFile(pathOf(work, 4), b, 0o600))
		require.Contains(t, damaged(t, work, what).Reason, "holds frames", what)
	}

	// The header alone: it was durable that everything before its first frame was, and all of that is here.
	tail := int(h.first) - 1
	prepared := copyLog(t, work)
	for what, b := range map[string][]byte{
		"a header": header, "a header in prepared space": append(slices.Clip(header), make([]byte, 500)...), "half a header": header[:50],
		"nothing": nil, "zeros": make([]byte, 500), "junk": []byte(strings.Repeat("junk", 50)),
		"frames of nobody": append(slices.Clip(header), example(t)[headerEntry:]...),
	} {
		copyTo(t, prepared, work)
		require.NoError(t, os.WriteFile(pathOf(work, 4), b, 0o600))
		require.NoError(t, os.MkdirAll(segmentDir(work, 5), 0o700)) // and one whose preparation was interrupted
		holds(t, work, o, payloads(tail))
		require.NoDirExists(t, segmentDir(work, 4), what)
		require.NoDirExists(t, segmentDir(work, 5), what)
		goesOn(t, work, o, payloads(tail), what)
	}

	// The header alone, and the last transaction before it is gone.
	copyTo(t, prepared, work)
	require.NoError(t, os.WriteFile(pathOf(work, 4), header, 0o600))
	_, all = entries(t, pathOf(work, 3))
	lost := all[len(all)-1]
	require.EqualValues(t, tail, lost.frame.number)
	require.NoError(t, os.Truncate(pathOf(work, 3), lost.at))
	d := damaged(t, work, "a header that proves more")
	require.Equal(t, pathOf(work, 3), d.File)
	require.Equal(t, lost.at, d.Offset)
}

// What was a good frame elsewhere is none here: of another segment, of another log's same segment, of another place
// in this one, of a life before.
func TestOldAndMisplacedFrames(t *testing.T) {
	o := small(never)
	o.SegmentSize = 1024
	same := func(i int) string { return string([]byte{'p', byte(i)}) } // all of one length, so that they fit each other's place
	make := func() (dir string) {
		live := create(t, o)
		l := reopen(t, live, o, []string{})
		for i := 1; i <= 10; i++ {
			_, err := commit(l, same(i))
			require.NoError(t, err)
		}
		dir = copyLog(t, live)
		require.NoError(t, l.Close())
		return dir
	}
	dir, other := make(), make()
	want := []string{}
	for i := 1; i <= 10; i++ {
		want = append(want, same(i))
	}
	_, all := entries(t, pathOf(dir, 2))
	mine, theirs := readAll(t, pathOf(dir, 2)), readAll(t, pathOf(other, 2))
	work := filepath.Join(memoryDir(t), "wal")
	check := func(b []byte, kept int, what string) {
		t.Helper()
		copyTo(t, dir, work)
		require.NoError(t, os.WriteFile(pathOf(work, 2), b, 0o600))
		goesOn(t, work, o, want[:kept], what)
	}
	for i := 1; i <= 10; i++ {
		at, end := all[i].at, all[i].end
		// All that follows, as another log with the same history wrote it.
		check(append(slices.Clone(mine[:at]), theirs[at:]...), i-1, "frames of another nonce")
		// One frame twice, and one left out, where it is the last thing that anybody knows.
		if i < 10 {
			check(append(slices.Clone(mine[:end]), mine[at:end]...), i, "a frame twice")
			check(append(slices.Clone(mine[:at]), mine[end:all[i+1].end]...), i-1, "a frame left out")
		}
	}
	// Moved to where its number would be right but for the segment's first: the seed knows the number.
	h, _ := entries(t, pathOf(dir, 2))
	f := frame{}
	for i := 1; i <= 10; i++ {
		f, _ = parseFrame(mine[all[i].at:], h.nonce, h.first)
		for first := uint64(1); first < 300; first++ {
			got, ok := parseFrame(mine[all[i].at:], h.nonce, first)
			require.Equal(t, first == h.first, ok)
			if ok {
				require.Equal(t, f, got)
			}
		}
		require.EqualValues(t, i, f.number)
	}
}

// A frame whose check holds and that can't be: the log's own code never wrote it.
func TestFramesThatContradict(t *testing.T) {
	o := small(never)
	o.SegmentSize = 1024
	live := create(t, o)
	l := reopen(t, live, o, []string{})
	fill(t, l, 3)
	dir := copyLog(t, live)
	require.NoError(t, l.Close())
	h, all := entries(t, pathOf(dir, 2))
	end := all[len(all)-1].end
	work := filepath.Join(memoryDir(t), "wal")
	sealAt := func(last, end, next uint64) []byte {
		return (&seal{last: last, end: end, next: next, nextNonce: 7}).encode()
	}
	sealEnd := uint64(end) + uint64(entrySize(h.first, 3, 0, sealPayload))
	for what, f := range map[string]frame{
		"a number too high":                  {number: 5, payload: []byte("p")},
		"a number again":                     {number: 3, payload: []byte("p")},
		"a sync mark of a number to come":    {number: 4, payload: []byte{kindSyncMark}},
		"a sync mark of a number long gone":  {number: 2, payload: []byte{kindSyncMark}},
		"a seal of another number":           {number: 3, payload: sealAt(2, sealEnd, 3)},
		"a seal that ends elsewhere":         {number: 3, payload: sealAt(3, sealEnd+1, 3)},
		"a seal in a frame of another":       {number: 4, payload: sealAt(4, sealEnd, 3)},
		"a length that is no frame's":        {number: 4, payload: nil},
		"a syncedThrough above its number":   {number: 4, synced: 5, payload: []byte("p")},
		"a syncedThrough from before number": {number: 4, synced: ^uint64(0) - 5, payload: []byte("p")},
	} {
		copyTo(t, dir, work)
		patch(t, pathOf(work, 2), end, appendEntry(nil, appendFrame(nil, h.nonce, h.first, f.number, f.synced, f.payload))...)
		goesOn(t, work, o, payloads(3), what)
	}
	// A length in more bytes than it needs is a length.
	copyTo(t, dir, work)
	b := appendFrame(nil, h.nonce, h.first, 4, 0, []byte(payload(4)))
	patch(t, pathOf(work, 2), end, append([]byte{byte(len(b)) | 0x80, 0}, b...)...)
	holds(t, work, o, payloads(4))
	// A seal that names another than the next.
	copyTo(t, dir, work)
	patch(t, pathOf(work, 2), end, appendEntry(nil, appendFrame(nil, h.nonce, h.first, 3, 0, sealAt(3, sealEnd, 4)))...)
	require.Contains(t, damaged(t, work, "seal").Reason, "missing")
	require.EqualValues(t, 11, minFrame)
	require.EqualValues(t, 33, frameRoom)
}
