package wal

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// children are what this binary does instead of testing when a test starts it again, to do to a whole process what
// a test can't do to its own: limit its files, fail its system calls, look at it between two of them.
var children = map[string]func(){}

const childEnv = "ONCELOG_WAL_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		child := children[name]
		if child == nil {
			fmt.Fprintf(os.Stderr, "there is no child %q\n", name)
			os.Exit(2)
		}
		child()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const never = -1 // Options.Sync: when sealing and closing only

var testID = [16]byte{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

// small returns options with which a few transactions of a few dozen bytes fill a segment.
func small(sync time.Duration) Options {
	return Options{ID: testID, Meta: func() [MetaSize]byte { return [MetaSize]byte{1, 2, 3} }, SegmentSize: 512, Sync: sync}
}

// memoryDir returns a directory on which a sync costs nothing, where there is one: these tests open logs tens of
// thousands of times, and what they prove does not depend on a disk.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-wal-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// create makes a new log's directory.
func create(t testing.TB, o Options) string {
	t.Helper()
	dir := filepath.Join(memoryDir(t), "wal")
	require.NoError(t, Create(dir, o))
	return dir
}

// read opens the log and returns it with all that it replayed, having checked the numbers.
func read(dir string, o Options) (*Log, []string, error) {
	got := []string{}
	l, err := Open(dir, o, Start{}, func(f Frame) error {
		got = append(got, string(f.Payload))
		if f.Number != uint64(len(got)) {
			return fmt.Errorf("transaction %d is called %d", len(got), f.Number)
		}
		b := make([]byte, len(f.Payload))
		if _, err := f.Segment.ReadAt(b, f.Offset); err != nil || string(b) != string(f.Payload) {
			return fmt.Errorf("transaction %d does not lie where the scanner says: %w", f.Number, err)
		}
		return nil
	})
	if err == nil && l.Visible() != uint64(len(got)) {
		err = fmt.Errorf("%d transactions, of which %d are visible", len(got), l.Visible())
	}
	return l, got, err
}

// reopen opens the log, which must hold want, and closes it when the test ends unless the test did.
func reopen(t testing.TB, dir string, o Options, want []string) *Log {
	t.Helper()
	l, got, err := read(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	require.Equal(t, want, got)
	return l
}

// holds opens the log, which must hold want, and closes it.
func holds(t testing.TB, dir string, o Options, want []string) {
	t.Helper()
	require.NoError(t, reopen(t, dir, o, want).Close())
}

// commit writes one transaction.
func commit(l *Log, payload string) (*Commit, error) {
	if err := l.Ready(len(payload)); err != nil {
		return nil, err
	}
	c := NewCommit([]byte(payload))
	if err := l.Enqueue(c); err != nil {
		return nil, err
	}
	return c, l.Wait(c)
}

// fill writes transactions until the log holds n, and lets no background work be late, so that equal histories
// make equal segments. It returns what it wrote.
func fill(t testing.TB, l *Log, n int) (wrote []string) {
	t.Helper()
	for i := int(l.Visible()) + 1; i <= n; i++ {
		p := payload(i)
		_, err := commit(l, p)
		require.NoError(t, err)
		wrote = append(wrote, p)
		settle(t, l)
	}
	return wrote
}

// payload is the content of transaction i in most of these tests: of uneven length, and never one that could be
// taken for another's.
func payload(i int) string {
	return fmt.Sprintf("transaction %d %s", i, "................................"[:i*7%32])
}

// payloads are those of the transactions 1 to n.
func payloads(n int) []string {
	all := []string{}
	for i := 1; i <= n; i++ {
		all = append(all, payload(i))
	}
	return all
}

// settle waits until the next segment is prepared, if it has been asked for.
func settle(t testing.TB, l *Log) {
	t.Helper()
	until(t, "the next segment is prepared", func() bool { return settled(l) })
}

func settled(l *Log) bool {
	s := l.active.Load()
	return l.spare.ready.Load() != nil || s.number == l.tail.number+1 && s.End() <= s.room.Load()/2
}

// until waits for what a background goroutine is about to do.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "it never came to this: %s", what)
	}
}

// copyLog copies a log as a kill would leave it, and returns the copy.
func copyLog(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(memoryDir(t), "wal")
	copyTo(t, dir, to)
	return to
}

// copyTo makes the directory to a copy of dir.
func copyTo(t testing.TB, dir, to string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(to))
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
}

// tree returns each file below dir by its path from there, and directories with a slash at the end.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || d.IsDir() {
			files[rel+"/"] = ""
			return err
		}
		b, err := os.ReadFile(path)
		files[rel] = string(b)
		return err
	}))
	return files
}

// pathOf is the file of a segment.
func pathOf(dir string, number uint64) string {
	return filepath.Join(segmentDir(dir, number), segmentFile)
}

// entry is one entry of a segment file: where it lies and what it is.
type entry struct {
	at, end int64
	header  bool
	frame   frame
}

// entries parses a segment file, through its last good frame.
func entries(t testing.TB, path string) (h header, all []entry) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	h, ok, tooNew := parseHeader(b)
	if !ok {
		return h, nil
	}
	require.False(t, tooNew)
	all = append(all, entry{end: headerEntry, header: true})
	for at := int64(headerEntry); at < int64(len(b)); {
		f, ok := parseFrame(b[at:], h.nonce, h.first)
		if !ok {
			break
		}
		all = append(all, entry{at: at, end: at + int64(f.size), frame: f})
		at += int64(f.size)
	}
	return h, all
}

// patch changes the bytes at an offset of a file.
func patch(t testing.TB, path string, at int64, b ...byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
