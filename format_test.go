package oncelog_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// docClock is a store's clock, in milliseconds since 1970.
type docClock struct{ atomic.Int64 }

func (c *docClock) now() time.Time { return time.UnixMilli(c.Load()) }

// docHistory writes a store through its API and remembers each name it used, live or not.
type docHistory struct {
	t                     testing.TB
	random                *rand.Rand
	clock                 docClock
	dir                   string
	store                 *oncelog.Store
	keys, states, sources map[string]bool
	lastSeq               map[string]uint64
	relayed               int
}

func newDocHistory(t testing.TB, seed uint64) *docHistory {
	h := &docHistory{
		t: t, random: rand.New(rand.NewPCG(seed, 10)), dir: filepath.Join(docMemoryDir(t), "store"),
		keys: map[string]bool{}, states: map[string]bool{}, sources: map[string]bool{}, lastSeq: map[string]uint64{},
	}
	h.clock.Store(1_700_000_000_000)
	return h
}

// docMemoryDir is a directory that costs no disk sync where the system has one; nothing here is about power.
func docMemoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "oncelog-format-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func docOpen(dir string, c *docClock, o oncelog.Options) (*oncelog.Store, error) {
	o.Now, o.RetryWindow, o.SegmentSize = c.now, oncelog.NoRetryWindow, 4<<10
	return oncelog.OpenStill(dir, o)
}

func (h *docHistory) open(o oncelog.Options) {
	s, err := docOpen(h.dir, &h.clock, o)
	require.NoError(h.t, err)
	h.store = s
}

// crashed returns a copy of the store as a kill would have left it.
func (h *docHistory) crashed() string {
	dir := filepath.Join(docMemoryDir(h.t), "store")
	require.NoError(h.t, os.CopyFS(dir, os.DirFS(h.dir)))
	return dir
}

func (h *docHistory) name(in map[string]bool, prefix string) []byte {
	name := fmt.Sprint(prefix, h.random.IntN(60))
	if h.random.IntN(20) == 0 {
		name += strings.Repeat("\x00\xff", h.random.IntN(100))
	}
	in[name] = true
	return []byte(name)
}

// value is one of a few bytes, of none, or of more than a segment holds.
func (h *docHistory) value() []byte {
	size := h.random.IntN(300)
	switch h.random.IntN(40) {
	case 0:
		size = 4<<10 + h.random.IntN(20<<10)
	case 1, 2:
		size = 0
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(h.random.Uint32())
	}
	return b
}

func (h *docHistory) ttl() time.Duration {
	return []time.Duration{
		0, 0, time.Millisecond, 40 * time.Second, time.Hour, 72*time.Hour + 1, 365 * 24 * time.Hour, oncelog.Forever,
	}[h.random.IntN(8)]
}

// step makes one call, of all that write.
func (h *docHistory) step() {
	t, r := h.t, h.random
	h.clock.Add(int64(r.IntN(3000)))
	switch r.IntN(11) {
	case 10:
		if h.relayed++; h.relayed%8 == 0 {
			h.relay()
			return
		}
		require.NoError(t, h.store.Update(func(tx *oncelog.Tx) error {
			for range 1 + r.IntN(8) {
				require.NoError(t, tx.Emit(fmt.Sprint("topic ", r.IntN(3)), h.value()))
			}
			return nil
		}))
	case 0:
		_, err := h.store.Delete(h.name(h.keys, "key"))
		require.NoError(t, err)
	case 1, 2:
		source := string(h.name(h.sources, "source"))
		seq := h.lastSeq[source] + uint64(r.IntN(10)) // forwards, backwards and with gaps
		seq -= min(seq, 3)
		if r.IntN(20) == 0 {
			seq = 1<<63 + r.Uint64N(1<<62)
		}
		_, err := h.store.Advance(source, seq)
		require.NoError(t, err)
		h.lastSeq[source] = seq % (1 << 62)
	case 3:
		require.NoError(t, h.store.ForgetSource(string(h.name(h.sources, "source"))))
	case 4, 5, 6:
		require.NoError(t, h.store.Update(func(tx *oncelog.Tx) error {
			for range r.IntN(6) {
				key := h.name(h.keys, "key") // a state and a record of one name must not meet
				h.states[string(key)] = true
				var err error
				switch r.IntN(6) {
				case 0, 1:
					err = tx.Set(key, h.value())
				case 2:
					err = tx.Delete(key)
				case 3:
					_, err = tx.DeleteRecord(key)
				case 4:
					_, err = tx.Advance(string(h.name(h.sources, "source")), r.Uint64N(100))
				case 5:
					if err = tx.PutRecord(key, h.value(), h.ttl()); errors.Is(err, oncelog.ErrExists) {
						err = nil
					}
				}
				require.NoError(t, err)
			}
			return nil
		}))
	default:
		_, _, err := h.store.PutIfAbsent(h.name(h.keys, "key"), h.value(), h.ttl())
		require.NoError(t, err)
	}
}

