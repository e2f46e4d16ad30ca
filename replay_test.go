package oncelog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// The index may name a place in which another key lies, or the same in another keyspace. Replay looks before it takes
// that for the key's, or would count it out.
func TestReplayLooksWhoseAPlaceIs(t *testing.T) {
	s, _ := fresh(t)
	long := strings.Repeat("l", 300)
	put(t, s, "k", "v")
	put(t, s, long, "v")
	p := replay{s: s}
	for _, c := range []struct {
		at    string
		space record.Space
		key   string
		ok    bool
	}{
		{"k", record.Records, "k", true},
		{"k", record.Records, "j", false},
		{"k", record.ReceiverRecords, "k", false},
		{"k", record.Records, long, false},
		{long, record.Records, "k", false},
		{long, record.Records, long, true},
	} {
		at := placed(t, s, c.at).at
		entry, ok, err := p.holds(s.log.Segment(at.Slot()), at, c.space, []byte(c.key))
		require.NoError(t, err)
		require.Equal(t, c.ok, ok, "%v", c)
		require.Equal(t, ok, entry != nil)
	}
}

// Keys with one hash have places of their own also when the index is made from the log, in which each is met while the
// index says that it is where the other is.
func TestReplayOfKeysWithOneHash(t *testing.T) {
	s, dir := fresh(t)
	forgeOverflow(t, s)
	want := contents(t, s, nil, nil)
	require.Len(t, want, 9)
	s = open(t, crashed(t, dir), quick)
	require.Zero(t, s.house.snapshot.through, "a snapshot, so nothing is replayed")
	require.Equal(t, want, contents(t, s, nil, nil))
	require.EqualValues(t, 9, s.Stats().Keys)
	requireRecounted(t, s)
}

// A snapshot shows some of what is replayed after it. Met again it changes nothing.
func TestReplayOfWhatIsThere(t *testing.T) {
	s, _ := fresh(t)
	for _, key := range []string{"a", "b", "c"} {
		put(t, s, key, key)
	}
	ledger, keys := s.ledger.Append(nil), s.records.Load()
	p, met := replay{s: s}, 0
	require.NoError(t, s.log.Verify(func(f wal.Frame) error { met++; return p.frame(f) }))
	require.GreaterOrEqual(t, met, 3)
	require.Equal(t, ledger, s.ledger.Append(nil))
	require.Equal(t, keys, s.records.Load())
}

// Behind a snapshot a key changes whose record lies before it, in a segment that nobody reads at opening. When that
// record can't be read, opening says where it lies: guessing would count wrongly from then on.
func TestReplayOfAChangeOfWhatCannotBeRead(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, dir := sealedFirst(t, o, some(t))
	require.NoError(t, s.Snapshot())
	one := placed(t, s, "key 0")
	path, err := filepath.Rel(dir, s.log.Segment(one.at.Slot()).Path())
	require.NoError(t, err)
	_, err = s.Delete([]byte("key 0"))
	require.NoError(t, err)

	killed := crashed(t, dir)
	s2 := open(t, killed, o)
	hasNot(t, s2, "key 0")
	require.NotZero(t, s2.house.snapshot.through, "the snapshot is not used")

	killed = crashed(t, dir)
	require.NoError(t, os.Truncate(filepath.Join(killed, path), one.at.Offset()))
	_, err = Open(killed, &o)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "offset")
}
