package oncelog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/oncelog/oncelog/wal"
)

// The manifest says which store a directory is. It is written last when a store is created, so a directory that
// has one holds all the rest too, and whatever is missing beside it was lost.
//
//	 0   8  magic "onceman\0"
//	 8   1  version, 1
//	 9   7  reserved, 0
//	16  16  store id, random
//	32   8  hash seed of the index, random
//	40   8  XXH64 of bytes 0 to 39, seed 0
type manifest struct {
	id   [16]byte
	seed uint64
}

const (
	manifestName    = "MANIFEST"
	manifestTmp     = "MANIFEST.tmp"
	manifestMagic   = "onceman\x00"
	manifestVersion = 1
	manifestSize    = 48
)

// newManifest is that of a new store. Where there is no randomness rand.Read ends the process, and returns no error.
func newManifest() (m manifest) {
	var seed [8]byte
	_, _ = rand.Read(m.id[:])
	_, _ = rand.Read(seed[:])
	m.seed = binary.LittleEndian.Uint64(seed[:])
	return m
}

func (m manifest) encode() []byte {
	b := make([]byte, manifestSize)
	copy(b, manifestMagic)
	b[8] = manifestVersion
	copy(b[16:], m.id[:])
	binary.LittleEndian.PutUint64(b[32:], m.seed)
	binary.LittleEndian.PutUint64(b[40:], xxhash.Sum64(b[:40]))
	return b
}

// readManifest reads dir's manifest. Without one the error is fs.ErrNotExist.
func readManifest(dir string) (m manifest, err error) {
	path := filepath.Join(dir, manifestName)
	f, err := os.OpenFile(path, os.O_RDONLY|openNoFollow, 0)
	if err != nil {
		return m, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifestSize+1))
	if err != nil {
		return m, fmt.Errorf("oncelog: %w", err)
	}
	return parseManifest(b, path)
}

func parseManifest(b []byte, path string) (m manifest, err error) {
	damaged := func(offset int64, reason string) error {
		return &CorruptError{File: path, Offset: offset, Reason: reason}
	}
	switch {
	case len(b) < 9 || string(b[:8]) != manifestMagic:
		return m, damaged(0, "not a manifest")
	case b[8] > manifestVersion && (len(b) != manifestSize || manifestSum(b)):
		// A later version may be longer or place its check elsewhere; a flipped bit in the version is told from it
		// by the check that this version knows.
		return m, fmt.Errorf("%w: %s has version %d", ErrTooNew, path, b[8])
	case len(b) != manifestSize:
		return m, damaged(int64(len(b)), fmt.Sprintf("a manifest has %d bytes", manifestSize))
	case !manifestSum(b):
		return m, damaged(40, "the check fails")
	case b[8] != manifestVersion:
		return m, damaged(8, "there is no such version")
	case string(b[9:16]) != "\x00\x00\x00\x00\x00\x00\x00":
		return m, fmt.Errorf("%w: %s uses reserved bytes", ErrTooNew, path)
	}
	copy(m.id[:], b[16:])
	m.seed = binary.LittleEndian.Uint64(b[32:])
	return m, nil
}

func manifestSum(b []byte) bool { return xxhash.Sum64(b[:40]) == binary.LittleEndian.Uint64(b[40:]) }

// write makes the directory a store: whole or not at all.
func (m manifest) write(dir string) error {
	if err := syncAbove(dir); err != nil {
		return err
	}
	tmp := filepath.Join(dir, manifestTmp)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNew(tmp, m.encode()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, manifestName)); err != nil {
		return err
	}
	return wal.SyncDir(dir)
}

// syncAbove makes the names on the way to a directory durable, whoever made them: a process that was killed between
// making one and syncing it leaves a name that a power cut takes, and all that was answered from below it. What this
// process may not read above its store is not of its making.
func syncAbove(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		if err := wal.SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}
