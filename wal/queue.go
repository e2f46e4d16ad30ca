package wal

import (
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// Commit is one transaction on its way into the log. The caller sets Payload and does not touch it until Wait has
// returned; a Commit serves once, or again after Reset.
type Commit struct {
	Payload []byte
	// Reserved is what Reserve gave for this commit, 0 = nothing. A successful Enqueue uses it up.
	Reserved int64

	number atomic.Uint64
	seg    *Segment
	offset int64
	batch  *batch
	first  bool // of its batch, so it leads it
	leads  bool // nobody was leading when it came
	own    bool // a frame of the log's own: it takes no number, but has that of the commit before it
}

// unnumbered is the number of a commit that is not in the queue: larger than every visible one.
const unnumbered = math.MaxUint64

// NewCommit returns a commit for the payload.
func NewCommit(payload []byte) *Commit {
	c := &Commit{Payload: payload}
	c.number.Store(unnumbered)
	return c
}

// Reset makes a commit that nobody else holds ready to serve again.
func (c *Commit) Reset(payload []byte) {
	*c = Commit{Payload: payload}
	c.number.Store(unnumbered)
}

// Number returns the transaction's number; before Enqueue one that is larger than every visible one. All that
// belongs to a transaction refers to its commit, so setting the number, one store, puts all of it in its place.
func (c *Commit) Number() uint64 { return c.number.Load() }

// Queued reports whether the commit has its number, and with it a batch to wait for.
func (c *Commit) Queued() bool { return c.number.Load() != unnumbered }

// Position returns where the payload lies. Only after the commit became visible.
func (c *Commit) Position() (*Segment, int64) { return c.seg, c.offset }

// batch is what one leader writes with one sync.
type batch struct {
	commits  []*Commit
	lead     chan struct{} // tells the first commit's caller that the leader before is done
	done     chan struct{} // closed when err is known; made when somebody comes to wait
	finished bool          // guarded by Log.mu
	err      error
}

// Enqueue gives the commit its number, which is its place in the order of all. The caller must call Wait soon: the
// first of a batch leads it, and the others depend on it. An error means that nothing was queued.
func (l *Log) Enqueue(c *Commit) error {
	size := int64(len(c.Payload)) + frameRoom - c.Reserved
	if err := l.admit(size); err != nil {
		return err
	}
	if err := l.numbersLeft(); err != nil {
		l.mu.Unlock()
		return err
	}
	l.enqueue(c)
	l.pending += size
	l.left.Add(-size)
	c.Reserved = 0
	l.mu.Unlock()
	return nil
}

// numbersLeft returns an error when no transaction can get a number any more: one that starts anew from 0 would pass
// for an old one. No log lives so long, but one that was damaged or made by others can begin anywhere. Called with mu
// held.
func (l *Log) numbersLeft() error {
	if l.next != unnumbered && l.next != 0 {
		return nil
	}
	return fmt.Errorf("%w: the numbers of transactions are used up; begin a new store", ErrFull)
}

// enqueue puts the commit into the queue. Called with mu held.
func (l *Log) enqueue(c *Commit) {
	b := l.gather
	if b == nil {
		b = &batch{commits: l.spent[:0]}
		l.spent = nil
		l.gather = b
		c.first = true
		if l.leading {
			b.lead = make(chan struct{}, 1)
		} else {
			l.leading = true
			c.leads = true
		}
	} else if b.done == nil {
		b.done = make(chan struct{})
	}
	c.batch = b
	b.commits = append(b.commits, c)
	if c.own {
		c.number.Store(l.next - 1)
		return
	}
	c.number.Store(l.next)
	l.next++
}

// Wait returns when the commit is visible, as Options.Sync asks, or will never be. Its owner calls it once.
func (l *Log) Wait(c *Commit) error {
	b := c.batch
	if !c.first {
		<-b.done
		return l.outcome(c)
	}
	if !c.leads {
		<-b.lead
	}
	l.lead(b)
	return l.outcome(c)
}

// outcome is the answer for a commit whose batch is finished. What became visible before a later part of its batch
// failed is durable, and answers rest on it.
func (l *Log) outcome(c *Commit) error {
	if c.Number() <= l.Visible() && !c.own {
		return nil
	}
	return c.batch.err
}

// Await is Wait for anyone else who saw what the commit holds.
func (l *Log) Await(c *Commit) error {
	if c.Number() <= l.Visible() {
		return nil
	}
	b := c.batch
	l.mu.Lock()
	done := b.ended()
	l.mu.Unlock()
	<-done
	return l.outcome(c)
}

// ended returns a channel that is closed when the batch is finished. Called with Log.mu held.
func (b *batch) ended() <-chan struct{} {
	if b.done == nil {
		b.done = make(chan struct{})
		if b.finished {
			close(b.done)
		}
	}
	return b.done
}

// A leader lets others run before it takes the queue, for as long as they keep coming: each shares the sync that is about
// to happen. It goes when as many are there as last time, when nobody has come for a while, or when waiting has taken
// its share of a write and its sync.
//
// With 64 writers and two processors one came each microsecond; nobodyComes is as long as three of them take, and all
// that a batch loses which waits in vain. Waiting for a tenth of the last write, whoever came, gathered 41 of the 64, and
// 50 now come, for a seventh more throughput; a quarter, 46. A fixed number of yields was tried: eight gathered 43, since
// each yield lets one of them run while the others are still on their way back. So was sleeping until the last one has
// come, which lets both processors work and not one of them look: it gathered 62, and gained no more, since a timer that
// nobody else's work looks after takes a millisecond.
//
// Where the clock stands still (in a bubble of testing/synctest, for as long as somebody runs) or is coarse, mostYields in
// vain end it. With a good clock nobodyComes is over after some twenty.
const (
	nobodyComes  = 3 * time.Microsecond
	waitingShare = 2
	mostYields   = 1000
)

// lead writes the batch and passes the lead on. Each leader leads once: its own commit is in the batch, so it waits
// for nobody else's.
func (l *Log) lead(b *batch) {
	l.mu.Lock()
	if n := len(b.commits); n < l.expected {
		start, yields := time.Now(), 0
		for last, now := start, start; n < l.expected && now.Sub(last) < nobodyComes && now.Sub(start) < l.took/waitingShare && yields < mostYields; {
			l.mu.Unlock()
			runtime.Gosched()
			now = time.Now()
			yields++
			l.mu.Lock()
			if len(b.commits) > n {
				n, last, yields = len(b.commits), now, 0
			}
		}
	}
	l.gather, l.flying = nil, b
	l.mu.Unlock()

	start := time.Now()
	err := l.write(b.commits)
	took := time.Since(start)

	l.mu.Lock()
	l.took, l.expected = took, len(b.commits)
	b.finished, b.err = true, err
	done := b.done
	for i, c := range b.commits {
		l.pending -= int64(len(c.Payload)) + frameRoom
		b.commits[i] = nil // own ones were counted too, or took what is kept for them: see Drop
	}
	l.spent, b.commits = b.commits[:0], nil
	next := l.gather
	if next != nil {
		l.expected += len(next.commits)
	}
	l.flying, l.leading = nil, next != nil
	l.account()
	l.mu.Unlock()

	if next != nil {
		next.lead <- struct{}{}
	}
	if done != nil {
		close(done)
	}
}
