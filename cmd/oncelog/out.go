package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/oncelog/oncelog"
)

// An outFile is the FILE of --out. What it should be is recorded in the store,
// in the transactions that record the keys; FILE follows. The record is in one of
// three phases:
//
//	finished  the run ended. FILE is exactly as recorded.
//	begun     a new run began, and nothing of it is recorded. FILE is as recorded,
//	          plus what that run wrote. The record still describes the run before.
//	running   FILE is as recorded, plus what came after. The record describes the
//	          run so far: its keys, how much it read and what that hashes to.
//
// The crash walk of a run, each effect durable before the next one:
//
//  1. FILE is created, empty.          Found again empty and unknown: fine.
//  2. begun is recorded.               FILE may now grow; a start cuts it.
//  3. FILE is written and synced.      A start cuts it.
//  4. running, with the batch's keys.  A start reads as many bytes again, and
//     makes sure that they are the same.
//  5. 3 and 4 again and again.
//  6. finished, with the last keys.
//
// Without step 2, a run that was killed in step 3 after another run's step 6 would
// leave a FILE that looks as if somebody had appended to it.
//
// A process may be killed after step 6, before its caller hears of the success,
// and be started again with the same input. For lines with a key that is a run
// like any other. Its lines without one would come twice. So a new run that has
// neither met a key that the last run did not record, nor read more than that run
// did, is in doubt: it writes to FILE, but records nothing. If the input ends where
// the last one's did and hashes to the same, it was that run; what it wrote is cut
// off again. Otherwise it is a new run, and what it wrote becomes its first batch.
// FILE itself holds what is in doubt because memory has no room for it, and a
// temporary file would have to be cleaned up after a kill.
//
// FILE is known by its path and the digest of its content. Its inode is compared
// only within a run: a FILE put back from a copy has another one and is as good.
type outFile struct {
	st   *oncelog.Store
	keys string      // the run's keySpec
	path string      // absolute, without symbolic links
	f    *os.File    // nil: not there yet
	info os.FileInfo // of f when it was found, or nil
	rec  outRecord   // as the store has it

	size    int64     // of FILE, with what is not recorded yet
	sum     hash.Hash // of FILE's bytes up to size
	noEnd   bool      // FILE's last line has no newline
	read    progress  // of this run up to the last batch, but for its digest
	readSum hash.Hash // that digest
	inDoubt bool      // whether this is the last run again
}

type outRecord struct {
	Version int      `json:"v"`
	Phase   string   `json:"phase"`
	Length  int64    `json:"length"` // of FILE
	Digest  []byte   `json:"digest"` // SHA-256 of FILE up to there
	Run     progress `json:"run"`    // begun: the run before
}

// progress is how far a run came, and with what.
type progress struct {
	Keys   string `json:"keys"`
	Bytes  int64  `json:"bytes"`
	Digest []byte `json:"digest"` // SHA-256 of the bytes read
	Counts counts `json:"counts"`
}

const (
	outVersion = 1

	finished = "finished"
	begun    = "begun"
	running  = "running"
)

// findOut finds the one name under which FILE is recorded, opens FILE if it is
// there, and refuses what can be refused without the store. It changes nothing.
func findOut(name, storeDir string, keys keySpec) (_ *outFile, err error) {
	o := &outFile{keys: keys.String(), sum: sha256.New(), readSum: sha256.New()}
	if o.path, err = filepath.Abs(name); err != nil {
		return nil, fmt.Errorf("--out %s: %w; give an absolute path", name, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(o.path))
	if err != nil {
		// FILE's durability must not hang on directories made, and perhaps
		// mistyped, here.
		return nil, fmt.Errorf("--out %s: %w; make the directory first", name, err)
	}
	o.path = filepath.Join(dir, filepath.Base(o.path))
	switch fi, err := os.Lstat(o.path); {
	case errors.Is(err, fs.ErrNotExist):
		return o, outside(o.path, name, storeDir)
	case err != nil:
		return nil, fmt.Errorf("--out: %w; choose a place that can be read", err)
	case fi.Mode()&fs.ModeSymlink != 0:
		if o.path, err = filepath.EvalSymlinks(o.path); err != nil {
			return nil, fmt.Errorf("--out %s is a symbolic link that leads nowhere; remove it, or name the file itself", name)
		}
	}
	// Before it is opened: opening a pipe waits for its other end.
	if o.info, err = os.Stat(o.path); err != nil {
		return nil, fmt.Errorf("--out: %w; choose a place that can be read", err)
	}
	if !o.info.Mode().IsRegular() {
		return nil, fmt.Errorf("--out %s is not a regular file; name one, or leave out --out and redirect", name)
	}
	if err := outside(o.path, name, storeDir); err != nil {
		return nil, err
	}
	if o.info.Size() > 0 && noStore(storeDir) {
		return nil, o.unknown()
	}
	if o.f, err = os.OpenFile(o.path, os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("--out: %w; FILE has to be readable and writable", err)
	}
	return o, nil
}

// outside refuses a FILE in the directory that belongs to the store.
func outside(path, name, storeDir string) error {
	dir, err := filepath.Abs(storeDir)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("--out %s is inside --dir, which belongs to the store; choose a place outside", name)
	}
	return nil
}

