package compaction

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/fuzz/decoders"
	"github.com/oncelog/oncelog/record"
)

// An account takes eight bytes at least, its segment's number one more; in memory it is 32 cells, and an entry of a map.
const ledgerFactor = 100

func FuzzParseLedger(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var l *Ledger
		var err error
		decoders.Bounded(t, len(b), ledgerFactor, func() { l, err = ParseLedger(b) })
		if err != nil {
			return
		}
		written := l.Append(nil)
		require.LessOrEqual(t, len(written), len(b), "the shortest form is longer")
		again, err := ParseLedger(written)
		require.NoError(t, err)
		require.Equal(t, l.accounts, again.accounts)
		for _, now := range []int64{math.MinInt64, 0, math.MaxInt64} {
			l.Total(now)
		}
		for n := range l.accounts {
			l.Last(n)
			e := EntryOf(n, record.Records, 1_700_000_000_000, 100)
			l.Change(nil, &e)
			l.Change(&e, nil)
			require.Less(t, uint64(l.accounts[n].high)-uint64(l.accounts[n].low)+1, uint64(steps+1))
		}
	})
}

func TestSeeds(t *testing.T) {
	l := NewLedger()
	ledger := func(name string) decoders.Seed { return decoders.Seed{Name: name, Args: []any{l.Append(nil)}} }
	seeds := []decoders.Seed{ledger("nothing")}
	e := EntryOf(3, record.States, record.Forever, 100)
	l.Change(nil, &e)
	seeds = append(seeds, ledger("for-ever"))
	for i := range int64(100) {
		e := EntryOf(4+uint64(i)/50, record.Records, 1_700_000_000_000+i*3600_000, 200)
		l.Change(nil, &e)
		if i%7 == 0 {
			l.Buried(&e, 5, 20)
		}
	}
	seeds = append(seeds, ledger("two-segments"))
	first := binary.AppendVarint([]byte{1, 1, 0}, math.MinInt64)
	first = append(first, 1, 0, 1, 9, 0, 0, 9)
	seeds = append(decoders.Damaged(seeds),
		decoders.Seed{Name: "through-the-last-step", Args: []any{lastSteps()}},
		decoders.Seed{Name: "from-the-first-step", Args: []any{first}})
	decoders.Seeds(t, "FuzzParseLedger", seeds)
}

// lastSteps is a ledger of one account whose steps end where numbers do.
func lastSteps() []byte {
	b := []byte{1, 1, 0}
	b = binary.AppendVarint(b, math.MaxInt64-3)
	b = append(b, 4, 0)
	return append(b, make([]byte, 2*4+2+1)...)
}

// Counting the steps of an account up to the last number that there is would never end. Such a step can't be: Forever
// has a place of its own.
func TestStepsThroughTheLastNumber(t *testing.T) {
	_, err := ParseLedger(lastSteps())
	require.Error(t, err)
	fewer := NewLedger()
	e := EntryOf(1, record.Records, record.Forever-1, 1)
	fewer.Change(nil, &e)
	got, err := ParseLedger(fewer.Append(nil))
	require.NoError(t, err)
	require.Equal(t, fewer.accounts, got.accounts)
}
