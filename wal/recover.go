package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
)

// Recovery answers one question: the log ends in bytes that are not frames; is that the end of what was written (a
// torn tail, to be cut), or has something been lost that was acknowledged (damage, to be refused)?
//
// Let g be the number of the first frame that is missing or bad, and W the largest syncedThrough that any good
// frame proves, in what lies before g and in what lies behind it. Everything through W was on stable storage once.
// So g <= W is damage. Otherwise nothing at g or behind it was ever acknowledged under SyncAlways, and it is cut.
//
// What is kept is not yet safe: a frame above W may have been read from the page cache, where a killed process
// left it. Serving it ("duplicate") and then losing it in a power cut would break the promise that every answer is
// durable. So each kept frame above W is first written again, the same bytes at the same place (a plain fsync will
// not do: after one that failed the kernel calls the pages clean and writes nothing), and only then does a sync
// mark say so. The order is: set the cut bytes aside, rewrite, sync, then mark and zero the cut bytes, sync, then
// remove what was prepared behind the tail. A crash between any two steps leaves a log that recovers to the same.

// recovery is what was found.
type recovery struct {
	segments []*Segment // those that were read; the last is the tail
	founds   []found
	tailData []byte // of the last of them
	synced   uint64 // W
	junk     int64  // how many bytes behind the tail's end are not zero up to the last that is not
	later    []uint64
	nonce    uint64     // of the tail, as the seal before it says; 0 = no seal before it
	before   []*Segment // those before, which were not read
	dropped  uint64     // segments through this number were dropped
	note     int64      // of the frame that says so
	dropIn   int        // which of segments has the frame that says so
	leavings []uint64   // segments that were dropped and are there still, as directories at least
}

func (r *recovery) tail() (*Segment, *found) {
	i := len(r.segments) - 1
	return r.segments[i], &r.founds[i]
}

// scanLog reads the log in dir from where the owner wants it, hands the transactions to emit and decides between torn
// and damaged.
func scanLog(dir string, id [16]byte, flag int, from Start, add func(*Segment), emit func(Frame) error) (*recovery, error) {
	numbers, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	r := &recovery{synced: from.Synced}
	for len(numbers) > 1 && fileless(dir, numbers[0]) { // dropped, if it is said so below
		r.leavings, numbers = append(r.leavings, numbers[0]), numbers[1:]
	}
	if len(numbers) == 0 {
		return nil, &CorruptError{File: dir, Reason: "the log has no segment, it was born with one"}
	}
	first := numbers[0]
	s, numbers, err := r.skip(dir, numbers, id, flag, from.After, add)
	if err != nil {
		return nil, err
	}
	var buf []byte
	var before *found
	for i, n := range numbers {
		if i > 0 {
			if s, err = openSegment(dir, n, flag); err != nil {
				return nil, err
			}
			if n != before.seal.next { // before it is added: the table would be made to reach up to any number
				s.close()
				return nil, s.Corrupt(0, fmt.Sprintf("segment %d is missing", before.seal.next))
			}
			add(s)
		}
		r.segments = append(r.segments, s)
		if buf, err = s.read(buf); err != nil {
			return nil, err
		}
		if h, ok, tooNew := parseHeader(buf); ok && !tooNew {
			s.first, s.nonce, s.meta = h.first, h.nonce, h.meta
		}
		last := uint64(0)
		if before != nil {
			last = before.last
		}
		f, err := s.scanFrames(buf, last, func(f Frame) error {
			if f.Payload != nil && f.Number <= from.After {
				return nil
			}
			return emit(f)
		})
		if err != nil {
			return nil, err
		}
		if err := f.fits(s, id, before); err != nil {
			return nil, err
		}
		r.founds = append(r.founds, f)
		r.synced = max(r.synced, f.synced)
		if f.dropped > r.dropped {
			r.dropped, r.note, r.dropIn = f.dropped, f.note, i
		}
		if before != nil {
			r.nonce = before.seal.nextNonce
		}
		s.end.Store(f.end)
		if !f.sealed {
			r.tailData, r.later = buf, numbers[i+1:]
			if err := r.judge(dir, flag); err != nil {
				return nil, err
			}
			return r, r.judgeFront(dir, first, from)
		}
		s.retired.Store(true)
		before = &r.founds[i]
	}
	s, f := r.tail()
	return nil, s.Corrupt(f.end, fmt.Sprintf("segment %d, which this one's seal names, is missing", f.seal.next))
}

