package oncelog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"

	"github.com/oncelog/oncelog/wal"
)

// A backup is a stream: a head, the segments of the log up to a transaction, an end. All numbers little-endian.
//
//	 0   8  magic "oncebak\0"
//	 8   1  version, 1
//	 9   7  reserved, 0
//	16  48  MANIFEST
//
//	each segment:  1  1
//	               8  number
//	               8  size
//	               n  the file's bytes
//	the end:       1  0
//	               8  number of the last transaction
//	               8  XXH64 of all before it
//
// A segment's bytes have their checks, so damage is found with or without the end; the end says that nothing is
// missing.
const (
	backupMagic   = "oncebak\x00"
	backupVersion = 1
	backupHead    = 16 + manifestSize
	backupSegment = 1
	backupEnd     = 0
)

// Backup writes a copy of the store as of one moment to w, while reads and writes go on. What is dropped meanwhile
// keeps its space until Backup returns. A store restored from it forgets what came later, and those keys run again.
// Close ends it with ErrClosed.
func (s *Store) Backup(w io.Writer) error {
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	defer s.log.Pin()()
	sum := xxhash.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10)
	head := make([]byte, 16, backupHead)
	copy(head, backupMagic)
	head[8] = backupVersion
	head = append(head, manifest{id: s.id, seed: s.seed}.encode()...)
	if _, err := out.Write(head); err != nil {
		return fmt.Errorf("oncelog: backup: %w", err)
	}
	through := s.log.Visible()
	err := s.log.Copy(through, func(number uint64, size int64, r io.Reader) error {
		b := binary.LittleEndian.AppendUint64([]byte{backupSegment}, number)
		if _, err := out.Write(binary.LittleEndian.AppendUint64(b, uint64(size))); err != nil {
			return err
		}
		n, err := io.Copy(out, untilClosed{s, r})
		if err == nil && n != size {
			err = fmt.Errorf("segment %d has %d of %d bytes", number, n, size)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("oncelog: backup: %w", err)
	}
	if _, err := out.Write(binary.LittleEndian.AppendUint64([]byte{backupEnd}, through)); err != nil {
		return fmt.Errorf("oncelog: backup: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("oncelog: backup: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, sum.Sum64())); err != nil {
		return fmt.Errorf("oncelog: backup: %w", err)
	}
	return nil
}

// untilClosed ends a reader when the store is being closed.
type untilClosed struct {
	s *Store
	r io.Reader
}

func (u untilClosed) Read(p []byte) (int, error) {
	if u.s.gate.shut.Load() {
		return 0, ErrClosed
	}
	return u.r.Read(p)
}

// restoring is a file in a directory that is being restored. With it and without a manifest, nobody takes what is
// there for a store, or for a place to create one.
const restoring = "RESTORING"

// Restore makes the store in dir from a backup, whole or not at all. dir must be missing or empty. What a restore that
// was killed leaves does not open: remove it and restore again.
func Restore(dir string, r io.Reader) (err error) {
	dir = filepath.Clean(dir)
	exists, err := checkDir(dir)
	if err != nil {
		return err
	}
	if exists {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("oncelog: %w", err)
		}
		for _, e := range entries {
			if name := e.Name(); name != "lost+found" {
				return fmt.Errorf("%w: %s holds %q; restore into an empty directory", ErrForeign, dir, name)
			}
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("oncelog: %w", err)
	}
	lock, err := lockDir(dir, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if err := restore(dir, r); err != nil {
		for _, name := range []string{walName, manifestTmp, manifestName, restoring, lockName} {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
		}
		if !exists {
			err = errors.Join(err, os.Remove(dir))
		}
		return fmt.Errorf("oncelog: restore %s: %w", dir, err)
	}
	return nil
}

// ErrBackup: what was given to Restore is no whole backup.
var ErrBackup = errors.New("oncelog: not a whole backup")

func restore(dir string, r io.Reader) error {
	in := &summed{r: bufio.NewReaderSize(r, 256<<10), sum: xxhash.New()}
	head := make([]byte, backupHead)
	if _, err := io.ReadFull(in, head); err != nil {
		return broken(err)
	}
	switch {
	case string(head[:8]) != backupMagic:
		return fmt.Errorf("%w: it begins with something else", ErrBackup)
	case head[8] > backupVersion || string(head[9:16]) != "\x00\x00\x00\x00\x00\x00\x00":
		return fmt.Errorf("%w: a backup of version %d", ErrTooNew, head[8])
	}
	m, err := parseManifest(head[16:], "the backup's MANIFEST")
	if err != nil {
		return err
	}
	if err := writeNew(filepath.Join(dir, restoring), nil); err != nil {
		return err
	}
	walDir := filepath.Join(dir, walName)
	if err := os.Mkdir(walDir, 0o700); err != nil {
		return err
	}
	if err := wal.SyncDir(dir); err != nil {
		return err
	}
	through, err := restoreSegments(walDir, in)
	if err != nil {
		return err
	}
	// Read as an opening would, so that what becomes a store is one.
	o, err := (&Options{ReadOnly: true}).withDefaults()
	if err != nil {
		return err
	}
	log, err := wal.Open(walDir, o.walOptions(m, nil, nil, nil), wal.Start{Synced: through}, func(wal.Frame) error { return nil })
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	if err := m.write(dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, restoring)); err != nil {
		return err
	}
	return wal.SyncDir(dir)
}

// restoreSegments writes the segments and returns the number of the last transaction.
func restoreSegments(walDir string, in *summed) (through uint64, err error) {
	var b [16]byte
	for last := uint64(0); ; {
		if _, err := io.ReadFull(in, b[:1]); err != nil {
			return 0, broken(err)
		}
		switch b[0] {
		case backupSegment:
			if _, err := io.ReadFull(in, b[:]); err != nil {
				return 0, broken(err)
			}
			number, size := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
			if size > wal.MaxSegment {
				return 0, fmt.Errorf("%w: a segment of %d bytes", ErrBackup, size)
			}
			// The log may have left numbers out, which the opening below will judge. One that has been here would be in the
			// way of its own file.
			if number <= last {
				return 0, fmt.Errorf("%w: segment %d comes after segment %d", ErrBackup, number, last)
			}
			last = number
			if err := wal.Place(walDir, number, io.LimitReader(in, int64(size)), int64(size)); err != nil {
				return 0, broken(err)
			}
		case backupEnd:
			if _, err := io.ReadFull(in, b[:8]); err != nil {
				return 0, broken(err)
			}
			want := in.sum.Sum64()
			if _, err := io.ReadFull(in.r, b[8:]); err != nil {
				return 0, broken(err)
			}
			if binary.LittleEndian.Uint64(b[8:]) != want {
				return 0, fmt.Errorf("%w: its check fails", ErrBackup)
			}
			return binary.LittleEndian.Uint64(b[:]), wal.SyncDir(walDir)
		default:
			return 0, fmt.Errorf("%w: an unknown part", ErrBackup)
		}
	}
}

// summed hashes what is read through it.
type summed struct {
	r   io.Reader
	sum hash.Hash64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	_, _ = s.sum.Write(p[:n])
	return n, err
}

// broken says of a stream that ends too early that it does.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrBackup)
	}
	return err
}

// writeNew writes a file that must not exist, durably but for its name.
func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|openNoFollow, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: %w", path, err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