// contents is what the store's API says, in one line for each thing.
func (h *docHistory) contents(s *oncelog.Store) map[string]string {
	t, found := h.t, map[string]string{}
	for r, err := range s.Records() {
		if errors.Is(err, oncelog.ErrTooNew) {
			maps.DeleteFunc(found, func(name, _ string) bool { return strings.HasPrefix(name, "record ") })
			found["records"] = errDocTooNew.Error()
			break
		}
		require.NoError(t, err)
		expires := int64(docNever)
		if !r.Expires.IsZero() {
			expires = r.Expires.UnixMilli()
		}
		found["record "+string(r.Key)] = docLine(r.Value, r.Committed.UnixMilli(), expires)
	}
	for key := range h.keys {
		value, ok, err := s.Get([]byte(key))
		if errors.Is(err, oncelog.ErrTooNew) {
			found["get "+key] = errDocTooNew.Error()
			continue
		}
		require.NoError(t, err)
		if ok {
			found["get "+key] = fmt.Sprintf("%x", value)
		}
	}
	require.NoError(t, s.View(func(tx *oncelog.Tx) error {
		for key := range h.states {
			value, ok, err := tx.Get([]byte(key))
			require.NoError(t, err)
			if ok {
				found["state "+key] = fmt.Sprintf("%x", value)
			}
		}
		return nil
	}))
	for source := range h.sources {
		seq, ok, err := s.HighWater(source)
		require.NoError(t, err)
		if ok {
			found["mark "+source] = fmt.Sprint(seq)
		}
	}
	box, err := s.Receiver(nil)
	require.NoError(t, err)
	for m, err := range box.Outgoing(t.Context()) {
		require.NoError(t, err)
		found[fmt.Sprint("message ", m.Topic, " ", m.Ordinal)] = fmt.Sprintf("%s %x %d", m.Key, m.Payload, m.Emitted.UnixMilli())
	}
	for m, err := range box.Parked(t.Context()) {
		require.NoError(t, err)
		found[fmt.Sprint("parked ", m.Topic, " ", m.Ordinal)] = fmt.Sprintf("%s %x %s", m.Key, m.Payload, m.Reason)
	}
	return found
}

func docLine(value []byte, committed, expires int64) string {
	return fmt.Sprintf("%x %d %d", value, committed, expires)
}

// decoded is the same from what the decoder found. States and marks can't be listed, so those that it found are asked
// for from now on.
func (h *docHistory) decoded(d *docStore) map[string]string {
	found := map[string]string{}
	for place := range d.live {
		if len(place.key) == 0 || len(place.key) > oncelog.DefaultMaxKeySize {
			continue // the format has such names and the API does not
		}
		switch place.keyspace {
		case 0:
			h.keys[place.key] = true
		case 2:
			h.states[place.key] = true
		case 4:
			h.sources[place.key] = true
		}
	}
	for key, r := range d.visible(0, h.clock.Load()) {
		found["record "+key] = docLine(r.value, r.time, r.expires)
		if h.keys[key] {
			found["get "+key] = fmt.Sprintf("%x", r.value)
		}
	}
	for place, r := range d.live {
		if place.keyspace == 0 && (r.kind != docResult || len(r.attributes) > 0) {
			maps.DeleteFunc(found, func(name, _ string) bool { return strings.HasPrefix(name, "record ") })
			found["records"] = errDocTooNew.Error()
			break
		}
	}
	for key := range h.keys {
		if r, ok := d.live[docPlace{0, key}]; ok && (r.kind != docResult || len(r.attributes) > 0) {
			found["get "+key] = errDocTooNew.Error()
		}
	}
	for key, r := range d.visible(2, 0) {
		if h.states[key] {
			found["state "+key] = fmt.Sprintf("%x", r.value)
		}
	}
	for key, r := range d.visible(4, 0) {
		if h.sources[key] {
			found["mark "+key] = fmt.Sprint(r.mark.number)
		}
	}
	for topic, t := range d.topics {
		for n, r := range t.outgoing {
			found[fmt.Sprint("message ", topic, " ", n)] = fmt.Sprintf("%s %x %d", r.attributes[6], r.value, r.time)
		}
		for n, r := range t.parked {
			found[fmt.Sprint("parked ", topic, " ", n)] = fmt.Sprintf("%s %x %s", r.attributes[6], r.value, r.attributes[4])
		}
	}
	return found
}

