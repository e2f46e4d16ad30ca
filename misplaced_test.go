package oncelog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A disk may put bytes into the place of others. A record's own check holds wherever it lies, so a look-up that finds
// another key there must ask whether the index could have meant that one: "not here" would be a wrong answer, and the
// key would run again.
func TestARecordInThePlaceOfAnother(t *testing.T) {
	clock := clockAt(1_700_000_000_000)
	o := Options{TTL: Forever, SegmentSize: minSegmentSize, Pace: -1, Now: clock.now, still: true}
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, o)
	put(t, s, "key a", "value of a")
	put(t, s, "key b", "value of b")
	put(t, s, "key c", "value of c")
	_, err := s.Delete([]byte("key c"))
	require.NoError(t, err)
	require.NoError(t, s.Close()) // with a snapshot, so that the next opening reads no frame
	s = open(t, dir, o)
	put(t, s, "later", "")
	require.NoError(t, s.Close())

	path := filepath.Join(dir, "wal", "00000000000000000002", "00000000000000000001")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	const head, size = 4, 4 + 5 + 10 + 4 // head, time, two lengths; key; value; check
	at := func(key string) []byte {
		i := bytes.Index(b, []byte(key)) - head
		require.Positive(t, i)
		return b[i : i+size]
	}
	a := bytes.Clone(at("key a"))
	if !bytes.Contains(a[:head], []byte{5, 10}) {
		t.Fatalf("a record's head is another: %x", a)
	}
	copy(at("key a"), at("key b"))
	i := bytes.LastIndex(b, []byte("key b")) - head // the first that was there, not the copy
	copy(b[i:i+size], a)
	require.NoError(t, os.WriteFile(path, b, 0o600))

	s = open(t, dir, o)
	for _, key := range []string{"key a", "key b"} {
		_, ok, err := s.Get([]byte(key))
		require.False(t, ok)
		var damage *CorruptError
		require.True(t, errors.As(err, &damage), "%s: %v", key, err)
		require.Equal(t, path, damage.File)
		_, _, err = s.PutIfAbsent([]byte(key), nil, 0)
		require.ErrorIs(t, err, ErrCorrupt)
	}
	for _, err = range s.Records() {
		if err != nil {
			break
		}
	}
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, s.Close())
}
