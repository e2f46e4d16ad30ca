package oncelog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

func init() { breakStore = breakWrites }

// breakWrites makes every further write to the segment that s is writing fail: the descriptor that the log writes
// through is made one of /dev/full. Reading goes through another and works on.
func breakWrites(t testing.TB, dir string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = full.Close() })
	fds := descriptors(t, dir)
	require.NotEmpty(t, fds)
	require.NoError(t, syscall.Dup3(int(full.Fd()), fds[0], syscall.O_CLOEXEC))
}

// descriptors returns the open descriptors of the last segment in which anything was written, in the order in which
// they were opened: the library's comes first.
func descriptors(t testing.TB, dir string) (fds []int) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "*", "*"))
	require.NoError(t, err)
	sort.Strings(segments)
	last := ""
	for _, path := range segments {
		b := make([]byte, 1)
		f, err := os.Open(path)
		require.NoError(t, err)
		if n, _ := f.Read(b); n == 1 && b[0] != 0 {
			last = path
		}
		require.NoError(t, f.Close())
	}
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == last {
			fd, err := strconv.Atoi(e.Name())
			require.NoError(t, err)
			fds = append(fds, fd)
		}
	}
	sort.Ints(fds)
	return fds
}

// An error means that nobody knows: after a failed write nothing more is acknowledged, what failed is not visible,
// and reads go on. After reopening the record is there whole, or not at all.
func TestPromise3AnErrorMeansUnknown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{TTL: Forever})
	put(t, s, "before", "1")
	require.NoError(t, s.Update(set("state", "1")))
	breakWrites(t, dir)
	before := crashed(t, dir)

	_, inserted, err := s.PutIfAbsent([]byte("k"), []byte("v"), 0)
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorIs(t, err, syscall.ENOSPC) // the cause
	require.False(t, inserted)
	for range 2 {
		hasNot(t, s, "k")
		has(t, s, "before", "1")
		_, inserted, err = s.PutIfAbsent([]byte("before"), nil, 0)
		require.NoError(t, err) // rests on what was durable long ago
		require.False(t, inserted)
		_, _, err = s.PutIfAbsent([]byte("k"), []byte("v"), 0)
		require.ErrorIs(t, err, ErrFailed)
		_, err = s.Delete([]byte("before"))
		require.ErrorIs(t, err, ErrFailed)
		require.ErrorIs(t, s.Update(set("state", "2")), ErrFailed)
		_, err = s.Advance("source", 1)
		require.ErrorIs(t, err, ErrFailed)
		require.NoError(t, s.Update(func(tx *Tx) error { return nil }))
		require.Equal(t, "1", state(t, s, "state"))
	}
	requireNoClaims(t, s)
	require.ErrorIs(t, s.Close(), ErrFailed)

	for _, d := range []string{before, dir} {
		s = open(t, d, Options{TTL: Forever})
		has(t, s, "before", "1")
		require.Equal(t, "1", state(t, s, "state"))
		if v, ok, err := s.Get([]byte("k")); ok {
			require.Equal(t, "v", string(v))
		} else {
			require.NoError(t, err)
			put(t, s, "k", "v")
		}
		require.NoError(t, s.Close())
	}
}

// A parked message is parked until what puts it back is durable, and who comes second is not told that it is gone before.
func TestPromise3AParkedMessageWhoseReturnFailed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{TTL: Forever})
	b := backend{s}
	require.NoError(t, b.post([]letter{outgoing("mail", []byte("v"), nil)}, false))
	require.NoError(t, b.post([]letter{
		{record: record.Record{Kind: record.Parked, Expires: record.Forever, Key: []byte("mail"), Value: []byte("v")}, attrs: record.Attributes{Ordinal: 1, MessageKey: []byte("key")}},
		{record: record.Record{Kind: record.Sent, Expires: record.Forever, Key: []byte("mail")}, attrs: record.Attributes{Ordinal: 1}},
	}, false))
	breakWrites(t, dir)
	parked := func() (n int) {
		for m, err := range b.Parked(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, "v", string(m.Payload))
			n++
		}
		return n
	}
	require.Equal(t, 1, parked())
	require.ErrorIs(t, b.Unpark(t.Context(), "mail", 1), ErrFailed)
	require.Equal(t, 1, parked(), "what failed is not to be seen")
	require.ErrorIs(t, b.Unpark(t.Context(), "mail", 1), ErrFailed)
	require.ErrorIs(t, b.Unpark(t.Context(), "mail", 2), receiver.ErrNotParked)

	// So it is with one that waits, and could not be recorded as handed on.
	dir = filepath.Join(t.TempDir(), "store")
	s = open(t, dir, Options{TTL: Forever})
	b = backend{s}
	require.NoError(t, b.post([]letter{outgoing("mail", []byte("v"), nil)}, false))
	breakWrites(t, dir)
	require.ErrorIs(t, b.Sent(t.Context(), "mail", 1), ErrFailed)
	m, ok, err := b.Next(t.Context(), "mail", 0)
	require.NoError(t, err)
	require.True(t, ok, "what failed is not to be seen")
	require.EqualValues(t, 1, m.Ordinal)
}

