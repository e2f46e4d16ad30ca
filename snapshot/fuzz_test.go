package snapshot

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/decoders"
	"github.com/oncelog/oncelog/wal"
)

// FuzzSnapshot reads a file as a snapshot, whole. A page of the index has 32 KiB in memory however few of its words the
// file has; they belong to the caller, who has as many as the index of the store that wrote it had.
func FuzzSnapshot(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<18 {
			return
		}
		dir := filepath.Join(t.TempDir(), "snapshot")
		oneSnapshot(t, dir, b)
		if b = putRight(b); b != nil {
			oneSnapshot(t, dir, b)
		}
	})
}

func oneSnapshot(t *testing.T, dir string, b []byte) {
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "00000000000000000001")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	id := meta.ID
	if len(b) >= headerSize {
		id = [16]byte(b[16:32])
	}
	page := make([]byte, pageSize)
	var c content
	var m Meta
	var err error
	decoders.Bounded(t, len(b), 3, func() { // the table, then one part at a time, which has its place in the file only once
		c, m = content{}, Meta{}
		var f *File
		if f, err = Open(path, id); err != nil {
			return
		}
		defer f.Close()
		m = f.Meta
		for i := range f.Pages() {
			clear(page)
			if err = f.ReadPage(i, page); err != nil {
				return
			}
		}
		if err = f.Keys(func(byte, []byte, uint64) error { return nil }); err != nil {
			return
		}
		c.ledger, err = f.Accounts()
	})
	if err != nil {
		require.True(t, errors.Is(err, ErrBad) || errors.Is(err, wal.ErrTooNew), "%v", err)
		require.ErrorContains(t, err, path)
		return
	}
	require.LessOrEqual(t, m.After, m.Through)
	read := func(path string) (c content, m Meta) {
		f, err := Open(path, id)
		require.NoError(t, err)
		defer f.Close()
		for i := range f.Pages() {
			p := make([]byte, pageSize)
			require.NoError(t, f.ReadPage(i, p))
			c.heads, c.pages = append(c.heads, f.Head(i)), append(c.pages, p)
		}
		require.NoError(t, f.Keys(func(space byte, k []byte, location uint64) error {
			c.keys = append(c.keys, key{space, string(k), location})
			return nil
		}))
		c.ledger, err = f.Accounts()
		require.NoError(t, err)
		return c, f.Meta
	}
	if len(b) > 1<<16 {
		return
	}
	c, m = read(path)
	require.LessOrEqual(t, len(c.pages), len(b)/entrySize)
	if len(c.pages) > 100 {
		return
	}
	require.NoError(t, os.Remove(path))
	_, err = Write(dir, free, func(w *Writer) (Meta, error) { return m, c.fill(w) })
	require.NoError(t, err)
	paths, err := List(dir)
	require.NoError(t, err)
	require.Len(t, paths, 1)
	again, twin := read(paths[0])
	require.Equal(t, m, twin)
	require.Equal(t, c, again)
}

// putRight returns the file with its sizes and checks right, as far as its parts lie in it, or nil.
func putRight(b []byte) []byte {
	if len(b) < pagesAt {
		return nil
	}
	b = append([]byte(nil), b...)
	copy(b, magic)
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	pages, keys, accounts, count := number(80), number(88), number(96), number(128)
	most := uint64(len(b) - pagesAt)
	if pages > most || keys > most || accounts > most || count > most/entrySize || pages+keys+accounts+count*entrySize > most {
		return nil
	}
	b = b[:pagesAt+pages+keys+accounts+count*entrySize]
	keysAt := pagesAt + pages
	accountsAt := keysAt + keys
	tableAt := accountsAt + accounts
	at := uint64(pagesAt)
	for e := b[tableAt:]; len(e) > 0; e = e[entrySize:] {
		n := uint64(binary.LittleEndian.Uint32(e[8:]))
		if n > keysAt-at {
			break
		}
		binary.LittleEndian.PutUint64(e[12:], xxhash.Sum64(b[at:at+n]))
		at += n
	}
	put(104, xxhash.Sum64(b[keysAt:accountsAt]))
	put(112, xxhash.Sum64(b[accountsAt:tableAt]))
	put(120, xxhash.Sum64(b[tableAt:]))
	put(checkAt, xxhash.Sum64(b[:checkAt]))
	return b
}

func TestSeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshot")
	var seeds []decoders.Seed
	through := uint64(10)
	for name, c := range map[string]content{
		"nothing": {},
		"keys":    {keys: some(3).keys, ledger: []byte("ledger")},
		"pages":   {heads: some(0).heads[1:3], pages: some(0).pages[1:3], ledger: []byte("ledger")},
		"all":     {heads: some(0).heads[1:2], pages: some(0).pages[1:2], keys: some(2).keys, ledger: []byte("ledger")},
	} {
		m := meta
		m.Through = through
		through++
		write(t, dir, m, c)
		paths, err := List(dir)
		require.NoError(t, err)
		b, err := os.ReadFile(paths[0])
		require.NoError(t, err)
		require.Equal(t, string(b), string(putRight(b)), "it was right")
		seeds = append(seeds, decoders.Seed{Name: name, Args: []any{b}})
	}
	decoders.Seeds(t, "FuzzSnapshot", decoders.Damaged(seeds))
}
