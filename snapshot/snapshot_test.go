package snapshot

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

	"github.com/oncelog/oncelog/wal"
)

var meta = Meta{
	ID: [16]byte{1, 2, 3}, Seed: 4, After: 5, Through: 6, Time: -7, Dropped: 8, Keys: 9, Totals: Totals{10, 11, 12},
}

type key struct {
	space    byte
	key      string
	location uint64
}

type content struct {
	heads  []PageHead
	pages  [][]byte
	keys   []key
	ledger []byte
}

// some is a content with a full page, a sparse one and an empty one, and keys if there are any.
func some(keys int) (c content) {
	for i, full := range []int{4096, 10, 0, 3276, 3277} {
		page := make([]byte, pageSize)
		for j := range full {
			binary.LittleEndian.PutUint64(page[(j*7%4096)*8:], uint64(j+1))
		}
		c.heads = append(c.heads, PageHead{uint8(i), uint32(i) << 9, uint8(i), uint16(full)})
		c.pages = append(c.pages, page)
	}
	for i := range keys {
		c.keys = append(c.keys, key{byte(i), fmt.Sprintf("key %*d", i*100, i), 1 << 40})
	}
	c.ledger = []byte("a ledger")
	return c
}

func free(int) error { return nil }

func write(t testing.TB, dir string, m Meta, c content) {
	size, err := Write(dir, free, func(w *Writer) (Meta, error) { return m, c.fill(w) })
	require.NoError(t, err)
	paths, err := List(dir)
	require.NoError(t, err)
	fi, err := os.Stat(paths[0])
	require.NoError(t, err)
	require.Equal(t, fi.Size(), size)
}

// written writes a snapshot and returns where it is, and its bytes.
func written(t testing.TB, c content) (path string, whole []byte) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	write(t, dir, meta, c)
	path = filepath.Join(dir, "00000000000000000006")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	return path, whole
}

func (c *content) fill(w *Writer) error {
	for i, p := range c.pages {
		if err := w.Page(c.heads[i], p); err != nil {
			return err
		}
	}
	for _, k := range c.keys {
		if err := w.Key(k.space, []byte(k.key), k.location); err != nil {
			return err
		}
	}
	return w.Accounts(c.ledger)
}

// read reads all of a snapshot.
func read(path string) (m Meta, c content, err error) {
	f, err := Open(path, meta.ID)
	if err != nil {
		return m, c, err
	}
	defer f.Close()
	for i := range f.Pages() {
		page := make([]byte, pageSize)
		if err := f.ReadPage(i, page); err != nil {
			return m, c, err
		}
		c.heads, c.pages = append(c.heads, f.Head(i)), append(c.pages, page)
	}
	err = f.Keys(func(space byte, k []byte, location uint64) error {
		c.keys = append(c.keys, key{space, string(k), location})
		return nil
	})
	if err != nil {
		return m, c, err
	}
	c.ledger, err = f.Accounts()
	return f.Meta, c, err
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, keys := range []int{0, 1, 300} {
		path, _ := written(t, some(keys))
		m, c, err := read(path)
		require.NoError(t, err)
		require.Equal(t, meta, m)
		require.Equal(t, some(keys), c)
	}
}

// Whatever happens to a snapshot's bytes, it is refused, or says what it said.
func TestDamage(t *testing.T) {
	path, whole := written(t, some(3))
	_, want, err := read(path)
	require.NoError(t, err)
	tried := 0
	try := func(what string, b []byte) {
		tried++
		require.NoError(t, os.WriteFile(path, b, 0o600))
		m, c, err := read(path)
		if err == nil {
			require.Equal(t, meta, m, what)
			require.Equal(t, want, c, what)
			return
		}
		require.True(t, errors.Is(err, ErrBad), "%s: %v", what, err)
	}
	for at := 0; at < len(whole); at++ {
		if at > 200 && at < len(whole)-400 && at%97 != 0 {
			continue
		}
		b := bytes.Clone(whole)
		b[at] ^= 1 << (at % 8)
		try(fmt.Sprint("bit flipped at ", at), b)
		try(fmt.Sprint("cut at ", at), whole[:at])
	}
	try("longer", append(bytes.Clone(whole), 0))
	try("another's", whole)
	require.Greater(t, tried, 1000)
}

// A header whose check holds and that this version does not know: too new, not damaged.
func TestTooNew(t *testing.T) {
	path, whole := written(t, some(0))
	for at := 8; at < 16; at++ {
		b := bytes.Clone(whole)
		b[at]++
		binary.LittleEndian.PutUint64(b[checkAt:], xxhash.Sum64(b[:checkAt]))
		require.NoError(t, os.WriteFile(path, b, 0o600))
		_, _, err := read(path)
		require.ErrorIs(t, err, wal.ErrTooNew, at)
	}
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	_, err := Open(path, [16]byte{9})
	require.ErrorIs(t, err, ErrBad, "of another store")
}

// A snapshot that is not finished leaves those that were there, and nothing of itself.
func TestAnUnfinishedSnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshot")
	write(t, dir, meta, some(1))
	failed := errors.New("no")
	for at := range 9 {
		calls := 0
		pace := func(int) error {
			if calls++; calls > at {
				return failed
			}
			return nil
		}
		m := meta
		m.Through = 7
		c := some(5)
		_, err := Write(dir, pace, func(w *Writer) (Meta, error) { return m, c.fill(w) })
		require.ErrorIs(t, err, failed)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, tmpName), []byte("left by a kill"), 0o600))
	paths, err := List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "00000000000000000006")}, paths)
	for through := uint64(7); through < 20; through++ {
		m := meta
		m.Through = through
		write(t, dir, m, some(0))
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, keep)
	require.Equal(t, "00000000000000000018", entries[0].Name())
}
