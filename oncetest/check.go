package oncetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// Handler is a handler of messages, to be checked, with the world that it changes.
type Handler struct {
	// Handle is one delivery of a message, always the same one: it calls the receiver as the service does. nil = the
	// message is acknowledged and is not delivered again.
	Handle func(ctx context.Context, r *receiver.Receiver) error
	// Effects returns how often the message has had its effect so far, as somebody outside would count it: how often the
	// card was charged, how often the amount is in the balance. r is over the same store, to read state with.
	Effects func(r *receiver.Receiver) int
}

// Check delivers a message to a handler in the ways in which networks and machines do: once, again, many times at the
// same moment; with an error, a panic, and the context's end at each step; and with the process dying at each step and
// starting again. After each it counts the effect, and fails the test with the way and the step if that is not once.
// Under an intent, or with Unknown, an error that is ErrInDoubt is an answer too: then the effect may have happened
// once or not at all, and must not be repeated.
//
// Steps are the beginning and the end of what the receiver asks of its store, and what the handler marks with Step.
//
// begin makes a new handler in a new world; it is called for each way. The store is one in memory, the receiver's
// options are nil. A death is simulated: the goroutine ends (runtime.Goexit), so its deferred functions run, which they
// would not if it were real, and the store is out of reach from then on.
func Check(t testing.TB, begin func(t testing.TB) Handler) {
	t.Helper()
	steps := 0
	ways := []way{
		{name: "one delivery"},
		{name: "three deliveries, one after the other", again: 2},
		{name: "eight deliveries at the same moment", beside: 7},
	}
	for i, w := range ways {
		if n := w.run(t, begin); i == 0 {
			steps = n // of a single delivery: each may be the one at which something happens
		}
	}
	for n := 1; n <= steps; n++ {
		for _, what := range []trouble{fails, panics, cancels, dies} {
			w := way{trouble: what, step: n, again: 3}
			w.run(t, begin)
			w.beside = 3
			w.run(t, begin)
		}
	}
}

// Step marks a step of a handler for Check: call it in the fakes that stand for what the handler talks to, before they
// have their effect and after. An error is to be returned, as the failure of what the fake stands for. Outside Check it
// does nothing.
func Step(ctx context.Context, name string) error {
	if p, ok := ctx.Value(processKey{}).(*process); ok {
		return p.step(name, false, true)
	}
	return nil
}

type processKey struct{}

// trouble is what happens at a step.
type trouble int

const (
	none    trouble = iota
	fails           // an error; what was asked for has its effect if the step is its end
	panics          // a panic of the handler's
	cancels         // the context of the delivery ends
	dies            // the process dies, and is started again
)

var troubles = map[trouble]string{
	fails: "an error", panics: "a panic", cancels: "the context ending", dies: "the process dying",
}

var (
	errStep = errors.New("oncetest: this fails, as it was told to")
	errDead = errors.New("oncetest: the process is dead")
)

// way is a way in which a message is delivered.
type way struct {
	name    string
	again   int // more deliveries behind it, of which as many take place as are needed
	beside  int // more deliveries at the same moment
	trouble trouble
	step    int // at which it happens, from 1
}

func (w *way) String() string {
	if w.trouble == none {
		return w.name
	}
	s := fmt.Sprintf("with %s", troubles[w.trouble])
	if w.beside > 0 {
		s = fmt.Sprintf("%d deliveries at the same moment, ", w.beside+1) + s
	}
	return s
}

// process is one life of the service.
type process struct {
	w      *way
	s      *store
	mu     sync.Mutex
	n      int
	place  string // of the trouble
	gone   atomic.Bool
	cancel context.CancelFunc
}

