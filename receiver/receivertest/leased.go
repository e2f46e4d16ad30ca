package receivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// ErrAnswerLost is what a Leased returns for a call whose effect it had, when it was told to lose answers.
var ErrAnswerLost = errors.New("receivertest: the answer was lost")

// ErrTooLarge is what a Leased returns for values above its limit.
var ErrTooLarge = errors.New("receivertest: value too large")

// ErrDown is what a Leased returns while it is down.
var ErrDown = errors.New("receivertest: the store is down")

// LeasedOptions of NewLeased. The zero value of each field is its default.
type LeasedOptions struct {
	Lease    time.Duration    // default one minute
	TTL      time.Duration    // of records that name none; default 72 hours
	MaxKey   int              // bytes; default 1 KiB
	MaxValue int              // bytes; default 1 MiB
	Now      func() time.Time // default time.Now
}

// Leased is a store in memory that behaves like one across a network. Safe for use by any number of goroutines.
type Leased struct {
	o LeasedOptions

	mu    sync.Mutex
	keys  map[string]*leasedKey
	token uint64
	lose  map[string]int // operation → how many of its next answers to lose
	down  bool
}

// leasedKey is a key that is held, in doubt, or done.
type leasedKey struct {
	state       receiver.State // StateInFlight, StateInDoubt or StateDone
	token       uint64         // of the claim that holds it, or completed it
	lease       time.Time
	fingerprint []byte
	result      receiver.Result
	until       time.Time
}

// NewLeased returns an empty store.
func NewLeased(o LeasedOptions) *Leased {
	if o.Lease == 0 {
		o.Lease = time.Minute
	}
	if o.TTL == 0 {
		o.TTL = 72 * time.Hour
	}
	if o.MaxKey == 0 {
		o.MaxKey = 1 << 10
	}
	if o.MaxValue == 0 {
		o.MaxValue = 1 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Leased{o: o, keys: make(map[string]*leasedKey), lose: make(map[string]int)}
}

// Lose makes the next n answers to an operation (claim, complete, release, renew) get lost: it has its effect, and
// returns ErrAnswerLost.
func (s *Leased) Lose(operation string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose[operation] = n
}

// SetDown makes every operation fail without an effect, or ends that.
func (s *Leased) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// answer says whether the answer to an operation that has had its effect gets through. Called with the lock held.
func (s *Leased) answer(operation string) error {
	if s.lose[operation] > 0 {
		s.lose[operation]--
		return fmt.Errorf("%s: %w", operation, ErrAnswerLost)
	}
	return nil
}

// get brings the key up to date and returns it, or nil. Called with the lock held.
func (s *Leased) get(key []byte) *leasedKey {
	k := s.keys[string(key)]
	if k == nil {
		return nil
	}
	now := s.o.Now()
	switch {
	case k.state == receiver.StateDone && !now.Before(k.until):
		delete(s.keys, string(key))
		return nil
	case k.state == receiver.StateInFlight && !now.Before(k.lease):
		k.state = receiver.StateInDoubt // its holder may have done the work, and may be doing it still
	}
	return k
}

func (s *Leased) next(k *leasedKey) {
	s.token++
	k.token, k.lease = s.token, s.o.Now().Add(s.o.Lease)
}

// Claim implements receiver.Store.
func (s *Leased) Claim(ctx context.Context, req receiver.Request) (receiver.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return receiver.Claim{}, ctx.Err()
	case s.down:
		return receiver.Claim{}, ErrDown
	case req.Intent || req.Mark != nil || req.ResultTTL != 0 || req.Quota != (receiver.Quota{}):
		return receiver.Claim{}, fmt.Errorf("receivertest: intents, sequences, quotas and TTLs of results: %w", errors.ErrUnsupported)
	case len(req.Key) > s.o.MaxKey:
		return receiver.Claim{}, ErrTooLarge
	case req.TTL < 0:
		return receiver.Claim{}, fmt.Errorf("receivertest: a TTL of %v is negative", req.TTL)
	}
	k := s.get(req.Key)
	if k != nil && k.state != receiver.StateInDoubt {
		return s.describe(k), s.answer("claim")
	}
	state := receiver.StateInDoubt
	if k == nil {
		k = &leasedKey{fingerprint: bytes.Clone(req.Fingerprint)}
		s.keys[string(req.Key)] = k
		state = receiver.StateClaimed
	}
	s.next(k)
	c := receiver.Claim{State: state, Token: k.token, Lease: k.lease}
	if state == receiver.StateInDoubt {
		// The doubt stays: who holds it may settle it, and must not run.
		c.Fingerprint = bytes.Clone(k.fingerprint)
	} else {
		k.state = receiver.StateInFlight
	}
	return c, s.answer("claim")
}

