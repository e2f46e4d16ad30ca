package linear

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/receiver/receivertest"
)

// What the receiver does by itself, over a store whose claims are leases: Do and what people do by hand.
func TestLinearizableOverLeases(t *testing.T) {
	histories := 50
	if testing.Short() {
		histories = 5
	}
	seed := *seedWanted
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	seen := map[string]int{}
	for h := range histories {
		r, err := receiver.New(receivertest.NewLeased(receivertest.LeasedOptions{}), nil)
		require.NoError(t, err)
		s := service{r: r, strict: r}
		var clock atomic.Int64
		ops := make([][]porcupine.Operation, clients)
		errs := make([]error, clients)
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed+uint64(h), uint64(c)))
				for n := 0; n < 60; {
					i := draw(rng, 0, c, n, rng.IntN(hot), func(int) uint64 { return 0 })
					switch i.Op {
					case "do", "lookup", "forget", "settle":
					default:
						continue
					}
					n++
					if i.Intent = false; i.Fails == unknown { // which these leases can't do
						i.Fails = fails
					}
					call := clock.Add(1)
					o, err := s.do(i)
					ops[c] = append(ops[c], porcupine.Operation{ClientId: c, Input: i, Call: call, Output: o, Return: clock.Add(1)})
					if errs[c] = err; err != nil {
						return
					}
				}
			})
		}
		all.Wait()
		require.NoError(t, errors.Join(errs...))
		var history []porcupine.Operation
		for _, o := range ops {
			history = append(history, o...)
		}
		check(t, history, seed+uint64(h))
		count(seen, history)
	}
	t.Logf("%v", seen)
	for _, what := range []string{"do, fn ran", "do, replayed", "do, in flight", "do, permanent", "forget"} {
		require.NotZero(t, seen[what], what)
	}
}
