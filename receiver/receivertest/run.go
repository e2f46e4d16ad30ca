package receivertest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/receiver"
)

// Backend is a store to be tested, and what its tests can do to it. What is nil can't be done, and tests that need it
// are skipped, by name.
type Backend struct {
	Store receiver.Store
	// Advance moves the store's clock.
	Advance func(d time.Duration)
	// Reopen ends the store and opens it again, as after a restart of the process.
	Reopen func() receiver.Store
	// Break makes all writes fail from now on, for good or until Reopen.
	Break func()
	// LongestKey and LargestValue are the most that the store takes, in bytes. The suite goes one beyond.
	LongestKey, LargestValue int
	// ShortTTL is a TTL that the store refuses, 0 = it refuses none.
	ShortTTL time.Duration
}

// Run runs the suite. open is called for each test and returns an empty store; what it leaves open it closes by
// t.Cleanup.
func Run(t *testing.T, open func(t testing.TB) *Backend) {
	for _, group := range []struct {
		name  string
		tests []test
	}{{"Contract", contract}, {"Rule", rules}} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.tests {
				t.Run(c.name, func(t *testing.T) { c.run(&suite{T: t, Backend: open(t)}) })
			}
		})
	}
}

type test struct {
	name string
	run  func(s *suite)
}

// suite is one test's backend with its helpers.
type suite struct {
	*testing.T
	*Backend
}

// deadline bounds what a test waits for, so that a deadlock is a failure with a name.
const deadline = 20 * time.Second

var background = context.Background()

// receiver returns a receiver over the store, and a channel that is told of each call that has taken its place in
// a line.
func (s *suite) receiver(opts receiver.Options) (*receiver.Receiver, chan struct{}) {
	waiting := make(chan struct{}, 1<<16)
	told := opts.Observe
	opts.Observe = func(e receiver.Event) {
		if e.Kind == receiver.EventWaiting {
			waiting <- struct{}{}
		}
		if told != nil {
			told(e)
		}
	}
	r, err := receiver.New(s.Store, &opts)
	require.NoError(s, err)
	return r, waiting
}

// plain returns a receiver with default options.
func (s *suite) plain() *receiver.Receiver {
	r, err := receiver.New(s.Store, nil)
	require.NoError(s, err)
	return r
}

// await waits for n signals.
func await[T any](s *suite, c <-chan T, n int) (last T) {
	s.Helper()
	timeout := time.After(deadline)
	for i := range n {
		select {
		case last = <-c:
		case <-timeout:
			require.FailNow(s, "nothing happened any more", "%d of %d", i, n)
		}
	}
	return last
}

// need skips the test if the backend can't do something.
func (s *suite) need(can bool, what string) {
	if !can {
		s.Skip("this store's tests can't " + what)
	}
}

// outcome is what came of a Do.
type outcome struct {
	receiver.Outcome
	err error
}

// do runs Do on a goroutine of its own.
func (s *suite) do(ctx context.Context, r *receiver.Receiver, key string, fn func(context.Context) ([]byte, error), opts ...receiver.CallOption) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		out, err := r.Do(ctx, key, fn, opts...)
		c <- outcome{out, err}
	}()
	return c
}

// blocker is a fn that says when it runs and returns when it is told to.
type blocker struct {
	running chan struct{}
	end     chan outcome
}

func newBlocker() *blocker { return &blocker{make(chan struct{}, 1), make(chan outcome, 1)} }

func (b *blocker) fn(context.Context) ([]byte, error) {
	b.running <- struct{}{}
	o := <-b.end
	return o.Value, o.err
}

func (b *blocker) finish(value string, err error) {
	b.end <- outcome{receiver.Outcome{Value: []byte(value)}, err}
}

// running begins a call whose fn is in the middle of its work until b is told to finish, and then has an outcome.
func (s *suite) running(r *receiver.Receiver, key string) (b *blocker, first <-chan outcome) {
	b = newBlocker()
	first = s.do(background, r, key, b.fn)
	await(s, b.running, 1)
	return b, first
}

// value is a fn that returns v and counts its runs.
func value(v string, runs *int) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		*runs++
		return []byte(v), nil
	}
}

// never is a fn that must not run.
func (s *suite) never(context.Context) ([]byte, error) {
	s.Error("fn ran again")
	return nil, nil
}
