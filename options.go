package oncelog

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// Forever, as a TTL, is no end.
const Forever time.Duration = math.MaxInt64

// NoRetryWindow, as Options.RetryWindow, says that senders do not retry for any known time: every TTL is accepted.
const NoRetryWindow time.Duration = -1

// Defaults and bounds of Options.
const (
	DefaultTTL          = 72 * time.Hour
	DefaultMaxKeySize   = 1 << 10
	DefaultMaxValueSize = 1 << 20
	DefaultSegmentSize  = 4 << 20 // with larger logs the library under the log stalls commits while its memory doubles

	defaultPace    = 64 << 20       // a tenth of what the slowest disk for such a store does, and a twentieth of a processor
	minBudget      = 8              // segments: four that may be full, and the reserve
	maxRetryWindow = 24 * time.Hour // of the default
	minSegmentSize = 4 << 10
	maxKeySize     = 64 << 10
	maxValueSize   = 15 << 20 // one record and its key fit into a transaction of 16 MiB
)

// Options of Open. The zero value of each field is its default.
type Options struct {
	// TTL is how long a record lives, counted from its commit. The default is 72 hours; Forever is no end.
	TTL time.Duration
	// RetryWindow is the longest time for which a sender goes on retrying. A record that is forgotten while its
	// sender still retries runs its effect again, so a TTL that does not exceed the window is refused, here and in
	// each call. The default is 24 hours or a third of the TTL, whichever is less; NoRetryWindow turns the check off.
	RetryWindow time.Duration
	// Sync says what an acknowledgement promises. The default, SyncAlways, is stable storage.
	Sync SyncPolicy
	// SegmentSize is about how many bytes of log go into one file: 4 KiB to 4 MiB, which is the default.
	SegmentSize int64
	// MaxKeySize and MaxValueSize bound keys, sources and values, in bytes. The defaults are 1 KiB and 1 MiB, the
	// most is 64 KiB and 15 MiB.
	MaxKeySize, MaxValueSize int
	// MaxBytes bounds what the store takes on disk, log and snapshots together; 0 = no bound. Past it writes are
	// ErrFull, until records have expired or were deleted; reads and deletes go on, and nothing live is evicted. A
	// part of it is kept for housekeeping: at least two segments and a snapshot. At least 8 × SegmentSize.
	MaxBytes int64
	// Pace is how many bytes a second housekeeping reads and writes, so that it holds nobody up. The default is
	// 64 MiB; -1 is as fast as it goes. A store that is almost full is in a hurry anyway.
	Pace int64
	// LockWait is how long Open waits for another owner to leave. 0 = ErrLocked at once.
	LockWait time.Duration
	// MustExist makes a directory without a store an error (fs.ErrNotExist) instead of a new store.
	MustExist bool
	// ReadOnly reads what is durable when Open is called. It takes no lock and writes nothing, and works beside an
	// owner. It implies MustExist.
	ReadOnly bool
	// Logger is told of what happens in the background. nil = silent. Keys and values are never logged.
	Logger *slog.Logger
	// Now is the clock by which records expire. nil = the system's, measured with the monotonic clock from Open on.
	// A clock given here is believed, except that time never runs back. Any goroutine may call it.
	Now func() time.Time

	still bool // nothing happens in the background; for tests that look at what is on disk
}

// SyncPolicy says when the log is synced, and so what an acknowledgement is worth.
type SyncPolicy time.Duration

const (
	// SyncAlways: what is acknowledged is on stable storage.
	SyncAlways SyncPolicy = 0
	// SyncNever: what is acknowledged was handed to the operating system. It survives a killed process, not a
	// power cut.
	SyncNever SyncPolicy = -1
)

// SyncEvery syncs in the background every d. What is acknowledged survives a killed process at once, and a power
// cut once the next sync is done. A d that is not positive is SyncAlways.
func SyncEvery(d time.Duration) SyncPolicy { return SyncPolicy(max(d, 0)) }