// Everybody who waits for a commit that fails is told so: those who share it, and those whose answer rests on it.
func TestPromise3EveryAnswerThatSawTheFailedCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{TTL: Forever})
	put(t, s, "before", "1")
	breakWrites(t, dir)

	commit, ch := staged(t, s, recordFor("k", "v")) // and not yet written

	answers := make(chan error, 3)
	var saw sync.WaitGroup
	saw.Add(2)
	go func() {
		_, inserted, err := s.PutIfAbsent([]byte("k"), nil, 0)
		if inserted {
			err = fmt.Errorf("inserted")
		}
		answers <- err
	}()
	go func() {
		answers <- s.Update(func(tx *Tx) error {
			defer saw.Done()
			if v, ok, err := tx.Record([]byte("k")); err != nil || !ok || string(v) != "v" {
				return fmt.Errorf("does not see what is staged: %q %v %v", v, ok, err)
			}
			return nil
		})
	}()
	go func() {
		answers <- s.Update(func(tx *Tx) error { defer saw.Done(); return tx.PutRecord([]byte("k"), nil, 0) })
	}()
	saw.Wait()
	require.ErrorIs(t, s.settle(commit, ch), ErrFailed)
	for range 3 {
		require.ErrorIs(t, <-answers, ErrFailed)
	}
	hasNot(t, s, "k")
	requireNoClaims(t, s)
	require.True(t, strings.HasPrefix(s.Close().Error(), "oncelog: "))
}

// A message was handed on, the store cannot record it, and Relay is ended at that moment: whoever ended it learns that
// it will be handed on again.
func TestRelayTellsThatWhatWasHandedOnIsNotRecorded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{TTL: Forever})
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("mail", []byte("hello")) }))
	r, err := s.Receiver(nil)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	err = r.Relay(ctx, func(context.Context, receiver.Message) error {
		breakWrites(t, dir)
		stop()
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, s.Close(), ErrFailed)
}

// A result that is too large is recorded as gone. When that fails, the caller learns why.
func TestUnrecordedNamesEachCause(t *testing.T) {
	large := func(context.Context) ([]byte, error) { return make([]byte, DefaultMaxValueSize+1), nil }
	for name, do := range map[string]func(r *receiver.Receiver) error{
		"Do": func(r *receiver.Receiver) error { _, err := r.Do(t.Context(), "key", large); return err },
		"DoAll": func(r *receiver.Receiver) error {
			_, err := r.DoAll(t.Context(), []receiver.Call{{Key: "key", Fn: large}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s := open(t, dir, Options{TTL: Forever})
			put(t, s, "before", "1")
			r, err := s.Receiver(nil)
			require.NoError(t, err)
			_, err = r.Do(t.Context(), "first", func(context.Context) ([]byte, error) { return nil, nil }) // reserves tokens
			require.NoError(t, err)
			breakWrites(t, dir)
			err = do(r)
			require.ErrorIs(t, err, receiver.ErrUnrecorded)
			if name == "Do" { // of a batch the store itself records what is too large as gone
				require.ErrorIs(t, err, ErrTooLarge)
			}
			require.ErrorIs(t, err, ErrFailed)
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorIs(t, s.Close(), ErrFailed)
		})
	}
}
