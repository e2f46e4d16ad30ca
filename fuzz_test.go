package oncelog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/fuzz/decoders"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// FuzzManifest decodes a MANIFEST.
func FuzzManifest(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		oneManifest(t, b)
		if len(b) == manifestSize {
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint64(b[40:], xxhash.Sum64(b[:40]))
			oneManifest(t, b)
		}
	})
}

func oneManifest(t *testing.T, b []byte) {
	var m manifest
	var err error
	decoders.Bounded(t, len(b), 2, func() { m, err = parseManifest(b, "a manifest") })
	if err != nil {
		requireDamageOrTooNew(t, err)
		require.Zero(t, m)
		return
	}
	require.Equal(t, b, m.encode(), "its parts are all that it says")
}

func requireDamageOrTooNew(t *testing.T, err error) {
	t.Helper()
	var damage *CorruptError
	if errors.As(err, &damage) {
		require.NotEmpty(t, damage.File)
		require.NotEmpty(t, damage.Reason)
		return
	}
	require.ErrorIs(t, err, ErrTooNew)
}

// A message that waits takes four bytes at least, and in memory an entry of a map with its place; a cell of a quota
// takes three, and is in two lists.
const accountsFactor = 256

// FuzzAccounts decodes what a snapshot holds besides the index.
func FuzzAccounts(f *testing.F) {
	f.Fuzz(func(t *testing.T, ledger, outbox, doubts, scopes []byte) {
		if len(ledger)+len(outbox)+len(doubts)+len(scopes) > 1<<14 {
			return // cells are inserted in their order, one by one
		}
		var b []byte
		for _, part := range [][]byte{ledger, outbox, doubts, scopes} {
			b = append(binary.LittleEndian.AppendUint64(b, uint64(len(part))), part...)
		}
		oneAccounts(t, b)
		oneAccounts(t, ledger)
	})
}

func oneAccounts(t *testing.T, b []byte) {
	blank := func() *Store {
		s := &Store{ledger: compaction.NewLedger()}
		s.scopes.shift = stepShift(defaultMillis(quick))
		return s
	}
	var s *Store
	var err error
	blanks := []*Store{blank(), blank(), blank()} // a store alone takes 64 KiB
	decoders.Bounded(t, len(b), accountsFactor, func() {
		s, blanks = blanks[0], blanks[1:]
		err = s.parseAccounts(b)
	})
	if err != nil {
		return
	}
	again := blank()
	require.NoError(t, again.parseAccounts(s.appendAccounts(nil)))
	require.Equal(t, s.ledger.Append(nil), again.ledger.Append(nil))
	require.Equal(t, s.outbox.topics, again.outbox.topics)
	require.Equal(t, s.doubts.m, again.doubts.m)
	require.Equal(t, s.doubts.n.Load(), again.doubts.n.Load())
	for _, x := range []*Store{s, again} { // what is counted as nothing is not written
		maps.DeleteFunc(x.scopes.segments, func(_ uint64, part map[string][]cell) bool { return len(part) == 0 })
	}
	require.True(t, maps.EqualFunc(s.scopes.segments, again.scopes.segments, func(a, b map[string][]cell) bool {
		return maps.EqualFunc(a, b, slices.Equal[[]cell])
	}))
	_ = s.outbox.complete()
}

// FuzzReceiverMark decodes a receiver's mark, asks it about a number, and has it handle that.
func FuzzReceiverMark(f *testing.F) {
	f.Fuzz(func(t *testing.T, value, attrs []byte, seq uint64, window uint16, kept bool) {
		r := record.Record{Value: value, Attrs: attrs}
		var m mark
		var err error
		decoders.Bounded(t, len(value)+len(attrs), 2, func() { m, err = parseReceiverMark(&r) })
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		written := m.record([]byte("source"), 1)
		again, err := parseReceiverMark(&written)
		require.NoError(t, err)
		require.Equal(t, []any{m.Number, m.Epoch, m.first, m.floor}, []any{again.Number, again.Epoch, again.first, again.floor})
		require.Equal(t, string(bytes.TrimRight(m.Window, "\x00")), string(again.Window))
		require.Equal(t, string(m.kept), string(again.kept))
		for _, strict := range []bool{false, true} {
			req := &receiver.Mark{Seq: seq, Window: uint64(window), Epoch: m.Epoch, Strict: strict}
			_, before, err := m.judge(req)
			_, twin, sameErr := again.judge(req)
			require.Equal(t, before, twin)
			require.Equal(t, err, sameErr)
		}
		decoders.Bounded(t, len(value)+len(attrs)+int(window), 16, func() {
			fresh := m
			fresh.Window, fresh.kept = bytes.Clone(m.Window), bytes.Clone(m.kept)
			fresh.handle(seq, uint64(window), kept)
			again = fresh
		})
		if seq >= m.Number {
			require.True(t, again.has(seq), "it was handled, and the mark does not know")
		}
	})
}

