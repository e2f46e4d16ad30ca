package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/receiver/receivertest"
)

const (
	clients = 8
	calls   = 60 // of each client
	keys    = 4
)

// in is one call: of Do with a fn that would return this value or fail, or of Forget.
type in struct {
	key    int
	value  string
	fails  bool
	forget bool
}

// out is what came of it.
type out struct {
	ran      bool   // this call's own fn
	value    string // what Do returned
	inFlight bool   // ErrInFlight: nothing happened
}

var errFails = errors.New("fn fails")

// model is a key: free, or done with a value. "" is free, since no fn returns an empty value.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make([][]porcupine.Operation, keys)
		for _, op := range history {
			k := op.Input.(in).key
			byKey[k] = append(byKey[k], op)
		}
		return byKey
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, i, o := state.(string), input.(in), output.(out)
		switch {
		case o.inFlight:
			return !o.ran, s
		case i.forget:
			return true, ""
		case s != "":
			return !o.ran && o.value == s, s
		case i.fails:
			return o.ran && o.value == "", ""
		}
		return o.ran && o.value == i.value, i.value
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

// history lets the clients loose on a store.
func history(t *testing.T, store func(*receiver.Options) (*receiver.Receiver, error), seed uint64) []porcupine.Operation {
	r, err := store(nil)
	require.NoError(t, err)
	began := time.Now()
	ops := make([][]porcupine.Operation, clients)
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for c := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(c)))
		wg.Go(func() {
			for n := range calls {
				i := in{key: rng.IntN(keys), value: fmt.Sprintf("%d.%d", c, n), fails: rng.IntN(3) == 0, forget: rng.IntN(6) == 0}
				wait := receiver.WithWait(time.Duration(rng.IntN(3)) * time.Hour)
				yields := rng.IntN(3)
				call := time.Since(began)
				o, err := do(r, i, wait, yields)
				ops[c] = append(ops[c], porcupine.Operation{
					ClientId: c, Input: i, Call: int64(call), Output: o, Return: int64(time.Since(began)),
				})
				if err != nil {
					errs[c] = err
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	var all []porcupine.Operation
	for _, o := range ops {
		all = append(all, o...)
	}
	return all
}

func do(r *receiver.Receiver, i in, wait receiver.CallOption, yields int) (o out, err error) {
	ctx, key := context.Background(), fmt.Sprint("key ", i.key)
	if i.forget {
		err = r.Forget(ctx, key)
	} else {
		var got receiver.Outcome
		got, err = r.Do(ctx, key, func(context.Context) ([]byte, error) {
			o.ran = true
			for range yields {
				time.Sleep(time.Microsecond) // so that others come meanwhile
			}
			if i.fails {
				return nil, errFails
			}
			return []byte(i.value), nil
		}, wait)
		o.value = string(got.Value)
		if err == nil && got.Replayed == o.ran {
			return o, fmt.Errorf("replayed is %v for a call whose fn ran: %v", got.Replayed, o.ran)
		}
	}
	switch {
	case errors.Is(err, receiver.ErrInFlight):
		o.inFlight = true
		return o, nil
	case errors.Is(err, errFails) && i.fails && o.ran:
		return o, nil
	}
	return o, err
}

func TestDoIsLinearizable(t *testing.T) {
	histories := 50
	if testing.Short() {
		histories = 5
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, store := range map[string]func(t *testing.T) func(*receiver.Options) (*receiver.Receiver, error){
		"embedded": func(t *testing.T) func(*receiver.Options) (*receiver.Receiver, error) {
			s, err := oncelog.Open(filepath.Join(t.TempDir(), "store"), nil)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			return s.Receiver
		},
		"leased": func(t *testing.T) func(*receiver.Options) (*receiver.Receiver, error) {
			s := receivertest.NewLeased(receivertest.LeasedOptions{})
			return func(o *receiver.Options) (*receiver.Receiver, error) { return receiver.New(s, o) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			ran, replayed, inFlight := 0, 0, 0
			for h := range histories {
				all := history(t, store(t), seed+uint64(h))
				result, info := porcupine.CheckOperationsVerbose(model, all, time.Minute)
				if result != porcupine.Ok {
					path := filepath.Join(t.ArtifactDir(), "history.html")
					require.NoError(t, porcupine.VisualizePath(model, info, path))
					require.Equal(t, porcupine.Ok, result, "no order explains what the clients saw; see %s", path)
				}
				for _, op := range all {
					switch o := op.Output.(out); {
					case o.inFlight:
						inFlight++
					case o.ran:
						ran++
					case !op.Input.(in).forget:
						replayed++
					}
				}
			}
			t.Logf("%d histories: fn ran %d times, %d results replayed, %d in flight", histories, ran, replayed, inFlight)
			require.NotZero(t, ran)
			require.NotZero(t, replayed)
			require.NotZero(t, inFlight)
		})
	}
}

// The model itself must be able to say no.
func TestTheModelRefuses(t *testing.T) {
	op := func(client int, call, ret int64, i in, o out) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: i, Call: call, Output: o, Return: ret}
	}
	first, second := in{value: "a"}, in{value: "b"}
	for name, h := range map[string][]porcupine.Operation{
		"fn ran twice":          {op(0, 0, 1, first, out{ran: true, value: "a"}), op(1, 2, 3, second, out{ran: true, value: "b"})},
		"a result from nowhere": {op(0, 0, 1, first, out{value: "b"})},
		"a result that went": {
			op(0, 0, 1, first, out{ran: true, value: "a"}), op(1, 2, 3, first, out{value: "a"}), op(0, 4, 5, second, out{ran: true, value: "b"}),
		},
		"a failure that was kept": {op(0, 0, 1, in{value: "a", fails: true}, out{ran: true}), op(1, 2, 3, second, out{value: "a"})},
	} {
		require.False(t, porcupine.CheckOperations(model, h), name)
	}
	require.True(t, porcupine.CheckOperations(model, []porcupine.Operation{
		op(0, 0, 5, first, out{value: "b"}), op(1, 1, 4, second, out{ran: true, value: "b"}),
	}))
}
