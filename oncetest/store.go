package oncetest

import (
	"bytes"
	"context"
	"fmt"
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
	s := &store{keys: make(map[string]*entry), now: now}
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

type store struct {
	now   func() time.Time
	mu    sync.Mutex
	keys  map[string]*entry
	token uint64
}

// entry is a key that is held or done. Expired ones are removed when they are met.
type entry struct {
	held        uint64 // token of the claim, 0 = done
	changed     chan struct{}
	fingerprint []byte

	by     uint64 // token of the claim that completed it
	result receiver.Result
	until  time.Time
}

// get returns the key's entry, or nil. Called with the lock held.
func (s *store) get(key []byte) *entry {
	e := s.keys[string(key)]
	if e != nil && e.held == 0 && !s.now().Before(e.until) {
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
	c.State, c.Result, c.Until = receiver.StateDone, e.result, e.until
	c.Result.Value = bytes.Clone(e.result.Value)
	return c
}

// Claim implements receiver.Store.
func (s *store) Claim(ctx context.Context, req receiver.Request) (receiver.Claim, error) {
	if req.TTL < 0 {
		return receiver.Claim{}, fmt.Errorf("oncetest: a TTL of %v is negative", req.TTL)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.get(req.Key); e != nil {
		return e.claim(), nil
	}
	s.token++
	s.keys[string(req.Key)] = &entry{
		held: s.token, changed: make(chan struct{}), fingerprint: bytes.Clone(req.Fingerprint),
	}
	return receiver.Claim{State: receiver.StateClaimed, Token: s.token}, nil
}

// Complete implements receiver.Store.
func (s *store) Complete(ctx context.Context, key []byte, token uint64, res receiver.Result) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	switch {
	case e != nil && e.held == 0 && e.by == token:
		return e.until, nil
	case e == nil || e.held != token:
		return time.Time{}, receiver.ErrStaleToken
	}
	ttl := res.TTL
	if ttl == 0 {
		ttl = TTL
	}
	e.held, e.by, e.result = 0, token, res
	e.result.Value = bytes.Clone(res.Value)
	e.until = s.now().Add(ttl)
	close(e.changed)
	return e.until, nil
}

// Release implements receiver.Store.
func (s *store) Release(ctx context.Context, key []byte, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.get(key)
	if e == nil || e.held != token {
		return receiver.ErrStaleToken
	}
	delete(s.keys, string(key))
	close(e.changed)
	return nil
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
