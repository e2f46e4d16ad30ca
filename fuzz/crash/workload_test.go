//go:build linux && amd64

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// service is the caller: one at a time, so that what must be found after a crash is known exactly.
type service struct {
	dir   string
	never bool // syncs nothing but what closing and housekeeping sync; then time stands still
	clock atomic.Int64
	st    *oncelog.Store
	r     *receiver.Receiver
	now   int    // the step
	to    string // where the last restore went
	// told is called after each answer, and inside a fn when its intent is recorded: the state has changed.
	told func(step string) error
}

const begins = 1_700_000_000_000

func (s *service) open() (err error) {
	o := options(&s.clock)
	if s.never {
		o.Sync = oncelog.SyncNever
	}
	s.st, err = oncelog.Open(filepath.Join(s.dir, "store"), o)
	if err == nil {
		s.r, err = s.st.Receiver(&receiver.Options{Window: 16})
	}
	return err
}

func options(clock *atomic.Int64) *oncelog.Options {
	return &oncelog.Options{
		TTL: 72 * time.Hour, RetryWindow: oncelog.NoRetryWindow, SegmentSize: 8 << 10, Pace: -1,
		Now: func() time.Time { return time.UnixMilli(clock.Load()) },
	}
}

// step is one call of the store's. Each makes one commit, or several of which none but the last shows.
type step struct {
	name string
	do   func(s *service) error
}

var errNo = errors.New("no")

// names of all that the workload writes.
const (
	keyNames   = 24
	stateNames = 4
	doNames    = 12
)

// restoring is the step that restores, into the directory restored(turn).
const restoring = "restore"

func restored(i int) string { return fmt.Sprint("restored-", i) }

func keyName(i int) string   { return fmt.Sprint("key ", i%keyNames) }
func stateName(i int) string { return fmt.Sprint("state ", i%stateNames) }
func doName(i int) string    { return fmt.Sprint("message ", i%doNames) }

// mark is in each value that a step writes, and in no other's, so that it can be found in the log.
func mark(step int) string { return fmt.Sprintf("#%d#", step) }

func (s *service) value(i int) []byte {
	return []byte(mark(s.now) + strings.Repeat(fmt.Sprint(" ", i), 1+i*37%160))
}

// restore makes another store from a backup of this one.
func (s *service) restore(to string) error {
	s.to = to
	var b bytes.Buffer
	if err := s.st.Backup(&b); err != nil {
		return err
	}
	return oncelog.Restore(filepath.Join(s.dir, to), &b)
}

// steps are the workload: turns of everything, with housekeeping in between.
func steps() (all []step) {
	add := func(name string, do func(s *service) error) { all = append(all, step{name, do}) }
	ctx := context.Background()
	say := func(v []byte, err error) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { return v, err }
	}
	add("open", (*service).open)
	for i := range 14 {
		add("put", func(s *service) error {
			_, _, err := s.st.PutIfAbsent([]byte(keyName(i)), s.value(i), time.Duration(i%3)*time.Hour+time.Hour)
			return err
		})
		add("put for ever", func(s *service) error {
			_, _, err := s.st.PutIfAbsent([]byte(keyName(i+5)), s.value(i+1), oncelog.Forever)
			return err
		})
		add("update", func(s *service) error {
			return s.st.Update(func(tx *oncelog.Tx) error {
				_, err := tx.DeleteRecord([]byte(keyName(i + 7)))
				err = errors.Join(err, tx.Set([]byte(stateName(i)), s.value(i)), tx.Delete([]byte(stateName(i+1))))
				_, seqErr := tx.Advance("source", uint64(10*i))
				return errors.Join(err, seqErr)
			})
		})
		add("do", func(s *service) error {
			_, err := s.r.Do(ctx, doName(i), say(s.value(i), nil))
			return err
		})
		add("emit", func(s *service) error {
			_, err := s.r.DoTx(ctx, doName(i+3), func(_ context.Context, tx receiver.Tx) ([]byte, error) {
				return nil, errors.Join(tx.Set([]byte(stateName(i)), s.value(i+2)), tx.Emit("mail", s.value(i)), tx.Emit("mail", s.value(i+1)))
			})
			return err
		})
		add("number", func(s *service) error {
			_, err := s.r.DoSeq(ctx, "orders", uint64(100+i*3%20), say(nil, nil))
			if errors.Is(err, receiver.ErrTooOld) {
				return nil
			}
			return err
		})
		add("intent", func(s *service) error {
			_, err := s.r.Do(ctx, fmt.Sprint("intent ", i), func(context.Context) ([]byte, error) {
				return s.value(i), s.told("intended")
			}, receiver.WithIntent([]byte("note")))
			return err
		})
		switch i % 7 {
		case 0:
			add("fail for good", func(s *service) error {
				_, err := s.r.Do(ctx, "failure", say(nil, receiver.Permanent(errNo)))
				var stored *receiver.StoredError
				if errors.As(err, &stored) {
					return nil
				}
				return err
			})
			add("too large", func(s *service) error {
				_, err := s.r.Do(ctx, "gone", say(make([]byte, oncelog.DefaultMaxValueSize+1), nil))
				if errors.Is(err, receiver.ErrResultGone) {
					return nil
				}
				return err
			})
			add("doubt", func(s *service) error {
				_, err := s.r.Do(ctx, "doubt", say(nil, receiver.Unknown(errNo)))
				if errors.Is(err, receiver.ErrInDoubt) {
					return nil
				}
				return err
			})
		case 1:
			add("hand on", func(s *service) error { return s.relay(nil) })
			add("snapshot", func(s *service) error { return s.st.Snapshot() })
			add(restoring, func(s *service) error { return s.restore(restored(i)) })
		case 2:
			add("park", func(s *service) error { return s.relay(receiver.Permanent(errNo)) })
			add("settle", func(s *service) error {
				err := s.r.Settle(ctx, "doubt", receiver.Happened(s.value(i)))
				if errors.Is(err, receiver.ErrNotInDoubt) {
					return nil
				}
				return err
			})
		case 3:
			add("compact", func(s *service) error { return s.st.Compact() })
			add("unpark", func(s *service) error {
				for m, err := range s.r.Parked(ctx) {
					if err != nil {
						return err
					}
					return s.r.Unpark(ctx, m.Topic, m.Ordinal)
				}
				return nil
			})
		case 4:
			add("time passes", func(s *service) error {
				if !s.never {
					s.clock.Add((90 * time.Minute).Milliseconds())
				}
				return nil
			})
			add("forget", func(s *service) error { return s.r.Forget(ctx, doName(i)) })
			add("compact and snapshot", func(s *service) error { return errors.Join(s.st.Compact(), s.st.Snapshot()) })
		case 5:
			add("close", func(s *service) error { return s.st.Close() })
			add("reopen", (*service).open)
		case 6:
			add("delete", func(s *service) error { _, err := s.st.Delete([]byte(keyName(i))); return err })
			add("compact", func(s *service) error { return s.st.Compact() })
		}
	}
	add("close", func(s *service) error { return s.st.Close() })
	return all
}

