package rot

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

var (
	all     = flag.Bool("rot.all", false, "flip every bit of 16 KiB of each kind of file")
	samples = flag.Int("rot.samples", 60, "how many bits of each kind of file are flipped, and a quarter as many sectors damaged, unless all are")
	seed    = flag.Uint64("rot.seed", 0, "of the sample; 0 = the time")
)

// much is how much of a file is gone through.
const much = 16 << 10

// span is a part of a file.
type span struct {
	name     string
	file     string
	from, to int64
}

// damage is what is done to a file: other bytes from an offset on.
type damage struct {
	what string
	file string
	at   int64 // of the first byte that is not what it was
	end  int64 // behind the last
	b    []byte
}

// rig is a store to damage again and again.
type rig struct {
	t   *testing.T
	im  *image
	dir string
	qs  []question
	// What became of it.
	refused, told, right, cut int
}

func newRig(t *testing.T, im *image) *rig {
	return &rig{t: t, im: im, dir: filepath.Join(memoryDir(t), "store"), qs: questions()}
}

// spans are the kinds of files of the image, which are found by what they hold.
func (g *rig) spans() (spans []span) {
	im := g.im
	segments := im.segments()
	tail := im.frames[len(im.frames)-1].file
	unread, read := "", ""
	for _, name := range segments {
		last := 0
		for i, f := range im.frames {
			if f.file == name {
				last = i
			}
		}
		switch {
		case name == tail:
		case last < im.early && last > 0 && unread == "":
			unread = name
		case last > im.early && read == "":
			read = name
		}
	}
	part := func(name, file string, from, to int64) {
		require.NotEmpty(g.t, file, name)
		to = min(to, from+much)
		require.Less(g.t, from, to, name)
		spans = append(spans, span{name, file, from, to})
	}
	size := func(file string) int64 { return int64(len(im.files[file])) }
	part("a segment before the snapshot", unread, max(0, size(unread)-much), size(unread)) // its seal too
	part("a segment's header", unread, 0, 81)
	end := im.frames[len(im.frames)-1].end
	part("a segment behind the snapshot", read, max(0, size(read)-much), size(read))
	part("the header of the tail", tail, 0, 81)
	end = min(end+40, size(tail)) // the mark, or some prepared space
	part("the tail", tail, max(0, end-much), end)
	var snapshots []string
	for name := range im.files {
		if strings.HasPrefix(name, "snapshot") {
			snapshots = append(snapshots, name)
		}
	}
	slices.Sort(snapshots)
	require.Len(g.t, snapshots, 2)
	part("a snapshot's header", snapshots[1], 0, 200)
	part("the snapshot", snapshots[1], max(0, size(snapshots[1])-much), size(snapshots[1]))
	part("the snapshot before it", snapshots[0], max(0, size(snapshots[0])-much), size(snapshots[0]))
	part("MANIFEST", "MANIFEST", 0, 48)
	part("LOCK", "LOCK", 0, size("LOCK"))
	return spans
}

