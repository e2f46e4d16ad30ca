package oncelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/snapshot"
	"github.com/oncelog/oncelog/wal"
)

const snapshotName = "snapshot"

// snapshotState is what is known of the last snapshot. Guarded by the housekeeper's round.
type snapshotState struct {
	dir     string
	through uint64 // of the last one
	written uint64 // bytes of log that were written before it was made, since Open
}

// A snapshot is due after so much log that reading it at opening would take longer than writing a snapshot: 64 MiB,
// or eight times what the last one took.
const (
	snapshotAfter = 64 << 20
	snapshotTimes = 8
)

func (s *Store) snapshotDue() bool {
	st := &s.house.snapshot
	return int64(s.log.Stats().Bytes-st.written) >= max(snapshotAfter, snapshotTimes*s.house.snapshotSize.Load())
}

// Snapshot writes the index to a file, now, so that the next opening need not read the log before it. The store makes
// snapshots by itself, and one when it is closed; there is nothing that only this call does. It writes 13 to 17 bytes a
// key, at Options.Pace, beside everything else, and waits for the housekeeping that runs already. ErrReadOnly; an error
// inside a transaction, for which it would wait.
func (s *Store) Snapshot() error {
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if receiver.Inside() {
		return errInside // housekeeping may be waiting for a key that the transaction holds
	}
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	s.house.round.Lock()
	defer s.house.round.Unlock()
	return s.takeSnapshot()
}

// takeSnapshot writes a snapshot, unless the last one says all that there is. Called with round held.
func (s *Store) takeSnapshot() error {
	st := &s.house.snapshot
	if s.log.Visible() == st.through {
		return nil
	}
	s.sweep() // so that no page names a segment that is gone
	s.cut.Lock()
	after, err := s.publishAll()
	s.cut.Unlock()
	if err != nil {
		return fmt.Errorf("oncelog: no snapshot while the index is full: %w", err)
	}
	m := snapshot.Meta{ID: s.id, Seed: s.seed, After: after}
	written := s.log.Stats().Bytes
	size, err := snapshot.Write(st.dir, s.house.pace.wait, func(w *snapshot.Writer) (snapshot.Meta, error) {
		err := s.keys.Dump(func(h index.PageHead, slots []byte) error {
			return w.Page(snapshot.PageHead(h), slots)
		}, func(space byte, key []byte, loc index.Location) error {
			return w.Key(space, key, uint64(loc))
		})
		if err != nil {
			return m, err
		}
		s.cut.Lock()
		m.Through, err = s.publishAll()
		m.Keys = s.records.Load()
		accounts := s.appendAccounts(nil)
		s.cut.Unlock()
		if err != nil {
			return m, fmt.Errorf("oncelog: no snapshot while the index is full: %w", err)
		}
		m.Time, m.Dropped, m.Totals = s.clock.millis(), s.log.Dropped(), s.totals()
		if err := w.Accounts(accounts); err != nil {
			return m, err
		}
		return m, s.log.Sync() // what the snapshot says must not be lost before it is
	})
	if err != nil {
		return fmt.Errorf("oncelog: snapshot: %w", err)
	}
	st.through, st.written = m.Through, written
	s.house.snapshotSize.Store(size)
	s.house.snapshotTime.Store(m.Time)
	s.house.snapshots.Add(1)
	s.house.snapshotBytes.Add(size)
	return nil
}

// loading is the reading of a snapshot. It takes two processors: reading from the page cache and checking is bound by
// one, and the other has the log's segments to open first. They are opened meanwhile, since for that the snapshot's
// head is enough.
type loading struct {
	*snapshot.File
	path  string
	s     *Store
	index *index.Loader
	next  atomic.Int64 // page that nobody reads yet
	err   atomic.Pointer[error]
	other sync.WaitGroup
	wait  func() error
}

// loadSnapshot begins to read a snapshot. Any error but ErrTooNew says that the snapshot is of no use, and any at all that
// wait returns: the caller has to call it.
func (s *Store) loadSnapshot(path string) (*loading, error) {
	f, err := snapshot.Open(path, s.id)
	if err != nil {
		return nil, err
	}
	if f.Seed != s.seed {
		return nil, errors.Join(fmt.Errorf("%w: %s: another seed", snapshot.ErrBad, path), f.Close())
	}
	l := &loading{File: f, path: path, s: s, index: index.NewLoader(s.seed, f.Pages())}
	l.wait = sync.OnceValue(l.finish)
	l.other.Go(l.pages)
	return l, nil
}

// pages reads pages until none is left, or one is of no use.
func (l *loading) pages() {
	for l.err.Load() == nil {
		i := int(l.next.Add(1)) - 1
		if i >= l.Pages() {
			return
		}
		if err := l.index.Page(index.PageHead(l.Head(i)), func(b []byte) error { return l.ReadPage(i, b) }); err != nil {
			l.err.CompareAndSwap(nil, &err)
		}
	}
}