// FuzzRecords is a store in whose log one transaction is anything: what is not refused is opened, read, kept house for,
// and says the same when it is opened again.
func FuzzRecords(f *testing.F) {
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) == 0 || len(payload) > 1<<14 || payload[0] >= 28 && payload[0] <= 30 {
			return // the log's own
		}
		oneStore(t, payload)
		oneStore(t, recordsPutRight(payload))
	})
}

// recordsPutRight returns records with their checks right, as far as they look like some.
func recordsPutRight(b []byte) []byte {
	b = bytes.Clone(b)
	for at := 0; at < len(b); {
		n, err := record.Size(b[at:])
		if err != nil || n > len(b)-at {
			break
		}
		body := at + n - record.CheckSize
		binary.LittleEndian.PutUint32(b[body:], uint32(xxhash.Sum64(b[at:body])))
		at += n
	}
	return b
}

var fuzzID = manifest{id: [16]byte{1, 2, 3}, seed: 4}

func oneStore(t *testing.T, payload []byte) {
	dir := filepath.Join(memoryDir(t), "store")
	require.NoError(t, os.Mkdir(dir, 0o700))
	clock := clockAt(goldenTime)
	o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, SegmentSize: minSegmentSize, Pace: -1, Now: clock.now, still: true}
	full, err := (&o).withDefaults()
	require.NoError(t, err)
	base := record.Base{At: goldenTime, TTL: time.Hour.Milliseconds()}
	wo := full.walOptions(fuzzID, func() record.Base { return base }, nil, nil)
	require.NoError(t, wal.Create(filepath.Join(dir, walName), wo))
	l, err := wal.Open(filepath.Join(dir, walName), wo, wal.Start{}, func(wal.Frame) error { return nil })
	require.NoError(t, err)
	require.NoError(t, l.Ready(len(payload)))
	c := wal.NewCommit(payload)
	require.NoError(t, l.Enqueue(c))
	require.NoError(t, l.Wait(c))
	require.NoError(t, l.Close())
	require.NoError(t, fuzzID.write(dir))

	keys, ok := keysIn(payload, base)
	if !ok {
		return
	}
	var want map[string]string
	for life := range 4 {
		o.ReadOnly = life == 1 // and not first: what a reader takes for damage it looks at again after a while
		s, err := Open(dir, &o)
		if err != nil {
			require.Zero(t, life, "%v", err)
			requireDamageOrTooNew(t, err)
			return
		}
		got, err := everything(s, keys)
		if err == nil {
			require.NoError(t, s.Verify())
		} else {
			got = map[string]string{"error": "yes"}
			requireDamageOrTooNew(t, err)
		}
		if life == 0 {
			want = got
		}
		require.Equal(t, want, got, "in life %d", life)
		switch life {
		case 0:
			require.NoError(t, s.Snapshot())
		case 2:
			if err := s.Compact(); err != nil { // it reads what no caller has asked for
				requireDamageOrTooNew(t, err)
			}
		}
		require.NoError(t, s.Close())
	}
}

const goldenTime = 1_700_000_000_000

// keysIn are the keys of records. ok is false if there is one for which nobody can ask, which no store writes either.
func keysIn(b []byte, base record.Base) (keys []string, ok bool) {
	for len(b) > 0 {
		r, n, err := record.Parse(b, base)
		if err != nil {
			break
		}
		if len(r.Key) == 0 || len(r.Key) > DefaultMaxKeySize {
			return nil, false
		}
		keys = append(keys, string(r.Key))
		b = b[n:]
	}
	return keys, true
}

