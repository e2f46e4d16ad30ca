package index

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// both runs a test with pages that the race detector sees, and with those that users get.
func both(t *testing.T, test func(t *testing.T, x *Index)) {
	t.Run("heap", func(t *testing.T) { test(t, onHeap()) })
	t.Run("mapped", func(t *testing.T) { test(t, New(1)) })
}

// rounds scales how long a test goes on trying.
func rounds(n uint64) uint64 {
	if raced {
		return n / 8
	}
	return n
}

// TestPresentKeysAreNeverMissed: readers look for keys that are there all the time, while writers beside them make
// entries change buckets and pages split. All are in few shards and buckets, so that each change is near a reader.
func TestPresentKeysAreNeverMissed(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		// 256 steady keys over all of two shards' pages, and comers in their way.
		hash := func(i uint64) Hash {
			r := uint64(mix(i))
			return hashOf(uint8(r>>60&1), r>>20%(1<<tagBits), uint32(r%pageBuckets))
		}
		name := func(i uint64) []byte { return strconv.AppendUint(nil, i, 10) }
		const steady = 256
		most := rounds(32_000) // a writer's keys
		for i := range uint64(steady) {
			require.NoError(t, x.Insert(hash(i), 0, name(i), place(i)))
		}
		var done atomic.Bool
		var readers, writers sync.WaitGroup
		for r := range uint64(2) {
			readers.Go(func() {
				for i := r; !done.Load(); i++ {
					k := i % steady
					if loc, ok := x.Lookup(hash(k), 0, name(k)); !ok || loc != place(k) {
						t.Errorf("key %d: %v %v", k, loc, ok)
						return
					}
				}
			})
		}
		for w := range uint64(2) {
			writers.Go(func() {
				for i := range 2 * most {
					k := 1<<20 | i<<1 | w
					if err := x.Insert(hash(k), 0, name(k), place(k)); err != nil {
						t.Error(err)
						return
					}
					if loc, ok := x.Lookup(hash(k), 0, name(k)); !ok || loc != place(k) {
						t.Errorf("own key %d: %v %v", k, loc, ok)
					}
					if i >= most {
						k -= most << 1
						if !x.Remove(hash(k), 0, name(k), place(k)) {
							t.Errorf("key %d to be removed is not there", k)
						}
					}
				}
			})
		}
		writers.Wait()
		done.Store(true)
		readers.Wait()
		audit(t, x)
		require.EqualValues(t, steady+2*most, x.Stats().Keys)
	})
}

// TestMovedKeysAreNeverMissed: the narrowest case, one key that goes from its first bucket to its second and back.
func TestMovedKeysAreNeverMissed(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		const bucket, tag = 10, 77
		key := hashOf(0, tag, bucket)
		require.NoError(t, x.Insert(key, 0, []byte("key"), place(1)))
		p := x.shards[0].dir.Load().pages[0]
		a := key.address()
		var done atomic.Bool
		var readers sync.WaitGroup
		readers.Go(func() {
			for !done.Load() {
				if loc, ok := x.Lookup(key, 0, []byte("key")); !ok || loc != place(1) {
					t.Errorf("missed: %v %v", loc, ok)
					return
				}
			}
		})
		sh := &x.shards[0]
		for range rounds(200_000) {
			// What a writer does to a full bucket with this key in it.
			sh.mu.Lock()
			if s := p.vacate(a.first, &sh.moves); s != nil {
				put(s, 0)
			}
			_ = p.vacate(a.second, &sh.moves)
			sh.mu.Unlock()
		}
		done.Store(true)
		readers.Wait()
		audit(t, x)
	})
}