// withDefaults returns a complete copy of o, or what is wrong with it.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.RetryWindow == 0 {
		c.RetryWindow = min(maxRetryWindow, c.TTL/3)
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = DefaultSegmentSize
	}
	if c.MaxKeySize == 0 {
		c.MaxKeySize = DefaultMaxKeySize
	}
	if c.MaxValueSize == 0 {
		c.MaxValueSize = DefaultMaxValueSize
	}
	if c.Pace == 0 {
		c.Pace = defaultPace
	}
	if c.RetryWindow < 0 && c.RetryWindow != NoRetryWindow {
		return c, fmt.Errorf("%w: RetryWindow is %v; give a positive one, or NoRetryWindow", ErrTTL, c.RetryWindow)
	}
	if _, err := c.ttlMillis(c.TTL); err != nil {
		return c, err
	}
	between := func(name string, v, low, high int64) error {
		if v < low || v > high {
			return fmt.Errorf("%w: %s is %d, it must lie between %d and %d", ErrOptions, name, v, low, high)
		}
		return nil
	}
	for _, err := range []error{
		between("SegmentSize", c.SegmentSize, minSegmentSize, DefaultSegmentSize),
		between("MaxKeySize", int64(c.MaxKeySize), 1, maxKeySize),
		between("MaxValueSize", int64(c.MaxValueSize), 1, maxValueSize),
		between("Pace", c.Pace, -1, math.MaxInt64),
		between("MaxBytes", c.MaxBytes, 0, math.MaxInt64),
		between("LockWait", int64(c.LockWait), 0, math.MaxInt64),
		between("Sync", int64(c.Sync), int64(SyncNever), math.MaxInt64),
	} {
		if err != nil {
			return c, err
		}
	}
	if c.MaxBytes > 0 && c.MaxBytes < minBudget*c.SegmentSize {
		return c, fmt.Errorf("%w: MaxBytes is %d, it must be at least %d segments of %d bytes", ErrOptions, c.MaxBytes, minBudget, c.SegmentSize)
	}
	return c, nil
}

// ttlMillis checks a TTL against the retry window and returns it in the log's unit, in which Forever is
// record.Forever. Fractions of a millisecond are rounded up: a record never goes early.
func (o *Options) ttlMillis(ttl time.Duration) (int64, error) {
	switch {
	case ttl == 0:
		ttl = o.TTL
	case ttl < 0:
		return 0, fmt.Errorf("%w: %v is negative; 0 is the default, Forever is no end", ErrTTL, ttl)
	}
	if ttl == Forever {
		return record.Forever, nil
	}
	if ttl <= o.RetryWindow {
		return 0, fmt.Errorf("%w: TTL %v does not exceed RetryWindow %v, so a retry could come after the record is gone; "+
			"raise the TTL, or lower RetryWindow if senders give up sooner", ErrTTL, ttl, o.RetryWindow)
	}
	ms := ttl / time.Millisecond
	if ttl%time.Millisecond != 0 {
		ms++
	}
	return int64(ms), nil
}

// checkKey refuses keys and sources that the store does not take.
func (o *Options) checkKey(key []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	if len(key) > o.MaxKeySize {
		return fmt.Errorf("%w: a key of %d bytes, Options.MaxKeySize is %d", ErrTooLarge, len(key), o.MaxKeySize)
	}
	return nil
}

func (o *Options) checkValue(value []byte) error {
	if len(value) > o.MaxValueSize {
		return fmt.Errorf("%w: a value of %d bytes, Options.MaxValueSize is %d", ErrTooLarge, len(value), o.MaxValueSize)
	}
	return nil
}

// walOptions is what the log needs to know.
func (o *Options) walOptions(m manifest, base func() record.Base, sealed func(), pause func() bool) wal.Options {
	wo := wal.Options{
		ID: m.id, Meta: func() [wal.MetaSize]byte { return base().Encode() }, SegmentSize: o.SegmentSize, Sync: time.Duration(o.Sync), ReadOnly: o.ReadOnly,
		OnSeal: sealed, Pause: pause,
	}
	if log := o.Logger; log != nil {
		wo.OnError = func(err error) { log.Error("oncelog: writing stopped or was put off", "err", err) }
	}
	return wo
}
