package oncelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// boxModel is what the outbox must hold.
type boxModel struct {
	topics map[string]*topicModel
}

type topicModel struct {
	next    uint64
	waiting []letterModel
	parked  map[uint64]letterModel
}

type letterModel struct {
	ordinal      uint64
	key, payload string
}

func (m *boxModel) topic(name string) *topicModel {
	if m.topics[name] == nil {
		m.topics[name] = &topicModel{next: 1, parked: map[uint64]letterModel{}}
	}
	return m.topics[name]
}

// The outbox agrees with a plain list for each topic: whatever is emitted, handed on, parked and put back, with
// housekeeping in between, reopened and killed.
func TestPromise13ModelOfTheOutbox(t *testing.T) {
	base := memoryDir(t)
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		clock := clockAt(1_700_000_000_000)
		o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, Now: clock.now, SegmentSize: 4 << 10, Pace: -1, still: true}
		dirs := 0
		path := func() string { dirs++; return filepath.Join(base, fmt.Sprint(runs, "-", dirs)) }
		dir := path()
		s, err := Open(dir, &o)
		require.NoError(t, err)
		defer func() {
			require.NoError(t, s.Close())
			for i := range dirs + 1 {
				_ = os.RemoveAll(filepath.Join(base, fmt.Sprint(runs, "-", i)))
			}
		}()
		m := &boxModel{topics: map[string]*topicModel{}}
		box := func() backend { return backend{s} }
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		n := 0
		anyParked := func(tm *topicModel) (ordinal uint64, ok bool) {
			for o := range tm.parked {
				if !ok || o < ordinal {
					ordinal, ok = o, true
				}
			}
			return ordinal, ok
		}
		t.Repeat(map[string]func(*rapid.T){
			"emit": func(t *rapid.T) {
				fails := rapid.IntRange(0, 5).Draw(t, "fails") == 0
				err := s.Update(func(tx *Tx) error {
					for range rapid.IntRange(1, 4).Draw(t, "messages") {
						name := names.Draw(t, "topic")
						n++
						payload := fmt.Sprintf("%d %0*d", n, rapid.IntRange(0, 300).Draw(t, "size"), n)
						require.NoError(t, tx.Emit(name, []byte(payload)))
						if fails {
							continue
						}
						tm := m.topic(name)
						tm.waiting = append(tm.waiting, letterModel{ordinal: tm.next, payload: payload})
						tm.next++
					}
					if fails {
						return os.ErrInvalid
					}
					return tx.Set([]byte("n"), fmt.Append(nil, n))
				})
				require.Equal(t, fails, err != nil)
			},
			"sent": func(t *rapid.T) {
				tm := m.topic(names.Draw(t, "topic"))
				name := nameOf(m, tm)
				if len(tm.waiting) == 0 {
					require.Error(t, box().Sent(t.Context(), name, tm.next))
					return
				}
				k := rapid.IntRange(1, len(tm.waiting)).Draw(t, "through")
				require.NoError(t, box().Sent(t.Context(), name, tm.waiting[k-1].ordinal))
				tm.waiting = tm.waiting[k:]
			},
			"park": func(t *rapid.T) {
				tm := m.topic(names.Draw(t, "topic"))
				name := nameOf(m, tm)
				if len(tm.waiting) == 0 {
					require.Error(t, box().Park(t.Context(), name, tm.next, "no"))
					return
				}
				if len(tm.waiting) > 1 {
					require.Error(t, box().Park(t.Context(), name, tm.waiting[1].ordinal, "not the first"))
				}
				l := tm.waiting[0]
				require.NoError(t, box().Park(t.Context(), name, l.ordinal, "no"))
				tm.waiting = tm.waiting[1:]
				tm.parked[l.ordinal] = l
			},
			"unpark": func(t *rapid.T) {
				tm := m.topic(names.Draw(t, "topic"))
				name := nameOf(m, tm)
				require.ErrorIs(t, box().Unpark(t.Context(), name, tm.next), receiver.ErrNotParked)
				ordinal, ok := anyParked(tm)
				if !ok {
					return
				}
				l := tm.parked[ordinal]
				require.NoError(t, box().Unpark(t.Context(), name, ordinal))
				delete(tm.parked, ordinal)
				l.ordinal = tm.next
				tm.next++
				tm.waiting = append(tm.waiting, l)
			},
			"put": func(t *rapid.T) { // so that segments fill up with what dies
				clock.advance(time.Duration(rapid.IntRange(0, 30).Draw(t, "minutes")) * time.Minute)
				for range 10 {
					n++
					_, _, err := s.PutIfAbsent(fmt.Append(nil, "key ", n), make([]byte, 100), 0)
					require.NoError(t, err)
				}
			},
			"compact":  func(t *rapid.T) { require.NoError(t, s.Compact()) },
			"round":    func(t *rapid.T) { s.keepHouse() },
			"snapshot": func(t *rapid.T) { require.NoError(t, s.Snapshot()) },
			"recount":  func(t *rapid.T) { requireRecountedNow(t, s) },
			"reopen": func(t *rapid.T) {
				require.NoError(t, s.Close())
				s, err = Open(dir, &o)
				require.NoError(t, err)
			},
			"killed": func(t *rapid.T) {
				to := path()
				require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
				require.NoError(t, s.Close())
				dir = to
				s, err = Open(dir, &o)
				require.NoError(t, err)
			},
			"": func(t *rapid.T) {
				for name, tm := range m.topics {
					after := uint64(0)
					for i := range tm.waiting {
						l := &tm.waiting[i]
						got, ok, err := box().Next(t.Context(), name, after)
						require.NoError(t, err)
						require.True(t, ok, "message %d of %s", l.ordinal, name)
						require.Equal(t, []any{l.ordinal, l.payload}, []any{got.Ordinal, string(got.Payload)})
						if l.key == "" {
							l.key = got.Key
						}
						require.NotEmpty(t, got.Key)
						require.Equal(t, l.key, got.Key, "the key stays")
						after = got.Ordinal
					}
					_, ok, err := box().Next(t.Context(), name, after)
					require.NoError(t, err)
					require.False(t, ok)
				}
				parked := 0
				for got, err := range box().Parked(t.Context()) {
					require.NoError(t, err)
					parked++
					l, ok := m.topics[got.Topic].parked[got.Ordinal]
					require.True(t, ok)
					require.Equal(t, []string{l.payload, l.key, "no"}, []string{string(got.Payload), got.Key, got.Reason})
				}
				want := 0
				for _, tm := range m.topics {
					want += len(tm.parked)
				}
				require.Equal(t, want, parked)
			},
		})
	})
}