// finish lends a hand, and puts the snapshot's index and accounts in the place of the store's, which are empty.
func (l *loading) finish() error {
	defer l.Close()
	l.pages()
	l.other.Wait()
	if err := l.err.Load(); err != nil {
		return *err
	}
	err := l.Keys(func(space byte, key []byte, location uint64) error {
		return l.index.Key(space, key, index.Location(location))
	})
	if err != nil {
		return err
	}
	keys, err := l.index.Index()
	if err != nil {
		return err
	}
	b, err := l.Accounts()
	if err != nil {
		return err
	}
	if err := l.s.parseAccounts(b); err != nil {
		return fmt.Errorf("%w: %s: %w", snapshot.ErrBad, l.path, err)
	}
	l.s.keys = keys
	l.s.records.Store(l.Meta.Keys)
	return nil
}

// appendAccounts encodes what a snapshot holds besides the index: ledger, outbox, doubts and scopes, each behind its
// length in 8 bytes little-endian. The caller has the cut.
func (s *Store) appendAccounts(dst []byte) []byte {
	for _, part := range []func([]byte) []byte{s.ledger.Append, s.outbox.append, s.doubts.append, s.scopes.append} {
		at := len(dst)
		dst = part(append(dst, make([]byte, 8)...))
		binary.LittleEndian.PutUint64(dst[at:], uint64(len(dst)-at-8))
	}
	return dst
}

// parseAccounts is the inverse of appendAccounts.
func (s *Store) parseAccounts(b []byte) (err error) {
	ledger := func(b []byte) error {
		s.ledger, err = compaction.ParseLedger(b)
		return err
	}
	for _, part := range []func([]byte) error{ledger, s.outbox.parse, s.doubts.parse, s.scopes.parse} {
		if len(b) < 8 || binary.LittleEndian.Uint64(b) > uint64(len(b)-8) {
			return errParse
		}
		end := 8 + binary.LittleEndian.Uint64(b)
		if err := part(b[8:end]); err != nil {
			return err
		}
		b = b[end:]
	}
	if len(b) > 0 {
		return errParse
	}
	return nil
}

const snapshotBad = "oncelog: a snapshot is of no use, the log is read instead"

// recover opens the log, from the newest snapshot that is of use on, or else from its beginning, and builds index and
// ledger.
func (s *Store) recover(dir string, wo wal.Options) error {
	s.house.snapshot.dir = filepath.Join(dir, snapshotName)
	paths, err := snapshot.List(s.house.snapshot.dir)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		path := "" // the last resort: the log from its beginning, from which it has no gap
		if i < len(paths) {
			path = paths[i]
		}
		s.keys, s.ledger = index.New(s.seed), compaction.NewLedger()
		s.outbox.topics, s.doubts.m = nil, nil
		s.doubts.n.Store(0)
		s.scopes = scopes{shift: stepShift(defaultMillis(s.opts))}
		s.records.Store(0)
		r := replay{s: s, newest: noTime}
		var from wal.Start
		var f *loading
		if path != "" {
			if f, err = s.loadSnapshot(path); errors.Is(err, ErrTooNew) {
				return err
			} else if err != nil {
				s.warn(snapshotBad, err)
				continue
			}
			from = wal.Start{After: f.After, Synced: f.Through, Dropped: f.Dropped, Note: f.Time, Wait: f.wait}
			r.counted, r.newest = f.Through, f.Time
		}
		s.replayed = func() int64 { return r.newest }
		s.log, err = wal.Open(filepath.Join(dir, walName), wo, from, r.frame)
		if f != nil {
			// Whatever the log says: what begins at a snapshot of no use says nothing.
			if bad := f.wait(); bad != nil {
				s.warn(snapshotBad, bad)
				continue
			}
		}
		if errors.Is(err, wal.ErrGap) && path != "" {
			s.warn("oncelog: a snapshot is older than the log, which is read instead", err)
			continue
		}
		if err != nil {
			return err
		}
		if err := s.outbox.complete(); err != nil {
			return errors.Join(&CorruptError{File: filepath.Join(dir, walName), Reason: err.Error()}, s.log.Close())
		}
		if f != nil {
			s.house.snapshot.through = f.Through
			s.house.snapshotSize.Store(f.Size())
			s.house.snapshotTime.Store(f.Time)
			s.house.before = f.Totals
		}
		s.recordBase()
		dropped := s.log.Dropped()
		s.ledger.Drop(dropped)
		s.scopes.drop(dropped)
		if f == nil && dropped > 0 || f != nil && dropped > f.Dropped {
			s.records.Add(-s.keys.Sweep(func(slot uint16) bool { return s.log.Segment(slot) == nil }))
		}
		s.house.swept = dropped
		s.log.Swept(dropped)
		return nil
	}
}
