package index

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/decoders"
)

// FuzzLoad makes an index of one page and a key that is kept whole. What is taken can be asked, changed, and made again
// from its parts.
func FuzzLoad(f *testing.F) {
	f.Fuzz(func(t *testing.T, shard, depth uint8, tag uint32, count uint16, words []byte, space byte, key []byte, at uint64) {
		h := PageHead{Shard: shard, Depth: depth, Tag: tag, Count: count}
		if len(words) > PageSize {
			return
		}
		oneIndex(t, h, words, space, key, at)
		h.Depth, h.Tag, h.Count = 0, 0, 0 // the only page of its shard, with the count put right
		words = append([]byte(nil), words...)
		for b := words; len(b) >= 8; b = b[8:] {
			if w := binary.LittleEndian.Uint64(b); Location(w&locationMask).Slot() != 0 {
				h.Count++
			} else {
				clear(b[:8])
			}
		}
		oneIndex(t, h, words, space, key, at)
	})
}

func oneIndex(t *testing.T, h PageHead, words []byte, space byte, key []byte, at uint64) {
	l := NewLoader(1, 0)
	var x *Index
	err := l.Page(h, func(b []byte) error { copy(b, words); return nil })
	if err == nil {
		err = l.Key(space, key, Location(at))
	}
	if err == nil {
		x, err = l.Index()
	}
	if err != nil {
		require.True(t, errors.Is(err, ErrBad), "%v", err)
		return
	}
	loc, ok := x.Lookup(x.Hash(space, key), space, key)
	require.True(t, ok, "a key that is kept whole is found")
	require.EqualValues(t, at, loc)
	d := dump(t, x)
	require.Len(t, d.keys, 1)
	again, err := d.load()
	require.NoError(t, err)
	require.Equal(t, locations(x), locations(again))
	other := append([]byte("other "), key...)
	hash := x.Hash(space, other)
	if old, ok := x.Lookup(hash, space, other); ok {
		x.Remove(hash, space, other, old)
	}
	if err := x.Insert(hash, space, other, Location(at)); err == nil {
		loc, _ = x.Lookup(hash, space, other)
		require.EqualValues(t, at, loc)
	}
	x.Sweep(func(slot uint16) bool { return slot == Location(at).Slot() })
	_, ok = x.Lookup(x.Hash(space, key), space, key)
	require.False(t, ok && len(locations(x)) == 0)
}

func TestSeeds(t *testing.T) {
	x := New(1)
	for i := range 50_000 {
		k := []byte{'k', byte(i), byte(i >> 8)}
		require.NoError(t, x.Insert(x.Hash(1, k), 1, k, At(3, int64(80+100*i))))
	}
	var seeds []decoders.Seed
	for i, h := range dump(t, x).heads[:2] {
		some := dump(t, x).pages[i][:2<<10]
		count := uint16(0)
		for b := some; len(b) > 0; b = b[8:] {
			if binary.LittleEndian.Uint64(b) != 0 {
				count++
			}
		}
		require.NotZero(t, count)
		for name, args := range map[string][]any{
			"page":        {h.Shard, h.Depth, h.Tag, count, some},
			"wrong-count": {h.Shard, h.Depth, h.Tag, count + 1, some},
			"wrong-depth": {h.Shard, uint8(3), uint32(1), count, some},
			"cut-short":   {h.Shard, h.Depth, h.Tag, count, some[:len(some)/2]},
		} {
			seeds = append(seeds, decoders.Seed{Name: name + "-" + string(rune('0'+i)), Args: append(args, byte(1), []byte("kept whole"), uint64(At(4, 81)))})
		}
	}
	decoders.Seeds(t, "FuzzLoad", seeds)
}
