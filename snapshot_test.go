package oncelog

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/snapshot"
)

// A snapshot whose checks hold and whose parts are of no index: no store wrote it, and the log is read instead.
func TestSnapshotsThatNoStoreWrote(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	s := open(t, dir, quick)
	for i := range 20 {
		put(t, s, fmt.Sprint("key ", i), "v")
	}
	want := contents(t, s, nil, nil)
	meta := snapshot.Meta{ID: s.id, Seed: s.seed, After: s.log.Visible(), Through: s.log.Visible(), Keys: 99}
	accounts := s.appendAccounts(nil)
	require.NoError(t, s.Close())
	half := snapshot.PageHead{Shard: 3, Depth: 1} // the other half is missing
	for name, c := range map[string]struct {
		fill   func(w *snapshot.Writer) error
		reason string
	}{
		"half a shard": {func(w *snapshot.Writer) error {
			return firstError(w.Page(half, make([]byte, index.PageSize)), w.Accounts(accounts))
		}, "the last page of shard 3 is missing"},
		"a key beside it": {func(w *snapshot.Writer) error {
			return firstError(w.Page(half, make([]byte, index.PageSize)), w.Key(0, []byte("k"), uint64(index.At(1, 100))), w.Accounts(accounts))
		}, "the last page of shard 3 is missing"},
		"a key twice": {func(w *snapshot.Writer) error {
			at := uint64(index.At(1, 100))
			return firstError(w.Key(0, []byte("k"), at), w.Key(0, []byte("k"), at), w.Accounts(accounts))
		}, "a key twice"},
		"more behind the accounts": {func(w *snapshot.Writer) error { return w.Accounts(append(accounts[:len(accounts):len(accounts)], 0)) }, errParse.Error()},
	} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, snapshotName)))
		_, err := snapshot.Write(filepath.Join(dir, snapshotName), func(int) error { return nil }, func(w *snapshot.Writer) (snapshot.Meta, error) {
			return meta, c.fill(w)
		})
		require.NoError(t, err)
		var log bytes.Buffer
		o := quick
		o.still, o.Logger = true, slog.New(slog.NewTextHandler(&log, nil))
		s := open(t, crashed(t, dir), o)
		require.Contains(t, log.String(), "a snapshot is of no use", name)
		require.Contains(t, log.String(), c.reason, name)
		require.Equal(t, want, contents(t, s, nil, nil), name)
		require.EqualValues(t, 20, s.Stats().Keys, name)
		requireRecounted(t, s)
	}
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// A snapshot is read while the log is opened. Whichever is found out first, that the snapshot is of no use or that the
// log does not reach back to it, it is the snapshot that is blamed, and it is read to the end before Open returns.
func TestASnapshotAndALogThatAreOfNoUse(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	o := quick
	o.SegmentSize, o.still = minSegmentSize, true
	s := open(t, dir, o)
	for i := range 300 {
		put(t, s, fmt.Sprint("key ", i), string(make([]byte, 1000)))
	}
	segments := s.log.Segments()
	require.Greater(t, len(segments), 2)
	meta := snapshot.Meta{ID: s.id, Seed: s.seed, After: 1, Through: 1, Dropped: 2}
	accounts := s.appendAccounts(nil)
	require.NoError(t, s.Close())
	for _, segment := range segments[:2] {
		require.NoError(t, os.RemoveAll(filepath.Dir(segment.Path())))
	}
	bad := make([]byte, index.PageSize)
	bad[0] = 1
	for want, page := range map[string][]byte{"a snapshot is of no use": bad, "a snapshot is older than the log": nil} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, snapshotName)))
		_, err := snapshot.Write(filepath.Join(dir, snapshotName), func(int) error { return nil }, func(w *snapshot.Writer) (snapshot.Meta, error) {
			if page != nil {
				if err := w.Page(snapshot.PageHead{}, page); err != nil {
					return meta, err
				}
			}
			return meta, w.Accounts(accounts)
		})
		require.NoError(t, err)
		for range 20 {
			var log bytes.Buffer
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			_, err = Open(dir, &o)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, "segments before this one are missing")
			require.Contains(t, log.String(), want)
			require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=WARN")), log.String())
		}
	}
}
