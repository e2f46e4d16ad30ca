package oncelog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/wal"
)

// model is the store as a plain map, and the machine that checks one against the other.
type model struct {
	base   string // where the store's directories are
	dirs   int
	o      Options
	clock  *testClock
	s      *Store
	t      int64 // the store's time
	latest int64 // the latest it has been when it was closed

	all     modelState
	pins    uint64           // power cuts so far
	commits uint64           // since the last opening
	quiet   func()           // lets housekeeping go on
	synced  map[string]int64 // what housekeeping has synced of each segment, by its directory's name
	history []modelState     // after each transaction since the last opening, that as of the opening first

	window  int                 // of the receivers, since the last opening
	quota   int64               // of keys in modelScopes[1], likewise; 0 = none
	seen    map[string]int      // what has happened, in all games
	resolve receiver.Resolution // what Options.Resolve answers; no resolution = an error
	values  int                 // results so far, so that no two are the same
}

// modelState is all that a store holds, expired records included: a clock that was set back returns them.
type modelState struct {
	records map[string]modelRecord
	states  map[string]string
	marks   map[string]uint64
	results map[modelKey]modelResult
	sources map[modelSource]modelMark
	topics  map[string][]string // payloads of messages that wait
	at      int64               // the largest time in the log: the store's time begins there when it is opened
}

type modelRecord struct {
	value   string
	expires int64
}

func newModelState() modelState {
	return modelState{
		map[string]modelRecord{}, map[string]string{}, map[string]uint64{},
		map[modelKey]modelResult{}, map[modelSource]modelMark{}, map[string][]string{}, 0,
	}
}

func (m modelState) clone() modelState {
	return modelState{
		maps.Clone(m.records), maps.Clone(m.states), maps.Clone(m.marks),
		maps.Clone(m.results), maps.Clone(m.sources), maps.Clone(m.topics), m.at,
	}
}

func (m *model) saw(what string) { m.seen[what]++ }

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
	// The time goes on from the largest in the log, or from a later one that a snapshot or a drop-through knows: perhaps
	// one that an opening with another TTL could not use.
	m.latest = max(m.latest, m.t, m.clock.ms.Load())
	m.t = m.s.clock.millis()
	require.GreaterOrEqual(t, m.t, max(known, m.clock.ms.Load()))
	require.LessOrEqual(t, m.t, m.latest)
	m.history = []modelState{m.all.clone()}
	m.quiet, m.synced = s.withoutHousekeeping(), map[string]int64{}
	m.window = rapid.SampledFrom([]int{0, 4, 4, receiver.Strict}).Draw(t, "window")
	if m.o.MaxBytes > 0 {
		m.window = max(m.window, 0) // a source that begins and then finds no room would be one more outcome
	}
	m.quota = rapid.SampledFrom([]int64{0, 1, 3}).Draw(t, "quota")
}

// options draws new options, odd ones among them. The clock and what keys may be stay.
func (m *model) options(t *rapid.T) {
	m.o.TTL = rapid.SampledFrom([]time.Duration{time.Hour, time.Hour, Forever, time.Minute + 1, 5 * time.Millisecond}).Draw(t, "TTL")
	m.o.RetryWindow = NoRetryWindow
	if m.o.TTL == time.Minute+1 {
		m.o.RetryWindow = time.Minute
	}
	m.o.Sync = rapid.SampledFrom([]SyncPolicy{SyncAlways, SyncNever, SyncEvery(time.Hour)}).Draw(t, "sync")
	m.o.SegmentSize = rapid.SampledFrom([]int64{minSegmentSize, minSegmentSize, 16 << 10}).Draw(t, "segment size")
	m.o.MaxValueSize = rapid.SampledFrom([]int{0, 0, 600}).Draw(t, "value size")
	m.o.MaxBytes = rapid.SampledFrom([]int64{0, 0, 0, minBudget * m.o.SegmentSize, 256 << 10}).Draw(t, "bytes")
}

// wrong returns what a call may be refused for, whatever the store holds.
func (m *model) wrong(keySize, valueSize int, ttl time.Duration) (errs []error) {
	if m.o.MaxKeySize > 0 && keySize > m.o.MaxKeySize || m.o.MaxValueSize > 0 && valueSize > m.o.MaxValueSize {
		errs = append(errs, ErrTooLarge)
		m.saw("too large")
	}
	if ttl != 0 && ttl <= m.o.RetryWindow {
		errs = append(errs, ErrTTL)
		m.saw("TTL refused")
	}
	return errs
}

