package index

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// dumped is what Dump gave.
type dumped struct {
	heads []PageHead
	pages [][]byte
	keys  []modelKey
}

func dump(t require.TestingT, x *Index) (d dumped) {
	require.NoError(t, x.Dump(func(h PageHead, slots []byte) error {
		d.heads, d.pages = append(d.heads, h), append(d.pages, bytes.Clone(slots))
		return nil
	}, func(space byte, key []byte, loc Location) error {
		d.keys = append(d.keys, modelKey{space: space, name: bytes.Clone(key), loc: loc})
		return nil
	}))
	return d
}

func (d *dumped) load() (*Index, error) {
	l := NewLoader(1, 0)
	var wait sync.WaitGroup
	errs := make([]error, len(d.heads))
	for i := range d.heads {
		wait.Go(func() {
			errs[i] = l.Page(d.heads[i], func(b []byte) error { copy(b, d.pages[i]); return nil })
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	for _, k := range d.keys {
		if err := l.Key(k.space, k.name, k.loc); err != nil {
			return nil, err
		}
	}
	return l.Index()
}

func locations(x *Index) (all []Location) {
	x.Scan(func(f Found) bool { all = append(all, f.Location); return true })
	slices.Sort(all)
	return all
}

// The index's hash leads keys of the overflow map to their page, so these keys have honest hashes, and collide by
// being many: a shard's page is filled with one tag.
func crowded(t require.TestingT, x *Index, n int) map[string]Location {
	at := map[string]Location{}
	for i := range n {
		name := "key " + strconv.Itoa(i)
		loc := At(uint16(i%7)+1, int64(i))
		require.NoError(t, x.Insert(x.Hash(0, []byte(name)), 0, []byte(name), loc))
		at[name] = loc
	}
	return at
}

// overflowKeys sends keys to the overflow map by inserting each beside one that can't be told from it.
func overflowKeys(t require.TestingT, x *Index, at map[string]Location, n int) {
	for i := range n {
		name := fmt.Sprint("overflow ", i)
		h := x.Hash(0, []byte(name))
		a := h.address()
		p, err := x.shards[a.shard].page(a.tag, x.memory)
		require.NoError(t, err)
		loc := At(uint16(i%7)+1, int64(1000_000+i))
		require.NoError(t, x.overflow.add(0, []byte(name), loc))
		p.overflowed(a)
		at[name] = loc
	}
}

func requireHas(t require.TestingT, x *Index, at map[string]Location) {
	for name, loc := range at {
		got, ok := x.Lookup(x.Hash(0, []byte(name)), 0, []byte(name))
		if !ok || got != loc {
			require.Equal(t, loc, got, name)
		}
	}
	require.EqualValues(t, len(at), x.Stats().Keys)
}

func TestALoadedIndexIsTheDumpedOne(t *testing.T) {
	for _, n := range []int{0, 1, 5000, 300_000} {
		x := newIndex(1, newMemory())
		at := crowded(t, x, n)
		overflowKeys(t, x, at, n/100)
		d := dump(t, x)
		y, err := d.load()
		require.NoError(t, err)
		audit(t, y)
		require.Equal(t, x.Stats().Keys, y.Stats().Keys)
		require.Equal(t, x.Stats().Overflow, y.Stats().Overflow)
		require.Equal(t, locations(x), locations(y))
		requireHas(t, y, at)
		// It goes on as an index.
		for i := range n / 2 {
			name := "more " + strconv.Itoa(i)
			require.NoError(t, y.Insert(y.Hash(0, []byte(name)), 0, []byte(name), At(9, int64(i))))
			at[name] = At(9, int64(i))
		}
		requireHas(t, y, at)
		audit(t, y)
	}
}

func TestSweep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex(1, newMemory())
		n := rapid.SampledFrom([]int{0, 10, 3000, 20_000}).Draw(t, "keys")
		at := crowded(t, x, n)
		overflowKeys(t, x, at, n/50)
		dead := rapid.SliceOfN(rapid.Bool(), 8, 8).Draw(t, "dead")
		want := int64(0)
		for name, loc := range at {
			if dead[loc.Slot()] {
				delete(at, name)
				want++
			}
		}
		require.Equal(t, want, x.Sweep(func(slot uint16) bool { return dead[slot] }))
		audit(t, x)
		requireHas(t, x, at)
		require.Zero(t, x.Sweep(func(slot uint16) bool { return dead[slot] }))
	})
}