// everything is what a store answers about keys, in each keyspace.
func everything(s *Store, keys []string) (map[string]string, error) {
	all, err := whatItHolds(s, keys, keys)
	if err != nil {
		return nil, err
	}
	r, err := s.Receiver(nil)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	for _, k := range keys {
		v, ok, err := s.Get([]byte(k))
		if err != nil {
			return nil, err
		}
		all["key "+k] = fmt.Sprintf("%x %v", v, ok)
		if parsed, ok := receiver.ParseKey([]byte(k)); ok && parsed.Name != "" {
			in := r
			for _, name := range parsed.Scope {
				in = in.Scope(name)
			}
			st, err := in.Lookup(ctx, parsed.Name)
			if err != nil {
				return nil, err
			}
			all["message "+k] = fmt.Sprintf("%v %x %v", st.State, st.Result.Value, st.Until.UnixMilli())
		}
		seq, ok, err := r.HighWater(ctx, k)
		if err != nil {
			return nil, err
		}
		all["source "+k] = fmt.Sprint(seq, ok)
	}
	for d, err := range r.Doubts(ctx) {
		if err != nil {
			return nil, err
		}
		all["doubt "+d.Key] = string(d.Note)
	}
	for _, list := range []func(context.Context) func(func(receiver.Message, error) bool){
		func(ctx context.Context) func(func(receiver.Message, error) bool) { return r.Outgoing(ctx) },
		func(ctx context.Context) func(func(receiver.Message, error) bool) { return r.Parked(ctx) },
	} {
		for m, err := range list(ctx) {
			if err != nil {
				return nil, err
			}
			all[fmt.Sprint("letter ", m.Topic, m.Ordinal)] = fmt.Sprintf("%x %s %s", m.Payload, m.Key, m.Reason)
		}
	}
	return all, nil
}

// FuzzRestore makes a store of any stream, or nothing.
func FuzzRestore(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<18 {
			return
		}
		oneRestore(t, b)
		if b = backupPutRight(b); b != nil {
			oneRestore(t, b)
		}
	})
}

// streams is what restoring takes for its buffers, whatever the stream.
const streams = 1 << 20

func oneRestore(t *testing.T, b []byte) {
	base := memoryDir(t)
	n := 0
	var dir string
	var err error
	decoders.Bounded(t, len(b)+streams, 2, func() {
		n++
		dir = filepath.Join(base, fmt.Sprint(n))
		err = Restore(dir, bytes.NewReader(b))
	})
	if err != nil {
		require.True(t, errors.Is(err, ErrBackup) || errors.Is(err, ErrTooNew) || errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrExist), "%v", err)
		require.NoDirExists(t, dir)
		return
	}
	clock := clockAt(goldenTime)
	o := Options{TTL: Forever, SegmentSize: minSegmentSize, Pace: -1, Now: clock.now, still: true}
	s, err := Open(dir, &o)
	if err != nil {
		requireDamageOrTooNew(t, err) // records are none of the backup's business
		return
	}
	want, err := whatItHolds(s, tornStates, tornSources)
	if err != nil {
		requireDamageOrTooNew(t, err)
		require.NoError(t, s.Close())
		return
	}
	var again bytes.Buffer
	require.NoError(t, s.Backup(&again))
	require.NoError(t, s.Close())
	twin := filepath.Join(base, "twin")
	require.NoError(t, Restore(twin, &again))
	s, err = Open(twin, &o)
	require.NoError(t, err)
	got, err := whatItHolds(s, tornStates, tornSources)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, s.Close())
}

// backupPutRight returns a backup with the checks of its manifest and its end right, as far as it has parts.
func backupPutRight(b []byte) []byte {
	if len(b) < backupHead {
		return nil
	}
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint64(b[backupHead-8:], xxhash.Sum64(b[16:backupHead-8]))
	for at := backupHead; at < len(b); {
		switch {
		case b[at] == backupSegment && len(b)-at >= 17:
			size := binary.LittleEndian.Uint64(b[at+9:])
			if size > uint64(len(b)-at-17) {
				return b
			}
			at += 17 + int(size)
		case b[at] == backupEnd && len(b)-at >= 17:
			binary.LittleEndian.PutUint64(b[at+9:], xxhash.Sum64(b[:at+9]))
			return b
		default:
			return b
		}
	}
	return b
}

