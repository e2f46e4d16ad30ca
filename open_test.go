package oncelog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("ONCELOG_TEST_HOLD"); dir != "" {
		hold(dir)
	}
	os.Exit(m.Run())
}

// hold is a process that owns a store until its input ends.
func hold(dir string) {
	s, err := Open(dir, nil)
	if err != nil {
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("open\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = s.Close()
	os.Exit(0)
}

// tree returns all names below dir with sizes and contents, to see that nothing was touched.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			out[path] = ""
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = string(b)
		return err
	}))
	return out
}

func TestOpenRefuses(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "file")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	link := filepath.Join(tmp, "link")
	other := filepath.Join(tmp, "other")
	require.NoError(t, os.Mkdir(other, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(other, "important"), []byte("x"), 0o600))
	good := filepath.Join(tmp, "good")
	require.NoError(t, open(t, good, Options{}).Close())
	require.NoError(t, os.Symlink(good, link))
	headless := filepath.Join(tmp, "headless")
	s := open(t, headless, Options{})
	put(t, s, "k", "v")
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(headless, manifestName)))
	logless := filepath.Join(tmp, "logless")
	require.NoError(t, open(t, logless, Options{}).Close())
	require.NoError(t, os.RemoveAll(filepath.Join(logless, walName)))

	before := tree(t, tmp)
	for _, c := range []struct {
		dir  string
		o    Options
		is   error
		says string
	}{
		{file, Options{}, ErrForeign, "is a file"},
		{filepath.Join(file, "below"), Options{}, nil, "not a directory"},
		{link, Options{}, ErrForeign, "symbolic link"},
		{link + "/", Options{}, ErrForeign, "symbolic link"},
		{other, Options{}, ErrForeign, "important"},
		{other, Options{ReadOnly: true}, fs.ErrNotExist, "no store"},
		{filepath.Join(tmp, "missing"), Options{MustExist: true}, fs.ErrNotExist, "no store"},
		{filepath.Join(tmp, "missing"), Options{ReadOnly: true}, fs.ErrNotExist, "no store"},
		{headless, Options{}, ErrCorrupt, "manifest"},
		{logless, Options{}, ErrCorrupt, "missing"},
		{logless, Options{ReadOnly: true}, ErrCorrupt, "missing"},
		{good, Options{SegmentSize: 1}, ErrOptions, "SegmentSize"},
		{good, Options{SegmentSize: DefaultSegmentSize + 1}, ErrOptions, "SegmentSize"},
		{good, Options{MaxKeySize: -1}, ErrOptions, "MaxKeySize"},
		{good, Options{MaxValueSize: 16 << 20}, ErrOptions, "MaxValueSize"},
		{good, Options{LockWait: -1}, ErrOptions, "LockWait"},
		{good, Options{Sync: -2}, ErrOptions, "Sync"},
	} {
		_, err := Open(c.dir, &c.o)
		require.Error(t, err, c.dir)
		require.ErrorContains(t, err, c.says)
		require.NotContains(t, err.Error(), "\n")
		if c.is != nil {
			require.ErrorIs(t, err, c.is)
		}
	}
	// Of the refused, only the damaged ones were locked, and the lock file is all that was added.
	after := tree(t, tmp)
	for path := range after {
		if filepath.Base(path) == lockName {
			delete(after, path)
			delete(before, path)
		}
	}
	require.Equal(t, before, after)
}

func TestForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to somebody else")
	}
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, open(t, dir, Options{}).Close())
	require.NoError(t, os.Chown(dir, 12345, -1))
	for _, o := range []Options{{}, {ReadOnly: true}} {
		_, err := Open(dir, &o)
		require.ErrorIs(t, err, ErrForeign)
		require.ErrorContains(t, err, "12345")
	}
}