func (s *Leased) describe(k *leasedKey) receiver.Claim {
	c := receiver.Claim{State: k.state, Fingerprint: bytes.Clone(k.fingerprint)}
	if k.state == receiver.StateDone {
		c.Result, c.Until = k.result, k.until
		c.Result.Value = bytes.Clone(k.result.Value)
	}
	return c
}

// held returns the key if the token's claim holds it. Called with the lock held.
func (s *Leased) held(key []byte, token uint64) (*leasedKey, error) {
	if s.down {
		return nil, ErrDown
	}
	k := s.get(key)
	if k == nil || k.token != token || !s.o.Now().Before(k.lease) && k.state != receiver.StateDone {
		return nil, receiver.ErrStaleToken
	}
	return k, nil
}

// Complete implements receiver.Store.
func (s *Leased) Complete(ctx context.Context, key []byte, token uint64, res receiver.Result) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.held(key, token)
	if err != nil {
		return time.Time{}, err
	}
	switch {
	case k.state == receiver.StateDone:
	case res.Kind == receiver.KindDoubt:
		k.state, k.token = receiver.StateInDoubt, 0
	case res.Kind == receiver.KindNot:
		delete(s.keys, string(key))
	default:
		if len(res.Value)+len(res.Message) > s.o.MaxValue {
			return time.Time{}, ErrTooLarge
		}
		ttl := res.TTL
		if ttl == 0 {
			ttl = s.o.TTL
		}
		k.state, k.result, k.until = receiver.StateDone, res, s.o.Now().Add(ttl)
		k.result.Value = bytes.Clone(res.Value)
	}
	return k.until, s.answer("complete")
}

// Release implements receiver.Store.
func (s *Leased) Release(ctx context.Context, key []byte, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.held(key, token)
	switch {
	case err != nil:
		return err
	case k.state == receiver.StateDone:
		return receiver.ErrStaleToken
	case k.state == receiver.StateInDoubt:
		k.token = 0 // nobody's, and still in doubt
	default:
		delete(s.keys, string(key))
	}
	return s.answer("release")
}

// Renew implements receiver.Renewer.
func (s *Leased) Renew(ctx context.Context, key []byte, token uint64) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.held(key, token)
	if err != nil {
		return time.Time{}, err
	}
	if k.state == receiver.StateDone {
		return time.Time{}, receiver.ErrStaleToken
	}
	k.lease = s.o.Now().Add(s.o.Lease)
	return k.lease, s.answer("renew")
}

// Inspect implements receiver.Inspector.
func (s *Leased) Inspect(ctx context.Context, key []byte) (receiver.Claim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return receiver.Claim{}, ErrDown
	}
	if k := s.get(key); k != nil {
		return s.describe(k), nil
	}
	return receiver.Claim{State: receiver.StateAbsent}, nil
}

// Doubts implements receiver.Inspector.
func (s *Leased) Doubts(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s.mu.Lock()
		var keys []string
		for key := range s.keys {
			if k := s.get([]byte(key)); k != nil && k.state == receiver.StateInDoubt {
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

// Forget implements receiver.Inspector.
func (s *Leased) Forget(ctx context.Context, key []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return ErrDown
	}
	if k := s.get(key); k != nil && k.state == receiver.StateInFlight {
		return receiver.ErrInFlight
	}
	delete(s.keys, string(key))
	return nil
}