// Keys that are there all the while are dumped, whatever writers do beside it, and sweeping takes no other's.
func TestDumpAndSweepBesideWriters(t *testing.T) {
	both(t, func(t *testing.T, x *Index) {
		steady := crowded(t, x, 20_000)
		var writers sync.WaitGroup
		var allowed atomic.Int64 // or the table grows faster than it is dumped, until there is no memory
		stop := make(chan struct{})
		writers.Go(func() {
			for i := 0; ; {
				select {
				case <-stop:
					return
				default:
				}
				if int64(i) >= allowed.Load() {
					runtime.Gosched()
					continue
				}
				i++
				name := []byte("comer " + strconv.Itoa(i))
				if err := x.Insert(x.Hash(0, name), 0, name, At(20+uint16(i%2), 5)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for range rounds(24) {
			allowed.Add(50_000)
			d := dump(t, x)
			y, err := d.load()
			require.NoError(t, err)
			for name, loc := range steady {
				got, ok := y.Lookup(y.Hash(0, []byte(name)), 0, []byte(name))
				if !ok || got != loc {
					require.Equal(t, loc, got, name)
				}
			}
			x.Sweep(func(slot uint16) bool { return slot == 20 })
		}
		close(stop)
		writers.Wait()
		x.Sweep(func(slot uint16) bool { return slot >= 20 })
		audit(t, x)
		requireHas(t, x, steady)
	})
}

func TestPartsOfNoIndex(t *testing.T) {
	x := newIndex(1, newMemory())
	at := crowded(t, x, 900_000)
	overflowKeys(t, x, at, 1)
	whole := dump(t, x)
	require.Greater(t, len(whole.heads), 2*shardCount)
	used := func(d *dumped) []byte {
		for i := 0; ; i += 8 {
			if b := d.pages[0][i : i+8]; b[0]|b[1]|b[2]|b[3] != 0 {
				return b
			}
		}
	}
	for what, change := range map[string]func(d *dumped){
		"no such depth":   func(d *dumped) { d.heads[0].Depth = maxDepth + 1 },
		"no such shard":   func(d *dumped) { d.heads[0].Shard = 200 },
		"no such tag":     func(d *dumped) { d.heads[0].Tag = 1 << tagBits },
		"between pages":   func(d *dumped) { d.heads[0].Tag = 1 },
		"another's tag":   func(d *dumped) { d.heads[0].Tag ^= 1 << (tagBits - d.heads[0].Depth) },
		"a page missing":  func(d *dumped) { d.heads, d.pages = d.heads[1:], d.pages[1:] },
		"last missing":    func(d *dumped) { d.heads, d.pages = d.heads[:len(d.heads)-1], d.pages[:len(d.heads)-1] },
		"a page twice":    func(d *dumped) { d.heads, d.pages = append(d.heads, d.heads[0]), append(d.pages, d.pages[0]) },
		"another count":   func(d *dumped) { d.heads[0].Count++ },
		"no segment":      func(d *dumped) { b := used(d); b[3], b[4], b[5] = b[3]&1, 0, b[5]&^1 },
		"not empty":       func(d *dumped) { b := used(d); clear(b[:5]); b[5] = 0xf0; d.heads[0].Count-- },
		"a key twice":     func(d *dumped) { d.keys = append(d.keys, d.keys[0]) },
		"no location":     func(d *dumped) { d.keys[0].loc = 5 },
		"a long location": func(d *dumped) { d.keys[0].loc |= 1 << locationBits },
	} {
		d := dumped{slices.Clone(whole.heads), nil, slices.Clone(whole.keys)}
		for _, p := range whole.pages {
			d.pages = append(d.pages, bytes.Clone(p))
		}
		change(&d)
		_, err := d.load()
		require.ErrorIs(t, err, ErrBad, what)
	}
}

func BenchmarkSweep(b *testing.B) {
	benchWhole(b, func(b *testing.B, _ uint64, x *Index) {
		for b.Loop() {
			x.Sweep(func(slot uint16) bool { return slot == 1<<16-1 })
		}
	})
}

func BenchmarkDump(b *testing.B) {
	benchWhole(b, func(b *testing.B, _ uint64, x *Index) {
		for b.Loop() {
			_ = x.Dump(func(PageHead, []byte) error { return nil }, func(byte, []byte, Location) error { return nil })
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	benchWhole(b, func(b *testing.B, _ uint64, x *Index) {
		d := dump(b, x)
		for b.Loop() {
			if _, err := d.load(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