func TestManifest(t *testing.T) {
	m := manifest{seed: 0x8877665544332211}
	copy(m.id[:], "0123456789abcdef")
	golden := "onceman\x00\x01\x00\x00\x00\x00\x00\x00\x000123456789abcdef\x11\x22\x33\x44\x55\x66\x77\x88"
	b := m.encode()
	require.Equal(t, golden, string(b[:40]))
	dir := t.TempDir()
	require.NoError(t, m.write(dir))
	got, err := readManifest(dir)
	require.NoError(t, err)
	require.Equal(t, m, got)

	path := filepath.Join(dir, manifestName)
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			require.NoError(t, os.WriteFile(path, c, 0o600))
			_, err := readManifest(dir)
			require.ErrorIs(t, err, ErrCorrupt, "byte %d bit %d", i, bit)
			var ce *CorruptError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, path, ce.File)
		}
		require.NoError(t, os.WriteFile(path, b[:i], 0o600))
		_, err := readManifest(dir)
		require.ErrorIs(t, err, ErrCorrupt, "cut at %d", i)
	}
	reserved := func(at int) []byte {
		c := manifest{id: m.id, seed: m.seed}.encode()
		c[at]++
		return seal(c)
	}
	for at := 8; at < 16; at++ {
		require.NoError(t, os.WriteFile(path, reserved(at), 0o600))
		_, err := readManifest(dir)
		require.ErrorIs(t, err, ErrTooNew)
	}
	require.NoError(t, os.WriteFile(path, append(reserved(8), "more"...), 0o600))
	_, err = readManifest(dir)
	require.ErrorIs(t, err, ErrTooNew)
}

// Creation that is interrupted anywhere is begun anew.
func TestInterruptedCreation(t *testing.T) {
	for _, left := range [][]string{
		{}, {lockName}, {lockName, "wal/"}, {lockName, "wal/00000000000000000001/"},
		{lockName, "wal/00000000000000000001/", "wal/00000000000000000001/00000000000000000001"},
		{lockName, "wal/", manifestTmp}, {"lost+found/"},
	} {
		dir := t.TempDir()
		for _, name := range left {
			path := filepath.Join(dir, name)
			if strings.HasSuffix(name, "/") {
				require.NoError(t, os.MkdirAll(path, 0o700))
			} else {
				require.NoError(t, os.WriteFile(path, nil, 0o600))
			}
		}
		s := open(t, dir, quick)
		put(t, s, "k", "v")
		require.NoError(t, s.Close())
		has(t, open(t, dir, quick), "k", "v")
	}
}

func TestPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are access lists here")
	}
	s, dir := fresh(t)
	put(t, s, "k", "v")
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // being prepared
		}
		require.NoError(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, fi.Mode().Perm(), path)
		return nil
	}))
}

// A clean close and open write nothing but the owner's process id.
func TestCleanOpenWritesNothing(t *testing.T) {
	s, dir := fresh(t)
	put(t, s, "k", "v")
	require.NoError(t, s.Close())
	before := tree(t, dir)
	s = open(t, dir, Options{})
	has(t, s, "k", "v")
	_, inserted, err := s.PutIfAbsent([]byte("k"), nil, 0)
	require.NoError(t, err)
	require.False(t, inserted)
	require.NoError(t, s.Close())
	require.Equal(t, before, tree(t, dir))
}

func TestPromise5OneOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "ONCELOG_TEST_HOLD="+dir)
	in, err := owner.StdinPipe()
	require.NoError(t, err)
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	_, err = out.Read(make([]byte, 5))
	require.NoError(t, err)

	before := tree(t, dir)
	_, err = Open(dir, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, strconv.Itoa(owner.Process.Pid))
	require.Equal(t, before, tree(t, dir))
	ro := open(t, dir, Options{ReadOnly: true})
	require.ErrorIs(t, errOf(ro.Delete([]byte("k"))), ErrReadOnly)

	opened := make(chan error, 1)
	go func() {
		s, err := Open(dir, &Options{LockWait: time.Minute})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	require.NoError(t, in.Close())
	require.NoError(t, owner.Wait())
	require.NoError(t, <-opened)
	require.FileExists(t, filepath.Join(dir, lockName))
}

// seal gives a manifest that a test has changed its check.
func seal(b []byte) []byte {
	binary.LittleEndian.PutUint64(b[40:], xxhash.Sum64(b[:40]))
	return b
}

