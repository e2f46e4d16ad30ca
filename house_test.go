package oncelog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/snapshot"
)

// A year of a store: keys come all the time with TTLs of one day and of ten, some are deleted, state and marks change,
// the store is closed or killed now and then. Every answer is a map's, and after the longest TTL nothing grows any
// more.
func TestAYear(t *testing.T) {
	days := 365
	if testing.Short() {
		days = 60
	}
	clock := clockAt(1_700_000_000_000)
	o := Options{
		TTL: 24 * time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, Now: clock.now, SegmentSize: 16 << 10, Pace: -1,
	}
	base := memoryDir(t)
	dir, dirs := filepath.Join(base, "0"), 0
	s := open(t, dir, o)
	random := rand.New(rand.NewPCG(7, 7))
	type known struct {
		value   string
		expires int64
	}
	keys := map[string]known{}
	marks, state := map[string]uint64{}, map[string]string{}
	value := func(i int) string { return strings.Repeat("v", i%200) }
	var sizes, indexes, segments []int64
	next := 0
	for day := range days {
		for range 200 {
			clock.advance(24 * time.Hour / 200)
			next++
			ttl, key := 24*time.Hour, fmt.Sprint("key ", next)
			if next%2 == 0 {
				ttl = 240 * time.Hour
			}
			if next%20 == 0 { // a duplicate, perhaps of a key that has expired
				key = fmt.Sprint("key ", next-1-random.IntN(min(next-1, 500)))
			}
			existing, inserted, err := s.PutIfAbsent([]byte(key), []byte(value(next)), ttl)
			require.NoError(t, err)
			k, ok := keys[key]
			live := ok && clock.ms.Load() < k.expires
			require.Equal(t, !live, inserted, "%s on day %d", key, day)
			if live {
				require.Equal(t, k.value, string(existing))
			} else {
				keys[key] = known{value(next), clock.ms.Load() + ttl.Milliseconds()}
			}
			switch next % 25 {
			case 0:
				key := fmt.Sprint("key ", next-random.IntN(min(next, 100)))
				existed, err := s.Delete([]byte(key))
				require.NoError(t, err)
				require.Equal(t, clock.ms.Load() < keys[key].expires, existed)
				delete(keys, key)
			case 5:
				source := fmt.Sprint("source ", random.IntN(5))
				marks[source] = max(marks[source], uint64(next))
				_, err := s.Advance(source, uint64(next))
				require.NoError(t, err)
			case 10:
				key := fmt.Sprint("state ", random.IntN(5))
				state[key] = value(next)
				require.NoError(t, s.Update(func(tx *Tx) error { return tx.Set([]byte(key), []byte(state[key])) }))
			}
		}
		switch {
		case day%30 == 10:
			require.NoError(t, s.Close())
			s = open(t, dir, o)
		case day%30 == 20: // killed
			old := s
			end := old.withoutHousekeeping()
			dirs++
			to := filepath.Join(base, fmt.Sprint(dirs))
			require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
			end()
			require.NoError(t, old.Close())
			dir = to
			s = open(t, dir, o)
		}
		for key, k := range keys {
			if clock.ms.Load() >= k.expires+(240*time.Hour).Milliseconds() {
				delete(keys, key) // for the test's own memory
			}
		}
		if day%10 != 9 {
			continue
		}
		for key, k := range keys {
			got, ok, err := s.Get([]byte(key))
			require.NoError(t, err)
			require.Equal(t, clock.ms.Load() < k.expires, ok, key)
			if ok {
				require.Equal(t, k.value, string(got))
			}
		}
		for source, seq := range marks {
			got, ok, err := s.HighWater(source)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, seq, got)
		}
		for key, v := range state {
			require.Equal(t, v, stateOf(t, s, key))
		}
		require.Eventually(t, func() bool { // a segment just sealed is housekeeping's only once its file is closed
			s.keepHouse()
			return s.log.Used() <= 2*int64(float64(s.Stats().LiveBytes)*1.3)+3*o.SegmentSize
		}, time.Minute, time.Millisecond, "twice what is alive and three segments")
		requireRecounted(t, s)
		st := s.Stats()
		sizes, indexes, segments = append(sizes, diskUsage(t, dir)), append(indexes, s.keys.Stats().Keys), append(segments, int64(st.Segments))
	}
	flat := func(name string, all []int64) {
		t.Logf("%s every ten days: %v", name, all)
		half := len(all) / 2 // each half has days behind a reopening and before one, and with snapshots and without
		require.LessOrEqual(t, slices.Max(all[half:]), slices.Max(all[:half])*7/4, "%s grows", name)
	}
	flat("bytes on disk", sizes)
	flat("entries in the index", indexes)
	t.Logf("segments every ten days: %v", segments)
	// How many there are depends on what was sealed early, for a copy or by a reopening, and is bounded, not flat.
	require.LessOrEqual(t, slices.Max(segments), int64(64), "they stay: hundreds are sealed in a year")
	require.NoError(t, s.Verify())
	st := s.Stats()
	t.Logf("written: %d bytes of log, %d of them copied, %d of snapshots", st.LogBytes, st.CopiedBytes, st.SnapshotBytes)
}

