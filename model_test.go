package oncelog

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/wal"
)

// model is the store as a plain map, and the machine that checks one against the other.
type model struct {
	base  string // where the store's directories are
	dirs  int
	o     Options
	clock *testClock
	s     *Store
	t     int64 // the store's time

	all     modelState
	pins    uint64           // power cuts so far
	commits uint64           // since the last opening
	quiet   func()           // lets housekeeping go on
	synced  map[string]int64 // what housekeeping has synced of each segment, by its directory's name
	history []modelState     // after each transaction since the last opening, that as of the opening first
}

type modelState struct {
	records map[string]modelRecord
	states  map[string]string
	marks   map[string]uint64
	at      int64 // the largest time in the log: the store's time begins there when it is opened
}

type modelRecord struct {
	value   string
	expires int64
}

func (m modelState) clone() modelState {
	return modelState{maps.Clone(m.records), maps.Clone(m.states), maps.Clone(m.marks), m.at}
}

func (m *model) dir() string { return filepath.Join(m.base, fmt.Sprint(m.dirs)) }

func (m *model) now() int64 {
	m.t = max(m.t, m.clock.ms.Load())
	return m.t
}

func (m *model) live(key string) (string, bool) {
	r, ok := m.all.records[key]
	return r.value, ok && m.now() < r.expires
}

func (m *model) committed() {
	if n := m.s.Stats().Commits - uint64(m.s.house.moves.Load()); n > m.commits { // a transaction that comes to nothing writes nothing
		m.commits, m.all.at = n, m.now()
	}
	m.history = append(m.history, m.all.clone())
}

func (m *model) open(t *rapid.T) { m.openAt(t, m.all.at) }

// openAt opens the store, in whose log the largest time is at least known.
func (m *model) openAt(t *rapid.T, known int64) {
	s, err := Open(m.dir(), &m.o)
	require.NoError(t, err)
	m.s, m.commits = s, 0
	// The time goes on from the largest in the log, or from a later one that a snapshot or a drop-through knows.
	before := max(m.t, m.clock.ms.Load())
	m.t = m.s.clock.millis()
	require.GreaterOrEqual(t, m.t, max(known, m.clock.ms.Load()))
	require.LessOrEqual(t, m.t, before)
	m.history = []modelState{m.all.clone()}
	m.quiet, m.synced = s.withoutHousekeeping(), map[string]int64{}
}

func (m *model) close(t *rapid.T) {
	m.quiet()
	m.quiet = func() {}
	require.NoError(t, m.s.Close())
}

// house lets housekeeping do something, which nothing else does here, so that it is known what it has synced.
func (m *model) house(do func() error) func(*rapid.T) {
	return func(t *rapid.T) {
		m.quiet()
		require.NoError(t, do())
		m.quiet = m.s.withoutHousekeeping()
		for n := m.s.log.Dropped() + 1; m.s.log.Segment(wal.SlotOf(n)) != nil; n++ {
			seg := m.s.log.Segment(wal.SlotOf(n))
			m.synced[filepath.Base(filepath.Dir(seg.Path()))] = seg.End()
		}
	}
}

var (
	modelKeys = rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "a long key that is not like the others at all"})
	modelTTLs = rapid.SampledFrom([]time.Duration{0, 0, Forever, time.Millisecond, time.Second, time.Minute})
)

func modelValue(t *rapid.T) string {
	n := rapid.SampledFrom([]int{0, 1, 20, 600, 5000}).Draw(t, "size")
	return fmt.Sprintf("%*d", n, rapid.IntRange(0, 9).Draw(t, "value"))
}

func (m *model) expires(ttl time.Duration) int64 {
	if ttl == 0 {
		ttl = m.o.TTL
	}
	if ttl == Forever {
		return int64(Forever)
	}
	return m.now() + ttl.Milliseconds()
}

func (m *model) put(t *rapid.T) {
	key, value, ttl := modelKeys.Draw(t, "key"), modelValue(t), modelTTLs.Draw(t, "ttl")
	existing, inserted, err := m.s.PutIfAbsent([]byte(key), []byte(value), ttl)
	require.NoError(t, err)
	if old, ok := m.live(key); ok {
		require.False(t, inserted)
		require.Equal(t, old, string(existing))
		return
	}
	require.True(t, inserted)
	m.all.records[key] = modelRecord{value, m.expires(ttl)}
	m.committed()
}

func (m *model) delete(t *rapid.T) {
	key := modelKeys.Draw(t, "key")
	existed, err := m.s.Delete([]byte(key))
	require.NoError(t, err)
	_, live := m.live(key)
	require.Equal(t, live, existed)
	if _, there := m.all.records[key]; there { // an expired record is deleted too, or a clock set back would return it
		delete(m.all.records, key)
		m.committed()
	}
}