func (im *image) segments() (names []string) {
	for name := range im.files {
		if strings.HasPrefix(name, "wal"+string(filepath.Separator)+"0") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// judge opens the damaged store, asks it everything, and says what is wrong with what it said.
func (g *rig) judge(d damage) {
	t, im := g.t, g.im
	whole := im.files[d.file]
	if bytes.Equal(whole[d.at:d.end], d.b) {
		return // nothing changed
	}
	broken := bytes.Clone(whole)
	copy(broken[d.at:], d.b)
	for d.at < d.end && whole[d.at] == broken[d.at] {
		d.at++
	}
	for d.end > d.at && whole[d.end-1] == broken[d.end-1] {
		d.end--
	}
	im.files[d.file] = broken
	save(t, g.dir, im.files)
	im.files[d.file] = whole

	low, high, must := g.expect(d)
	st, err := oncelog.Open(g.dir, options(im.policy()))
	if err != nil {
		g.names(d, err)
		require.NotEqual(t, "open", must, "%s: it is refused: %v", d.what, err)
		g.refused++
		return
	}
	require.NotEqual(t, "refuse", must, "%s: it is opened, though a whole frame says that what is damaged was durable", d.what)
	got := ask(t, st, g.qs)
	told := false
	for _, a := range got {
		if a.err != nil {
			g.names(d, a.err)
			require.NotEqual(t, "open", must, "%s: %v", d.what, a.err)
			told = true
		}
	}
	state := -1
	for i := high; i >= low && state < 0; i-- {
		if agrees(im.history[i], got) {
			state = i
		}
	}
	if state < 0 {
		for q, a := range got {
			if want := im.history[high][q]; a.err == nil && a != want {
				require.Equal(t, want.words, a.words, "%s: %s, and not as after any transaction from %d to %d", d.what, q, low+1, high+1)
			}
		}
		require.Fail(t, d.what)
	}
	verified := st.Verify()
	if verified != nil {
		g.names(d, verified)
		require.NotEqual(t, "open", must, "%s: %v", d.what, verified)
	}
	require.False(t, must == "tell" && verified == nil, "%s: Verify does not see it", d.what)
	require.False(t, told && verified == nil, "%s: an answer was an error, and Verify sees nothing", d.what)
	require.NoError(t, st.Close(), d.what)
	switch {
	case told || verified != nil:
		g.told++
	case state < len(im.history)-1:
		g.cut++
	default:
		g.right++
	}
}

func (im *image) policy() oncelog.SyncPolicy {
	if im.synced {
		return oncelog.SyncAlways
	}
	return oncelog.SyncNever
}

// agrees reports whether all answers that are no errors are those of a state.
func agrees(state, got map[string]answer) bool {
	for q, a := range got {
		if a.err == nil && a.words != state[q].words {
			return false
		}
	}
	return true
}

// names checks that an error says where the damage is.
func (g *rig) names(d damage, err error) {
	if errors.Is(err, oncelog.ErrTooNew) { // a record of another place, which here could only be a later version's
		require.ErrorContains(g.t, err, filepath.Join(g.dir, d.file)+" at offset ", d.what)
		return
	}
	var c *oncelog.CorruptError
	require.True(g.t, errors.As(err, &c), "%s: %v", d.what, err)
	require.Equal(g.t, filepath.Join(g.dir, d.file), c.File, "%s: %v", d.what, err)
	if d.file != "MANIFEST" { // which is all one: its check is what is wrong
		require.Less(g.t, c.Offset, d.end, "%s: %v", d.what, err)
	}
	require.NotEmpty(g.t, c.Reason)
	require.ErrorContains(g.t, err, fmt.Sprintf("%s at offset %d", c.File, c.Offset))
}

// expect says which states are right, as numbers of the history, and what must come of it: "open" with every answer
// right, "refuse", "tell" of it at the latest in Verify, or "" = any of these.
func (g *rig) expect(d damage) (low, high int, must string) {
	im := g.im
	n := len(im.history) - 1
	last := im.frames[n]
	switch {
	case d.file == "MANIFEST":
		return n, n, "refuse"
	case !strings.HasPrefix(d.file, "wal"):
		return n, n, "open"
	case d.file != last.file:
		return n, n, "tell"
	}
	first := n + 1 // the first transaction that is damaged
	for i := n; i >= 0 && im.frames[i].file == d.file && im.frames[i].end > d.at; i-- {
		first = i
	}
	switch {
	case im.closed && d.at >= last.end:
		return n, n, "" // the mark: without it the tail is that of a store that was killed
	case im.closed:
		return n, n, "tell"
	case first > n: // prepared space
		return n, n, "open"
	case im.synced && first < n && d.end <= im.frames[n-1].end:
		return n, n, "refuse" // the last frame is whole
	}
	return max(first-1, im.early+1), n, ""
}

func rng(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-rot.seed=%d", s)
	return rand.New(rand.NewPCG(s, 1))
}

func TestRot(t *testing.T) {
	random := rng(t)
	for _, c := range []struct {
		name   string
		sync   oncelog.SyncPolicy
		closed bool
	}{
		{"killed", oncelog.SyncAlways, false}, {"closed", oncelog.SyncAlways, true}, {"killed without syncs", oncelog.SyncNever, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			im := build(t, c.sync, c.closed)
			for _, s := range newRig(t, im).spans() {
				t.Run(s.name, func(t *testing.T) {
					g := newRig(t, im)
					bits, sectors := g.bits(s, random), g.sectors(s, random)
					t.Logf("%d bits of %d bytes, %d sectors: %d refused, %d told, %d right, %d cut", bits, s.to-s.from, sectors, g.refused, g.told, g.right, g.cut)
					require.Positive(t, g.refused+g.told+g.right+g.cut)
				})
			}
		})
	}
}

// bits flips bits, and returns how many.
func (g *rig) bits(s span, random *rand.Rand) (n int) {
	file := g.im.files[s.file]
	flip := func(bit int64) {
		at := s.from + bit/8
		g.judge(damage{fmt.Sprintf("bit %d of byte %d of %s", bit%8, at, s.file), s.file, at, at + 1, []byte{file[at] ^ 1<<(bit%8)}})
		n++
	}
	total := (s.to - s.from) * 8
	if *all || total <= int64(*samples) {
		for bit := range total {
			flip(bit)
		}
		return n
	}
	for range *samples {
		flip(random.Int64N(total))
	}
	return n
}

// sectors zeroes sectors, swaps two, and puts one of an older file of its kind in place of another, and returns how
// many.
func (g *rig) sectors(s span, random *rand.Rand) (n int) {
	const sector = 512
	file := g.im.files[s.file]
	first, last := s.from/sector, (s.to+sector-1)/sector
	older := file
	if strings.HasPrefix(s.file, "wal") {
		older = g.im.files[g.im.segments()[1]] // the first holds next to nothing
	}
	cut := func(b []byte, i int64) []byte {
		return b[min(i*sector, int64(len(b))):min((i+1)*sector, int64(len(b)))]
	}
	in := func(i int64, what string, b []byte) {
		at := i * sector
		b = b[:min(len(b), len(cut(file, i)))]
		g.judge(damage{fmt.Sprintf("sector %d of %s %s", i, s.file, what), s.file, at, at + int64(len(b)), b})
		n++
	}
	each := func(i int64) {
		in(i, "zeroed", make([]byte, sector))
		j := first + random.Int64N(last-first)
		if a, b := min(i, j), max(i, j); a < b && len(cut(file, a)) == sector && len(cut(file, b)) == sector {
			both := bytes.Clone(file[a*sector : (b+1)*sector])
			copy(both, cut(file, b))
			copy(both[len(both)-sector:], cut(file, a))
			g.judge(damage{fmt.Sprintf("sectors %d and %d of %s swapped", a, b, s.file), s.file, a * sector, (b + 1) * sector, both})
			n++
		}
		in(i, "as the one before", cut(file, max(i-1, 0)))
		in(i, "of an older segment", cut(older, i))
		in(i, "of an older segment, from elsewhere", cut(older, random.Int64N(int64(len(older))/sector+1)))
	}
	if *all {
		for range 4 {
			for i := first; i < last; i++ {
				each(i)
			}
		}
		return n
	}
	for range *samples / 20 {
		each(first + random.Int64N(last-first))
	}
	return n
}

// A backup that is damaged is restored not at all.
func TestRotOfABackup(t *testing.T) {
	random := rng(t)
	im := build(t, oncelog.SyncAlways, true)
	base := memoryDir(t)
	save(t, filepath.Join(base, "store"), im.files)
	st, err := oncelog.Open(filepath.Join(base, "store"), options(oncelog.SyncAlways))
	require.NoError(t, err)
	var backup bytes.Buffer
	require.NoError(t, st.Backup(&backup))
	require.NoError(t, st.Close())
	whole := backup.Bytes()
	to := filepath.Join(base, "restored")
	n := 0
	try := func(bit int) {
		n++
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		err := oncelog.Restore(to, bytes.NewReader(b))
		require.Error(t, err, "bit %d of byte %d", bit%8, bit/8)
		require.True(t, errors.Is(err, oncelog.ErrBackup) || errors.Is(err, oncelog.ErrCorrupt) || errors.Is(err, oncelog.ErrTooNew), "bit %d of byte %d: %v", bit%8, bit/8, err)
		_, err = os.Lstat(to)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	switch {
	case *all:
		for bit := range min(len(whole), much) * 8 {
			try(bit)
		}
		for bit := (len(whole) - 100) * 8; bit < len(whole)*8; bit++ {
			try(bit)
		}
	default:
		for range *samples {
			try(random.IntN(len(whole) * 8))
			try(random.IntN(90 * 8)) // the head, and the first segment's
		}
	}
	t.Logf("%d bits of %d bytes", n, len(whole))
	require.NoError(t, oncelog.Restore(to, bytes.NewReader(whole)))
	st, err = oncelog.Open(to, options(oncelog.SyncAlways))
	require.NoError(t, err)
	require.Equal(t, im.history[len(im.history)-1], ask(t, st, questions()))
	require.NoError(t, st.Close())
}