// step is told of each step.
func (p *process) step(name string, began, inFn bool) error {
	if p.gone.Load() {
		return errDead
	}
	p.mu.Lock()
	p.n++
	now := p.n == p.w.step && p.place == "" && p.w.happens(name, began, inFn)
	switch {
	case now && inFn:
		p.place = "at " + name
	case now:
		p.place = map[bool]string{true: "before the store's ", false: "after the store's "}[began] + name
	}
	p.mu.Unlock()
	if !now {
		return nil
	}
	switch p.w.trouble {
	case fails:
		return errStep
	case panics:
		panic(errStep)
	case cancels:
		p.cancel()
	case dies:
		p.gone.Store(true)
		p.cancel() // those who wait for what it held die too
		runtime.Goexit()
	}
	return nil
}

// happens reports whether the trouble is one that can happen at such a step: stores don't panic, and a claim that an
// embedded store made is not answered with an error.
func (w *way) happens(name string, began, inFn bool) bool {
	switch w.trouble {
	case none:
		return false
	case panics:
		return inFn
	case fails:
		return inFn || began || name != "Claim"
	}
	return true
}

func (p *process) ofStore(operation string, began bool) error { return p.step(operation, began, false) }

// deliver makes deliveries at the same moment and returns what came of them; nil where one never returned.
func (p *process) deliver(t testing.TB, h *Handler, n int) []*error {
	t.Helper()
	r, err := receiver.New(p.s, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), processKey{}, p))
	p.cancel = cancel
	defer cancel()
	ends := make([]*error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					err := fmt.Errorf("it panicked: %v", v)
					if v != errStep {
						t.Errorf("oncetest: %s: the handler panicked: %v", p.w, v)
					}
					ends[i] = &err
				}
			}()
			err := h.Handle(ctx, r)
			ends[i] = &err
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("oncetest: %s: the handler did not return within %v", p.w, patience)
	}
	return ends
}

// patience is how long a delivery may take. It is not a promise about speed, but an end for a deadlock.
const patience = 20 * time.Second

// run delivers the message in this way, to a new handler, and counts. It returns how many steps the first process took.
func (w *way) run(t testing.TB, begin func(t testing.TB) Handler) (steps int) {
	t.Helper()
	h := begin(t)
	p := &process{w: w, s: emptyStore(time.Now)}
	p.s.step = p.ofStore
	ends := p.deliver(t, &h, 1+w.beside)
	steps = p.n
	place := p.place
	for range w.again {
		if p.gone.Load() {
			calm := &way{name: w.String()}
			p = &process{w: calm, s: p.s.died()}
			p.s.step = p.ofStore
		}
		ends = append(ends, p.deliver(t, &h, 1)...)
	}
	if p.gone.Load() {
		return steps
	}
	last := ends[len(ends)-1]
	p.s.step = nil
	r, err := receiver.New(p.s, nil)
	if err != nil {
		t.Fatal(err)
	}
	where := w.String()
	if place != "" {
		where += " " + place
	}
	effects := h.Effects(r)
	switch {
	case last == nil:
		t.Errorf("oncetest: %s: the last delivery never returned", where)
	case errors.Is(*last, receiver.ErrInDoubt):
		if effects > 1 {
			t.Errorf("oncetest: %s: the effect happened %d times, and the key is in doubt", where, effects)
		}
	case errors.Is(*last, receiver.ErrResultGone) && effects == 1:
		// The store failed to keep the result, and kept the key.
	case *last != nil:
		t.Errorf("oncetest: %s: the last delivery failed: %v", where, *last)
	case effects != 1:
		t.Errorf("oncetest: %s: the effect happened %d times%s", where, effects, hint(w.trouble, effects))
	}
	return steps
}

func hint(what trouble, effects int) string {
	switch {
	case effects == 0:
		return ": the message was acknowledged before its effect"
	case what == dies:
		return ": between the effect and its record a crash can fall; pass receiver.Derive's key on to what has the effect, change state with DoTx, or put the key in doubt with WithIntent"
	}
	return ": is the effect inside the receiver's fn, under a key that is the same for each delivery?"
}
