package oncelog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// open opens a store in dir and closes it at the end of the test.
func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, &o)
	require.NoError(t, err)
	opened.Store(dir, s)
	t.Cleanup(func() {
		_ = s.Close()
		opened.CompareAndDelete(dir, s) // or its index would stay for as long as all tests take
	})
	return s
}

// opened are the stores of open by their directory.
var opened sync.Map

// fresh opens a new store whose records live for ever and whose log is not synced, which most tests do not need.
func fresh(t testing.TB) (*Store, string) {
	dir := filepath.Join(t.TempDir(), "store")
	return open(t, dir, quick), dir
}

var quick = Options{TTL: Forever, Sync: SyncNever}

// crashed copies the directory of an open store: what a killed process leaves behind.
func crashed(t testing.TB, dir string) string {
	t.Helper()
	if s, ok := opened.Load(dir); ok { // a kill ends everything at one moment, and copying takes a while
		defer s.(*Store).withoutHousekeeping()()
	}
	to := filepath.Join(t.TempDir(), "crashed")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func put(t testing.TB, s *Store, key, value string) {
	t.Helper()
	existing, inserted, err := s.PutIfAbsent([]byte(key), []byte(value), 0)
	require.NoError(t, err)
	require.True(t, inserted, "%s exists with %q", key, existing)
}

func has(t testing.TB, s *Store, key, value string) {
	t.Helper()
	got, ok, err := s.Get([]byte(key))
	require.NoError(t, err)
	require.True(t, ok, "%s is not there", key)
	require.Equal(t, value, string(got))
	ok, err = s.Has([]byte(key))
	require.NoError(t, err)
	require.True(t, ok)
}

// retired waits until nobody writes to any segment but the last: what is sealed is closed in the background.
func retired(t testing.TB, s *Store) {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.log.Retired()) >= len(s.log.Segments())-1 }, time.Minute, time.Millisecond)
}

func hasNot(t testing.TB, s *Store, key string) {
	t.Helper()
	got, ok, err := s.Get([]byte(key))
	require.NoError(t, err)
	require.False(t, ok, "%s is there", key)
	require.Nil(t, got)
	ok, err = s.Has([]byte(key))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestPutIfAbsent(t *testing.T) {
	s, dir := fresh(t)
	hasNot(t, s, "a")
	put(t, s, "a", "1")
	has(t, s, "a", "1")
	existing, inserted, err := s.PutIfAbsent([]byte("a"), []byte("2"), 0)
	require.NoError(t, err)
	require.False(t, inserted)
	require.Equal(t, "1", string(existing))
	put(t, s, "empty", "")
	got, ok, err := s.Get([]byte("empty"))
	require.NoError(t, err)
	require.True(t, ok)
	require.NotNil(t, got)

	existed, err := s.Delete([]byte("a"))
	require.NoError(t, err)
	require.True(t, existed)
	hasNot(t, s, "a")
	existed, err = s.Delete([]byte("a"))
	require.NoError(t, err)
	require.False(t, existed)
	put(t, s, "a", "3")
	require.EqualValues(t, 2, s.Stats().Keys)
	require.NoError(t, s.Close())

	s = open(t, dir, quick)
	has(t, s, "a", "3")
	has(t, s, "empty", "")
	require.EqualValues(t, 2, s.Stats().Keys)
}

// Values from empty to the largest, which take one read, two reads, and several segments' worth of log.
func TestValuesOfAllSizes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	o := quick
	o.MaxValueSize = maxValueSize
	o.SegmentSize = 64 << 10
	s := open(t, dir, o)
	sizes := []int{0, 1, 400, 470, 480, 490, 500, 511, 512, 513, 4096, 65535, 65536, 1 << 20, 5 << 20, maxValueSize}
	value := make([]byte, maxValueSize)
	for i := range value {
		value[i] = byte(i * 7 / 3)
	}
	for _, n := range sizes {
		put(t, s, fmt.Sprint("size ", n), string(value[:n]))
	}
	check := func() {
		for _, n := range sizes {
			has(t, s, fmt.Sprint("size ", n), string(value[:n]))
		}
		require.NoError(t, s.Verify())
	}
	check()
	s = open(t, crashed(t, dir), o)
	check()
	_, _, err := s.PutIfAbsent([]byte("k"), make([]byte, maxValueSize+1), 0)
	require.ErrorIs(t, err, ErrTooLarge)
}