func stateOf(t testing.TB, s *Store, key string) (v string) {
	require.NoError(t, s.View(func(tx *Tx) error {
		b, _, err := tx.Get([]byte(key))
		v = string(b)
		return err
	}))
	return v
}

// Duplicates of keys that are being moved are answered meanwhile, readers find them where they are, and who deletes
// one of them wins.
func TestPromise6MovingKeys(t *testing.T) {
	o := quick
	o.SegmentSize, o.Pace = minSegmentSize, -1
	s := open(t, filepath.Join(memoryDir(t), "store"), o)
	const n = 400
	value := func(i int) string { return fmt.Sprint(i, strings.Repeat("v", i)) }
	for i := range n {
		put(t, s, fmt.Sprint("key ", i), value(i))
		if i%3 == 0 { // something dead in each segment
			put(t, s, "dead", "dead")
			_, err := s.Delete([]byte("dead"))
			require.NoError(t, err)
		}
	}
	var done atomic.Bool
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			for i := r; !done.Load(); i = (i + 1) % n {
				key := fmt.Append(nil, "key ", i)
				if got, ok, err := s.Get(key); err != nil || !ok || string(got) != value(i) {
					t.Errorf("key %d: %v %v", i, ok, err)
					return
				}
				if got, inserted, err := s.PutIfAbsent(key, nil, 0); err != nil || inserted || string(got) != value(i) {
					t.Errorf("key %d put: %v %v", i, inserted, err)
					return
				}
				if i%50 == 0 {
					seen := 0
					for r, err := range s.Records() {
						if err != nil {
							t.Error(err)
							return
						}
						if strings.HasPrefix(string(r.Key), "key ") {
							seen++
						}
					}
					if seen != n {
						t.Errorf("%d records of %d", seen, n)
						return
					}
				}
			}
		})
	}
	readers.Go(func() { // makes and deletes, so that there is always something to move and to drop
		for i := 0; !done.Load(); i++ {
			key := fmt.Append(nil, "other ", i%50)
			if _, _, err := s.PutIfAbsent(key, make([]byte, 100), 0); err != nil {
				t.Error(err)
				return
			}
			if existed, err := s.Delete(key); err != nil || !existed {
				t.Errorf("delete: %v %v", existed, err)
				return
			}
		}
	})
	for i := 0; i < 30 || s.house.copied.Load() == 0; i++ {
		require.NoError(t, s.Compact())
	}
	done.Store(true)
	readers.Wait()
	require.Positive(t, s.house.copied.Load())
	requireRecounted(t, s)
	requireNoClaims(t, s)
}

// Between the index's answer and the read a record may be moved, and its segment dropped: the look-up asks again.
func TestALookUpWhoseSegmentIsGoneAsksAgain(t *testing.T) {
	o := quick
	o.SegmentSize, o.still = minSegmentSize, true
	s := open(t, filepath.Join(memoryDir(t), "store"), o)
	put(t, s, "k", "v")
	n, err := s.name(0, []byte("k"))
	require.NoError(t, err)
	was, ok := s.keys.Lookup(n.hash, byte(n.space), n.key)
	require.True(t, ok)
	for i := 0; s.log.Segment(was.Slot()) != nil; i++ {
		put(t, s, "dead", strings.Repeat("d", 500))
		_, err := s.Delete([]byte("dead"))
		require.NoError(t, err)
		if i%16 == 15 {
			require.NoError(t, s.Compact())
		}
	}
	f, err := s.fetch(n, was, new(buffer))
	require.NoError(t, err)
	require.True(t, f.ok, "it is missed")
	require.NotEqual(t, was, f.loc)
	require.Equal(t, "v", string(f.record.Value))
}

// A record is not copied when a change of its key is on its way: the copy would come behind it in the log, and bring
// back what the change removes.
func TestACopyGivesWayToAChange(t *testing.T) {
	o := quick
	o.still = true
	dir := filepath.Join(memoryDir(t), "store")
	s := open(t, dir, o)
	put(t, s, "k", "v")
	one := placed(t, s, "k")
	commit, ch := staged(t, s, tombstone(record.Result, s.clock.millis(), one.key))

	c, v := s.claims.tryHold(one.name)
	require.Same(t, commit, v.commit)
	_, ok, err := s.moved(one, c, v)
	require.NoError(t, err)
	require.False(t, ok, "it is copied")
	s.claims.release(c, false)
	require.NoError(t, s.settle(commit, ch))
	hasNot(t, s, "k")
	requireNoClaims(t, s)
}