// refused reports whether a call had to be refused, and requires that it was.
func refused(t *rapid.T, err error, wrong []error) bool {
	if len(wrong) == 0 {
		return false
	}
	require.Error(t, err)
	require.True(t, slices.ContainsFunc(wrong, func(w error) bool { return errors.Is(err, w) }), "%v", err)
	return true
}

// isFull reports whether a call was refused because the store is full, and requires that it is.
func (m *model) isFull(t *rapid.T, err error) bool {
	if !errors.Is(err, ErrFull) {
		return false
	}
	require.NotZero(t, m.o.MaxBytes)
	const most = 32 << 10 // of a transaction here
	require.Greater(t, m.s.log.Used()+most, m.s.budget())
	m.saw("full")
	return true
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
	modelKeyNames = []string{"a", "b", "c", "d", "e", "f", "a long key that is not like the others at all"}
	modelKeys     = rapid.SampledFrom(modelKeyNames)
	modelTTLs     = rapid.SampledFrom([]time.Duration{0, 0, Forever, time.Millisecond, time.Second, time.Minute})
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
	return m.now() + (ttl + time.Millisecond - 1).Milliseconds()
}

func (m *model) put(t *rapid.T) {
	key, value, ttl := modelKeys.Draw(t, "key"), modelValue(t), modelTTLs.Draw(t, "ttl")
	existing, inserted, err := m.s.PutIfAbsent([]byte(key), []byte(value), ttl)
	if refused(t, err, m.wrong(len(key), len(value), ttl)) {
		return
	}
	old, live := m.live(key)
	if m.isFull(t, err) {
		require.False(t, live)
		return
	}
	require.NoError(t, err)
	if live {
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
	if refused(t, err, m.wrong(len(key), 0, 0)) || m.isFull(t, err) {
		return
	}
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
	if refused(t, err, m.wrong(len(key), 0, 0)) {
		return
	}
	require.NoError(t, err)
	require.Equal(t, live, ok)
	if live {
		require.Equal(t, value, string(got))
	} else {
		value = ""
	}
	got, ok, err = m.s.AppendGet([]byte("before "), []byte(key))
	require.NoError(t, err)
	require.Equal(t, live, ok)
	require.Equal(t, "before "+value, string(got))
	ok, err = m.s.Has([]byte(key))
	require.NoError(t, err)
	require.Equal(t, live, ok)
}

func (m *model) advance(t *rapid.T) {
	source, seq := modelKeys.Draw(t, "source"), rapid.Uint64Range(0, 20).Draw(t, "seq")
	fresh, err := m.s.Advance(source, seq)
	if refused(t, err, m.wrong(len(source), 0, 0)) || m.isFull(t, err) {
		return
	}
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
	err := m.s.ForgetSource(source)
	if refused(t, err, m.wrong(len(source), 0, 0)) || m.isFull(t, err) {
		return
	}
	require.NoError(t, err)
	if _, ok := m.all.marks[source]; ok {
		delete(m.all.marks, source)
		m.committed()
	}
}

var errModel = errors.New("changed my mind")

// update runs a transaction of a few steps, each checked against what the model would say inside it.
func (m *model) update(t *rapid.T) {
	fail := rapid.IntRange(0, 4).Draw(t, "fail") == 0
	before := m.all.clone()
	err := m.s.Update(func(tx *Tx) error {
		m.steps(t, tx, tx)
		if fail {
			return errModel
		}
		return nil
	})
	switch {
	case fail:
		require.ErrorIs(t, err, errModel)
		m.all = before
	case m.isFull(t, err):
		m.all = before
	default:
		require.NoError(t, err)
		m.committed()
	}
}

// steps plays with a transaction. records is nil where there are no raw records.
func (m *model) steps(t *rapid.T, tx receiver.Tx, records *Tx) {
	for range rapid.IntRange(0, 6).Draw(t, "steps") {
		key := modelKeys.Draw(t, "key")
		k := []byte(key)
		kinds := 5
		if records != nil {
			kinds = 8
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "step") {
		case 0:
			value := modelValue(t)
			if err := tx.Set(k, []byte(value)); !refused(t, err, m.wrong(len(k), len(value), 0)) {
				require.NoError(t, err)
				m.all.states[key] = value
			}
		case 1:
			if err := tx.Delete(k); !refused(t, err, m.wrong(len(k), 0, 0)) {
				require.NoError(t, err)
				delete(m.all.states, key)
			}
		case 2:
			got, ok, err := tx.Get(k)
			if refused(t, err, m.wrong(len(k), 0, 0)) {
				continue
			}
			require.NoError(t, err)
			value, there := m.all.states[key]
			require.Equal(t, there, ok)
			require.Equal(t, value, string(got))
		case 3:
			seq := rapid.Uint64Range(0, 20).Draw(t, "seq")
			fresh, err := tx.Advance(key, seq)
			if refused(t, err, m.wrong(len(k), 0, 0)) {
				continue
			}
			require.NoError(t, err)
			mark, ok := m.all.marks[key]
			require.Equal(t, !ok || seq > mark, fresh)
			if fresh {
				m.all.marks[key] = seq
			}
		case 4:
			topic := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "topic")
			payload := modelValue(t)
			if err := tx.Emit(topic, []byte(payload)); !refused(t, err, m.wrong(len(topic), len(payload), 0)) {
				require.NoError(t, err)
				m.all.topics[topic] = append(slices.Clip(m.all.topics[topic]), payload)
			}
		case 5:
			value, ttl := modelValue(t), modelTTLs.Draw(t, "ttl")
			err := records.PutRecord(k, []byte(value), ttl)
			if refused(t, err, m.wrong(len(k), len(value), ttl)) {
				continue
			}
			if _, ok := m.live(key); ok {
				require.ErrorIs(t, err, ErrExists)
				continue
			}
			require.NoError(t, err)
			m.all.records[key] = modelRecord{value, m.expires(ttl)}
		case 6:
			existed, err := records.DeleteRecord(k)
			if refused(t, err, m.wrong(len(k), 0, 0)) {
				continue
			}
			require.NoError(t, err)
			_, live := m.live(key)
			require.Equal(t, live, existed)
			delete(m.all.records, key)
		case 7:
			got, ok, err := records.Record(k)
			if refused(t, err, m.wrong(len(k), 0, 0)) {
				continue
			}
			require.NoError(t, err)
			value, live := m.live(key)
			require.Equal(t, live, ok)
			if live {
				require.Equal(t, value, string(got))
			}
		}
	}
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
	m.options(t)
	m.open(t)
}