func TestArgumentsAreNotKeptAndValuesAreTheCallers(t *testing.T) {
	s, _ := fresh(t)
	key, value := []byte("key"), []byte("value")
	_, _, err := s.PutIfAbsent(key, value, 0)
	require.NoError(t, err)
	copy(key, "xxx")
	copy(value, "xxxxx")
	has(t, s, "key", "value")
	got, _, err := s.Get([]byte("key"))
	require.NoError(t, err)
	copy(got, "xxxxx")
	got, _, err = s.PutIfAbsent([]byte("key"), nil, 0)
	require.NoError(t, err)
	copy(got, "xxxxx")
	has(t, s, "key", "value")
}

func TestAppendGet(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "key", "value")
	dst := append(make([]byte, 0, 64), "dst:"...)
	got, ok, err := s.AppendGet(dst, []byte("key"))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "dst:value", string(got))
	require.Same(t, &dst[0], &got[0])
	got, ok, err = s.AppendGet(dst, []byte("other"))
	require.NoError(t, err)
	require.False(t, ok)
	require.Equal(t, "dst:", string(got))
}

func TestLookupsDoNotAllocate(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "key", string(make([]byte, 256)))
	dst := make([]byte, 0, 512)
	hit, miss := []byte("key"), []byte("none")
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _, _ = s.AppendGet(dst, hit) }))
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _, _ = s.AppendGet(dst, miss) }))
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = s.Has(hit) }))
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = s.Has(miss) }))
}

// Many goroutines want the same keys: each key is inserted once, and all others get the value of the one who did.
func TestConcurrentDuplicates(t *testing.T) {
	s, dir := fresh(t)
	const keys, callers = 50, 16
	var mu sync.Mutex
	first := map[string]string{}
	answers := make([]map[string]string, callers)
	var wg sync.WaitGroup
	for g := range callers {
		answers[g] = map[string]string{}
		wg.Go(func() {
			for _, i := range rand.Perm(keys) {
				key, mine := fmt.Sprint("key ", i), fmt.Sprint(g)
				existing, inserted, err := s.PutIfAbsent([]byte(key), []byte(mine), 0)
				if err != nil {
					t.Error(err)
					return
				}
				if !inserted {
					answers[g][key] = string(existing)
					continue
				}
				mu.Lock()
				if other, twice := first[key]; twice {
					t.Errorf("%s inserted by %s and %s", key, other, mine)
				}
				first[key] = mine
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, first, keys)
	for g := range answers {
		for key, value := range answers[g] {
			require.Equal(t, first[key], value)
		}
	}
	requireNoClaims(t, s)
	s = open(t, crashed(t, dir), quick)
	for key, value := range first {
		has(t, s, key, value)
	}
}

func recordFor(key, value string) record.Record {
	return record.Record{
		Kind: record.Result, At: time.Now().UnixMilli(), Expires: record.Forever, Key: []byte(key), Value: []byte(value),
	}
}

// staged stages a change of a record and stops there: it is in the queue, and its leader is whoever calls settle, which
// makes it visible.
func staged(t testing.TB, s *Store, r record.Record) (*wal.Commit, []change) {
	t.Helper()
	n, err := s.name(0, r.Key)
	require.NoError(t, err)
	c, _ := s.claims.hold(n, nil)
	_, _, err = s.current(c)
	require.NoError(t, err)
	ch := []change{{c, r}}
	commit, err := s.stage(100, 0, ch, nil)
	require.NoError(t, err)
	s.claims.release(c, true)
	return commit, ch
}

// requireNoClaims fails if a key was left in the claim table: it would be held, or invisible, for ever.
func requireNoClaims(t require.TestingT, s *Store) {
	for i := range s.claims.shards {
		sh := &s.claims.shards[i]
		if c := sh.first.Load(); c != nil { // require costs too much to be asked 1,024 times
			require.Nil(t, c)
		}
	}
}

func TestRecords(t *testing.T) {
	clock := clockAt(1_000_000) // housekeeping asks it too
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{TTL: time.Hour, Sync: SyncNever, RetryWindow: NoRetryWindow, Now: clock.now})
	want := map[string]Record{}
	for i := range 300 {
		ttl := []time.Duration{0, Forever, time.Minute}[i%3]
		key := fmt.Sprint("key ", i)
		_, _, err := s.PutIfAbsent([]byte(key), []byte(key), ttl)
		require.NoError(t, err)
		switch i % 3 {
		case 0:
			want[key] = Record{Committed: clock.now(), Expires: clock.now().Add(time.Hour)}
		case 1:
			want[key] = Record{Committed: clock.now()}
		}
	}
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Set([]byte("state"), []byte("x")) }))
	_, err := s.Advance("source", 4)
	require.NoError(t, err)
	_, err = s.Delete([]byte("key 0"))
	require.NoError(t, err)
	delete(want, "key 0")
	clock.advance(time.Minute)
	check := func() {
		seen := map[string]bool{}
		for r, err := range s.Records() {
			require.NoError(t, err)
			w, ok := want[string(r.Key)]
			require.True(t, ok, "%s", r.Key)
			require.Equal(t, r.Key, r.Value)
			require.True(t, w.Committed.Equal(r.Committed))
			require.True(t, w.Expires.Equal(r.Expires))
			require.False(t, seen[string(r.Key)])
			seen[string(r.Key)] = true
			has(t, s, string(r.Key), string(r.Value)) // the store may be used meanwhile
		}
		require.Len(t, seen, len(want))
		for range s.Records() {
			break
		}
	}
	check()
	clock.advance(-time.Hour)
	s = open(t, crashed(t, dir), Options{TTL: 2 * time.Hour, Now: clock.now})
	clock.advance(time.Hour)
	check()
	require.NoError(t, s.Close())
	for _, err := range s.Records() {
		require.ErrorIs(t, err, ErrClosed)
	}
}

