package rot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// answer is what a store says to a question: words, or an error.
type answer struct {
	words string
	err   error
}

// frame is where a transaction lies.
type frame struct {
	file       string
	start, end int64 // of its payload; its head is at most 30 bytes before it
}

// image is a store's files, and what it says.
type image struct {
	files   map[string][]byte
	history []map[string]answer // after each transaction; the last is what it says now
	frames  []frame             // frame i is of transaction i+1
	early   int                 // history from here on is known
	synced  bool                // each frame says that the one before it was durable
	closed  bool                // a sync mark ends it
}

const (
	segmentSize = 64 << 10
	now         = 1_700_000_000_000
)

// lives are how many transactions each process writes before it is killed. Each begins a segment of its own, so which
// transaction lies where is no matter of timing. The first two make a snapshot at their end.
var lives = [...]int{290, 60, 270, 270}

func transactions() (n int) {
	for _, life := range lives {
		n += life
	}
	return n
}

func options(sync oncelog.SyncPolicy) *oncelog.Options {
	return &oncelog.Options{
		TTL: oncelog.Forever, Sync: sync, SegmentSize: segmentSize, Pace: -1,
		Now: func() time.Time { return time.UnixMilli(now) },
	}
}

// memoryDir is a directory on which a sync costs nothing, where there is one.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-rot-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// build makes a store: two snapshots, segments before and behind them, a tail that is killed or closed.
func build(t testing.TB, sync oncelog.SyncPolicy, closed bool) *image {
	t.Helper()
	im := &image{synced: sync == oncelog.SyncAlways, closed: closed}
	qs := questions()
	var before map[string]answer
	i := 0
	for life, n := range lives {
		dir := filepath.Join(memoryDir(t), "store")
		save(t, dir, im.files)
		st, err := oncelog.Open(dir, options(sync))
		require.NoError(t, err)
		if life == 2 {
			im.early = len(im.history)
		}
		found := len(im.history)
		for range n {
			require.NoError(t, write(st, i), i)
			i++
			for uint64(len(im.history)-found) < st.Stats().Commits-1 { // of the store's own, which no answer shows
				im.history = append(im.history, before)
			}
			if life >= 2 { // nobody can lose as many as those before
				before = ask(t, st, qs)
			}
			im.history = append(im.history, before)
		}
		if life < 2 {
			require.NoError(t, st.Snapshot())
		}
		if life == len(lives)-1 && closed {
			require.NoError(t, st.Close())
			im.files = load(t, dir)
			break
		}
		im.files = load(t, dir)
		require.NoError(t, st.Close())
	}
	im.locate(t)
	require.Equal(t, len(im.history), len(im.frames))
	for _, a := range im.history[len(im.history)-1] {
		require.NoError(t, a.err)
	}
	return im
}

func load(t testing.TB, dir string) map[string][]byte {
	files := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(path)
		return err
	}))
	return files
}

// save makes the directory to what the files are.
func save(t testing.TB, dir string, files map[string][]byte) {
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Mkdir(dir, 0o700))
	for name, b := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
}

// locate finds the frames, by a copy that is opened as recovery does it.
func (im *image) locate(t testing.TB) {
	dir := filepath.Join(memoryDir(t), "store")
	save(t, dir, im.files)
	o := wal.Options{
		ID: [16]byte(im.files["MANIFEST"][16:32]), SegmentSize: segmentSize, ReadOnly: true,
		Meta: func() [wal.MetaSize]byte { return record.Base{}.Encode() },
	}
	l, err := wal.Open(filepath.Join(dir, "wal"), o, wal.Start{}, func(f wal.Frame) error {
		rel, err := filepath.Rel(dir, f.Segment.Path())
		if f.Payload != nil {
			im.frames = append(im.frames, frame{rel, f.Offset, f.Offset + int64(len(f.Payload))})
		}
		return err
	})
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

var errNo = errors.New("no")

// write makes one transaction, of some kind.
func write(st *oncelog.Store, i int) error {
	r, err := st.Receiver(&receiver.Options{Window: 16})
	if err != nil {
		return err
	}
	ctx := context.Background()
	value := []byte(strings.Repeat(fmt.Sprint(i, " "), 1+i*7%23))
	say := func(err error) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { return value, err }
	}
	switch i % 10 {
	default:
		_, _, err = st.PutIfAbsent(fmt.Append(nil, "key ", i), value, 0)
	case 1:
		err = st.Update(func(tx *oncelog.Tx) error {
			_, err := tx.DeleteRecord(fmt.Append(nil, "key ", i-11))
			return errors.Join(err, tx.Set(fmt.Append(nil, "state ", i%7), value), tx.PutRecord(fmt.Append(nil, "key ", i), nil, 0))
		})
	case 2:
		_, err = st.Advance("source", uint64(i))
	case 3:
		_, err = r.Do(ctx, fmt.Sprint("message ", i), say(nil))
	case 4:
		_, err = r.DoTx(ctx, fmt.Sprint("message ", i), func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			return nil, tx.Emit("mail", value)
		})
	case 5:
		_, err = r.DoSeq(ctx, "orders", uint64(i), func(context.Context) ([]byte, error) { return nil, nil })
	case 6:
		if _, err = r.Do(ctx, fmt.Sprint("message ", i), say(receiver.Unknown(errNo))); errors.Is(err, receiver.ErrInDoubt) {
			err = nil
		}
	case 7:
		var stored *receiver.StoredError
		if _, err = r.Do(ctx, fmt.Sprint("message ", i), say(receiver.Permanent(errNo))); errors.As(err, &stored) {
			err = nil
		}
	}
	return err
}

