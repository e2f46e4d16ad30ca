package oncelog

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/oncelog/oncelog/receiver"
)

// errOrphan is the answer to a claim of a key whose work was done and could not be recorded.
var errOrphan = fmt.Errorf("%w: an earlier call did the work; reopen the store to claim the key again", receiver.ErrUnrecorded)

// leases is the table of the receiver's keys whose work is running in this process. Unlike a hold in the claim table,
// a lease lasts as long as somebody's fn, so nobody waits for it with anything in hand: who finds one is told so.
type leases struct {
	shards [leaseShards]leaseShard
}

const leaseShards = 64

type leaseShard struct {
	mu sync.Mutex
	m  map[string]*lease
	_  [40]byte // a cache line each
}

// lease is one running piece of work. Its fields are guarded by the shard's lock, except that whoever is asking, or has
// brought it to the state ending, owns it.
type lease struct {
	name
	state       leaseState
	token       uint64
	fingerprint []byte
	reserved    int64
	mark        *receiver.Mark // the key is a number of a sequence
	intent      bool           // an intent is recorded
	doubt       bool           // the key was in doubt when it was claimed
	quota       bool           // it counts in its scope's account
	changed     chan struct{}  // made when somebody asks for it, closed when the lease ends

	// Room for the usual key, a fingerprint, and the attributes of the record to come. One allocation instead of four.
	small  [40]byte
	digest [maxFingerprint]byte
	room   [maxClaimAttrs]byte
}

type leaseState byte

const (
	leaseAsking  leaseState = iota // Claim is not done with it
	leaseRunning                   // the work is running
	leaseEnding                    // Complete or Release is at it
	leaseOrphan                    // the work was done and could not be recorded
)

func (t *leases) shard(n name) *leaseShard { return &t.shards[uint64(n.hash)%leaseShards] }

// take makes the lease of a key, or returns a nil lease and what there is instead.
func (t *leases) take(n name, fingerprint []byte) (*lease, receiver.Claim, error) {
	sh := t.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l := sh.m[string(n.key)]; l != nil {
		if l.state == leaseOrphan {
			return nil, receiver.Claim{}, errOrphan
		}
		return nil, l.inFlight(), nil
	}
	l := &lease{name: n}
	l.key = append(l.small[:0], n.key...) // the caller's bytes are the caller's
	l.fingerprint = append(l.digest[:0], fingerprint...)
	if sh.m == nil {
		sh.m = make(map[string]*lease)
	}
	sh.m[string(n.key)] = l
	return l, receiver.Claim{}, nil
}

func (l *lease) inFlight() receiver.Claim {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return receiver.Claim{State: receiver.StateInFlight, Fingerprint: bytes.Clone(l.fingerprint), Changed: l.changed}
}

// inspect returns what a Claim would find in the table. An orphan is in flight for ever.
func (t *leases) inspect(n name) (receiver.Claim, bool) {
	sh := t.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := sh.m[string(n.key)]
	if l == nil {
		return receiver.Claim{}, false
	}
	return l.inFlight(), true
}

// completing gives the running lease with this token to the caller, who ends it, makes it an orphan, or lets it run
// on. nil = there is none, or somebody else is at it.
func (t *leases) completing(n name, token uint64) *lease {
	sh := t.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := sh.m[string(n.key)]
	if l == nil || l.state != leaseRunning || l.token != token {
		return nil
	}
	l.state = leaseEnding
	return l
}

func (t *leases) running(l *lease) { t.set(l, leaseRunning) }

// orphan tells those that asked, too: it will not change any more.
func (t *leases) orphan(l *lease) {
	sh := t.shard(l.name)
	sh.mu.Lock()
	l.state = leaseOrphan
	changed := l.changed
	l.changed = nil
	sh.mu.Unlock()
	if changed != nil {
		close(changed)
	}
}

func (t *leases) set(l *lease, to leaseState) {
	sh := t.shard(l.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l.state = to
}

// endLease removes the lease, gives back the room it did not use, and tells those that asked.
func (s *Store) endLease(l *lease) {
	if l.quota {
		s.scopes.unclaim(l.key) // before another can claim it
	}
	sh := s.leases.shard(l.name)
	sh.mu.Lock()
	delete(sh.m, string(l.key))
	changed := l.changed
	sh.mu.Unlock()
	if l.reserved > 0 {
		s.log.Unreserve(l.reserved)
	}
	if changed != nil {
		close(changed)
	}
}
