package oncelog

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// name is a key in its keyspace, hashed once a call.
type name struct {
	space record.Space
	hash  index.Hash
	key   []byte
}

// claims is the table of all keys that are being decided about, or whose decision is on its way into the index. It
// alone decides who goes first.
//
//	hold ──▶ look up ──▶ stage: a version, not numbered yet ──▶ Enqueue numbers it ──▶ let go
//	                                                                 │
//	                         publish: into the index, out of here ◀── visible
//
// Whoever changes a key holds it from before the look-up until its change has a number, so the versions of a key
// are in the order of the log. No lock is held across I/O: the shard's mutex guards memory, and a hold is not a
// lock but an entry that others can see and wait for.
type claims struct {
	shards [claimShards]claimShard
}

// claimShards is enough that the shard of a key looked up is empty most of the time even with 256 writers inside;
// an empty shard costs a reader one load. The entries of a shard are a list: there is one of them at a time, and
// some hundred in the largest transaction. A map cost each writer a tenth of its time.
const claimShards = 1024

type claimShard struct {
	first atomic.Pointer[claim] // set with mu held
	mu    sync.Mutex
	_     [48]byte // a cache line each
}

// claim is one key's entry. Its fields are guarded by the shard's mutex, but for name, which is constant.
type claim struct {
	name
	next     *claim // of the shard
	held     bool
	based    bool              // base is known
	waiters  []chan bool       // in the order they came; told true when the hold is handed to them, false to look again
	base     index.Location    // what the index holds for the key, 0 = nothing
	counted  *compaction.Entry // as what that is counted in the ledger, nil = it is not
	versions []version         // staged and not yet published, in the log's order

	// Room for the usual: one version, and a key as long as a UUID. One allocation instead of three.
	one   [1]version
	small [40]byte
}

// version is a key's record in a transaction.
type version struct {
	commit  *wal.Commit
	at      int32 // of the record in the commit's payload
	whole   int32 // size of the record
	size    int32 // of the value
	kind    record.Kind
	body    []byte // value and attributes, in the payload
	written int64  // the store's time
	expires int64
}

func (v *version) deleted() bool       { return v.kind == record.Tombstone }
func (v *version) live(now int64) bool { return !v.deleted() && now < v.expires }
func (v *version) value() []byte       { return v.body[:v.size:v.size] }
func (v *version) attrs() []byte       { return v.body[v.size:] }

func (t *claims) shard(n name) *claimShard { return &t.shards[uint64(n.hash)%claimShards] }

func (sh *claimShard) find(n name) *claim {
	for c := sh.first.Load(); c != nil; c = c.next {
		if c.hash == n.hash && c.space == n.space && bytes.Equal(c.key, n.key) {
			return c
		}
	}
	return nil
}

func (sh *claimShard) add(n name) *claim {
	c := &claim{name: n}
	c.key = append(c.small[:0], n.key...) // the caller's bytes are the caller's
	c.versions = c.one[:0]
	c.next = sh.first.Load()
	sh.first.Store(c)
	return c
}

// drop removes the entry if it says nothing any more.
func (sh *claimShard) drop(c *claim) {
	if c.held || len(c.versions) > 0 {
		return
	}
	p := sh.first.Load()
	if p == c {
		sh.first.Store(c.next)
		return
	}
	for ; p != nil; p = p.next {
		if p.next == c {
			p.next = c.next
			return
		}
	}
}

