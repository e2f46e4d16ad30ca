package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/oncelog/oncelog/wal"
)

// Names: the snapshot's Through in 20 digits, so that the newest comes last.
const (
	tmpName = "tmp"
	keep    = 2
)

// writeback is how much is written before the disk is told to begin with it. Left to the sync at the end, a snapshot of
// some MiB held up the commits beside it for 2 to 9 ms. As much as the log's own filling writes at a time.
const writeback = 256 << 10

// Writer takes the parts of a snapshot, in the order of its methods here.
type Writer struct {
	f     *os.File
	pace  func(n int) error
	table []byte
	at    int64
	out   int64 // all before it has been given to the disk
	keys  *bufio.Writer
	sum   *xxhash.Digest
	entry []byte
	words []byte
	h     header
}

// Write makes a snapshot in dir, which is made if it is missing, and removes all but the last two. fill writes its
// parts and returns what it is of. pace is asked before each n bytes; its error ends the snapshot. Whatever fails, the
// snapshots that were there stay.
func Write(dir string, pace func(n int) error, fill func(w *Writer) (Meta, error)) (size int64, err error) {
	if err := os.Mkdir(dir, 0o700); err == nil {
		err = wal.SyncDir(filepath.Dir(dir))
		if err != nil {
			return 0, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	tmp := filepath.Join(dir, tmpName)
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	w := &Writer{f: f, pace: pace, at: pagesAt, sum: xxhash.New()}
	m, err := fill(w)
	if err == nil {
		err = w.finish(m)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, filepath.Join(dir, fmt.Sprintf("%020d", m.Through))); err != nil {
		return 0, err
	}
	if err := wal.SyncDir(dir); err != nil {
		return 0, err
	}
	return w.at, Prune(dir, keep, pace)
}

// Page adds a page of the index: 32 KiB. It is stored as it is, which is read the quickest, or, when that is less than
// half as long, as those of its words that are not 0: 2 bytes for the place, 8 for the word.
func (w *Writer) Page(h PageHead, slots []byte) error {
	w.words = w.words[:0]
	for i := 0; i < len(slots) && len(w.words) <= len(slots)/2; i += 8 {
		if word := slots[i : i+8]; binary.LittleEndian.Uint64(word) != 0 {
			w.words = binary.LittleEndian.AppendUint16(w.words, uint16(i/8))
			w.words = append(w.words, word...)
		}
	}
	stored := slots
	if len(w.words) <= len(slots)/2 {
		stored = w.words
	}
	if err := w.pace(len(slots)); err != nil {
		return err
	}
	if _, err := w.f.WriteAt(stored, w.at); err != nil {
		return err
	}
	w.at += int64(len(stored))
	if w.at-w.out >= writeback {
		wal.StartWriteback(w.f, w.out, w.at-w.out)
		w.out = w.at
	}
	w.h.pages += uint64(len(stored))
	w.h.count++
	w.table = append(w.table, h.Shard, h.Depth)
	w.table = binary.LittleEndian.AppendUint16(w.table, h.Count)
	w.table = binary.LittleEndian.AppendUint32(w.table, h.Tag)
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(len(stored)))
	w.table = binary.LittleEndian.AppendUint64(w.table, xxhash.Sum64(stored))
	return nil
}

// Key adds a key that the index keeps whole.
//
//	1  keyspace
//	v  location
//	v  length of the key
//	n  key
func (w *Writer) Key(space byte, key []byte, location uint64) error {
	if w.keys == nil {
		w.keys = bufio.NewWriter(io.MultiWriter(io.NewOffsetWriter(w.f, w.at), w.sum))
	}
	w.entry = append(w.entry[:0], space)
	w.entry = binary.AppendUvarint(w.entry, location)
	w.entry = binary.AppendUvarint(w.entry, uint64(len(key)))
	w.entry = append(w.entry, key...)
	if err := w.pace(len(w.entry)); err != nil {
		return err
	}
	w.h.keys += uint64(len(w.entry))
	_, err := w.keys.Write(w.entry)
	return err
}

// Accounts adds the accounts, and ends the parts.
func (w *Writer) Accounts(b []byte) error {
	if w.keys != nil {
		if err := w.keys.Flush(); err != nil {
			return err
		}
	}
	w.at += int64(w.h.keys)
	w.h.keysCheck = w.sum.Sum64()
	w.h.accounts, w.h.accountsCheck = uint64(len(b)), xxhash.Sum64(b)
	if _, err := w.f.WriteAt(b, w.at); err != nil {
		return err
	}
	w.at += int64(len(b))
	return nil
}

func (w *Writer) finish(m Meta) error {
	w.h.Meta, w.h.tableCheck = m, xxhash.Sum64(w.table)
	if _, err := w.f.WriteAt(w.table, w.at); err != nil {
		return err
	}
	w.at += int64(len(w.table))
	head := make([]byte, pagesAt)
	copy(head, w.h.encode())
	if _, err := w.f.WriteAt(head, 0); err != nil {
		return err
	}
	return w.f.Sync()
}

// List returns the paths of the snapshots in dir, the newest first. There is none if there is no dir.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && e.Name() == fmt.Sprintf("%020d", n) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(paths)))
	return paths, err
}

// Prune removes all snapshots but the n newest. pace is asked before each n bytes of their space are given back.
func Prune(dir string, n int, pace func(n int) error) error {
	paths, err := List(dir)
	if err != nil || len(paths) <= n {
		return err
	}
	for _, path := range paths[n:] {
		if err := wal.RemoveGently(path, func() bool { return pace(writeback) == nil }); err != nil {
			return err
		}
	}
	return nil // a name that comes back after a crash is an older snapshot, and as good as it was
}