func TestSeeds(t *testing.T) {
	decoders.Seeds(t, "FuzzManifest", decoders.Damaged([]decoders.Seed{{Name: "whole", Args: []any{fuzzID.encode()}}}))

	// A store with some of everything.
	dir := filepath.Join(t.TempDir(), "store")
	clock := clockAt(goldenTime)
	s := open(t, dir, Options{TTL: time.Hour, RetryWindow: NoRetryWindow, SegmentSize: minSegmentSize, Pace: -1, Now: clock.now, still: true})
	r, err := s.Receiver(&receiver.Options{Quota: func(string) receiver.Quota { return receiver.Quota{Keys: 100} }})
	require.NoError(t, err)
	ctx := context.Background()
	say := func(v string, err error) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { return []byte(v), err }
	}
	put(t, s, "key", "value")
	_, err = s.Advance("x", 17)
	require.NoError(t, err)
	require.NoError(t, s.Update(func(tx *Tx) error { return tx.Set([]byte("a"), []byte("1")) }))
	_, err = r.Scope("shop").Do(ctx, "order", say("done", nil))
	require.NoError(t, err)
	_, err = r.Do(ctx, "unknown", say("", receiver.Unknown(errors.New("no answer"))))
	require.ErrorIs(t, err, receiver.ErrInDoubt)
	_, _ = r.Do(ctx, "failure", say("", receiver.Permanent(errors.New("no"))))
	for seq := uint64(5); seq < 12; seq += 2 {
		_, err = r.DoSeq(ctx, "orders", seq, say("", nil))
		require.NoError(t, err)
	}
	for range 3 {
		_, err = r.DoTx(ctx, fmt.Sprint("mail", clock.ms.Add(1)), func(_ context.Context, tx receiver.Tx) ([]byte, error) { return nil, tx.Emit("mail", []byte("letter")) })
		require.NoError(t, err)
	}
	b := backend{s}
	require.NoError(t, b.Park(ctx, "mail", 1, "no such address"))
	require.NoError(t, b.Sent(ctx, "mail", 2))
	_, err = s.Delete([]byte("key"))
	require.NoError(t, err)

	var accounts []any
	for _, part := range []func([]byte) []byte{s.ledger.Append, s.outbox.append, s.doubts.append, s.scopes.append} {
		accounts = append(accounts, part(nil))
	}
	seeds := []decoders.Seed{{Name: "all", Args: accounts}}
	for i, name := range []string{"ledger", "outbox", "doubts", "scopes"} {
		part := accounts[i].([]byte)
		cut := slices.Clone(accounts)
		cut[i] = part[:len(part)*2/3]
		seeds = append(seeds, decoders.Seed{Name: name + "-cut-short", Args: cut})
	}
	seeds = append(seeds, decoders.Seed{Name: "raw", Args: []any{s.appendAccounts(nil), []byte{}, []byte{}, []byte{}}})
	decoders.Seeds(t, "FuzzAccounts", seeds)

	var marks, payloads []decoders.Seed
	require.NoError(t, s.log.Verify(func(f wal.Frame) error {
		if f.Payload == nil {
			return nil
		}
		payloads = append(payloads, decoders.Seed{Name: fmt.Sprintf("transaction-%02d", f.Number), Args: []any{bytes.Clone(f.Payload)}})
		return eachRecord(f, func(r record.Record, _ int, _ int64) error {
			if r.Kind == record.Mark && r.Receiver {
				marks = append(marks, decoders.Seed{Name: fmt.Sprint("mark-", len(marks)), Args: []any{bytes.Clone(r.Value), bytes.Clone(r.Attrs), uint64(8), uint16(16), true}})
			}
			return nil
		})
	}))
	ended := record.AppendMark(nil, record.MarkValue{Number: math.MaxUint64, Epoch: 1, Window: bytes.Repeat([]byte{0xff}, 20)})
	marks = append(marks, decoders.Seed{Name: "the-last-number", Args: []any{ended, record.AppendAttributes(nil, &record.Attributes{Ordinal: 3, Token: 9, Code: []byte{0xff}}), uint64(math.MaxUint64), uint16(65535), false}})
	decoders.Seeds(t, "FuzzReceiverMark", decoders.Damaged(marks))
	decoders.Seeds(t, "FuzzRecords", decoders.Damaged(payloads))

	var whole, empty bytes.Buffer
	require.NoError(t, s.Backup(&whole))
	require.NoError(t, open(t, filepath.Join(t.TempDir(), "empty"), quick).Backup(&empty))
	decoders.Seeds(t, "FuzzRestore", decoders.Damaged([]decoders.Seed{{Name: "whole", Args: []any{whole.Bytes()}}, {Name: "empty", Args: []any{empty.Bytes()}}}))
}