// skip opens the segments whose transactions all come before what is wanted, and returns the first to be read and
// the numbers from there on. Of the others only the headers are read: the last transaction of a segment is the one
// before the next one's first.
func (r *recovery) skip(dir string, numbers []uint64, id [16]byte, flag int, after uint64, add func(*Segment)) (*Segment, []uint64, error) {
	s, err := openSegment(dir, numbers[0], flag)
	if err != nil {
		return nil, nil, err
	}
	add(s)
	if after == 0 {
		return s, numbers, nil
	}
	if ok, err := s.readHeader(id); err != nil {
		return nil, nil, err
	} else if !ok {
		return s, numbers, nil // which scanning it judges
	}
	if s.first > after+1 {
		return nil, nil, fmt.Errorf("%w: transaction %d, %s begins with %d", ErrGap, after+1, s.path, s.first)
	}
	// A number that is left out is for scanning to judge, which knows from the seal what must follow: were it passed
	// over, the locations in a lost segment would be taken for those of records that were dropped.
	var ahead []looked
	defer func() {
		for _, a := range ahead {
			if a.s != nil {
				a.s.close()
			}
		}
	}()
	for len(numbers) > 1 && numbers[1] == numbers[0]+1 {
		if len(ahead) == 0 {
			ahead = lookAhead(dir, numbers[1:], id, flag)
		}
		next, ok, err := ahead[0].s, ahead[0].ok, ahead[0].err
		ahead = ahead[1:]
		if next == nil {
			break // it can't be opened; scanning comes across it again
		}
		if err != nil {
			next.close()
			return nil, nil, err
		}
		if !ok || next.first > after {
			// Also the segment in which that transaction lies is read: a drop-through carries its number when it was
			// written after it, and after the snapshot that does not know it.
			next.close()
			break
		}
		fi, err := s.file.Stat()
		if err != nil {
			next.close()
			return nil, nil, err
		}
		s.end.Store(fi.Size())
		s.unread = true
		s.retired.Store(true)
		r.before = append(r.before, s)
		add(next)
		s, numbers = next, numbers[1:]
	}
	return s, numbers, nil
}

// looked is a segment whose header was read. None could be opened if s is nil.
type looked struct {
	s   *Segment
	ok  bool
	err error
}

// lookAhead opens the first few of the segments and reads their headers. When nothing of a log is in memory each header
// is waited for, and a disk serves several as fast as one. What they say is judged in order.
func lookAhead(dir string, numbers []uint64, id [16]byte, flag int) []looked {
	const most, hands = 64, 8
	all := make([]looked, min(most, len(numbers)))
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(hands, len(all)) {
		wait.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all); i = next.Add(1) - 1 {
				s, err := openSegment(dir, numbers[i], flag)
				if err != nil {
					continue
				}
				ok, err := s.readHeader(id)
				all[i] = looked{s, ok, err}
			}
		})
	}
	wait.Wait()
	return all
}

// readHeader reads the segment's header alone and reports whether it is whole.
func (s *Segment) readHeader(id [16]byte) (ok bool, err error) {
	var b [headerEntry]byte
	if n, err := s.file.ReadAt(b[:], 0); err != nil && (err != io.EOF || n == len(b)) {
		return false, err
	}
	h, ok, tooNew := parseHeader(b[:])
	if tooNew {
		return false, fmt.Errorf("%w: %s: unknown segment format", ErrTooNew, s.path)
	}
	if !ok {
		return false, nil
	}
	f := found{header: h, headerOK: true}
	s.first, s.nonce, s.meta = h.first, h.nonce, h.meta
	return true, f.own(s, id)
}

