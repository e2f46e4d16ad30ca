package calls

import (
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// The oracle itself: undisturbed, store and model say the same of each call and after it, over reopenings and while time
// passes.
func TestTheModelIsTheStore(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := filepath.Join(t.TempDir(), "store")
	for caller := range 2 {
		rnd := rand.New(rand.NewPCG(seed, uint64(caller)))
		var clock atomic.Int64 // housekeeping reads it too
		clock.Store(Begins + int64(caller)*1000*3600*1000)
		var st *oncelog.Store
		s, state := (*Service)(nil), NewState()
		kinds := map[Kind]int{}
		open := func() {
			var err error
			st, err = oncelog.Open(dir, Options(clock.Load))
			require.NoError(t, err)
			s, err = NewService(st)
			require.NoError(t, err)
		}
		open()
		for n := range uint64(2000) {
			o := Choose(rnd, caller, n+1)
			kinds[o.Kind]++
			states, want := state.After(o, clock.Load())
			got, err := s.Do(o)
			require.NoError(t, err, "%+v", o)
			require.Equal(t, want, got, "%+v", o)
			if len(states) > 0 {
				state = states[len(states)-1]
			}
			if n%20 == 0 {
				got, err := s.Contents(caller)
				require.NoError(t, err)
				want := state.Contents(caller, clock.Load())
				require.True(t, got == want, "after %+v:\n%s", o, Difference(want, got))
			}
			if n%50 == 0 {
				clock.Add(rnd.Int64N(20 * 3600 * 1000))
			}
			if n%200 == 0 {
				require.NoError(t, st.Close())
				open()
			}
		}
		require.NoError(t, st.Close())
		for _, k := range own {
			require.Positive(t, kinds[k], k)
		}
	}
}