// visible returns the newest version of the key that is committed, if the table has one.
func (t *claims) visible(n name, log *wal.Log) (version, bool) {
	sh := t.shard(n)
	if sh.first.Load() == nil {
		return version{}, false
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.find(n)
	if c == nil {
		return version{}, false
	}
	if i := c.committed(log.Visible()); i >= 0 {
		return c.versions[i], true
	}
	return version{}, false
}

// committed returns the place of the newest version of a transaction through a number, or -1.
func (c *claim) committed(through uint64) int {
	for i := len(c.versions) - 1; i >= 0; i-- {
		if c.versions[i].commit.Number() <= through {
			return i
		}
	}
	return -1
}

// hold takes the key, waiting for whoever has it. With a clock, it returns instead as soon as the key is live in a
// staged version (the clock is asked only where there is one): that is answer enough for a duplicate, who then has to wait for that version's commit, and ten
// thousand duplicates of one key need not queue for it. Otherwise the version is the newest staged one, if any, and
// its commit is nil if there is none. A nil claim and no version: look again, something was published.
func (t *claims) hold(n name, clock *clock) (*claim, version) {
	sh := t.shard(n)
	var now int64
	asked := false
	for {
		sh.mu.Lock()
		c := sh.find(n)
		if c == nil {
			c = sh.add(n)
			c.held = true
			sh.mu.Unlock()
			return c, version{}
		}
		if clock != nil && len(c.versions) > 0 {
			if !asked {
				sh.mu.Unlock()
				now, asked = clock.millis(), true // which may be the user's code
				continue
			}
			if v := c.versions[len(c.versions)-1]; v.live(now) && v.commit.Queued() {
				sh.mu.Unlock()
				return nil, v
			}
		}
		if !c.held {
			c.held = true
			v := c.newest()
			sh.mu.Unlock()
			return c, v
		}
		wait := make(chan bool, 1)
		c.waiters = append(c.waiters, wait)
		sh.mu.Unlock()
		if mine := <-wait; mine {
			sh.mu.Lock()
			v := c.newest()
			sh.mu.Unlock()
			return c, v
		}
		if clock != nil {
			return nil, version{}
		}
	}
}

// tryHold is hold that does not wait: nil if somebody has the key.
func (t *claims) tryHold(n name) (*claim, version) {
	sh := t.shard(n)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.find(n)
	switch {
	case c == nil:
		c = sh.add(n)
	case c.held:
		return nil, version{}
	}
	c.held = true
	return c, c.newest()
}

func (c *claim) newest() version {
	if n := len(c.versions); n > 0 {
		return c.versions[n-1]
	}
	return version{}
}

// release ends a hold. If something changed, all that wait look again and find it; if not, the longest waiting one
// gets the hold, since waking all of them to find nothing would make n waiters cost n² wake-ups.
func (t *claims) release(c *claim, changed bool) {
	sh := t.shard(c.name)
	sh.mu.Lock()
	waiters := c.waiters
	if !changed && len(waiters) > 0 {
		c.waiters = waiters[1:]
		sh.mu.Unlock()
		waiters[0] <- true
		return
	}
	c.waiters = nil
	c.held = false
	sh.drop(c)
	sh.mu.Unlock()
	for _, w := range waiters {
		w <- false
	}
}

// found records what the index holds for a key, as its holder saw it, and as what that is counted. Nothing but the
// table's own publishing changes that while the entry exists, except that sweeping takes what is dead.
func (t *claims) found(c *claim, base index.Location, counted *compaction.Entry) {
	sh := t.shard(c.name)
	sh.mu.Lock()
	if !c.based {
		c.base, c.counted, c.based = base, counted, true
	}
	sh.mu.Unlock()
}

// stage adds a version to a key that the caller holds. It belongs to the commit, and is seen as soon as that has a
// number that is visible.
func (t *claims) stage(c *claim, v version) {
	sh := t.shard(c.name)
	sh.mu.Lock()
	c.versions = append(c.versions, v)
	sh.mu.Unlock()
}

// publish moves the key's newest committed version into the index, and forgets it and those before it. Whoever
// comes first does it for all; for the others nothing is left to do.
func (s *Store) publish(c *claim) {
	s.cut.RLock()
	defer s.cut.RUnlock()
	sh := s.claims.shard(c.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	// The record is durable. Should the index not hold it, it stays here, where every look-up finds it.
	if err := s.publishThrough(sh, c, s.log.Visible()); err != nil {
		s.warn("oncelog: the index is full, records stay in memory until the store is reopened with room", err)
	}
}

// publishThrough is publish for versions of transactions through a number. The caller has the shard and the cut.
func (s *Store) publishThrough(sh *claimShard, c *claim, through uint64) error {
	i := c.committed(through)
	if i < 0 {
		return nil
	}
	if err := s.enter(c, &c.versions[i]); err != nil {
		return err
	}
	for j := range i { // replaced before anybody published them
		v := &c.versions[j]
		seg, _ := v.commit.Position()
		s.ledger.Buried(nil, seg.Number(), int(v.whole))
	}
	c.versions = append(c.versions[:0:0], c.versions[i+1:]...)
	sh.drop(c)
	return nil
}

// publishAll publishes all that is visible and returns the number of the last such transaction. The caller has the
// cut, so index and ledger show the store as of that transaction until it lets go.
func (s *Store) publishAll() (through uint64, err error) {
	through = s.log.Visible()
	for i := range s.claims.shards {
		sh := &s.claims.shards[i]
		if sh.first.Load() == nil {
			continue
		}
		sh.mu.Lock()
		for c := sh.first.Load(); c != nil && err == nil; {
			next := c.next
			err = s.publishThrough(sh, c, through)
			c = next
		}
		sh.mu.Unlock()
	}
	s.publishOutboxThrough(through)
	return through, err
}

// withdraw forgets the versions of a commit that failed, or was never queued.
func (t *claims) withdraw(c *claim, commit *wal.Commit) {
	sh := t.shard(c.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	kept := c.versions[:0:0]
	for _, v := range c.versions {
		if v.commit != commit {
			kept = append(kept, v)
		}
	}
	if len(kept) != len(c.versions) {
		c.versions = kept
		sh.drop(c)
	}
}