// What is published between a call's look-up and its claim is found by the look-up under the claim. The call that finds a
// record reads the clock, to see that it has expired, so there another caller is let in.
func TestPublishedBetweenLookUpAndClaim(t *testing.T) {
	var between func()
	now := int64(1_700_000_000_000)
	o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, still: true}
	o.Now = func() time.Time {
		if f := between; f != nil {
			between = nil
			f()
		}
		return time.UnixMilli(now)
	}
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, o)
	put(t, s, "k", "expired")
	now += 2 * o.TTL.Milliseconds()
	between = func() { put(t, s, "k", "first") }
	existing, inserted, err := s.PutIfAbsent([]byte("k"), []byte("second"), 0)
	require.NoError(t, err)
	require.Nil(t, between, "nobody was let in")
	require.False(t, inserted)
	require.Equal(t, "first", string(existing))
	has(t, s, "k", "first")
	requireNoClaims(t, s)
	o.Now = func() time.Time { return time.UnixMilli(now) }
	s = open(t, crashed(t, dir), o)
	has(t, s, "k", "first")
}

// A version has no place in the log until its transaction is queued, so a duplicate that meets it in between waits for
// the holder. There is nothing else to wait for yet.
func TestADuplicateMeetsAVersionThatIsNotQueued(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "begin", "the log") // so that nothing else holds the call up
	n, err := s.name(record.Records, []byte("k"))
	require.NoError(t, err)
	c, _ := s.claims.hold(n, nil)
	_, _, err = s.current(c)
	require.NoError(t, err)
	staged := wal.NewCommit([]byte("not queued"))
	s.claims.stage(c, version{commit: staged, expires: record.Forever})

	inserted := make(chan bool)
	go func() {
		_, ok, err := s.PutIfAbsent([]byte("k"), nil, 0)
		inserted <- ok && err == nil
	}()
	sh := s.claims.shard(n)
	require.Eventually(t, func() bool {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return len(c.waiters) == 1
	}, 10*time.Second, time.Millisecond)
	s.claims.withdraw(c, staged) // its transaction could not be queued
	s.claims.release(c, false)
	require.True(t, <-inserted)
}