// judgeFront decides whether what is missing before the first segment was dropped, and what was dropped and is there
// still.
func (r *recovery) judgeFront(dir string, first uint64, from Start) error {
	if from.Dropped > r.dropped {
		r.dropped, r.note = from.Dropped, from.Note
	}
	for _, n := range r.leavings {
		if n > r.dropped {
			return &CorruptError{File: filepath.Join(segmentDir(dir, n), segmentFile), Reason: "the segment's file is missing"}
		}
	}
	if first > 1 && r.dropped < first-1 {
		return &CorruptError{File: filepath.Join(segmentDir(dir, first), segmentFile), Reason: "segments before this one are missing, and none says that they were dropped"}
	}
	for _, s := range append(r.before, r.segments...) {
		if s.number <= r.dropped {
			r.leavings = append(r.leavings, s.number)
		}
	}
	return nil
}

// fits checks a whole header against what is known from elsewhere.
func (f *found) fits(s *Segment, id [16]byte, before *found) error {
	h := &f.header
	switch {
	case !f.headerOK && before == nil:
		// The first segment's header was durable before the store existed.
		return s.Corrupt(0, f.reason)
	case !f.headerOK:
		return nil
	case f.own(s, id) != nil:
		return f.own(s, id)
	case before != nil && (h.nonce != before.seal.nextNonce || h.first != before.last+1):
		return s.Corrupt(40, "the segment is not the one that the seal before it names")
	case s.number == 1 && h.first != 1:
		return s.Corrupt(48, "frames before this segment are missing")
	}
	return nil
}

// own checks a whole header against the store and the directory.
func (f *found) own(s *Segment, id [16]byte) error {
	switch h := &f.header; {
	case h.id != id:
		return s.Corrupt(16, "the segment belongs to another store")
	case h.number != s.number:
		return s.Corrupt(32, fmt.Sprintf("this is segment %d", h.number))
	}
	return nil
}

// judge decides about the tail and what lies behind it.
func (r *recovery) judge(dir string, flag int) error {
	s, f := r.tail()
	nonce, first := s.nonce, s.first
	if !f.headerOK {
		nonce, first = r.nonce, f.last+1
	}
	rest := r.tailData[f.end:]
	g := f.last + 1
	proven := max(r.synced, searchFrames(rest, nonce, first, g)) // W, before g and behind it
	for _, n := range r.later {
		// Whatever lies behind the tail was prepared and never used; a header there says that the seal before it
		// was durable, and with it all before the header's first frame. A frame says that the log went on.
		later, err := openSegment(dir, n, flag)
		if errors.Is(err, ErrCorrupt) {
			continue // a directory without its file: the preparation was interrupted
		}
		if err != nil {
			return err
		}
		data, err := later.read(nil)
		later.close()
		if err != nil {
			return err
		}
		if h, ok, tooNew := parseHeader(data); tooNew {
			return fmt.Errorf("%w: %s: unknown segment format", ErrTooNew, later.path)
		} else if ok {
			proven = max(proven, h.first-1)
			if anyFrame(data[headerEntry:], h.nonce, h.first) {
				return s.Corrupt(f.end, fmt.Sprintf("%s, but segment %d behind it holds frames", f.reason, n))
			}
		}
	}
	if g <= proven {
		return s.Corrupt(f.end, fmt.Sprintf("%s: frame %d, and frames through %d were on stable storage", f.reason, g, proven))
	}
	for i := len(rest) - 1; i >= 0; i-- {
		if rest[i] != 0 {
			r.junk = int64(i) + 1
			break
		}
	}
	return nil
}

