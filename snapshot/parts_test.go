package snapshot

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file whose checks hold and whose parts can't be: no store wrote it.
func TestPartsThatCannotBe(t *testing.T) {
	path, whole := written(t, content{heads: some(0).heads[1:2], pages: some(0).pages[1:2], keys: some(1).keys, ledger: []byte("ledger")})
	pages := binary.LittleEndian.Uint64(whole[80:])
	table := len(whole) - entrySize
	for name, change := range map[string]func(b []byte){
		"a page of another length":      func(b []byte) { b[table+8]-- },
		"a page shorter than its bytes": func(b []byte) { b[table+8] -= wordSize },
		"a word behind the page":        func(b []byte) { b[pagesAt], b[pagesAt+1] = 0xff, 0xff },
		"a location cut short": func(b []byte) {
			for i := range 7 {
				b[int(pagesAt+pages)+1+i] = 0xff
			}
		},
		"a key cut short":      func(b []byte) { b[int(pagesAt+pages)+7] = 0x7f },
		"After behind Through": func(b []byte) { b[40] = 200 },
	} {
		b := append([]byte(nil), whole...)
		change(b)
		require.NoError(t, os.WriteFile(path, putRight(b), 0o600))
		_, _, err := read(path)
		require.ErrorIs(t, err, ErrBad, name)
	}
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	f, err := Open(path, meta.ID)
	require.NoError(t, err)
	no := errors.New("no")
	require.ErrorIs(t, f.Keys(func(byte, []byte, uint64) error { return no }), no)
	require.NoError(t, f.Close())
	require.Error(t, f.ReadPage(0, make([]byte, pageSize)))
	_, err = f.Accounts()
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = Open(path+"1", meta.ID)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What can't be read is an error of the file's: nothing says that it is bad.
func TestASnapshotThatCannotBeRead(t *testing.T) {
	path, _ := written(t, some(1))
	f, err := os.Open(path)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorIs(t, (&File{path: path, f: f}).open(meta.ID), os.ErrClosed)
	_, err = Open(filepath.Dir(path), meta.ID)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrBad)
}
