package snapshot

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
)

// File is an open snapshot. ReadPage may be called from any goroutine.
type File struct {
	Meta
	path  string
	f     *os.File
	h     header
	table []byte
	at    []int64 // of each page
}

// Open reads the header and the table of a snapshot of a store. The error is ErrBad, ErrTooNew, or that of the file.
func Open(path string, id [16]byte) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &File{path: path, f: f}
	if err := s.open(id); err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

// most bounds the parts of a file before they are believed: more pages, or longer parts, than the file is long.
func (s *File) open(id [16]byte) error {
	fi, err := s.f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, headerSize)
	if n, err := s.f.ReadAt(b, 0); err != nil && err != io.EOF {
		return err
	} else if s.h, err = parseHeader(b[:n], s.path); err != nil {
		return err
	}
	s.Meta = s.h.Meta
	if s.ID != id {
		return s.bad("it is of another store")
	}
	most := uint64(fi.Size())
	if s.h.pages > most || s.h.count > most/entrySize || s.h.keys > most || s.h.accounts > most ||
		uint64(s.Size()) != most || s.After > s.Through {
		return s.bad("its parts do not make up its size")
	}
	s.table = make([]byte, s.h.count*entrySize)
	if _, err := s.f.ReadAt(s.table, int64(most)-int64(len(s.table))); err != nil {
		return err
	}
	if xxhash.Sum64(s.table) != s.h.tableCheck {
		return s.bad("the table's check fails")
	}
	end := int64(pagesAt)
	for i := range s.Pages() {
		n := s.stored(i)
		if n > pageSize || n < pageSize && n%wordSize != 0 {
			return s.bad("a page of no possible length")
		}
		s.at = append(s.at, end)
		end += n
	}
	if end != pagesAt+int64(s.h.pages) {
		return s.bad("its pages do not make up their size")
	}
	return nil
}

func (s *File) bad(reason string) error { return fmt.Errorf("%w: %s: %s", ErrBad, s.path, reason) }

// Close gives the file up.
func (s *File) Close() error { return s.f.Close() }

// Size returns the file's size.
func (s *File) Size() int64 {
	return int64(pagesAt + s.h.pages + s.h.keys + s.h.accounts + s.h.count*entrySize)
}

// Pages returns how many pages there are.
func (s *File) Pages() int { return int(s.h.count) }

// stored returns how many bytes a page has in the file.
func (s *File) stored(i int) int64 { return int64(binary.LittleEndian.Uint32(s.table[i*entrySize+8:])) }

// Head returns what the table says of a page.
func (s *File) Head(i int) PageHead {
	e := s.table[i*entrySize:]
	return PageHead{Shard: e[0], Depth: e[1], Count: binary.LittleEndian.Uint16(e[2:]), Tag: binary.LittleEndian.Uint32(e[4:])}
}

// ReadPage reads page i into b, which is as long as a page and all 0, and checks it.
func (s *File) ReadPage(i int, b []byte) error {
	stored := b
	if n := s.stored(i); n < pageSize {
		stored = make([]byte, n)
	}
	if _, err := s.f.ReadAt(stored, s.at[i]); err != nil {
		return err
	}
	if xxhash.Sum64(stored) != binary.LittleEndian.Uint64(s.table[i*entrySize+12:]) {
		return s.bad(fmt.Sprintf("the check of page %d fails", i))
	}
	if len(stored) == len(b) {
		return nil
	}
	for ; len(stored) > 0; stored = stored[wordSize:] {
		at := int(binary.LittleEndian.Uint16(stored)) * 8
		if at >= len(b) {
			return s.bad(fmt.Sprintf("a word of page %d lies behind its end", i))
		}
		copy(b[at:], stored[2:wordSize])
	}
	return nil
}

// part reads a checked part of the file.
func (s *File) part(at, n, check uint64, what string) ([]byte, error) {
	b := make([]byte, n)
	if _, err := s.f.ReadAt(b, int64(at)); err != nil && err != io.EOF {
		return nil, err
	}
	if xxhash.Sum64(b) != check {
		return nil, s.bad("the check of the " + what + " fails")
	}
	return b, nil
}

// Keys gives each key that the index keeps whole. The key is valid until each returns.
func (s *File) Keys(each func(space byte, key []byte, location uint64) error) error {
	b, err := s.part(pagesAt+s.h.pages, s.h.keys, s.h.keysCheck, "keys")
	if err != nil {
		return err
	}
	for len(b) > 0 {
		space := b[0]
		location, n := binary.Uvarint(b[1:])
		if n <= 0 {
			return s.bad("a key's location is cut short")
		}
		b = b[1+n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return s.bad("a key is cut short")
		}
		if err := each(space, b[n:n+int(size)], location); err != nil {
			return err
		}
		b = b[n+int(size):]
	}
	return nil
}

// Accounts returns the bytes of the accounts.
func (s *File) Accounts() ([]byte, error) {
	return s.part(pagesAt+s.h.pages+s.h.keys, s.h.accounts, s.h.accountsCheck, "accounts")
}
