package pattern

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// job is what a child is told to do.
type job struct {
	Dir      string
	Seed     uint64
	Messages int  // so many there are
	Finish   bool // handle each once more and say what the state is, instead of going on until killed
}

const childEnv = "ONCELOG_PATTERN_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var j job
		err := json.Unmarshal([]byte(text), &j)
		if err == nil {
			err = j.run()
		}
		if err != nil {
			say("failed %q", err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// say is one write into a pipe, which arrives whole whenever the process dies.
func say(format string, args ...any) {
	if _, err := fmt.Fprintf(os.Stdout, format+"\n", args...); err != nil {
		os.Exit(1)
	}
}

// What the messages are, by their number.
const (
	byTx = iota
	bySeq
	bySeqTx
	byIntent
	byKey
	kinds
)

const topics = 3

// service is the child.
type service struct {
	job
	st *oncelog.Store
	r  *receiver.Receiver
}

func (j job) run() error {
	st, err := oncelog.Open(j.Dir, &oncelog.Options{SegmentSize: 16 << 10, Pace: -1})
	if err != nil {
		return err
	}
	r, err := st.Receiver(&receiver.Options{Window: 1 << 16}) // the youngest may be handled before the oldest
	if err != nil {
		return err
	}
	s := &service{job: j, st: st, r: r}
	if err := s.settle(); err != nil {
		return err
	}
	relayed := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { relayed <- r.Relay(ctx, s.publish) }()
	if err := s.handleAll(); err != nil {
		return err
	}
	for s.waiting() > 0 { // the relay is at it, and says each
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-relayed; !errors.Is(err, context.Canceled) {
		return err
	}
	if err := s.report(); err != nil {
		return err
	}
	return st.Close()
}

// settle tells the sender what is in doubt, and does what it says.
func (s *service) settle() error {
	in := bufio.NewScanner(os.Stdin)
	for d, err := range s.r.Doubts(context.Background()) {
		if err != nil {
			return err
		}
		say("doubt %s", d.Key)
	}
	say("doubts end")
	for in.Scan() && in.Text() != "end" {
		key, what, _ := strings.Cut(in.Text(), " ")
		res := receiver.HappenedNot()
		if what == "happened" {
			res = receiver.Happened([]byte(key))
		}
		if err := s.r.Settle(context.Background(), key, res); err != nil {
			return err
		}
	}
	return in.Err()
}

// handleAll handles all messages: for ever, or each once.
func (s *service) handleAll() error {
	const workers = 6
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(s.Seed, uint64(w)))
			for turn := 0; errs[w] == nil && (turn == 0 || !s.Finish); turn++ {
				order := rnd.Perm(s.Messages)
				for i := 0; i < len(order) && errs[w] == nil; i++ {
					if rnd.IntN(8) == 0 && i+4 < len(order) {
						errs[w] = s.batch(order[i : i+4])
						i += 3
						continue
					}
					errs[w] = s.handle(order[i])
				}
			}
		})
	}
	if !s.Finish {
		go func() { // housekeeping all the time
			for s.st.Compact() == nil && s.st.Snapshot() == nil {
			}
		}()
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *service) handle(m int) (err error) {
	ctx := context.Background()
	switch m % kinds {
	case byTx:
		_, err = s.r.DoTx(ctx, strconv.Itoa(m), s.change(m))
	case bySeq:
		_, err = s.r.DoSeq(ctx, "source", uint64(m), s.effect(m))
	case bySeqTx:
		_, err = s.r.DoSeqTx(ctx, "source tx", uint64(m), s.change(m))
	case byIntent:
		_, err = s.r.Do(ctx, strconv.Itoa(m), func(context.Context) ([]byte, error) {
			say("raw %d", m)
			return []byte("done"), nil
		}, receiver.WithIntent([]byte("message "+strconv.Itoa(m))))
	default:
		_, err = s.r.Do(ctx, strconv.Itoa(m), s.effect(m))
	}
	if err != nil {
		return fmt.Errorf("message %d: %w", m, err)
	}
	say("answered %d", m)
	return nil
}

// batch handles those of some messages that a batch can, in one.
func (s *service) batch(all []int) error {
	var calls []receiver.Call
	var of []int
	for _, m := range all {
		switch m % kinds {
		case bySeq:
			calls = append(calls, receiver.Call{Source: "source", Seq: uint64(m), Fn: s.effect(m)})
		case byKey:
			calls = append(calls, receiver.Call{Key: strconv.Itoa(m), Fn: s.effect(m)})
		default:
			if err := s.handle(m); err != nil {
				return err
			}
			continue
		}
		of = append(of, m)
	}
	outs, err := s.r.DoAll(context.Background(), calls)
	for i := range outs {
		say("answered %d", of[i])
	}
	return err
}

// effect is a call downstream, which travels with a derived key.
func (s *service) effect(m int) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		say("effect %d %s", m, receiver.Derive(ctx, "call"))
		return nil, nil
	}
}

// change is a change of state, with a message about it.
func (s *service) change(m int) func(context.Context, receiver.Tx) ([]byte, error) {
	return func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		key := []byte("count")
		v, _, err := tx.Get(key)
		if err != nil {
			return nil, err
		}
		n, _ := strconv.Atoi(string(v))
		if err := tx.Set(key, strconv.AppendInt(nil, int64(n+1), 10)); err != nil {
			return nil, err
		}
		if err := tx.Emit(fmt.Sprint("topic", m%topics), strconv.AppendInt(nil, int64(m), 10)); err != nil {
			return nil, err
		}
		say("changing %d", m) // staged, not committed
		return strconv.AppendInt(nil, int64(n+1), 10), nil
	}
}

func (s *service) publish(_ context.Context, m receiver.Message) error {
	say("message %s %d %s %s", m.Topic, m.Ordinal, m.Payload, m.Key)
	return nil
}

func (s *service) waiting() int { return s.st.Stats().Outgoing }

// report says what the state is in the end.
func (s *service) report() error {
	err := s.st.View(func(tx *oncelog.Tx) error {
		v, _, err := tx.Get([]byte("count"))
		say("count %s", v)
		return err
	})
	if err != nil {
		return err
	}
	for n, err := range s.r.Gaps(context.Background(), "source") {
		if err != nil {
			return err
		}
		if n%kinds == bySeq {
			say("gap %d", n)
		}
	}
	say("end")
	return s.st.Verify()
}