// Nobody writes any more, and time passes: what has expired leaves the log all the same.
func TestWhatExpiresWhileNobodyWrites(t *testing.T) {
	clock := clockAt(1_700_000_000_000)
	o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, Now: clock.now, SegmentSize: minSegmentSize, Pace: -1}
	s := open(t, filepath.Join(memoryDir(t), "store"), o)
	for round := range 2 { // a seal of the first may still have its round coming, and that of the drop
		first := s.log.Segments()[len(s.log.Segments())-1].Number()
		last := first + 3
		for i := 0; s.log.Segments()[len(s.log.Segments())-1].Number() <= last; i++ {
			put(t, s, fmt.Sprint(round, " ", i), strings.Repeat("v", 100))
		}
		require.Eventually(t, func() bool {
			retired := s.log.Retired()
			return len(retired) > 0 && retired[len(retired)-1].Number() >= last
		}, time.Minute, time.Millisecond)
		require.LessOrEqual(t, s.log.Dropped(), first, "what is alive stays")
		clock.advance(2 * time.Hour)
		require.Eventually(t, func() bool { return s.log.Dropped() >= last }, time.Minute, time.Millisecond)
	}
}

// A snapshot that is damaged, cut, missing or of another store costs time and nothing else; one of a later version is
// too new.
func TestSnapshotsThatAreOfNoUse(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	o := quick
	o.SegmentSize = minSegmentSize
	s, history := writeHistory(t, dir, o, 100)
	require.NoError(t, s.Snapshot())
	put(t, s, "later", "later")
	want := history[len(history)-1].contents
	want["record later"] = "later"
	require.NoError(t, s.Close())
	paths, err := snapshot.List(filepath.Join(dir, snapshotName))
	require.NoError(t, err)
	require.Len(t, paths, 2)
	var good [][]byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		good = append(good, b)
	}
	check := func(what string) {
		s := open(t, dir, o)
		require.Equal(t, want, contents(t, s, tornStates, tornSources), what)
		requireRecounted(t, s)
		require.NoError(t, s.Close())
	}
	for at := 0; at < len(good[0]); at++ {
		if (raced || at > 170 && at < len(good[0])-100) && at%211 != 0 {
			continue
		}
		require.NoError(t, os.RemoveAll(filepath.Join(dir, snapshotName)))
		require.NoError(t, os.Mkdir(filepath.Join(dir, snapshotName), 0o700))
		require.NoError(t, os.WriteFile(paths[1], good[1], 0o600))
		require.NoError(t, os.WriteFile(paths[0], flipped(good[0], at), 0o600))
		check(fmt.Sprint("a bit flipped at ", at))
		if at%10 == 0 {
			require.NoError(t, os.WriteFile(paths[0], good[0][:at], 0o600))
			require.NoError(t, os.WriteFile(paths[1], good[1][:at/2], 0o600))
			check(fmt.Sprint("both cut at ", at))
		}
	}
	require.NoError(t, os.RemoveAll(filepath.Join(dir, snapshotName)))
	check("none")
}

// What is in the index, the overflow map and the ledger comes back equal.
func TestASnapshotIsTheIndex(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	s := open(t, dir, Options{TTL: Forever, Sync: SyncNever, Pace: -1})
	for i := range 5000 {
		put(t, s, fmt.Sprint(i), fmt.Sprint(i))
	}
	forgeOverflow(t, s)
	require.NoError(t, s.Snapshot())
	entries := func(s *Store) (all []string) {
		for r, err := range s.Records() {
			require.NoError(t, err)
			all = append(all, string(r.Key)+" "+string(r.Value))
		}
		slices.Sort(all)
		return all
	}
	want, ledger, stats := entries(s), s.ledger.Append(nil), s.keys.Stats()
	require.NoError(t, s.Close())
	s = open(t, dir, Options{TTL: Forever, Sync: SyncNever})
	require.Equal(t, want, entries(s))
	require.Equal(t, ledger, s.ledger.Append(nil))
	got := s.keys.Stats()
	require.Equal(t, []int64{stats.Keys, stats.Overflow, stats.Pages}, []int64{got.Keys, got.Overflow, got.Pages})
	require.GreaterOrEqual(t, got.Overflow, int64(5))
}