// noStore says that opening dir would create a store.
func noStore(dir string) bool {
	names, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0
}

// open checks FILE against its record. Until it has found nothing wrong, it
// changes neither.
func (o *outFile) open(ctx context.Context, st *oncelog.Store) error {
	o.st = st
	known, err := o.load()
	if err != nil {
		return err
	}
	if o.f == nil {
		if o.rec.Length > 0 {
			return o.refuse("is gone, but %d bytes of it are recorded; put it back", o.rec.Length)
		}
		// The mode less the umask, as a shell's > has it.
		if o.f, err = os.OpenFile(o.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
			return fmt.Errorf("--out: %w; choose a place that can be written to", err)
		}
		killpoint()
	}
	fi, err := o.f.Stat()
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	switch o.size = fi.Size(); {
	case !known && o.size > 0:
		return o.unknown()
	case o.size < o.rec.Length:
		return o.refuse("has %d bytes, but %d are recorded; put the rest back", o.size, o.rec.Length)
	case known && o.rec.Phase == finished && o.size > o.rec.Length:
		return o.refuse("has %d bytes, but %d are recorded, and no run was under way: somebody else wrote to it; remove what was added", o.size, o.rec.Length)
	case o.rec.Phase == running && o.rec.Run.Keys != o.keys:
		return o.refuse("has an unfinished run whose key is %s, not %s; finish that run first", o.rec.Run.Keys, o.keys)
	}
	// All of it is read. A sample would be faster and miss an edit; a run that
	// appends to a large file pays about a second a gigabyte.
	last := &lastByte{'\n'}
	if _, err := io.Copy(io.MultiWriter(o.sum, last), io.NewSectionReader(ctxReaderAt{ctx, o.f}, 0, o.rec.Length)); err != nil {
		return fmt.Errorf("%s: %w; nothing was changed", o.path, err)
	}
	if !bytes.Equal(o.sum.Sum(nil), o.rec.Digest) {
		return o.refuse("has other content than is recorded; put back what was there")
	}
	o.noEnd = last.b != '\n'

	if o.rec.Length == 0 {
		// A power cut must not take the name of a file whose length is recorded.
		if err = o.f.Sync(); err == nil {
			err = syncDir(filepath.Dir(o.path))
		}
		if err != nil {
			return fmt.Errorf("--out: %w; run the same command again", err)
		}
	}
	switch {
	case o.rec.Phase == running:
		return nil // resume has still to see the input
	case o.rec.Phase == begun:
		err = o.cut()
	default:
		rec := o.rec
		rec.Phase = begun
		err = o.set(rec, nil)
	}
	o.read.Keys = o.keys
	o.inDoubt = o.rec.Run.Bytes > 0 && o.rec.Run.Keys == o.keys
	return err
}

// refuse says that FILE, or what the command asks of it, doesn't fit its record.
func (o *outFile) refuse(format string, args ...any) error {
	return fmt.Errorf("%s %s, or use another --out; nothing was changed", o.path, fmt.Sprintf(format, args...))
}

func (o *outFile) unknown() error {
	return o.refuse("is not empty, and this store knows nothing of it; move it away")
}

// stateKey is where FILE's record is. Paths may be longer than a key.
func (o *outFile) stateKey() []byte {
	if key := "dedup/out/" + o.path; len(key) <= maxKey {
		return []byte(key)
	}
	sum := sha256.Sum256([]byte(o.path))
	return []byte("dedup/out#" + hex.EncodeToString(sum[:]))
}

// load reads FILE's record; without one, it is that of an empty file.
func (o *outFile) load() (known bool, err error) {
	o.rec = outRecord{Version: outVersion, Digest: o.sum.Sum(nil)}
	var v []byte
	err = o.st.View(func(tx *oncelog.Tx) (err error) {
		v, known, err = tx.Get(o.stateKey())
		return err
	})
	if err != nil || !known {
		return false, err
	}
	var rec outRecord
	if err := json.Unmarshal(v, &rec); err != nil {
		return false, fmt.Errorf("the store's record of %s can't be read: %w; use another --dir and --out", o.path, err)
	}
	if rec.Version != outVersion {
		return false, fmt.Errorf("the store's record of %s has version %d; use the newer oncelog that wrote it", o.path, rec.Version)
	}
	o.rec = rec
	return true, nil
}

// set records FILE, with the keys of the lines in it. FILE is durable.
func (o *outFile) set(rec outRecord, fresh []string) error {
	v, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	err = o.st.Update(func(tx *oncelog.Tx) error {
		if err := record(tx, fresh); err != nil {
			return err
		}
		return tx.Set(o.stateKey(), v)
	})
	if err != nil {
		return err
	}
	o.rec = rec
	killpoint()
	return nil
}