// relay hands some messages on, and parks some.
func (h *docHistory) relay() {
	box, err := h.store.Receiver(nil)
	require.NoError(h.t, err)
	ctx, stop := context.WithCancel(h.t.Context())
	var mu sync.Mutex
	left := h.random.IntN(6)
	for range box.Outgoing(ctx) {
		err := box.Relay(ctx, func(_ context.Context, m receiver.Message) error {
			mu.Lock()
			defer mu.Unlock()
			if left--; left < 0 {
				stop()
				return errors.New("no more for now")
			}
			if m.Ordinal%3 == 0 {
				return receiver.Permanent(errors.New("refused"))
			}
			return nil
		})
		require.ErrorIs(h.t, err, context.Canceled)
		break
	}
	stop()
	for m, err := range box.Parked(h.t.Context()) {
		require.NoError(h.t, err)
		if h.random.IntN(4) == 0 {
			require.NoError(h.t, box.Unpark(h.t.Context(), m.Topic, m.Ordinal))
		}
		break
	}
}

// sessions writes a store in as many openings, each with a TTL of its own, and leaves the last one open.
func (h *docHistory) sessions(n, steps int) {
	for i := range n {
		h.open(oncelog.Options{TTL: []time.Duration{72 * time.Hour, oncelog.Forever, time.Minute}[i%3]})
		for range steps {
			h.step()
		}
		if i < n-1 {
			require.NoError(h.t, h.store.Close())
			h.clock.Add(int64(h.random.IntN(20_000)))
		}
	}
}

// A program that was written from the document reads what the API wrote, closed or not.
func TestPromise10ADecoderWrittenFromTheDocument(t *testing.T) {
	h := newDocHistory(t, 1)
	h.sessions(5, 150)
	live := h.contents(h.store)
	require.Greater(t, len(live), 60)

	crashed := h.crashed()
	require.NoError(t, h.store.Close())

	d, err := docDecode(h.dir)
	require.NoError(t, err)
	require.Equal(t, live, h.decoded(d))
	require.True(t, d.clean, "a closed store ends in a sync mark and no prepared space")
	tail := d.segments[len(d.segments)-1]
	require.Equal(t, tail.data, tail.data[:d.tornAt], "the space that was prepared is given back")
	requireAllKinds(t, d)

	c, err := docDecode(crashed)
	require.NoError(t, err)
	require.Equal(t, live, h.decoded(c))
	require.Equal(t, d.records, c.records, "the same transactions")
	require.False(t, c.clean)

	// What the decoder reads does not depend on the process that wrote it: the store, opened again, agrees.
	for _, dir := range []string{h.dir, crashed} {
		s, err := docOpen(dir, &h.clock, oncelog.Options{ReadOnly: true})
		require.NoError(t, err)
		require.Equal(t, live, h.contents(s))
		require.NoError(t, s.Close())
		s, err = docOpen(dir, &h.clock, oncelog.Options{})
		require.NoError(t, err)
		require.Equal(t, live, h.contents(s))
		require.NoError(t, s.Close())
		d, err := docDecode(dir)
		require.NoError(t, err)
		require.Equal(t, live, h.decoded(d))
		require.True(t, d.clean, "recovery left a sync mark behind the last frame, and nothing else")
	}
}

// requireAllKinds: the history is only worth something if all that can be written is in it.
func requireAllKinds(t *testing.T, d *docStore) {
	require.GreaterOrEqual(t, len(d.segments), 5, "one for each opening, and those that were full")
	require.Positive(t, d.kinds[docSyncMark])
	require.Equal(t, len(d.segments)-1, d.kinds[docSeal])
	seen := map[string]int{}
	for _, r := range d.records {
		what := fmt.Sprint(r.kind)
		switch {
		case r.kind == docTombstone:
			what += fmt.Sprint(" of ", r.value[0])
		case r.kind == docResult && r.expires == docNever:
			what += " for ever"
		case len(r.value) == 0:
			what += " empty"
		case len(r.value) > 4<<10:
			what += " large"
		}
		seen[what]++
	}
	for _, what := range []string{
		"1", "1 for ever", "1 empty", "1 large", "6", "6 empty", "6 large", "7", "11 of 1", "11 of 6", "11 of 7",
	} {
		require.Positive(t, seen[what], "%s in %v", what, seen)
	}
}