// Pages are copied one after the other while others write, so a snapshot shows some of what comes meanwhile. It must not
// claim to show all of it: what it claims, an opening does not read again.
func TestASnapshotBesideWriters(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "store")
	o := Options{TTL: Forever, Sync: SyncNever, still: true}
	s := open(t, dir, o)
	for i := range 5000 { // so that each shard has a page
		put(t, s, fmt.Sprint(i), "before")
	}
	s.house.pace.rate = 32 << 20 // 4 MiB of pages: time to write meanwhile
	var done atomic.Bool
	var written [4][]string
	var writers sync.WaitGroup
	for w := range written {
		writers.Go(func() {
			for i := 0; !done.Load(); i++ {
				key := fmt.Sprint("writer ", w, ", ", i)
				if _, inserted, err := s.PutIfAbsent([]byte(key), []byte("meanwhile"), 0); err != nil || !inserted {
					t.Errorf("%s: %v %v", key, inserted, err)
					return
				}
				written[w] = append(written[w], key)
			}
		})
	}
	err := s.Snapshot()
	done.Store(true)
	writers.Wait()
	require.NoError(t, err)
	through := s.house.snapshot.through
	require.Greater(t, through, uint64(5000), "nobody wrote meanwhile")

	s = open(t, crashed(t, dir), o)
	require.Equal(t, through, s.house.snapshot.through, "the snapshot is not used")
	for i := range 5000 {
		has(t, s, fmt.Sprint(i), "before")
	}
	for _, keys := range written {
		for _, key := range keys {
			has(t, s, key, "meanwhile")
		}
	}
	requireRecounted(t, s)
}

// What is committed and not in the index yet, because its committer has not come to it, is published before a snapshot
// copies the index: the snapshot claims it.
func TestASnapshotPublishesFirst(t *testing.T) {
	o := quick
	o.still = true
	dir := filepath.Join(memoryDir(t), "store")
	s := open(t, dir, o)
	put(t, s, "begin", "the log")
	commit, ch := staged(t, s, recordFor("k", "v"))
	require.NoError(t, s.log.Wait(commit))

	require.NoError(t, s.Snapshot())
	killed := crashed(t, dir)
	s.publish(ch[0].claim)
	has(t, s, "k", "v")
	s = open(t, killed, o)
	require.EqualValues(t, 2, s.house.snapshot.through, "the snapshot is not used")
	has(t, s, "k", "v")
}

// forgeOverflow puts nine keys, of which at least five have the hash of another, whatever the seed: see the forger in
// package index.
func forgeOverflow(t *testing.T, s *Store) {
	p1, p2 := uint64(0x9E3779B185EBCA87), uint64(0xC2B2AE3D27D4EB4F)
	inverse := p2
	for range 6 {
		inverse *= 2 - p2*inverse
	}
	d := p1 << 30 * inverse
	for i := range 9 {
		words := [8]uint64{}
		for lane, way := range []int{i % 3, i / 3} {
			if way > 0 {
				words[lane] = 1 << 63
				words[4+lane] = []uint64{-d, d}[way-1]
			}
		}
		key := []byte("a prefix of thirty-one bytes ..")
		for _, w := range words {
			key = binary.LittleEndian.AppendUint64(key, w)
		}
		put(t, s, string(key), fmt.Sprint(i))
	}
}

// A store that is opened, used a little and killed, a thousand times, has no more files than after the first times.
func TestACrashLoop(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 120
	}
	base := memoryDir(t)
	dir := filepath.Join(base, "0")
	files := func() (n int) {
		for _, content := range tree(t, dir) {
			_ = content
			n++
		}
		return n
	}
	most := 0
	for i := range n {
		s, err := Open(dir, &quick)
		require.NoError(t, err)
		put(t, s, fmt.Sprint(i), "v")
		end := s.withoutHousekeeping()
		to := filepath.Join(base, fmt.Sprint(i+1))
		require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
		end()
		require.NoError(t, s.Close())
		require.NoError(t, os.RemoveAll(dir))
		dir = to
		if i < 100 {
			most = max(most, files())
		} else {
			require.LessOrEqual(t, files(), most, "after %d openings", i)
		}
	}
	s := open(t, dir, quick)
	for i := range n {
		has(t, s, fmt.Sprint(i), "v")
	}
	t.Logf("at most %d files and directories", most)
}

// A store of ten keys is small.
func TestASmallStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{})
	for i := range 10 {
		put(t, s, fmt.Sprint(i), "v")
	}
	require.LessOrEqual(t, diskUsage(t, dir), int64(12<<20))
	require.LessOrEqual(t, s.Stats().IndexBytes, int64(8<<20))
	require.NoError(t, s.Snapshot())
	require.LessOrEqual(t, s.house.snapshotSize.Load(), int64(16<<10))
	require.NoError(t, s.Close())
	require.LessOrEqual(t, diskUsage(t, dir), int64(64<<10))
	var b bytes.Buffer
	s = open(t, dir, Options{})
	require.NoError(t, s.Backup(&b))
	require.LessOrEqual(t, b.Len(), 8<<10)
}