func (m *model) get(t *rapid.T) {
	key := modelKeys.Draw(t, "key")
	value, live := m.live(key)
	got, ok, err := m.s.Get([]byte(key))
	require.NoError(t, err)
	require.Equal(t, live, ok)
	if live {
		require.Equal(t, value, string(got))
	}
	ok, err = m.s.Has([]byte(key))
	require.NoError(t, err)
	require.Equal(t, live, ok)
}

func (m *model) advance(t *rapid.T) {
	source, seq := modelKeys.Draw(t, "source"), rapid.Uint64Range(0, 20).Draw(t, "seq")
	fresh, err := m.s.Advance(source, seq)
	require.NoError(t, err)
	mark, ok := m.all.marks[source]
	require.Equal(t, !ok || seq > mark, fresh)
	if fresh {
		m.all.marks[source] = seq
		m.committed()
	}
}

func (m *model) forget(t *rapid.T) {
	source := modelKeys.Draw(t, "source")
	require.NoError(t, m.s.ForgetSource(source))
	if _, ok := m.all.marks[source]; ok {
		delete(m.all.marks, source)
		m.committed()
	}
}

var errModel = errors.New("changed my mind")

// update runs a transaction of a few steps, each checked against what the model would say inside it.
func (m *model) update(t *rapid.T) {
	steps := rapid.IntRange(0, 6).Draw(t, "steps")
	fail := rapid.IntRange(0, 4).Draw(t, "fail") == 0
	before := m.all.clone()
	err := m.s.Update(func(tx *Tx) error {
		for range steps {
			key := modelKeys.Draw(t, "key")
			k := []byte(key)
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0:
				value, ttl := modelValue(t), modelTTLs.Draw(t, "ttl")
				err := tx.PutRecord(k, []byte(value), ttl)
				if _, ok := m.live(key); ok {
					require.ErrorIs(t, err, ErrExists)
					continue
				}
				require.NoError(t, err)
				m.all.records[key] = modelRecord{value, m.expires(ttl)}
			case 1:
				existed, err := tx.DeleteRecord(k)
				require.NoError(t, err)
				_, live := m.live(key)
				require.Equal(t, live, existed)
				delete(m.all.records, key)
			case 2:
				got, ok, err := tx.Record(k)
				require.NoError(t, err)
				value, live := m.live(key)
				require.Equal(t, live, ok)
				if live {
					require.Equal(t, value, string(got))
				}
			case 3:
				value := modelValue(t)
				require.NoError(t, tx.Set(k, []byte(value)))
				m.all.states[key] = value
			case 4:
				require.NoError(t, tx.Delete(k))
				delete(m.all.states, key)
			case 5:
				got, ok, err := tx.Get(k)
				require.NoError(t, err)
				value, there := m.all.states[key]
				require.Equal(t, there, ok)
				require.Equal(t, value, string(got))
			case 6:
				seq := rapid.Uint64Range(0, 20).Draw(t, "seq")
				fresh, err := tx.Advance(key, seq)
				require.NoError(t, err)
				mark, ok := m.all.marks[key]
				require.Equal(t, !ok || seq > mark, fresh)
				if fresh {
					m.all.marks[key] = seq
				}
			}
		}
		if fail {
			return errModel
		}
		return nil
	})
	if fail {
		require.ErrorIs(t, err, errModel)
		m.all = before
		return
	}
	require.NoError(t, err)
	m.committed()
}

func (m *model) step(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{
		time.Millisecond, time.Second, time.Minute, 2 * time.Hour, -time.Second, -3 * time.Hour,
	}).Draw(t, "by")
	m.clock.advance(d)
	m.now()
}

func (m *model) reopen(t *rapid.T) {
	m.close(t)
	m.open(t)
}

// crash leaves the store to itself and goes on with a copy of its directory, as a killed process would leave it.
func (m *model) crash(t *rapid.T) {
	from := m.dir()
	m.dirs++
	require.NoError(t, os.CopyFS(m.dir(), os.DirFS(from)))
	m.close(t)
	m.open(t)
}

