package wal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Copy gives each segment as it must be on another disk to be the same log through a transaction, which is visible:
// its number, its size, and its bytes. The caller has pinned the log before it chose the transaction. Writers go on
// meanwhile; a failed write does not end it, since what was visible before is still there.
func (l *Log) Copy(through uint64, each func(number uint64, size int64, r io.Reader) error) error {
	all := l.all()
	for _, s := range all[:len(all)-1] { // sealed: the next one is there
		end := s.End()
		if err := each(s.number, end, io.NewSectionReader(s.file, 0, end)); err != nil {
			return err
		}
	}
	s := all[len(all)-1]
	data, err := s.through(through)
	if err != nil {
		return err
	}
	return each(s.number, int64(len(data)), bytes.NewReader(data))
}

// through returns the bytes of a segment up to the end of a transaction's frame, and without a seal: the segment that
// it names may not be there yet.
func (s *Segment) through(number uint64) ([]byte, error) {
	end := s.End()
	if end == 0 {
		return nil, nil
	}
	data, err := s.read(nil)
	if err != nil {
		return nil, err
	}
	data = data[:min(end, int64(len(data)))]
	stop := errors.New("behind what is wanted")
	f, err := s.scanFrames(data, s.first-1, func(f Frame) error {
		if f.Number > number {
			return stop
		}
		return nil
	})
	if f.sealed {
		return data[:f.sealAt], nil
	}
	if err != nil && !errors.Is(err, stop) {
		return nil, err
	}
	return data[:f.end], nil
}

// MaxSegment is the size that no segment reaches.
const MaxSegment = maxOffset

// Place makes a segment of a log that is not open yet from what Copy gave of it, durably, in the log's directory. The
// caller makes the directory's own entries durable when all are there.
func Place(dir string, number uint64, r io.Reader, size int64) error {
	sd := segmentDir(dir, number)
	if err := os.Mkdir(sd, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(sd, segmentFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return SyncDir(sd)
}