// cut takes off what a killed process, or a run that was the last one again, left
// behind the recorded length.
func (o *outFile) cut() error {
	if o.size == o.rec.Length {
		return nil
	}
	err := o.f.Truncate(o.rec.Length)
	if err == nil {
		err = o.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("--out: %w; the same command with the same input goes on", err)
	}
	o.size = o.rec.Length
	killpoint()
	return nil
}

// resume reads an unfinished run's input again, up to where the record is.
func (o *outFile) resume(ctx context.Context, in *lines) (counts, error) {
	if o.rec.Phase != running {
		return counts{}, nil
	}
	run := o.rec.Run
	switch err := in.skip(ctx, run.Bytes, o.readSum); {
	case err == io.EOF:
		return counts{}, fmt.Errorf("the input has fewer than the %d bytes that were read before; %s", run.Bytes, o.otherInput())
	case err != nil:
		return counts{}, fmt.Errorf("%w while reading again what is done; nothing was changed: the same command with the same input goes on", err)
	case !bytes.Equal(o.readSum.Sum(nil), run.Digest):
		return counts{}, fmt.Errorf("the first %d bytes (%d lines) of the input are not those that were read before; %s", run.Bytes, run.Counts.Lines, o.otherInput())
	}
	o.read = run
	return run.Counts, o.cut()
}

func (o *outFile) otherInput() string {
	return "finish the unfinished run on " + o.path + " with its own input first, or use another --dir and --out; nothing was changed"
}

func (o *outFile) commit(b *batch, passed []byte, fresh []string, c counts) error {
	o.readSum.Write(b.whole())
	o.read.Bytes += int64(len(b.whole()))
	o.read.Counts = c
	if err := o.write(passed); err != nil {
		return err
	}
	ended := b.end == io.EOF
	if o.inDoubt {
		last := o.rec.Run
		switch {
		case len(fresh) > 0 || o.read.Bytes > last.Bytes: // a new run
		case b.end == nil:
			return nil
		case !ended:
			return o.cut() // nothing of this run is recorded, so nothing of it stays
		case o.read.Bytes == last.Bytes && bytes.Equal(o.readSum.Sum(nil), last.Digest):
			if err := o.cut(); err != nil {
				return err
			}
			rec := o.rec
			rec.Phase = finished
			return o.set(rec, nil)
		}
		o.inDoubt = false
	}
	if !ended && o.size == o.rec.Length {
		return nil // duplicates alone: a restart finds them to be duplicates again
	}
	if err := o.sync(); err != nil {
		return err
	}
	rec := outRecord{Version: outVersion, Phase: running, Length: o.size, Digest: o.sum.Sum(nil), Run: o.read}
	rec.Run.Digest = o.readSum.Sum(nil)
	if ended {
		rec.Phase = finished
	}
	return o.set(rec, fresh)
}

// write appends lines to FILE.
func (o *outFile) write(passed []byte) error {
	if len(passed) == 0 {
		return nil
	}
	if o.noEnd {
		// The last run's input had no newline at its end. Two lines must not
		// become one.
		passed = append([]byte{'\n'}, passed...)
		o.noEnd = false
	}
	if _, err := o.f.WriteAt(passed, o.size); err != nil {
		return fmt.Errorf("--out: %w; the same command with the same input goes on", err)
	}
	o.sum.Write(passed)
	o.size += int64(len(passed))
	killpoint()
	return nil
}

// sync makes FILE durable, if it is still the file that was opened and nobody
// else wrote to it.
func (o *outFile) sync() error {
	const again = "put things right; then the same command with the same input goes on"
	ours, err := o.f.Stat()
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	named, err := os.Stat(o.path)
	switch {
	case err != nil:
		return fmt.Errorf("--out: %w: it was taken away during the run; %s", err, again)
	case !os.SameFile(ours, named):
		return fmt.Errorf("%s was replaced by another file during the run; %s", o.path, again)
	case ours.Size() != o.size:
		return fmt.Errorf("%s has %d bytes instead of %d: somebody else writes to it; %s", o.path, ours.Size(), o.size, again)
	}
	if err := o.f.Sync(); err != nil {
		return fmt.Errorf("--out: %w; the same command with the same input goes on", err)
	}
	return nil
}

func (o *outFile) close() {
	if o.f != nil {
		o.f.Close() // what is recorded is synced
	}
}

// syncDir makes the names in a directory durable. Windows has no such call, and
// journals names itself.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lastByte keeps the last byte written to it.
type lastByte struct{ b byte }

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return len(p), nil
}

// ctxReaderAt lets a signal end a long read.
type ctxReaderAt struct {
	ctx context.Context
	r   io.ReaderAt
}

func (r ctxReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.ReadAt(p, off)
}
