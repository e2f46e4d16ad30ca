package oncetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// tx is a transaction of the store in memory: changes that are kept aside until it commits.
type tx struct {
	s     *store
	key   []byte
	token uint64
	state map[string][]byte // nil value = deleted
	marks map[string]uint64
	over  bool
}

// Begin implements receiver.Transactor.
func (s *store) Begin(_ context.Context, key []byte, token uint64) (receiver.Transaction, error) {
	if err := s.at("Begin", true); err != nil {
		return nil, err
	}
	s.tx.Lock()
	return &tx{s: s, key: bytes.Clone(key), token: token, state: make(map[string][]byte), marks: make(map[string]uint64)}, nil
}

func (t *tx) Get(key []byte) (value []byte, ok bool, err error) {
	v, changed := t.state[string(key)]
	if !changed {
		t.s.mu.Lock()
		v = t.s.state[string(key)]
		t.s.mu.Unlock()
	}
	if v == nil {
		return nil, false, nil
	}
	return bytes.Clone(v), true, nil
}

func (t *tx) Set(key, value []byte) error {
	t.state[string(key)] = append([]byte{}, value...)
	return nil
}

func (t *tx) Delete(key []byte) error {
	t.state[string(key)] = nil
	return nil
}

func (t *tx) Advance(source string, seq uint64) (fresh bool, err error) {
	mark, ok := t.marks[source]
	if !ok {
		t.s.mu.Lock()
		mark, ok = t.s.marks[source]
		t.s.mu.Unlock()
	}
	if ok && seq <= mark {
		return false, nil
	}
	t.marks[source] = seq
	return true, nil
}

func (t *tx) Emit(string, []byte, string) error {
	return fmt.Errorf("oncetest: outgoing messages need a real store: %w", errors.ErrUnsupported)
}

func (t *tx) Commit(_ context.Context, res receiver.Result) (time.Time, error) {
	if err := t.s.at("Commit", true); err != nil {
		return time.Time{}, err
	}
	until, err := t.s.complete(t.key, t.token, res, func() {
		for key, v := range t.state {
			if v == nil {
				delete(t.s.state, key)
			} else {
				t.s.state[key] = v
			}
		}
		for source, seq := range t.marks {
			t.s.marks[source] = seq
		}
	})
	if err != nil {
		return until, err
	}
	t.end()
	return until, t.s.at("Commit", false)
}

func (t *tx) Rollback(context.Context) error {
	t.end()
	return nil
}

func (t *tx) end() {
	if !t.over {
		t.over = true
		t.s.tx.Unlock()
	}
}
