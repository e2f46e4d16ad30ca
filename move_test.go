package oncelog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// sealedFirst returns a store that keeps house only when it is told to, whose first segment is sealed. add writes more.
func sealedFirst(t *testing.T, o Options, add func(s *Store, i int)) (s *Store, dir string) {
	t.Helper()
	o.still, o.Pace = true, -1
	dir = filepath.Join(memoryDir(t), "store")
	s = open(t, dir, o)
	require.NoError(t, s.Close()) // so that the first write seals the segment that the store was born with, and it is empty
	s = open(t, dir, o)
	for i := 0; len(s.log.Retired()) < 3; i++ {
		require.Less(t, i, 100_000, "nothing is sealed")
		add(s, i)
	}
	return s, dir
}

// some writes keys.
func some(t *testing.T) func(s *Store, i int) {
	return func(s *Store, i int) { put(t, s, fmt.Sprint("key ", i), strings.Repeat("v", 200)) }
}

// placed returns where the index says that a key is.
func placed(t *testing.T, s *Store, key string) moving {
	t.Helper()
	n, err := s.name(0, []byte(key))
	require.NoError(t, err)
	at, ok := s.keys.Lookup(n.hash, byte(n.space), n.key)
	require.True(t, ok, key)
	return moving{n, at, 300}
}

// waitedFor returns once somebody waits for the claim.
func waitedFor(t *testing.T, s *Store, c *claim) {
	t.Helper()
	waited := func() bool {
		sh := s.claims.shard(c.name)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		return len(c.waiters) > 0
	}
	for deadline := time.Now().Add(time.Minute); !waited(); runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "nobody waits")
	}
}

// spoil changes a byte of a record where it lies.
func spoil(t *testing.T, s *Store, at index.Location) {
	t.Helper()
	f, err := os.OpenFile(s.log.Segment(at.Slot()).Path(), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at.Offset()+20)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at.Offset()+20)
	require.NoError(t, err)
}

// A key that somebody holds is copied last, when they have let it go, and as it is then: not at all if they removed it,
// or if its time came meanwhile.
func TestACopyWaitsForWhoHoldsTheKey(t *testing.T) {
	clock := clockAt(1_700_000_000_000)
	o := Options{TTL: Forever, RetryWindow: NoRetryWindow, Sync: SyncNever, SegmentSize: minSegmentSize, Now: clock.now}
	s, _ := sealedFirst(t, o, func(s *Store, i int) {
		if i == 2 {
			putFor(t, s, "key 2", time.Hour)
			return
		}
		some(t)(s, i)
	})
	at := placed(t, s, "key 0").at
	var held [3]*claim
	for i := range held {
		one := placed(t, s, fmt.Sprint("key ", i))
		require.Equal(t, at.Slot(), one.at.Slot())
		held[i], _ = s.claims.hold(one.name, nil)
	}
	copied := make(chan error, 1)
	number := s.log.Segment(at.Slot()).Number()
	go func() { copied <- s.copySegment(number) }()

	waitedFor(t, s, held[0])
	require.NotEqual(t, at.Slot(), placed(t, s, "key 3").at.Slot(), "who is held by nobody does not wait")
	s.claims.release(held[0], false)

	waitedFor(t, s, held[1])
	require.NotEqual(t, at.Slot(), placed(t, s, "key 0").at.Slot(), "it is not copied")
	_, _, err := s.current(held[1])
	require.NoError(t, err)
	removal := []change{{held[1], tombstone(record.Result, s.clock.millis(), held[1].key)}}
	commit, err := s.stage(100, 0, removal, nil)
	require.NoError(t, err)
	s.claims.release(held[1], true)

	waitedFor(t, s, held[2])
	clock.advance(time.Hour)
	moves := s.house.moves.Load()
	s.claims.release(held[2], false)
	require.NoError(t, s.settle(commit, removal))
	require.NoError(t, <-copied)
	require.Equal(t, moves, s.house.moves.Load(), "what is dead is copied")
	require.NoError(t, s.dropThrough(number))
	for i := range 6 {
		if i == 1 || i == 2 {
			hasNot(t, s, fmt.Sprint("key ", i))
		} else {
			has(t, s, fmt.Sprint("key ", i), strings.Repeat("v", 200))
		}
	}
	requireRecounted(t, s)
	requireNoClaims(t, s)
}

