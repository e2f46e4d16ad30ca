package linear

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// job is what a child is told to do.
type job struct {
	Dir   string
	Seed  uint64
	Life  int // how many children there were before
	Calls int // of each client; then it closes the store

	Groups int
}

const childEnv = "ONCELOG_LINEAR_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var j job
		err := json.Unmarshal([]byte(text), &j)
		if err == nil {
			err = j.run()
		}
		if err != nil {
			say("failed", 0, err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// say is one write into a pipe. Those of all clients are in one order, and each is there whole, or it was the last.
func say(what string, client int, v any) {
	if _, err := fmt.Fprintf(os.Stdout, "%s %d %s\n", what, client, mustJSON(v)); err != nil {
		os.Exit(1)
	}
}

// tell makes a call and tells of it.
func (s *service) tell(client int, i in) (o out, err error) {
	say("call", client, i)
	if o, err = s.do(i); err != nil {
		err = fmt.Errorf("%+v: %w", i, err)
		say("failed", client, err.Error())
		return o, err
	}
	say("return", client, o)
	return o, nil
}

// surveyor is who reads all there is, before the clients come and when they have gone.
const surveyor = clients

func (s *service) surveyAll(groups int) error {
	for g := range groups {
		if _, err := s.tell(surveyor, in{Op: "survey", Group: g}); err != nil {
			return err
		}
	}
	return nil
}

func (j job) run() error {
	st, err := oncelog.Open(j.Dir, &oncelog.Options{SegmentSize: 4 << 10, Pace: -1})
	if err != nil {
		return err
	}
	s := service{st: st}
	if s.r, err = st.Receiver(&receiver.Options{Window: window}); err != nil {
		return err
	}
	if s.strict, err = st.Receiver(&receiver.Options{Window: receiver.Strict}); err != nil {
		return err
	}
	// Nothing runs beside it, so it is known what there is, and no doubt about what a kill has left is dragged along.
	if err := s.surveyAll(j.Groups); err != nil {
		return err
	}
	next := make([]atomic.Uint64, j.Groups)
	errs := make([]error, clients+1)
	var all, house sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(j.Seed, uint64(c)))
			for n := range j.Calls {
				i := draw(rng, j.Life, c, n, place(rng, n, j.Calls, j.Groups), func(g int) uint64 { return next[g].Load() + 1 })
				o, err := s.tell(c, i)
				if errs[c] = err; err != nil {
					return
				}
				if i.Strict && o.Ran && o.Err == "" {
					next[i.Group].Store(i.Seq)
				}
			}
		})
	}
	stop := make(chan struct{})
	house.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if errs[clients] = errors.Join(st.Compact(), st.Snapshot()); errs[clients] != nil {
				return
			}
		}
	})
	all.Wait()
	close(stop)
	house.Wait()
	if err := errors.Join(errors.Join(errs...), s.surveyAll(j.Groups)); err != nil {
		return err
	}
	return errors.Join(st.Verify(), st.Close())
}