func errOf[T any](_ T, err error) error { return err }

func TestClose(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "k", "v")
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Close(), ErrClosed)
	require.ErrorIs(t, s.Shutdown(context.Background()), ErrClosed)
	_, _, err := s.PutIfAbsent([]byte("k"), nil, 0)
	require.ErrorIs(t, err, ErrClosed)
	_, _, err = s.Get([]byte("k"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Has([]byte("none"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Delete([]byte("k"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Advance("k", 1)
	require.ErrorIs(t, err, ErrClosed)
	_, _, err = s.HighWater("k")
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, s.ForgetSource("k"), ErrClosed)
	require.ErrorIs(t, s.Update(func(*Tx) error { return nil }), ErrClosed)
	require.ErrorIs(t, s.View(func(*Tx) error { return nil }), ErrClosed)
	require.ErrorIs(t, s.Verify(), ErrClosed)
	_ = s.Stats()
}

// Close waits for what is going on; Shutdown no longer than its context, and the closing goes on.
func TestShutdownStopsWaiting(t *testing.T) {
	s, dir := fresh(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Update(func(tx *Tx) error {
			close(inside)
			<-goOn
			return tx.Set([]byte("k"), []byte("v"))
		})
	}()
	<-inside
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.Canceled)
	_, _, err := s.PutIfAbsent([]byte("k"), nil, 0)
	require.ErrorIs(t, err, ErrClosed)
	_, err = Open(dir, nil)
	require.ErrorIs(t, err, ErrLocked)
	close(goOn)
	require.NoError(t, <-done)
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Close(), ErrClosed)
	require.Equal(t, "v", state(t, open(t, dir, quick), "k"))
}

// The bubble ends only when all goroutines that began in it have.
func TestCloseLeaksNoGoroutine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, policy := range []SyncPolicy{SyncAlways, SyncNever, SyncEvery(time.Second)} {
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(dir, &Options{Sync: policy})
			require.NoError(t, err)
			_, _, err = s.PutIfAbsent([]byte("k"), nil, 0)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		})
	}
}

func TestTheLoggerIsToldNoKeys(t *testing.T) {
	var log bytes.Buffer
	o := quick
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, filepath.Join(t.TempDir(), "store"), o)
	put(t, s, "secretkey", "secretvalue")
	s.warn("a warning", errors.New("cause"))
	require.NoError(t, s.Close())
	require.Contains(t, log.String(), "cause")
	require.NotContains(t, log.String(), "secret")
}

func TestEmptyAndLongKeys(t *testing.T) {
	s, _ := fresh(t)
	for _, key := range [][]byte{nil, {}} {
		_, _, err := s.PutIfAbsent(key, nil, 0)
		require.ErrorIs(t, err, ErrEmptyKey)
		_, _, err = s.Get(key)
		require.ErrorIs(t, err, ErrEmptyKey)
		_, err = s.Delete(key)
		require.ErrorIs(t, err, ErrEmptyKey)
		require.ErrorIs(t, s.Update(func(tx *Tx) error { return tx.Set(key, nil) }), ErrEmptyKey)
	}
	long := make([]byte, DefaultMaxKeySize+1)
	_, _, err := s.PutIfAbsent(long, nil, 0)
	require.ErrorIs(t, err, ErrTooLarge)
	require.ErrorContains(t, err, "1025")
	put(t, s, string(long[1:]), "v")
	has(t, s, string(long[1:]), "v")
	require.ErrorIs(t, s.Update(func(tx *Tx) error { return tx.Set([]byte("k"), make([]byte, DefaultMaxValueSize+1)) }), ErrTooLarge)
}

// A child process that is being started holds a copy of every descriptor for a moment, the lock's too. Closing the
// store gives the lock up nevertheless.
func TestReopenWhileChildrenAreStarted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	stop := make(chan struct{})
	var children sync.WaitGroup
	for range 3 {
		children.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command(os.Args[0], "-test.run=^$").Run()
				}
			}
		})
	}
	defer children.Wait()
	defer close(stop)
	for range 300 {
		s, err := Open(dir, &quick)
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}
