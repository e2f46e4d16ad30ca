package oncelog

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// memoryDir returns a directory on which a sync costs nothing, where there is one: these tests open a store tens of
// thousands of times, and what they prove does not depend on a disk.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// contents is all that a store answers: records, state and marks by keyspace and key.
func contents(t require.TestingT, s *Store, stateKeys, sources []string) map[string]string {
	out, err := whatItHolds(s, stateKeys, sources)
	require.NoError(t, err)
	return out
}

func whatItHolds(s *Store, stateKeys, sources []string) (map[string]string, error) {
	out := map[string]string{}
	for r, err := range s.Records() {
		if err != nil {
			return nil, err
		}
		out["record "+string(r.Key)] = string(r.Value)
	}
	err := s.View(func(tx *Tx) error {
		for _, key := range stateKeys {
			v, ok, err := tx.Get([]byte(key))
			if err != nil {
				return err
			}
			if ok {
				out["state "+key] = string(v)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		seq, ok, err := s.HighWater(source)
		if err != nil {
			return nil, err
		}
		if ok {
			out["mark "+source] = fmt.Sprint(seq)
		}
	}
	return out, nil
}

var (
	tornStates  = []string{"a", "b"}
	tornSources = []string{"x"}
)

// moment is what a store held after one of its transactions, and where that transaction ended.
type moment struct {
	segment  string
	end      int64
	contents map[string]string
}

// withoutHousekeeping keeps the store from tidying up behind the test's back, until end is called.
func (s *Store) withoutHousekeeping() (end func()) {
	s.house.round.Lock()
	return s.house.round.Unlock
}

// writeHistory makes a store of several segments and tells what it held after each transaction.
func writeHistory(t *testing.T, dir string, o Options, transactions int) (*Store, []moment) {
	o.still = true
	s := open(t, dir, o)
	var history []moment
	note := func() {
		var last moment
		for slot := uint16(1); s.log.Segment(slot) != nil; slot++ {
			if seg := s.log.Segment(slot); seg.End() > 0 {
				rel, err := filepath.Rel(dir, seg.Path())
				require.NoError(t, err)
				last.segment, last.end = rel, seg.End()
			}
		}
		last.contents = contents(t, s, tornStates, tornSources)
		history = append(history, last)
	}
	for i := range transactions {
		prepared(t, s)
		switch i % 5 {
		case 0, 1:
			put(t, s, fmt.Sprint("key ", i), fmt.Sprint("value ", i))
		case 2:
			require.NoError(t, s.Update(func(tx *Tx) error {
				for _, key := range tornStates {
					if err := tx.Set([]byte(key), []byte(fmt.Sprint(i))); err != nil {
						return err
					}
				}
				return tx.PutRecord([]byte(fmt.Sprint("tx ", i)), nil, 0)
			}))
		case 3:
			_, err := s.Advance("x", uint64(i))
			require.NoError(t, err)
		case 4:
			existed, err := s.Delete([]byte(fmt.Sprint("key ", i-4)))
			require.NoError(t, err)
			require.True(t, existed)
		}
		note()
	}
	return s, history
}

// prepared waits until the next segment is there if one was asked for: a segment goes on where it is not, and a short
// history would have one only.
func prepared(t *testing.T, s *Store) {
	segments := s.log.Segments()
	last := segments[len(segments)-1]
	if len(segments) <= 2 && last.End() <= minSegmentSize/2 {
		return
	}
	dir, file := filepath.Split(last.Path())
	path := filepath.Join(filepath.Dir(filepath.Clean(dir)), fmt.Sprintf("%020d", last.Number()+1), file)
	require.Eventually(t, func() bool {
		fi, err := os.Stat(path)
		return err == nil && fi.Size() >= minSegmentSize
	}, time.Minute, 100*time.Microsecond)
}

// Whatever a crash leaves of the last bytes, the store opens, holds what had been written whole, in order and
// nothing else, and goes on from there.
func TestPromise2TornTails(t *testing.T) {
	base := memoryDir(t)
	dir := filepath.Join(base, "store")
	o := quick
	o.SegmentSize = minSegmentSize
	o.still = true // dropping syncs, and what was synced is not torn
	_, history := writeHistory(t, dir, o, 130)
	tail := history[len(history)-1].segment
	first := slices.IndexFunc(history, func(m moment) bool { return m.segment == tail })
	require.Greater(t, first, 20, "the history has one segment only")
	inTail := history[first:]
	require.Greater(t, len(inTail), 2)
	if testing.Short() {
		inTail = inTail[:3]
	}
	whole, err := os.ReadFile(filepath.Join(dir, tail))
	require.NoError(t, err)
	copied := filepath.Join(base, "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
	random := rand.New(rand.NewPCG(1, 2))

	end := inTail[len(inTail)-1].end
	step := int64(1)
	if raced {
		step = 17 // nothing runs beside anything here
	}
	for cut := int64(0); cut <= end; cut += step {
		// The transactions that end at or before the cut are whole.
		kept := first + sort.Search(len(inTail), func(i int) bool { return inTail[i].end > cut }) - 1
		for variant, rest := range [][]byte{nil, make([]byte, end-cut), junk(random, end-cut)} {
			work := filepath.Join(base, "work")
			require.NoError(t, os.CopyFS(work, os.DirFS(copied)))
			path := filepath.Join(work, tail)
			require.NoError(t, os.WriteFile(path, slices.Concat(whole[:cut], rest), 0o600))
			checkTorn(t, work, o, history, kept, fmt.Sprintf("cut at %d of %d, variant %d", cut, end, variant))
			require.NoError(t, os.RemoveAll(work))
		}
	}
}

func junk(random *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func checkTorn(t *testing.T, dir string, o Options, history []moment, kept int, what string) {
	s, err := Open(dir, &o)
	require.NoError(t, err, what)
	want := history[kept].contents
	got := contents(t, s, tornStates, tornSources)
	if !maps.Equal(want, got) {
		// Filling with zeros can leave a transaction whole whose last bytes were zeros.
		require.Less(t, kept+1, len(history), what)
		want = history[kept+1].contents
		require.Equal(t, want, got, what)
	}
	want = maps.Clone(want)
	for round := range 3 {
		key := fmt.Sprint("after ", round)
		put(t, s, key, what)
		want["record "+key] = what
		require.NoError(t, s.Close(), what)
		if round == 2 {
			return
		}
		s, err = Open(dir, &o)
		require.NoError(t, err, what)
		require.Equal(t, want, contents(t, s, tornStates, tornSources), what)
	}
}

// One flipped bit anywhere in a store that was closed is an error that says where, at opening or when the record is
// asked for, or does no harm: without a snapshot, which leaves nothing to be found later, and with one.
func TestPromise4FlippedBits(t *testing.T) {
	base := memoryDir(t)
	dir := filepath.Join(base, "store")
	o := quick
	o.SegmentSize = minSegmentSize
	s, history := writeHistory(t, dir, o, 300)
	want := history[len(history)-1].contents
	require.NoError(t, s.Close())
	random := rand.New(rand.NewPCG(3, 4))
	for _, snapshots := range []bool{true, false} {
		forget := func() {
			if !snapshots {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, snapshotName)))
			}
		}
		forget()
		refused, found, harmless := 0, 0, map[string]int{}
		for path, data := range tree(t, dir) {
			rel, err := filepath.Rel(dir, path)
			require.NoError(t, err)
			inSnapshot := filepath.Dir(rel) == snapshotName
			for at := range len(data) {
				if (testing.Short() || inSnapshot && at > 150 || snapshots && !inSnapshot) && random.IntN(10) > 0 {
					continue
				}
				if raced && random.IntN(6) > 0 {
					continue
				}
				bit := byte(1) << random.IntN(8)
				changeByte(t, path, at, data[at]^bit)
				forget() // which closing left
				what := fmt.Sprintf("%s, byte %d", rel, at)
				s, err := Open(dir, &o)
				if err == nil {
					var got map[string]string
					if got, err = whatItHolds(s, tornStates, tornSources); err == nil {
						require.Equal(t, want, got, what)
						harmless[rel]++
					} else {
						require.ErrorIs(t, s.Verify(), ErrCorrupt, what)
						found++
					}
					require.NoError(t, s.Close())
				} else {
					refused++
				}
				if err != nil {
					var damage *CorruptError
					require.True(t, errors.As(err, &damage) || errors.Is(err, ErrTooNew), "%s: %v", what, err)
					if damage != nil {
						require.FileExists(t, damage.File)
					}
				}
				changeByte(t, path, at, data[at])
			}
		}
		t.Logf("%d flips refused, %d found when the record was asked for, harmless: %v", refused, found, harmless)
		s := open(t, dir, o)
		require.Equal(t, want, contents(t, s, tornStates, tornSources))
		require.NoError(t, s.Close())
		// Nobody's data: the process id, and the marks of the log at its end, without which it is recovered as after a
		// kill. With a snapshot also what has been replaced, and the frame around a record, which nobody reads.
		for path, n := range harmless {
			if filepath.Base(path) != lockName && filepath.Base(filepath.Dir(path)) != "torn" && !snapshots {
				require.Equal(t, history[len(history)-1].segment, path)
				require.Less(t, n, 60)
			}
		}
		require.Equal(t, snapshots, found > 0)
	}
}

func changeByte(t *testing.T, path string, at int, b byte) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b}, int64(at))
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// Damage that comes after the store was opened is an error too, never a wrong answer, and other keys are answered.
func TestPromise4DamageUnderAnOpenStore(t *testing.T) {
	s, dir := fresh(t)
	value := string(make([]byte, 1000))
	for i := range 100 {
		put(t, s, fmt.Sprint("key ", i), value)
	}
	require.NoError(t, s.Close())
	s = open(t, dir, quick)
	require.NoError(t, s.Verify())
	paths, err := filepath.Glob(filepath.Join(dir, "wal", "*", "*"))
	require.NoError(t, err)
	f, err := os.OpenFile(paths[len(paths)-1], os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1}, 50_000)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	damaged := 0
	for i := range 100 {
		key := []byte(fmt.Sprint("key ", i))
		got, ok, err := s.Get(key)
		if err == nil {
			require.True(t, ok)
			require.Equal(t, value, string(got))
			continue
		}
		damaged++
		var where *CorruptError
		require.ErrorAs(t, err, &where)
		require.Equal(t, paths[len(paths)-1], where.File)
		require.InDelta(t, 50_000, where.Offset, 1100)
		_, err = s.Has(key)
		require.ErrorIs(t, err, ErrCorrupt)
		_, inserted, err := s.PutIfAbsent(key, nil, 0)
		require.ErrorIs(t, err, ErrCorrupt)
		require.False(t, inserted)
		_, err = s.Delete(key)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorIs(t, s.Update(func(tx *Tx) error { _, _, _ = tx.Record(key); return nil }), ErrCorrupt)
	}
	require.Equal(t, 1, damaged)
	require.ErrorIs(t, s.Verify(), ErrCorrupt)
	requireNoClaims(t, s)
	require.NoError(t, s.Close())
	_, err = Open(dir, nil)
	require.ErrorIs(t, err, ErrCorrupt)
}