func nameOf(m *boxModel, tm *topicModel) string {
	for name, other := range m.topics {
		if other == tm {
			return name
		}
	}
	return ""
}

// Messages of transactions that run at the same time are in the order of the commits, each once.
func TestOrderOfMessagesOfManyCallers(t *testing.T) {
	s, _ := fresh(t)
	r := receiverOf(t, s)
	const callers, each = 8, 25
	done := make(chan error, callers)
	for c := range callers {
		go func() {
			for i := range each {
				_, err := r.DoTx(t.Context(), fmt.Sprint(c, " ", i), func(_ context.Context, tx receiver.Tx) ([]byte, error) {
					n, _, err := tx.Get([]byte("n"))
					if err != nil {
						return nil, err
					}
					n = append(n, 'x')
					if err := tx.Emit("topic", fmt.Append(nil, len(n))); err != nil {
						return nil, err
					}
					return nil, tx.Set([]byte("n"), n)
				})
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		require.NoError(t, <-done)
	}
	var got []string
	for m, err := range r.Outgoing(t.Context()) {
		require.NoError(t, err)
		got = append(got, string(m.Payload))
	}
	var want []string
	for i := range callers * each {
		want = append(want, fmt.Sprint(i+1))
	}
	require.True(t, slices.Equal(want, got), "%v", got)
}

// Everybody at once: messages are emitted, handed on, parked and put back, by two at a time, while housekeeping copies
// them and makes snapshots. What is found by reopening, with the snapshots and without, is what there was.
func TestPromise13TheOutboxUnderEverybody(t *testing.T) {
	turns := 12
	if testing.Short() {
		turns = 4
	}
	for range turns {
		dir := filepath.Join(memoryDir(t), "store")
		o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, SegmentSize: 4 << 10, Pace: -1}
		s := open(t, dir, o)
		b := backend{s}
		ctx := t.Context()
		topics := []string{"a", "b", "c"}
		var emitting, working sync.WaitGroup
		var done atomic.Bool
		for e := range 4 {
			emitting.Go(func() {
				for i := range 150 {
					err := s.Update(func(tx *Tx) error {
						for n := range 1 + i%3 {
							if err := tx.Emit(topics[(i+n)%3], fmt.Appendf(make([]byte, i%200), "%d %d", e, i)); err != nil {
								return err
							}
						}
						return tx.Set([]byte("state"), make([]byte, i))
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		var unparked [3]atomic.Int64
		for i, topic := range topics {
			working.Go(func() {
				for last := uint64(0); !done.Load(); {
					m, ok, err := b.Next(ctx, topic, last)
					if err != nil {
						t.Error(err)
						return
					}
					if !ok {
						runtime.Gosched()
						continue
					}
					if m.Ordinal != last+1 {
						t.Errorf("%s: %d behind %d", topic, m.Ordinal, last)
					}
					if m.Ordinal%5 == 0 {
						err = b.Park(ctx, topic, m.Ordinal, "no")
					} else {
						err = b.Sent(ctx, topic, m.Ordinal)
					}
					if err != nil {
						t.Error(err)
						return
					}
					last = m.Ordinal
				}
			})
			for range 2 {
				working.Go(func() {
					for n := uint64(5); !done.Load(); {
						switch err := b.Unpark(ctx, topic, n); {
						case err == nil:
							unparked[i].Add(1)
							n += 10 // every other one stays
						case errors.Is(err, receiver.ErrNotParked):
							if unparked[i].Load() > int64(n/10) {
								n += 10 // the other one had it
							}
							runtime.Gosched()
						default:
							t.Error(err)
							return
						}
					}
				})
			}
		}
		working.Go(func() {
			for i := 0; !done.Load(); i++ {
				err := s.Compact()
				if err == nil && i%2 == 0 {
					err = s.Snapshot()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
		emitting.Wait()
		done.Store(true)
		working.Wait()
		requireRecounted(t, s)
		want := boxContents(t, s)
		killed := crashed(t, dir)
		bare := crashed(t, dir)
		require.NoError(t, os.RemoveAll(filepath.Join(bare, snapshotName)))
		for _, dir := range []string{killed, bare} {
			o.still = true
			again := open(t, dir, o)
			require.Equal(t, want, boxContents(t, again))
			requireRecounted(t, again)
		}
	}
}

func boxContents(t *testing.T, s *Store) map[string]string {
	all := map[string]string{}
	r := receiverOf(t, s)
	for m, err := range r.Outgoing(t.Context()) {
		require.NoError(t, err)
		all[fmt.Sprint("waiting ", m.Topic, " ", m.Ordinal)] = m.Key + string(m.Payload)
	}
	for m, err := range r.Parked(t.Context()) {
		require.NoError(t, err)
		all[fmt.Sprint("parked ", m.Topic, " ", m.Ordinal)] = m.Key + string(m.Payload)
	}
	for name, topic := range s.outbox.topics {
		all["topic "+name] = fmt.Sprint(topic.sent, topic.last, topic.next)
	}
	return all
}

// A transaction that is refused when it is staged gives its ordinals back: the next message has them.
func TestARefusedMessageLeavesNoHole(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{still: true})
	b := backend{s}
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("topic", []byte("first")) }))
	_, err := s.stage(100, 0, nil, []letter{
		outgoing("topic", []byte("refused"), nil), sent("topic", 1), sent("other", 7), // no such message
	})
	require.Error(t, err)
	s.outbox.mu.Lock()
	_, undo, err := s.outbox.admit(s.id, []letter{outgoing("topic", []byte("refused"), nil), sent("topic", 1)})
	require.NoError(t, err)
	undo() // as when the log refuses the frame
	s.outbox.mu.Unlock()
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("topic", []byte("second")) }))
	require.NoError(t, b.Sent(t.Context(), "topic", 1))
	m, ok, err := b.Next(t.Context(), "topic", 0)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []any{uint64(2), "second"}, []any{m.Ordinal, string(m.Payload)})
}

// What is about to go, by a transaction that is staged, is not copied, and goes once: the log would have it in the
// other order.
func TestWhatIsAboutToGoIsNotCopied(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{still: true})
	b := backend{s}
	require.NoError(t, s.Update(func(tx *Tx) error {
		return errors.Join(tx.Emit("topic", []byte("1")), tx.Emit("topic", []byte("2")))
	}))
	require.NoError(t, b.Park(t.Context(), "topic", 1, "no"))
	topic := s.outbox.topics["topic"]
	at, parked := topic.messages[2].loc, topic.parked[1].loc
	copyOf := func(kind record.Kind, ordinal uint64, at index.Location) letter {
		return letter{
			record: record.Record{Kind: kind, Expires: record.Forever, Key: []byte("topic")},
			attrs:  record.Attributes{Ordinal: ordinal}, moved: at,
		}
	}
	gone := letter{record: tombstone(record.Parked, 0, []byte("topic")), attrs: record.Attributes{Ordinal: 1}}
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	all, undo, err := s.outbox.admit(s.id, []letter{copyOf(record.Outgoing, 2, at), copyOf(record.Parked, 1, parked)})
	require.NoError(t, err)
	require.Len(t, all, 2)
	undo()
	_, undo, err = s.outbox.admit(s.id, []letter{sent("topic", 2), gone})
	require.NoError(t, err)
	all, _, err = s.outbox.admit(s.id, []letter{copyOf(record.Outgoing, 2, at), copyOf(record.Parked, 1, parked)})
	require.NoError(t, err)
	require.Empty(t, all)
	_, _, err = s.outbox.admit(s.id, []letter{gone})
	require.ErrorIs(t, err, receiver.ErrNotParked)
	_, _, err = s.outbox.admit(s.id, []letter{sent("topic", 2)})
	require.Error(t, err)
	undo()
	all, _, err = s.outbox.admit(s.id, []letter{copyOf(record.Outgoing, 2, at+1)})
	require.NoError(t, err)
	require.Empty(t, all, "it has been moved already")
}

// A message that is staged as handed on may be left behind when its segment is dropped; who asks for it in between is
// not told that it is missing.
func TestAMessageThatIsAboutToGoIsNotMissed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"), Options{TTL: Forever, Sync: SyncNever, SegmentSize: 16 << 10, Pace: -1, still: true})
	b := backend{s}
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("topic", []byte("m")) }))
	for i := range 60 {
		put(t, s, fmt.Sprint("x", i), string(make([]byte, 1<<10)))
		_, err := s.Delete(fmt.Append(nil, "x", i))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return len(s.log.Retired()) > 0 }, time.Minute, time.Millisecond)
	first := s.log.Retired()[0].Number()
	l := sent("topic", 1)
	l.record.At = s.clock.millis()
	commit, err := s.stage(l.size(), 0, nil, []letter{l})
	require.NoError(t, err)
	require.NoError(t, s.log.Wait(commit)) // its goroutine has not come to apply it
	require.NoError(t, s.copySegment(first))
	require.NoError(t, s.dropThrough(first))
	_, ok, err := b.Next(t.Context(), "topic", 0)
	require.NoError(t, err)
	require.False(t, ok)
	s.publishOutbox()
}