// crash leaves the store to itself and goes on with a copy of its directory, as a killed process would leave it.
func (m *model) crash(t *rapid.T) {
	from := m.dir()
	m.dirs++
	require.NoError(t, os.CopyFS(m.dir(), os.DirFS(from)))
	m.close(t)
	m.options(t)
	m.open(t)
}

// restore goes on with what a backup makes.
func (m *model) restore(t *rapid.T) {
	var b bytes.Buffer
	require.NoError(t, m.s.Backup(&b))
	m.clock.ms.Store(m.now()) // see powerCut
	m.dirs++
	require.NoError(t, Restore(m.dir(), &b))
	m.close(t)
	m.openAt(t, 0)
	require.Equal(t, m.describe(m.all), m.read(t))
	m.pin(t)
}

// beside opens the store a second time: not at all for writing, and for reading alone with all that is committed.
func (m *model) beside(t *rapid.T) {
	_, err := Open(m.dir(), &m.o)
	require.ErrorIs(t, err, ErrLocked)
	o := m.o
	o.ReadOnly = true
	s, err := Open(m.dir(), &o)
	require.NoError(t, err)
	reader := *m
	reader.s, reader.t = s, s.clock.millis()
	require.Equal(t, reader.describe(m.all), reader.read(t))
	m.saw("read beside")
	_, _, err = s.PutIfAbsent([]byte("a"), nil, 0)
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, s.Update(func(*Tx) error { return nil }), ErrReadOnly)
	require.NoError(t, s.Close())
	_, err = s.Has([]byte("a"))
	require.ErrorIs(t, err, ErrClosed)
}