// relay hands the first message on, or parks it.
func (s *service) relay(answer error) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	waiting := 0
	for _, err := range s.r.Outgoing(ctx) {
		if err != nil {
			return err
		}
		waiting++
	}
	if waiting == 0 {
		return nil
	}
	first := true
	err := s.r.Relay(ctx, func(context.Context, receiver.Message) error {
		if first {
			first = false
			if answer == nil || waiting == 1 {
				stop()
			}
			return answer
		}
		stop()
		return errNo
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// run takes all steps, and tells of each.
func (s *service) run() error {
	s.clock.Store(begins)
	for i, st := range steps() {
		s.now = i
		if err := st.do(s); err != nil {
			return fmt.Errorf("%s: %w", st.name, err)
		}
		if err := s.told(st.name); err != nil {
			return err
		}
	}
	return nil
}

func init() {
	children["solo"] = func(dir, arg string) error {
		s := &service{dir: dir, never: arg == "never"}
		s.told = func(step string) error { note(dir, fmt.Sprintf("answered %d %s", s.now, step)); return nil }
		return s.run()
	}
}

// soloContents is all that the store answers, in words.
func soloContents(st *oncelog.Store) (string, error) {
	var all []string
	line := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	ctx := context.Background()
	for r, err := range st.Records() {
		if err != nil {
			return "", err
		}
		line("record %s: %x, %d to %d", r.Key, r.Value, r.Committed.UnixMilli(), r.Expires.UnixMilli())
	}
	for i := range keyNames {
		v, ok, err := st.Get([]byte(keyName(i)))
		if err != nil {
			return "", err
		}
		if ok {
			line("key %s: %x", keyName(i), v)
		}
	}
	err := st.View(func(tx *oncelog.Tx) error {
		for i := range stateNames {
			v, ok, err := tx.Get([]byte(stateName(i)))
			if err != nil {
				return err
			}
			if ok {
				line("state %s: %x", stateName(i), v)
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	mark, ok, err := st.HighWater("source")
	if err != nil {
		return "", err
	}
	line("mark %d %v", mark, ok)
	r, err := st.Receiver(&receiver.Options{Window: 16})
	if err != nil {
		return "", err
	}
	names := []string{"failure", "gone", "doubt"}
	for i := range doNames {
		names = append(names, doName(i))
	}
	for i := range 14 {
		names = append(names, fmt.Sprint("intent ", i))
	}
	for _, name := range names {
		l, err := r.Lookup(ctx, name)
		if err != nil {
			return "", err
		}
		switch {
		case l.State == receiver.StateInFlight: // under its intent; whoever finds it later finds a doubt
			line("%s: in doubt, %s", name, "note")
		case l.State == receiver.StateInDoubt:
			line("%s: in doubt, %s", name, l.Note)
		case l.State == receiver.StateDone:
			line("%s: %d %x %s %d", name, l.Result.Kind, l.Result.Value, l.Result.Message, l.Until.UnixMilli())
		}
	}
	seq, ok, err := r.HighWater(ctx, "orders")
	if err != nil {
		return "", err
	}
	line("orders %d %v", seq, ok)
	for n, err := range r.Gaps(ctx, "orders") {
		if err != nil {
			return "", err
		}
		line("gap %d", n)
	}
	for m, err := range r.Outgoing(ctx) {
		if err != nil {
			return "", err
		}
		line("waiting %s %d %s %x", m.Topic, m.Ordinal, m.Key, m.Payload)
	}
	for m, err := range r.Parked(ctx) {
		if err != nil {
			return "", err
		}
		line("parked %s %d %s %x %s", m.Topic, m.Ordinal, m.Key, m.Payload, m.Reason)
	}
	slices.Sort(all)
	return strings.Join(all, "\n"), nil
}
