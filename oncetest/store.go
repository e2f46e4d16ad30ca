package oncetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// TTL is how long the store keeps a record that names no TTL of its own.
const TTL = 72 * time.Hour

// Store returns an empty store in memory. It starts no goroutine and no timer: records go by time.Now when somebody
// asks for them. When the test ends it fails if a key is still held, which is what a handler that never returned, or
// a missing Release, leaves behind.
//
// It remembers as long as the test lasts and survives nothing; use a real store to test restarts.
func Store(t testing.TB) receiver.Store {
	return newStore(t, time.Now)
}

func newStore(t testing.TB, now func() time.Time) *store {
	s := emptyStore(now)
	t.Cleanup(func() {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.keys {
			if e.held != 0 {
				t.Errorf("oncetest: a key is still held at the end of the test, by the claim with token %d", e.held)
			}
		}
	})
	return s
}

func emptyStore(now func() time.Time) *store {
	return &store{now: now, keys: make(map[string]*entry), state: make(map[string][]byte), marks: make(map[string]uint64)}
}

type store struct {
	now func() time.Time
	// step is called as each operation begins and as it ends, before its answer is given; nil = not at all. Its error
	// takes the place of the answer, and before the operation that of its effect too.
	step func(operation string, began bool) error

	mu    sync.Mutex
	keys  map[string]*entry
	token uint64

	tx    sync.Mutex // held by the transaction in progress
	state map[string][]byte
	marks map[string]uint64
}

// at is one end of an operation.
func (s *store) at(operation string, began bool) error {
	if s.step == nil {
		return nil
	}
	return s.step(operation, began)
}

// entry is a key that is held, in doubt, or done. Expired ones are removed when they are met.
type entry struct {
	held        uint64 // token of the claim, 0 = done
	changed     chan struct{}
	fingerprint []byte
	doubt       bool // in doubt while nobody holds it, and it was when the claim began
	intent      bool // held under an intent, or in doubt because of one
	note        []byte

	by     uint64 // token of the claim that completed it
	result receiver.Result
	until  time.Time
}

// get returns the key's entry, or nil. Called with the lock held.
func (s *store) get(key []byte) *entry {
	e := s.keys[string(key)]
	if e != nil && e.held == 0 && !e.doubt && !s.now().Before(e.until) {
		delete(s.keys, string(key))
		return nil
	}
	return e
}

func (e *entry) claim() receiver.Claim {
	c := receiver.Claim{Fingerprint: bytes.Clone(e.fingerprint)}
	if e.held != 0 {
		c.State, c.Changed = receiver.StateInFlight, e.changed
		return c
	}
	if e.doubt {
		c.State, c.Note = receiver.StateInDoubt, bytes.Clone(e.note)
		return c
	}
	c.State, c.Result, c.Until = receiver.StateDone, e.result, e.until
	c.Result.Value = bytes.Clone(e.result.Value)
	return c
}

// Claim implements receiver.Store.
func (s *store) Claim(ctx context.Context, req receiver.Request) (c receiver.Claim, err error) {
	if req.TTL < 0 {
		return c, fmt.Errorf("oncetest: a TTL of %v is negative", req.TTL)
	}
	if req.Mark != nil || req.ResultTTL != 0 || req.Quota != (receiver.Quota{}) {
		return c, fmt.Errorf("oncetest: sequences, quotas and TTLs of results need a real store: %w", errors.ErrUnsupported)
	}
	if err := s.at("Claim", true); err != nil {
		return c, err
	}
	c = s.claim(&req)
	return c, s.at("Claim", false)
}

func (s *store) claim(req *receiver.Request) receiver.Claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.get(req.Key); e != nil {
		c := e.claim()
		if c.State == receiver.StateInDoubt {
			s.token++
			e.held, e.changed, c.Token = s.token, make(chan struct{}), s.token
		}
		return c
	}
	s.token++
	s.keys[string(req.Key)] = &entry{
		held: s.token, changed: make(chan struct{}), fingerprint: bytes.Clone(req.Fingerprint),
		intent: req.Intent, note: bytes.Clone(req.Note),
	}
	return receiver.Claim{State: receiver.StateClaimed, Token: s.token}
}

// Complete implements receiver.Store.
func (s *store) Complete(ctx context.Context, key []byte, token uint64, res receiver.Result) (time.Time, error) {
	if err := s.at("Complete", true); err != nil {
		return time.Time{}, err
	}
	until, err := s.complete(key, token, res, nil)
	if err == nil {
		err = s.at("Complete", false)
	}
	return until, err
}

// complete completes a claim, together with what else becomes true then.
func (s *store) complete(key []byte, token uint64, res receiver.Result, also func()) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	switch {
	case e != nil && e.held == 0 && e.by == token:
		return e.until, nil
	case e == nil || e.held != token:
		return time.Time{}, receiver.ErrStaleToken
	}
	if also != nil {
		also()
	}
	defer close(e.changed)
	switch res.Kind {
	case receiver.KindDoubt:
		e.held, e.doubt = 0, true
		return time.Time{}, nil
	case receiver.KindNot:
		delete(s.keys, string(key))
		return time.Time{}, nil
	}
	ttl := res.TTL
	if ttl == 0 {
		ttl = TTL
	}
	e.held, e.doubt, e.by, e.result = 0, false, token, res
	e.result.Value = bytes.Clone(res.Value)
	e.until = s.now().Add(ttl)
	return e.until, nil
}

// CompleteAll implements receiver.Batcher.
func (s *store) CompleteAll(ctx context.Context, all []receiver.Completion) []receiver.Completed {
	ends := make([]receiver.Completed, len(all))
	for i, c := range all {
		ends[i].Until, ends[i].Err = s.Complete(ctx, c.Key, c.Token, c.Result)
	}
	return ends
}

// Release implements receiver.Store.
func (s *store) Release(ctx context.Context, key []byte, token uint64) error {
	if err := s.at("Release", true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	if e == nil || e.held != token {
		return receiver.ErrStaleToken
	}
	if e.held = 0; !e.doubt {
		delete(s.keys, string(key))
	}
	close(e.changed)
	return s.at("Release", false)
}

// died returns the store as the next process finds it when this one dies: what was held is free, or in doubt under an
// intent.
func (s *store) died() *store {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := emptyStore(s.now)
	next.token = s.token
	for key, e := range s.keys {
		was := *e
		switch {
		case was.held != 0 && !was.doubt && !was.intent:
			continue
		case was.held != 0:
			was.held, was.doubt = 0, true
		}
		next.keys[key] = &was
	}
	for key, v := range s.state {
		next.state[key] = v
	}
	for source, seq := range s.marks {
		next.marks[source] = seq
	}
	return next
}

// Doubts implements receiver.Inspector.
func (s *store) Doubts(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s.mu.Lock()
		var keys []string
		for key, e := range s.keys {
			if e.doubt && e.held == 0 {
				keys = append(keys, key)
			}
		}
		s.mu.Unlock()
		for _, key := range keys {
			if !yield([]byte(key), nil) {
				return
			}
		}
	}
}

// Inspect implements receiver.Inspector.
func (s *store) Inspect(ctx context.Context, key []byte) (receiver.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.get(key); e != nil {
		return e.claim(), nil
	}
	return receiver.Claim{State: receiver.StateAbsent}, nil
}

// Forget implements receiver.Inspector.
func (s *store) Forget(ctx context.Context, key []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.get(key); e != nil && e.held != 0 {
		return receiver.ErrInFlight
	}
	delete(s.keys, string(key))
	return nil
}
