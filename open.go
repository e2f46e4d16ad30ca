package oncelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// Store is an open directory. Its methods may be called from any goroutine.
type Store struct {
	opts  Options
	id    [16]byte
	seed  uint64 // of the index
	clock *clock
	base  record.Base // of the records this process writes
	lock  *dirLock    // nil when read-only
	log   *wal.Log
	keys  *index.Index

	claims  claims
	leases  leases
	tokens  tokens
	outbox  outbox
	doubts  doubts
	scopes  scopes
	gate    *gate
	records atomic.Int64 // keys in the index that Stats counts, expired ones included
	ledger  *compaction.Ledger
	dead    slots        // segments in which nothing is alive any more
	cut     sync.RWMutex // held for reading while something enters index and ledger
	house   housekeeper

	txLock     sync.Mutex
	lastStaged *wal.Commit // the newest transaction; guarded by txLock
	txHeldMax  atomic.Int64

	replayed func() int64 // the largest time in the log; nil once the store's time has begun
	closing  closing
}

const walName = "wal"

// Open opens the store in dir, or creates one there: dir must be a store, empty, or missing. When it returns, all
// that it found is durable and checked, except what damage a disk can hide from a reader. nil options are the
// defaults.
//
// One directory belongs to one process at a time; a second Open is ErrLocked, after Options.LockWait. A directory that
// holds something else, or is another user's, is ErrForeign; a store with damage is ErrCorrupt, and one of a later version
// ErrTooNew: all are left as they were. Options that can't be are ErrOptions or ErrTTL.
func Open(dir string, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	dir = filepath.Clean(dir)
	exists, err := checkDir(dir)
	if err != nil {
		return nil, err
	}
	if o.ReadOnly {
		return openReadOnly(dir, o)
	}
	if o.MustExist {
		if _, err := readManifest(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, noStore(dir)
		}
	}
	if !exists {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("oncelog: %w", err)
		}
	}
	if err := checkContent(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir, o.LockWait)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(dir, o)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	s.lock = lock
	return s, nil
}

// openLocked opens or creates the store in a directory that this process owns.
func openLocked(dir string, o Options) (*Store, error) {
	m, err := readManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if o.MustExist {
			return nil, noStore(dir)
		}
		m, err = create(dir, o)
	}
	if err != nil {
		return nil, err
	}
	return load(dir, o, m)
}

// openReadOnly reads a store that may have an owner, who goes on writing meanwhile. A segment that is sealed, or a
// preparation that is tidied up, between two looks can pass for damage; real damage stays.
func openReadOnly(dir string, o Options) (*Store, error) {
	for try := 1; ; try++ {
		m, err := readManifest(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noStore(dir)
		}
		var s *Store
		if err == nil {
			s, err = load(dir, o, m)
		}
		if err == nil || try == readOnlyTries || !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
		time.Sleep(readOnlyPause)
	}
}

// An owner seals a segment every 10 ms at most, so five looks that far apart do not all meet one.
const (
	readOnlyTries = 5
	readOnlyPause = 20 * time.Millisecond
)

func noStore(dir string) error {
	return fmt.Errorf("oncelog: there is no store in %s; check the path, or open it for writing once: %w", dir, fs.ErrNotExist)
}

// checkDir refuses what is not a directory of this user's own, and reports whether there is anything.
func checkDir(dir string) (exists bool, err error) {
	fi, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("oncelog: %w", err)
	case fi.Mode()&fs.ModeSymlink != 0:
		return false, fmt.Errorf("%w: %s is a symbolic link, which somebody else may turn; name the directory itself", ErrForeign, dir)
	case !fi.IsDir():
		return false, fmt.Errorf("%w: %s is a file; name a directory", ErrForeign, dir)
	}
	return true, checkOwner(dir, fi)
}

// checkContent refuses a directory that has other things in it and no store: somebody mistyped a path.
func checkContent(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("oncelog: %w", err)
	}
	other := ""
	for _, e := range entries {
		switch e.Name() {
		case manifestName:
			return nil
		case lockName, manifestTmp, walName, snapshotName:
		case "lost+found": // a volume of its own, mounted here
		default:
			other = e.Name()
		}
	}
	if other != "" {
		return fmt.Errorf("%w: %s holds %q and no store; name an empty directory", ErrForeign, dir, other)
	}
	return nil
}

// create makes an empty store. The manifest comes last, so whatever is interrupted before is begun anew.
func create(dir string, o Options) (manifest, error) {
	walDir := filepath.Join(dir, walName)
	unborn, err := wal.Unborn(walDir)
	if err != nil {
		return manifest{}, fmt.Errorf("oncelog: %w", err)
	}
	if !unborn {
		return manifest{}, &CorruptError{File: filepath.Join(dir, manifestName), Reason: "the manifest of a log is missing"}
	}
	m := newManifest()
	base := record.Base{At: newClock(&o).millis(), TTL: defaultMillis(o)}
	if err := wal.Create(walDir, o.walOptions(m, func() record.Base { return base }, nil, nil)); err != nil {
		return m, fmt.Errorf("oncelog: create %s: %w", walDir, err)
	}
	if err := wal.SyncDir(dir); err != nil {
		return m, fmt.Errorf("oncelog: %w", err)
	}
	if err := m.write(dir); err != nil {
		return m, fmt.Errorf("oncelog: create %s: %w", dir, err)
	}
	return m, nil
}

func defaultMillis(o Options) int64 {
	ms, _ := o.ttlMillis(0) // checked by withDefaults
	return ms
}

// load recovers the log and builds the index from it.
func load(dir string, o Options, m manifest) (*Store, error) {
	walDir := filepath.Join(dir, walName)
	if fi, err := os.Lstat(walDir); errors.Is(err, fs.ErrNotExist) {
		return nil, &CorruptError{File: walDir, Reason: "the log of a store is missing"}
	} else if err != nil {
		return nil, fmt.Errorf("oncelog: %w", err)
	} else if !fi.IsDir() {
		return nil, &CorruptError{File: walDir, Reason: "not a directory"}
	}
	// Who wrote the manifest may have been killed before its name was durable. What is answered from here on must not
	// lose it.
	if err := wal.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("oncelog: %w", err)
	}
	s := &Store{opts: o, id: m.id, seed: m.seed, clock: newClock(&o), gate: newGate()}
	s.closing.done = make(chan struct{})
	if err := s.recover(dir, o.walOptions(m, s.recordBase, s.house.kick, s.house.pace.pause)); err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooNew) {
			err = fmt.Errorf("oncelog: open %s: %w", dir, err)
		}
		return nil, err
	}
	if !o.ReadOnly {
		s.startHousekeeping()
	}
	return s, nil
}

// recordBase returns the base of the records that this process writes. It is asked for the first time when the log is
// replayed, and the store's time begins then. The base lies so far back that a record which is copied before it
// expires keeps its time; further back it would cost each record a byte.
func (s *Store) recordBase() record.Base {
	if s.replayed != nil {
		s.clock.begin(s.replayed())
		s.replayed = nil
		ttl := defaultMillis(s.opts)
		s.base = record.Base{At: s.clock.millis() - min(ttl, baseBefore), TTL: ttl}
	}
	return s.base
}

// baseBefore is a month less than 2^32 ms, so that the times of a month fit into five bytes.
const baseBefore = 1<<32 - 31*24*60*60*1000

func (s *Store) warn(msg string, err error) {
	if s.opts.Logger != nil {
		s.opts.Logger.Warn(msg, "err", err)
	}
}
