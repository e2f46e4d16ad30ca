package oncelog

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

func diskUsage(t testing.TB, dir string) (n int64) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // housekeeping goes on meanwhile
		}
		if fi, err := d.Info(); err == nil {
			n += fi.Size()
		}
		return nil
	}))
	return n
}

// requireRecounted compares what the store has counted, transaction by transaction, with a recount of its log: for
// each segment what is alive in it, and what was written to it.
func requireRecounted(t testing.TB, s *Store) {
	t.Helper()
	defer s.withoutHousekeeping()()
	requireRecountedNow(t, s)
}

// requireRecountedNow is for a store whose housekeeping rests.
func requireRecountedNow(t require.TestingT, s *Store) {
	s.cut.Lock()
	_, err := s.publishAll()
	s.cut.Unlock()
	require.NoError(t, err)
	want := compaction.NewLedger()
	type name struct {
		space record.Space
		key   string
	}
	latest := map[name]compaction.Entry{}
	var box outbox
	var counts scopes
	counts.shift = s.scopes.shift
	dropped := s.log.Dropped()
	numbers := map[uint64]bool{}
	require.NoError(t, s.log.Verify(func(f wal.Frame) error {
		n := f.Segment.Number()
		if n <= dropped {
			return nil
		}
		numbers[n] = true
		return eachRecord(f, func(r record.Record, size int, off int64) error {
			at := name{r.Space(), string(r.Key)}
			if r.Space() == record.Outbox {
				a, err := r.Attributes()
				require.NoError(t, err)
				box.apply(want, r.Kind, string(r.Key), a.Ordinal, place{entry: compaction.EntryOf(n, record.Outbox, record.Forever, size), loc: 1})
				return nil
			}
			var was *compaction.Entry
			if e, ok := latest[at]; ok {
				was = &e
			}
			if r.Kind == record.Tombstone {
				want.Buried(was, n, size)
				delete(latest, at)
				if r.Space() == record.ReceiverRecords {
					counts.change(r.Key, was, nil)
				}
				return nil
			}
			now := compaction.EntryOf(n, r.Space(), r.Expires, size)
			want.Change(was, &now)
			latest[at] = now
			if r.Space() == record.ReceiverRecords {
				counts.change(r.Key, was, &now)
			}
			return nil
		})
	}))
	now := s.clock.millis()
	for n := range numbers {
		wantLive, wantDead := want.Bytes(n, now)
		live, dead := s.ledger.Bytes(n, now)
		require.Equal(t, []int64{wantLive, wantDead}, []int64{live, dead}, "segment %d", n)
	}
	counts.expire(now)
	s.scopes.expire(now)
	for id, sc := range s.scopes.m {
		wanted := counts.m[id]
		require.NotNil(t, wanted, "scope %x", id)
		require.Equal(t, []int64{wanted.keys, wanted.bytes}, []int64{sc.keys, sc.bytes}, "scope %x", id)
	}
	require.Len(t, s.scopes.m, len(counts.m))
	waiting, parked := box.counts()
	gotWaiting, gotParked := s.outbox.counts()
	require.Equal(t, []int{waiting, parked}, []int{gotWaiting, gotParked}, "messages")
	wantKeys, wantBytes := want.Total(now)
	keys, bytes := s.ledger.Total(now)
	require.Equal(t, []int64{wantKeys, wantBytes}, []int64{keys, bytes})
}
