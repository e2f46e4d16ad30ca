package oncelog

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/oncelog/oncelog/record"
)

// tokens gives each claim of the receiver a number that is larger than all before it, over restarts too: whoever fn
// talks to can use it to turn away a former holder. Most claims leave no record, so the log can't tell which numbers
// were given out. It says instead, in a state of the receiver's own, below which number they all are, and is raised
// ahead of use: one commit for the first claim after Open, and one for a million more.
type tokens struct {
	mu    sync.Mutex // never held across I/O
	given uint64
	limit uint64 // durable: numbers through this one may be given out
}

const tokenStep = 1 << 20

// tokenKey is the state's key in the keyspace ReceiverStates; its value is the limit, 8 bytes little-endian.
var tokenKey = []byte("tokens")

func (t *tokens) next(s *Store) (uint64, error) {
	for {
		t.mu.Lock()
		if t.given < t.limit {
			t.given++
			token := t.given
			t.mu.Unlock()
			return token, nil
		}
		t.mu.Unlock()
		if err := t.raise(s); err != nil {
			return 0, err
		}
	}
}

// allow says that the numbers behind last through limit are there to be given out.
func (t *tokens) allow(last, limit uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit > t.limit {
		t.given, t.limit = max(t.given, last), limit
	}
}

// raise raises the limit, or waits for somebody else's doing so.
func (t *tokens) raise(s *Store) error {
	n := name{space: record.ReceiverStates, key: tokenKey, hash: s.keys.Hash(byte(record.ReceiverStates), tokenKey)}
	size := record.MaxSize(len(tokenKey), 8, 0)
	if err := s.ready(size); err != nil {
		return err
	}
	c, v := s.claims.hold(n, nil)
	if v.commit != nil { // another's is on its way
		s.claims.release(c, false)
		return s.log.Await(v.commit)
	}
	t.mu.Lock()
	enough := t.given < t.limit
	t.mu.Unlock()
	if enough {
		s.claims.release(c, false)
		return nil
	}
	r, ok, err := s.current(c)
	if err == nil && ok && len(r.Value) != 8 {
		err = fmt.Errorf("%w: the receiver's token limit has %d bytes", ErrCorrupt, len(r.Value))
	}
	last := uint64(0)
	if err == nil && ok {
		last = binary.LittleEndian.Uint64(r.Value)
	}
	if last > math.MaxUint64-tokenStep {
		err = fmt.Errorf("%w: the receiver's tokens are used up", ErrFull)
	}
	if err != nil {
		s.claims.release(c, false)
		return err
	}
	changes := []change{{c, record.Record{
		Kind: record.State, Receiver: true, At: s.clock.millis(), Expires: record.Forever, Key: tokenKey,
		Value: binary.LittleEndian.AppendUint64(nil, last+tokenStep),
	}}}
	commit, err := s.stage(size, 0, changes, nil)
	s.claims.release(c, err == nil)
	if err != nil {
		return err
	}
	// Allowed before it is published: who comes in between, and finds nothing on its way, would raise it once more.
	if err = s.log.Wait(commit); err != nil {
		s.claims.withdraw(c, commit)
		return err
	}
	t.allow(last, last+tokenStep)
	s.publish(c)
	return nil
}
