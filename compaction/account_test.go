package compaction

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/record"
)

// entry is a record of the model.
type entry struct {
	expires int64
	size    int
	key     bool
}

// An account says of its records what a list of them says, but for those that expire within the step of now, which
// may count as alive.
func TestAccountAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := NewAccount()
		var all []entry
		written := 0
		last := int64(math.MinInt64)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				expires := 1_700_000_000_000 + rapid.SampledFrom([]int64{0, 1, 500, 1000, 60_000, 3600_000, -5, 72 * 3600_000, -1 << 42, 1 << 45}).Draw(t, "in") + rapid.Int64Range(0, 999).Draw(t, "and")
				if rapid.IntRange(0, 9).Draw(t, "ever") == 0 {
					expires = record.Forever
				} else {
					last = max(last, expires)
				}
				e := entry{expires, rapid.IntRange(1, 1000).Draw(t, "size"), rapid.Bool().Draw(t, "key")}
				a.Add(e.expires, e.size, e.key)
				all = append(all, e)
				written += e.size
			},
			"remove": func(t *rapid.T) {
				if len(all) == 0 {
					t.Skip("nothing to remove")
				}
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				a.Remove(all[i].expires, all[i].size, all[i].key)
				all = append(all[:i], all[i+1:]...)
			},
			"bury": func(t *rapid.T) { a.Wrote(7); written += 7 },
			"": func(t *rapid.T) {
				b, rest, err := ParseAccount(append(a.Append(nil), 1, 2))
				require.NoError(t, err)
				require.Equal(t, []byte{1, 2}, rest)
				require.Equal(t, a, b)
				require.EqualValues(t, written, a.Written())
				at, never := a.Last()
				require.Equal(t, last, at)
				for _, now := range []int64{0, 1_700_000_000_000, 1_700_000_030_000, 1_700_003_600_500, max(last, 1) - 1, max(last, 0), math.MaxInt64 - 1} {
					least, most, steady := int64(0), int64(0), int64(0)
					var leastKeys, mostKeys int64
					count := func(n, keys *int64, e entry) {
						*n += int64(e.size)
						if e.key {
							*keys++
						}
					}
					var ignored int64
					for _, e := range all {
						if e.expires == record.Forever {
							count(&steady, &ignored, e)
						}
						if now < e.expires {
							count(&least, &leastKeys, e)
						}
						if now < e.expires || now>>a.shift == e.expires>>a.shift && now < last {
							count(&most, &mostKeys, e)
						}
					}
					keys, bytes := a.Live(now)
					require.True(t, least <= bytes && bytes <= most, "%d: %d <= %d <= %d", now, least, bytes, most)
					require.True(t, leastKeys <= keys && keys <= mostKeys)
					require.Equal(t, steady > 0, never)
				}
			},
		})
	})
}

// With one TTL the steps are about a 32nd of the time over which the segment was written; with a TTL of a day beside
// one of ten, an hour or so.
func TestStepsAreShort(t *testing.T) {
	a := NewAccount()
	for i := range int64(10_000) {
		a.Add(1_700_000_000_000+i*60, 100, true) // ten minutes
	}
	require.LessOrEqual(t, int64(1)<<a.shift, int64(2*600_000/steps))
	a.Add(1_700_000_000_000+9*24*3600_000, 100, true)
	require.LessOrEqual(t, int64(1)<<a.shift, int64(2*9*24*3600_000/steps))
}

func TestBytesThatAreNoLedger(t *testing.T) {
	l := NewLedger()
	for i := range uint64(5) {
		e := EntryOf(i+1, record.Records, int64(1000*i), 100)
		l.Change(nil, &e)
		l.Buried(&e, i+2, 20)
	}
	whole := l.Append(nil)
	got, err := ParseLedger(whole)
	require.NoError(t, err)
	require.Equal(t, l.accounts, got.accounts)
	for n := range whole {
		_, err := ParseLedger(whole[:n])
		require.Error(t, err, n)
	}
	_, err = ParseLedger(append(whole, 0))
	require.Error(t, err)
}