// A change that is on its way keeps a record from being copied, and is seen by nobody yet: until it is in the index the
// record is what there is, so its segment stays. Dropped earlier, the key was missing for as long as the change took.
func TestACopyWaitsForTheChangeThatItGivesWayTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := quick
		o.SegmentSize = minSegmentSize
		s, _ := sealedFirst(t, o, func(s *Store, i int) {
			if i == 0 {
				put(t, s, "k", "before")
			}
			put(t, s, "dead", strings.Repeat("d", 500))
			_, err := s.Delete([]byte("dead"))
			require.NoError(t, err)
		})
		one := placed(t, s, "k")
		number := s.log.Segment(one.at.Slot()).Number()
		commit, ch := staged(t, s, recordFor("k", "after"))

		done := make(chan error, 1)
		go func() {
			p := compaction.Plan{Copy: []uint64{number}, Through: number}
			done <- p.Run(s.copySegment, s.dropThrough)
		}()
		synctest.Wait()
		has(t, s, "k", "before")
		require.NoError(t, s.log.Wait(commit)) // visible, and not in the index: who asks may have looked before
		require.NoError(t, <-done)
		require.NotEqual(t, one.at, placed(t, s, "k").at, "the index names a segment that is dropped")
		has(t, s, "k", "after")
		require.NoError(t, s.log.Failed())
		s.publish(ch[0].claim)
		requireRecounted(t, s)
		requireNoClaims(t, s)
	})
}

// What was replaced since it was found to be alive is left where it is, and so is a segment that is not there.
func TestACopyOfWhatIsElsewhere(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, _ := sealedFirst(t, o, some(t))
	before := s.log.Visible()
	one := placed(t, s, "key 0")
	one.at++
	m := mover{s: s}
	require.NoError(t, m.move([]moving{one}, nil, one.size, false))
	require.ErrorContains(t, s.copySegment(1<<40), "not there")
	require.Equal(t, before, s.log.Visible(), "it is copied")
	require.Zero(t, s.house.moves.Load())
	requireNoClaims(t, s)
}

// A message that is handed on between the moment it is found and that of its copy is not copied: it would wait again.
func TestACopyOfWhatIsHandedOn(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, dir := sealedFirst(t, o, func(s *Store, i int) {
		if i == 0 {
			require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("mail", []byte("hello")) }))
			return
		}
		some(t)(s, i)
	})
	m := mover{s: s}
	for _, seg := range s.log.Retired() {
		require.NoError(t, seg.Transactions(func(f wal.Frame) error {
			return eachRecord(f, func(r record.Record, size int, off int64) error {
				if r.Space() != record.Outbox {
					return nil
				}
				return m.addLetter(r, index.At(seg.Slot(), off), size)
			})
		}))
	}
	require.Len(t, m.letters, 1)
	r, err := s.Receiver(nil)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	require.ErrorIs(t, r.Relay(ctx, func(context.Context, receiver.Message) error { stop(); return nil }), context.Canceled)

	before := s.log.Visible()
	require.NoError(t, m.flush())
	require.Equal(t, before, s.log.Visible(), "it is copied")
	s = open(t, crashed(t, dir), o)
	waiting, _ := s.outbox.counts()
	require.Zero(t, waiting)
}

// Closing the store ends a copy between two of its transactions. What is not copied stays, and is copied another time.
func TestACopyIsStopped(t *testing.T) {
	for name, add := range map[string]func(s *Store, i int){
		"records": func(s *Store, i int) { put(t, s, fmt.Sprint("key ", i), strings.Repeat("v", 30<<10)) },
		"letters": func(s *Store, i int) {
			require.NoError(t, s.Update(func(tx *Tx) error { return tx.Emit("mail", make([]byte, 30<<10)) }))
		},
		"little": some(t),
	} {
		t.Run(name, func(t *testing.T) {
			o := quick
			o.SegmentSize = 128 << 10
			s, _ := sealedFirst(t, o, func(s *Store, i int) {
				if i == 0 {
					put(t, s, "dead", "dead")
					_, err := s.Delete([]byte("dead"))
					require.NoError(t, err)
				}
				add(s, i)
			})
			second := s.log.Retired()[1] // the first has nothing in it
			before, live := s.log.Visible(), s.Stats().LiveBytes
			stop := make(chan struct{})
			close(stop)
			s.house.pace.stop = stop
			require.ErrorIs(t, s.copySegment(second.Number()), errStopped)
			require.ErrorIs(t, s.Compact(), errStopped)
			require.Equal(t, before, s.log.Visible(), "it goes on")
			require.Same(t, second, s.log.Segment(second.Slot()))
			requireNoClaims(t, s)

			s.house.pace.stop = nil
			require.NoError(t, s.Compact())
			require.Nil(t, s.log.Segment(second.Slot()))
			require.Equal(t, live, s.Stats().LiveBytes)
			requireRecounted(t, s)
		})
	}
}

// A record that went bad between the scan and its copy is not copied, and those that were held with it are let go.
func TestACopyOfADamagedRecord(t *testing.T) {
	o := quick
	o.SegmentSize = minSegmentSize
	s, _ := sealedFirst(t, o, some(t))
	good, bad := placed(t, s, "key 0"), placed(t, s, "key 1")
	spoil(t, s, bad.at)
	before := s.log.Visible()
	m := mover{s: s}
	err := m.move([]moving{good, bad}, nil, 600, false)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, s.log.Segment(bad.at.Slot()).Path())
	require.ErrorIs(t, s.copySegment(s.log.Segment(bad.at.Slot()).Number()), ErrCorrupt)
	require.Equal(t, before, s.log.Visible())
	requireNoClaims(t, s)
}