// recover reads the log and leaves it clean: every frame that was handed to replay durable, nothing behind the
// last. A log that was closed is found clean, and not a byte is written.
func (l *Log) recover(from Start, replay func(Frame) error) error {
	flag := os.O_RDWR
	if l.o.ReadOnly {
		flag = os.O_RDONLY
	}
	wait := func() error { return nil }
	if from.Wait != nil {
		wait = sync.OnceValue(from.Wait)
	}
	add := func(s *Segment) {
		s.mapLater(&l.readers)
		l.add(s)
	}
	r, err := scanLog(l.dir, l.o.ID, flag, from, add, func(f Frame) error {
		if err := wait(); err != nil {
			return err
		}
		f.log = l
		return replay(f)
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		return err
	}
	s, f := r.tail()
	l.tail = s
	if l.o.ReadOnly {
		err = r.syncReadOnly()
	} else {
		err = r.repair(l)
	}
	if err != nil {
		return err
	}
	if s.End() == f.end { // else a mark was written, and synced
		l.tailOwn = bytes.Clone(r.tailData[f.ownFrom:f.end])
	}
	l.front.through = r.dropped
	for _, s := range l.removeThrough(r.dropped) {
		s.close()
	}
	l.next = f.last + 1
	l.synced.Store(f.last)
	l.visible.Store(f.last)
	return nil
}

// syncReadOnly makes what was read durable as far as a reader can. Beside a running owner the last frames may not
// have reached the disk yet, and an answer that rests on them would be worth nothing.
func (r *recovery) syncReadOnly() error {
	for i := len(r.segments) - 1; i >= 0; i-- {
		if r.founds[i].last <= r.synced {
			return nil
		}
		if err := r.segments[i].file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) repair(l *Log) error {
	s, f := r.tail()
	if !f.headerOK || f.last > r.synced || r.junk > 0 || len(r.later) > 0 {
		if err := r.repairTail(l, s, f); err != nil {
			return err
		}
	}
	if len(r.leavings) == 0 {
		return nil
	}
	// What says that they were dropped carries no transaction's number, so nothing has proven yet that it is durable.
	if r.dropIn < len(r.segments) {
		if err := rewrite(r.segments[r.dropIn], r.segments[r.dropIn].End()); err != nil {
			return err
		}
	}
	sort.Slice(r.leavings, func(i, j int) bool { return r.leavings[i] < r.leavings[j] })
	for _, n := range r.leavings {
		if err := removeSegment(l.dir, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) repairTail(l *Log, s *Segment, f *found) error {
	if r.junk > 0 {
		if err := setAside(l.dir, s.number, f.end, r.tailData[f.end:][:r.junk]); err != nil {
			// What is set aside is for a person who wonders; it is not needed. A full disk must not keep a store shut.
			if !noSpace(err) {
				return err
			}
		}
	}
	for i := len(r.segments) - 1; i >= 0; i-- {
		// A tail without a header does not prove that the seal before it was synced.
		if r.founds[i].last <= r.synced && (f.headerOK || i < len(r.segments)-2) {
			break
		}
		if err := rewrite(r.segments[i], r.founds[i].end); err != nil {
			return err
		}
		if err := SyncDir(filepath.Dir(r.segments[i].path)); err != nil {
			return err
		}
	}
	if err := SyncDir(l.dir); err != nil {
		return err
	}
	if !f.headerOK || f.last > r.synced || r.junk > 0 {
		if err := r.mark(l); err != nil {
			return err
		}
	}
	for i := len(r.later) - 1; i >= 0; i-- {
		if err := removeSegment(l.dir, r.later[i]); err != nil {
			return err
		}
	}
	return nil
}

// mark writes behind the tail's last frame that all before is durable, and zeros over what was cut. A tail whose
// header never arrived gets one first.
func (r *recovery) mark(l *Log) error {
	s, f := r.tail()
	var b []byte
	if !f.headerOK {
		s.nonce = r.nonce
		b = appendEntry(b, s.header(l.o.ID, f.last+1, l.o.Meta()))
	}
	if r.dropped > 0 {
		// What is cut may have been the frame that says so, which a snapshot knows too, for as long as it is there.
		b = appendEntry(b, appendFrame(nil, s.nonce, s.first, f.last, f.last, dropFrame(r.dropped, r.note)))
	}
	b = appendEntry(b, appendFrame(nil, s.nonce, s.first, f.last, f.last, []byte{kindSyncMark}))
	end := f.end + int64(len(b))
	if pad := r.junk - int64(len(b)); pad > 0 {
		b = append(b, make([]byte, pad)...)
	}
	if _, err := s.file.WriteAt(b, f.end); err != nil {
		if noSpace(err) && f.headerOK {
			// The frames are durable, which is what matters; without a mark the next opening rewrites them again.
			return nil
		}
		return full(err)
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.end.Store(end)
	return nil
}

// rewrite writes the first n bytes of the segment over themselves and syncs them. They are read once more for that, and
// must be the same: after a failed sync the cache may have shown what the disk does not have, until it looked again.
func rewrite(s *Segment, n int64) error {
	if n == 0 {
		return s.file.Sync()
	}
	data, err := s.read(nil)
	if err != nil {
		return err
	}
	f, err := s.scanFrames(data, s.first-1, func(Frame) error { return nil })
	if err != nil {
		return err
	}
	if f.end != n {
		return fmt.Errorf("%s at offset %d: the file changed since it was read, as after a failed write, when the cache and the disk differ; open the store again", s.path, f.end)
	}
	if _, err := s.file.WriteAt(data[:n], 0); err != nil {
		return err
	}
	return s.file.Sync()
}

// Torn tails are kept in this directory beside the segments: the last few, each up to a bound.
const (
	tornDir  = "torn"
	tornKeep = 3
	tornMax  = 1 << 20
)

// setAside keeps the bytes that are about to be cut.
func setAside(dir string, segment uint64, offset int64, b []byte) (err error) {
	td := filepath.Join(dir, tornDir)
	if err := os.Mkdir(td, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	f, err := os.OpenFile(filepath.Join(td, fmt.Sprintf("%020d-%d", segment, offset)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b[:min(len(b), tornMax)])
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	entries, err := os.ReadDir(td)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		at   int64
	}
	var files []aged
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			files = append(files, aged{e.Name(), fi.ModTime().UnixNano()})
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].at > files[j].at })
	for _, f := range files[min(tornKeep, len(files)):] {
		if err := os.Remove(filepath.Join(td, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// Verify reads the log back and checks every frame that was committed when it was called. Writers go on meanwhile.
func (l *Log) Verify(check func(Frame) error) error {
	defer l.Pin()()
	through, all := l.Visible(), l.all()
	var buf []byte
	for i, s := range all {
		end := s.End() // loaded first: what is written before it is set is safe to look at
		if end == 0 || s.first > through+1 {
			continue
		}
		var err error
		if buf, err = s.read(buf); err != nil {
			return err
		}
		if int64(len(buf)) < end {
			return s.Corrupt(int64(len(buf)), "the file is shorter than what was written to it")
		}
		buf = buf[:end]
		f, err := s.scanFrames(buf, s.first-1, check)
		if err != nil {
			return err
		}
		if f.headerOK && f.header.nonce != s.nonce {
			return s.Corrupt(40, "the header changed since the segment was opened")
		}
		// What comes behind the last commit may have failed since, or be a mark whose sync failed, and a disk whose sync
		// has failed may not have it.
		gone := i == len(all)-1 && f.last >= through
		if f.end != end && !(s.unread && f.sealed) && !gone {
			return s.Corrupt(f.end, f.reason)
		}
	}
	return nil
}
