package oncelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A backup taken while writers are at work is the store as of one moment: with each transaction all of it, and with
// it all those before it.
func TestBackupBesideWriters(t *testing.T) {
	o := quick
	o.SegmentSize = 64 << 10
	s := open(t, filepath.Join(t.TempDir(), "store"), o)
	var done atomic.Bool
	errs := make(chan error, 2)
	for w := range 2 {
		go func() {
			var err error
			for i := 0; err == nil && !done.Load(); i++ {
				err = s.Update(func(tx *Tx) error {
					if err := tx.Set(fmt.Append(nil, "last ", w), fmt.Append(nil, i)); err != nil {
						return err
					}
					return tx.PutRecord(fmt.Append(nil, w, " ", i), make([]byte, 100), 0)
				})
			}
			errs <- err
		}()
	}
	for round := range 4 {
		require.Eventually(t, func() bool { return s.Stats().Commits > uint64(round+1)*2000 }, time.Minute, time.Millisecond)
		if round == 2 {
			require.NoError(t, s.Compact())
		}
		var b bytes.Buffer
		require.NoError(t, s.Backup(&b))
		dir := filepath.Join(t.TempDir(), "restored")
		require.NoError(t, Restore(dir, &b))
		r := open(t, dir, o)
		for w := range 2 {
			last := -1
			if v := state(t, r, fmt.Sprint("last ", w)); v != "" {
				_, err := fmt.Sscan(v, &last)
				require.NoError(t, err)
			}
			for i := range last + 2 {
				ok, err := r.Has(fmt.Append(nil, w, " ", i))
				require.NoError(t, err)
				require.Equal(t, i <= last, ok, "%d %d of %d", w, i, last)
			}
		}
		require.NoError(t, r.Verify())
		put(t, r, "goes on", "")
		require.NoError(t, r.Close())
	}
	done.Store(true)
	require.NoError(t, errors.Join(<-errs, <-errs))
}

func backedUp(t *testing.T) (content map[string]string, backup []byte) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, history := writeHistory(t, filepath.Join(t.TempDir(), "store"), o, 200)
	var b bytes.Buffer
	require.NoError(t, s.Backup(&b))
	return history[len(history)-1].contents, b.Bytes()
}

// Restored whole or not at all: a backup that is cut or damaged anywhere leaves nothing.
func TestRestoreOfABrokenBackup(t *testing.T) {
	want, backup := backedUp(t)
	base := memoryDir(t)
	dir := filepath.Join(base, "restored")
	for at := 0; at < len(backup); at += 1 + len(backup)/700 {
		for _, b := range [][]byte{backup[:at], flipped(backup, at)} {
			err := Restore(dir, bytes.NewReader(b))
			require.Error(t, err, at)
			require.True(t, errors.Is(err, ErrBackup) || errors.Is(err, ErrTooNew) || errors.Is(err, ErrCorrupt), "%d: %v", at, err)
			require.NoDirExists(t, dir)
		}
	}
	// A number that is wrong, whatever it is, and not only one that no other segment has.
	second := backupHead + 17 + int(binary.LittleEndian.Uint64(backup[backupHead+9:]))
	require.Equal(t, byte(backupSegment), backup[second])
	first := binary.LittleEndian.Uint64(backup[backupHead+1:])
	for _, number := range []uint64{first, first - 1, 0, first + 2, math.MaxUint64} {
		b := bytes.Clone(backup)
		binary.LittleEndian.PutUint64(b[second+1:], number)
		err := Restore(dir, bytes.NewReader(b))
		require.True(t, errors.Is(err, ErrBackup) || errors.Is(err, ErrCorrupt), "%d: %v", number, err)
		require.NoDirExists(t, dir)
	}
	failing := errors.New("the network is gone")
	require.ErrorIs(t, Restore(dir, io.MultiReader(bytes.NewReader(backup[:1000]), broken2{failing})), failing)
	require.NoDirExists(t, dir)
	require.NoError(t, os.Mkdir(dir, 0o700)) // empty is fine too
	require.NoError(t, Restore(dir, bytes.NewReader(backup)))
	require.Equal(t, want, contents(t, open(t, dir, quick), tornStates, tornSources))
	before := tree(t, filepath.Join(dir, "wal"))
	require.ErrorIs(t, Restore(dir, bytes.NewReader(backup)), ErrForeign)
	require.Equal(t, before, tree(t, filepath.Join(dir, "wal")))
}

type broken2 struct{ error }

func (b broken2) Read([]byte) (int, error) { return 0, b.error }

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1 << (at % 8)
	return b
}

// A restore that was killed leaves what does not open as a store, nor as a place for a new one; one that was done but
// for its last step is done.
func TestAHalfDoneRestoreDoesNotOpen(t *testing.T) {
	want, backup := backedUp(t)
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.Mkdir(dir, 0o700))
	seen := map[string]bool{}
	watch := watched{bytes.NewReader(backup), func() {
		// What a kill at this moment would leave.
		copied := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
		require.NoError(t, os.Remove(filepath.Join(copied, lockName)))
		entries, err := os.ReadDir(copied)
		require.NoError(t, err)
		if len(entries) == 0 {
			return // not begun
		}
		seen[fmt.Sprint(entries)] = true
		for _, o := range []Options{{}, {MustExist: true}, {ReadOnly: true}} {
			s, err := Open(copied, &o)
			if err == nil {
				_ = s.Close()
			}
			require.Error(t, err, "%v", entries)
		}
		require.ErrorIs(t, Restore(copied, bytes.NewReader(backup)), ErrForeign)
	}}
	require.NoError(t, Restore(dir, watch))
	require.NotEmpty(t, seen)
	require.NoError(t, os.WriteFile(filepath.Join(dir, restoring), nil, 0o600))
	require.Equal(t, want, contents(t, open(t, dir, quick), tornStates, tornSources))
}

// watched calls look before each small read.
type watched struct {
	r    *bytes.Reader
	look func()
}

func (w watched) Read(p []byte) (int, error) {
	w.look()
	return w.r.Read(p[:min(len(p), 700)])
}

func TestBackupOfAClosedStore(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "k", "v")
	failing := errors.New("no")
	require.ErrorIs(t, s.Backup(failingWriter{failing}), failing)
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Backup(io.Discard), ErrClosed)
}

type failingWriter struct{ error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.error }