// TestSplitKeysAreNeverMissed: a key in the half that goes, in the bucket that is cleared first.
func TestSplitKeysAreNeverMissed(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		const tag = 1<<tagBits - 1 // each split takes it to the new page
		var current atomic.Uint32
		for s := range shardCount {
			require.NoError(t, x.Insert(hashOf(uint8(s), tag, 0), 0, []byte("key"), place(uint64(s))))
		}
		var done atomic.Bool
		var readers sync.WaitGroup
		readers.Go(func() {
			for !done.Load() {
				s := uint8(current.Load())
				h := hashOf(s, tag, 0)
				for range 50 {
					if loc, ok := x.Lookup(h, 0, []byte("key")); !ok || loc != place(uint64(s)) {
						t.Errorf("missed in shard %d: %v %v", s, loc, ok)
						return
					}
				}
			}
		})
		for s := range uint32(shardCount) {
			current.Store(s)
			sh := &x.shards[s]
			for range maxDepth {
				sh.mu.Lock()
				err := sh.split(sh.dir.Load().page(tag), x.memory)
				sh.mu.Unlock()
				require.NoError(t, err)
			}
		}
		done.Store(true)
		readers.Wait()
		audit(t, x)
	})
}

// TestOneKeyUnderWay: look-ups of a key that is replaced all the time find one of its locations, never nothing.
func TestOneKeyUnderWay(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		// "b" has the same hash as "a" and is in the map.
		for _, k := range []string{"a", "b"} {
			require.NoError(t, x.Insert(5, 0, []byte(k), place(0)))
		}
		most := rounds(20_000)
		var reached [2]atomic.Uint64
		var all sync.WaitGroup
		for i, k := range []string{"a", "b"} {
			all.Go(func() {
				for n := range most {
					if !x.Replace(5, 0, []byte(k), place(n), place(n+1)) {
						t.Errorf("%s is not at %d", k, n)
					}
					reached[i].Store(n + 1)
				}
			})
			all.Go(func() {
				for low := uint64(0); low < most; low = reached[i].Load() {
					if loc, ok := x.Lookup(5, 0, []byte(k)); !ok || loc < place(low) {
						t.Errorf("%s: %v %v, was at %v before", k, loc, ok, place(low))
						return
					}
				}
			})
		}
		all.Wait()
	})
}

// TestScanBesideSplits: what is there from before a scan until after it is given, whatever happens meanwhile.
func TestScanBesideSplits(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		hash := func(i uint64) Hash {
			h := uint64(mix(i))
			return hashOf(uint8(h>>60&1), h>>20%(1<<tagBits), uint32(h%pageBuckets))
		}
		const steady = 3000
		for i := range uint64(steady) {
			h := hash(i)
			if i%10 == 0 {
				h = hash(0) // in the map
			}
			require.NoError(t, x.Insert(h, 0, strconv.AppendUint(nil, i, 10), place(i)))
		}
		var done atomic.Bool
		var all sync.WaitGroup
		var scans atomic.Int64
		all.Go(func() {
			for last := false; !last; scans.Add(1) {
				last = done.Load()
				var seen [steady]bool
				x.Scan(func(f Found) bool {
					if i := f.Location - place(0); i < steady {
						seen[i] = true
					}
					return true
				})
				for i := range seen {
					if !seen[i] {
						t.Errorf("entry %d was not given", i)
						return
					}
				}
			}
		})
		for scans.Load() == 0 { // else there may be one only, when all is done
			runtime.Gosched()
		}
		for i := uint64(steady); i < steady+rounds(64_000); i++ {
			require.NoError(t, x.Insert(hash(i), 0, strconv.AppendUint(nil, i, 10), place(i)))
		}
		done.Store(true)
		all.Wait()
		require.Greater(t, x.Stats().Pages, int64(2))
		audit(t, x)
	})
}

// TestScanHoldsNoLock: yield may call everything, and may end the scan.
func TestScanHoldsNoLock(t *testing.T) {
	m := &model{x: New(1)}
	for i := range uint64(1000) {
		m.insert(t, mix(i))
		m.insert(t, mix(0))
	}
	given := 0
	for range m.x.Scan {
		if given++; given == 1500 {
			break
		}
		m.insert(t, mix(1000+uint64(given)))
		m.remove(t, 0)
	}
	require.Equal(t, 1500, given)
}