// powerCut is crash that also loses the end of what was never synced.
func (m *model) powerCut(t *rapid.T) {
	if m.s.Stats().Commits == 0 { // all that is there was made durable by opening
		m.crash(t)
		return
	}
	// Two moments can hold the same and differ in the largest time in their log, on which T depends if the clock was
	// set back meanwhile. So it was not; crash and reopen see to that case.
	m.clock.ms.Store(m.now())
	from, history, synced := m.dir(), m.history, m.synced
	m.dirs++
	require.NoError(t, os.CopyFS(m.dir(), os.DirFS(from)))
	m.close(t)
	if m.o.Sync == SyncNever {
		// Sealed segments were synced. Of the last one that was written to, all may go, its header too.
		paths, err := filepath.Glob(filepath.Join(m.dir(), "wal", "0*", "0*"))
		require.NoError(t, err)
		sort.Strings(paths)
		for _, path := range slices.Backward(paths) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			used := len(b)
			for used > 0 && b[used-1] == 0 {
				used--
			}
			if used == 0 {
				continue
			}
			safe := int(synced[filepath.Base(filepath.Dir(path))])
			cut := rapid.IntRange(safe, max(safe, used)).Draw(t, "cut")
			if rapid.Bool().Draw(t, "zeros") {
				clear(b[cut:])
			} else {
				b = b[:cut]
			}
			require.NoError(t, os.WriteFile(path, b, 0o600))
			break
		}
	}
	m.openAt(t, 0)
	got := m.read(t)
	for i := len(history) - 1; i >= 0; i-- {
		if m.o.Sync == SyncAlways && i < len(history)-1 {
			break
		}
		if m.visible(history[i]).equal(got) {
			m.all = history[i].clone()
			m.history = []modelState{m.all.clone()}
			// And from here on the time is known again.
			m.pins++
			fresh, err := m.s.Advance("pin", m.pins)
			require.NoError(t, err)
			require.True(t, fresh)
			m.committed()
			return
		}
	}
	t.Fatalf("after a power cut the store holds what it never held: %v", got)
}

func (m modelState) equal(o modelState) bool {
	return maps.Equal(m.records, o.records) && maps.Equal(m.states, o.states) && maps.Equal(m.marks, o.marks)
}

// visible is the part of a state that has not expired.
func (m *model) visible(st modelState) modelState {
	st = st.clone()
	for key, r := range st.records {
		if m.now() >= r.expires {
			delete(st.records, key)
		}
	}
	return st
}

// read is all that the store answers.
func (m *model) read(t *rapid.T) modelState {
	got := modelState{map[string]modelRecord{}, map[string]string{}, map[string]uint64{}, 0}
	for r, err := range m.s.Records() {
		require.NoError(t, err)
		expires := int64(Forever)
		if !r.Expires.IsZero() {
			expires = r.Expires.UnixMilli()
		}
		got.records[string(r.Key)] = modelRecord{string(r.Value), expires}
	}
	require.NoError(t, m.s.View(func(tx *Tx) error {
		for _, key := range []string{"a", "b", "c", "d", "e", "f", "a long key that is not like the others at all"} {
			v, ok, err := tx.Get([]byte(key))
			if err != nil {
				return err
			}
			if ok {
				got.states[key] = string(v)
			}
			seq, ok, err := m.s.HighWater(key)
			if err != nil {
				return err
			}
			if ok {
				got.marks[key] = seq
			}
		}
		return nil
	}))
	return got
}

func (m *model) check(t *rapid.T) {
	want, got := m.visible(m.all), m.read(t)
	got.at = want.at
	require.Equal(t, want, got)
	requireNoClaims(t, m.s)
}

// TestModel plays random operations, transactions, reopenings, crashes, power cuts and clock steps against a map.
func TestModel(t *testing.T) {
	base := memoryDir(t)
	games := 0
	rapid.Check(t, func(t *rapid.T) {
		games++
		m := &model{base: filepath.Join(base, fmt.Sprint(games)), clock: clockAt(1_700_000_000_000)}
		defer func() { _ = os.RemoveAll(m.base) }()
		require.NoError(t, os.Mkdir(m.base, 0o700))
		m.o = Options{
			TTL: time.Hour, RetryWindow: NoRetryWindow, Now: m.clock.now, SegmentSize: minSegmentSize,
			Sync: rapid.SampledFrom([]SyncPolicy{SyncAlways, SyncNever}).Draw(t, "sync"),
		}
		m.all = modelState{map[string]modelRecord{}, map[string]string{}, map[string]uint64{}, 0}
		m.now()
		m.open(t)
		defer func() {
			m.quiet()
			_ = m.s.Close()
		}()
		t.Repeat(map[string]func(*rapid.T){
			"put": m.put, "put again": m.put, "delete": m.delete, "get": m.get, "advance": m.advance, "forget": m.forget,
			"update": m.update, "update again": m.update, "clock": m.step, "reopen": m.reopen, "crash": m.crash,
			"power cut": m.powerCut, "": m.check,
			"recount":  func(t *rapid.T) { requireRecountedNow(t, m.s) },
			"snapshot": m.house(func() error { return m.s.Snapshot() }),
			"compact":  m.house(func() error { return m.s.Compact() }),
			"round": m.house(func() error {
				m.s.keepHouse()
				if err := m.s.house.failed.Load(); err != nil {
					return *err
				}
				return nil
			}),
		})
	})
}