// The example at the end of the document is a part of a store. With a seal before it and nothing after it, it is a
// whole one, made of the document's bytes, which the decoder and the store both read.
func TestPromise10TheExampleOfTheDocumentIsAStore(t *testing.T) {
	dir := filepath.Join(docMemoryDir(t), "store")
	writeDocExample(t, dir)
	d, err := docDecode(dir)
	require.NoError(t, err)
	require.EqualValues(t, 2, d.last)
	require.Len(t, d.records, 3)
	order, failure := d.live[docPlace{0, "order-4711"}], d.live[docPlace{1, "pay-1"}]
	require.EqualValues(t, "ok", order.value)
	require.EqualValues(t, int64(1_700_259_201_000), order.expires)
	require.EqualValues(t, 4711, d.live[docPlace{4, "orders"}].mark.number)
	require.EqualValues(t, docFailure, failure.kind)
	require.EqualValues(t, int64(1_700_000_062_000), failure.expires)
	require.Equal(t, map[byte][]byte{2: {7}, 4: []byte("E42")}, failure.attributes)

	var clock docClock
	clock.Store(1_700_000_003_000)
	for _, readOnly := range []bool{true, false} {
		s, err := docOpen(dir, &clock, oncelog.Options{ReadOnly: readOnly})
		require.NoError(t, err)
		value, ok, err := s.Get([]byte("order-4711"))
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, "ok", value)
		ok, err = s.Has([]byte("pay-1"))
		require.NoError(t, err)
		require.False(t, ok, "the receiver's keyspace is another")
		seq, ok, err := s.HighWater("orders")
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, 4711, seq)
		require.NoError(t, s.Verify())
		require.NoError(t, s.Close())
	}
}

// docExample returns the bytes of one of the document's dumps.
func docExample(t testing.TB, name string) (b []byte) {
	text, err := os.ReadFile(filepath.Join("docs", "FORMAT.md"))
	require.NoError(t, err)
	_, dump, ok := strings.Cut(string(text), "```hex "+name+"\n")
	require.True(t, ok)
	dump, _, _ = strings.Cut(dump, "```")
	for line := range strings.Lines(dump) {
		offset, bytes, _ := strings.Cut(strings.TrimSpace(line), "  ")
		require.Equal(t, fmt.Sprintf("%04x", len(b)), offset)
		more, err := hex.DecodeString(strings.ReplaceAll(bytes, " ", ""))
		require.NoError(t, err)
		b = append(b, more...)
	}
	return b
}

// TestFrameOverhead measures what a frame of one record takes beside key and value: 28 bytes at most with the store's
// TTL, and those of the number for a TTL of the record's own.
func TestFrameOverhead(t *testing.T) {
	h := newDocHistory(t, 2)
	const most = 28
	ttls := []time.Duration{0, time.Millisecond, time.Hour, 72 * time.Hour, 365 * 24 * time.Hour, oncelog.Forever}
	sizes := []int{0, 1, 127, 128, 4 << 10, 16<<10 - 1, 16 << 10, 64 << 10, 1 << 20}
	s, err := oncelog.OpenStill(h.dir, oncelog.Options{Now: h.clock.now, RetryWindow: oncelog.NoRetryWindow, TTL: 24 * time.Hour})
	require.NoError(t, err)
	for i := range 240 {
		size := 256
		if i >= 200 {
			size = sizes[i%len(sizes)]
		}
		for _, ttl := range ttls {
			key := fmt.Sprintf("%036d", h.random.Uint64())
			_, inserted, err := s.PutIfAbsent([]byte(key), make([]byte, size), ttl)
			require.NoError(t, err)
			require.True(t, inserted)
			h.clock.Add(1000)
		}
		if i == 198 {
			h.clock.Add((50 * time.Hour).Milliseconds()) // an old segment: time from its Base takes more bytes
		}
	}
	require.NoError(t, s.Close())
	d, err := docDecode(h.dir)
	require.NoError(t, err)
	biggest, withTTL, n := map[int]int{}, map[int]int{}, 0
	for _, seg := range d.segments {
		for _, f := range seg.frames {
			if f.own() {
				continue
			}
			r := d.records[n]
			n++
			size := len(r.value)
			overhead, own := f.end-f.offset-len(r.key)-size, 0
			if r.hasTTL {
				own = len(binary.AppendUvarint(nil, r.ttl))
				withTTL[size] = max(withTTL[size], overhead)
			} else {
				biggest[size] = max(biggest[size], overhead)
			}
			require.LessOrEqual(t, overhead, most+own, "value of %d bytes, TTL %d", size, r.ttl)
			if size == 256 && r.ttl <= uint64((72*time.Hour).Milliseconds()) && r.time-seg.header.baseTime < 1<<21 {
				require.LessOrEqual(t, overhead, most, "in a segment of less than 35 minutes, TTL %d", r.ttl)
			}
		}
	}
	require.Equal(t, len(d.records), n, "a record in each frame")
	require.Len(t, biggest, len(sizes)+1)
	t.Logf("most bytes beside key and value, by the value's size: %v; with a TTL of its own: %v", biggest, withTTL)
}