// question is one call, and its answer in words.
type question struct {
	name string
	ask  func(st *oncelog.Store, r *receiver.Receiver) (string, error)
}

// questions are all that can be asked about what write writes.
func questions() (all []question) {
	add := func(name string, f func(st *oncelog.Store, r *receiver.Receiver) (string, error)) {
		all = append(all, question{name, f})
	}
	ctx := context.Background()
	for i := range transactions() {
		switch i % 10 {
		default:
			key := fmt.Append(nil, "key ", i)
			add(string(key), func(st *oncelog.Store, _ *receiver.Receiver) (string, error) {
				v, ok, err := st.Get(key)
				return fmt.Sprintf("%s %v", v, ok), err
			})
		case 2, 5:
		case 3, 4, 6, 7:
			name := fmt.Sprint("message ", i)
			add(name, func(_ *oncelog.Store, r *receiver.Receiver) (string, error) {
				l, err := r.Lookup(ctx, name)
				return fmt.Sprintf("%v %v %s %s %s", l.State, l.Result.Kind, l.Result.Value, l.Result.Message, l.Note), err
			})
		}
	}
	for i := range 7 {
		add(fmt.Sprint("state ", i), func(st *oncelog.Store, _ *receiver.Receiver) (words string, err error) {
			err = st.View(func(tx *oncelog.Tx) error {
				v, ok, err := tx.Get(fmt.Append(nil, "state ", i))
				words = fmt.Sprintf("%s %v", v, ok)
				return err
			})
			return words, err
		})
	}
	add("source", func(st *oncelog.Store, _ *receiver.Receiver) (string, error) {
		seq, ok, err := st.HighWater("source")
		return fmt.Sprint(seq, ok), err
	})
	add("orders", func(_ *oncelog.Store, r *receiver.Receiver) (string, error) {
		seq, ok, err := r.HighWater(ctx, "orders")
		return fmt.Sprint(seq, ok), err
	})
	add("mail", func(_ *oncelog.Store, r *receiver.Receiver) (string, error) {
		var all []string
		for m, err := range r.Outgoing(ctx) {
			if err != nil {
				return "", err
			}
			all = append(all, fmt.Sprintf("%d %s", m.Ordinal, m.Payload))
		}
		return strings.Join(all, "\n"), nil
	})
	add("doubts", func(_ *oncelog.Store, r *receiver.Receiver) (string, error) {
		n := 0
		for _, err := range r.Doubts(ctx) {
			if err != nil {
				return "", err
			}
			n++
		}
		return fmt.Sprint(n), nil
	})
	add("records", func(st *oncelog.Store, _ *receiver.Receiver) (string, error) {
		n, size := 0, 0
		for r, err := range st.Records() {
			if err != nil {
				return "", err
			}
			n, size = n+1, size+len(r.Key)+len(r.Value)
		}
		return fmt.Sprint(n, size), nil
	})
	add("keys", func(st *oncelog.Store, _ *receiver.Receiver) (string, error) { return fmt.Sprint(st.Stats().Keys), nil })
	return all
}

// ask asks all questions, each for itself, so that damage in one record hides no other.
func ask(t testing.TB, st *oncelog.Store, qs []question) map[string]answer {
	r, err := st.Receiver(&receiver.Options{Window: 16})
	require.NoError(t, err)
	all := make(map[string]answer, len(qs))
	for _, q := range qs {
		words, err := q.ask(st, r)
		if err != nil {
			words = ""
		}
		all[q.name] = answer{words, err}
	}
	return all
}