// sent hands messages on.
func (m *model) sent(t *rapid.T) {
	topic := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "topic")
	waiting := m.all.topics[topic]
	if len(waiting) == 0 {
		return
	}
	n := rapid.IntRange(1, len(waiting)).Draw(t, "messages")
	first, ok, err := backend{m.s}.Next(t.Context(), topic, 0)
	require.NoError(t, err)
	require.True(t, ok)
	err = backend{m.s}.Sent(t.Context(), topic, first.Ordinal+uint64(n)-1)
	if m.isFull(t, err) {
		return
	}
	require.NoError(t, err)
	m.saw("messages handed on")
	if m.all.topics[topic] = waiting[n:]; len(waiting) == n {
		delete(m.all.topics, topic)
	}
	m.committed()
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
	if m.o.Sync != SyncAlways {
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
		if maps.Equal(m.describe(history[i]), got) {
			if i < len(history)-1 {
				m.saw("lost by a power cut")
			}
			m.all = history[i].clone()
			m.pin(t)
			return
		}
	}
	require.Equal(t, m.describe(history[len(history)-1]), got, "after a power cut the store holds what it never held")
	t.Fatal("after a power cut the store holds what it held before it was synced")
}

// pin makes the time in the log known again.
func (m *model) pin(t *rapid.T) {
	m.pins++
	m.history = []modelState{m.all.clone()}
	fresh, err := m.s.Advance("pin", m.pins)
	if m.isFull(t, err) { // then the next opening begins anywhere from here on
		m.all.at = 0
		return
	}
	require.NoError(t, err)
	require.True(t, fresh)
	m.committed()
}

// describe tells what a store answers that holds this.
func (m *model) describe(st modelState) map[string]string {
	all := map[string]string{}
	for key, r := range st.records {
		if m.now() < r.expires {
			all["record "+key] = fmt.Sprint(r.expires, " ", r.value)
		}
	}
	for key, value := range st.states {
		all["state "+key] = value
	}
	for source, seq := range st.marks {
		all["mark "+source] = fmt.Sprint(seq)
	}
	for topic, payloads := range st.topics {
		all["topic "+topic] = strings.Join(payloads, ",")
	}
	m.describeReceiver(st, all)
	return all
}

// read is all that the store answers.
func (m *model) read(t *rapid.T) map[string]string {
	all := map[string]string{}
	for r, err := range m.s.Records() {
		require.NoError(t, err)
		expires := int64(Forever)
		if !r.Expires.IsZero() {
			expires = r.Expires.UnixMilli()
		}
		all["record "+string(r.Key)] = fmt.Sprint(expires, " ", string(r.Value))
	}
	require.NoError(t, m.s.View(func(tx *Tx) error {
		for _, key := range modelKeyNames {
			v, ok, err := tx.Get([]byte(key))
			if refused(t, err, m.wrong(len(key), 0, 0)) {
				continue
			}
			require.NoError(t, err)
			if ok {
				all["state "+key] = string(v)
			}
			seq, ok, err := m.s.HighWater(key)
			require.NoError(t, err)
			if ok {
				all["mark "+key] = fmt.Sprint(seq)
			}
		}
		return nil
	}))
	m.readReceiver(t, all)
	return all
}

func (m *model) check(t *rapid.T) {
	require.Equal(t, m.describe(m.all), m.read(t))
	requireNoClaims(t, m.s)
}

// TestModel plays random operations, transactions, reopenings, crashes, power cuts and clock steps against a map.
func TestModel(t *testing.T) {
	base := memoryDir(t)
	games, seen := 0, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		games++
		m := &model{base: filepath.Join(base, fmt.Sprint(games)), seen: seen, clock: clockAt(1_700_000_000_000)}
		defer func() { _ = os.RemoveAll(m.base) }()
		require.NoError(t, os.Mkdir(m.base, 0o700))
		m.o = Options{Now: m.clock.now, MaxKeySize: rapid.SampledFrom([]int{0, 0, 8}).Draw(t, "key size")}
		m.options(t)
		m.all = newModelState()
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
			"restore": m.restore, "beside": m.beside, "sent": m.sent,
			"do": m.do, "do again": m.do, "do once more": m.do, "do all": m.doAll,
			"settle": m.settle, "settle number": m.settleSeq, "forget key": m.forgetKey, "forget receiver source": m.forgetReceiverSource,
			"verify":   func(t *rapid.T) { require.NoError(t, m.s.Verify()) },
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
	t.Logf("%d games: %v", games, seen)
	if games < 1000 { // too few to be sure of each
		return
	}
	for _, what := range []string{
		"full", "too large", "TTL refused", "ran", "replayed", "failed", "result gone", "reused", "in doubt", "resolved", "settled",
		"over the quota", "a batch of several", "a batch that stopped", "read beside", "messages handed on", "lost by a power cut",
	} {
		require.NotZero(t, seen[what], what)
	}
}
