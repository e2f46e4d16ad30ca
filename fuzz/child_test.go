package fuzz

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncelog/oncelog"
)

// job is what a child is told to do.
type job struct {
	Still   bool // no housekeeping is asked for: it would free what the disk lacks
	Dir     string
	Do      task
	Round   uint64 // the child's operations have it in their names
	Seed    uint64
	Clock   int64 // what time it is, in milliseconds
	Sync    oncelog.SyncPolicy
	Segment int64
	Mix     mix
}

type task string

const (
	doWrite task = "write" // until killed
	doAsk   task = "ask"   // for everything, in ways that write nothing and rest on what was found; then wait to be killed
	doClose task = "close" // look, close, and exit
)

// mix is how often of 100 each operation is called; the rest are transactions.
type mix struct {
	Put, Delete, Get, Advance, Mark, Look int
	TTLs, Aborts                          bool
}

// single is a mix without records that expire: asking for one at its end could store it anew, which is a write, and
// a write would sync what the test wants unsynced.
var single = mix{Put: 35, Delete: 15, Get: 5, Advance: 15, Look: 3, Aborts: true}

// What a child says, by the first byte of a line. JSON follows.
const (
	sayOpening   = 'O' // about to open
	sayRecovered = 'R' // recovered
	sayIntent    = 'I' // op
	sayAnswer    = 'A' // answer
	sayDone      = 'D' // it has nothing more to say
	sayFailed    = 'F' // string: it cannot go on
)

// say is one write into a pipe: up to 4096 bytes arrive as a whole, whoever else writes and whenever the process dies.
func say(what byte, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = os.Stdout.Write(append(append([]byte{what}, b...), '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the child cannot speak:", err)
		os.Exit(1)
	}
}

// childEnv makes this binary a child.
const childEnv = "ONCELOG_FUZZ_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var j job
		err := json.Unmarshal([]byte(text), &j)
		if err == nil {
			err = (&child{job: j, began: time.Now()}).run()
		}
		if err != nil {
			say(sayFailed, err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type child struct {
	job
	began time.Time
	st    *oncelog.Store
	marks [groups]atomic.Uint64 // about how far each has come, to choose numbers that matter
	names atomic.Uint64
}

// clock continues the parent's.
func (c *child) clock() int64 { return saturated(c.Clock, time.Since(c.began)) }

func (c *child) run() (err error) {
	if c.Do == doCount {
		return c.count()
	}
	say(sayOpening, nil)
	c.st, err = oncelog.Open(c.Dir, &oncelog.Options{
		TTL: oncelog.Forever, RetryWindow: oncelog.NoRetryWindow, Sync: c.Sync, SegmentSize: c.Segment,
		Now: func() time.Time { return time.UnixMilli(c.clock()) }, Pace: -1,
	})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := c.survey(); err != nil {
		return fmt.Errorf("look around: %w", err)
	}
	switch c.Do {
	case doWrite:
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() { c.work(w) })
		}
		keeping := make(chan error, 1)
		over := make(chan struct{})
		if c.Still {
			keeping <- nil
		} else {
			go func() { keeping <- c.keepHouse(over) }()
		}
		wg.Wait() // they stop only when the store has failed, or takes no more
		close(over)
		if err := <-keeping; err != nil {
			return fmt.Errorf("housekeeping: %w", err)
		}
	case doAsk:
		if err := c.ask(); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
	case doClose:
		if err := c.st.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
		say(sayDone, nil)
		return nil
	}
	say(sayDone, nil)
	_, err = io.Copy(io.Discard, os.Stdin) // ends with the parent, should it forget to kill
	return err
}

// keepHouse compacts and makes snapshots all the time, until the store has failed or nobody works any more, so that
// kills and power cuts come in the middle of it.
func (c *child) keepHouse(over <-chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-over:
			return nil
		default:
		}
		err := c.st.Compact()
		if err == nil && i%3 == 0 {
			err = c.st.Snapshot()
		}
		switch {
		case errors.Is(err, oncelog.ErrFailed), errors.Is(err, oncelog.ErrClosed):
			return nil
		case err != nil && !errors.Is(err, oncelog.ErrFull):
			return err
		}
	}
}

// survey says all that is in the store, and looks into each group.
func (c *child) survey() error {
	if err := c.st.Verify(); err != nil {
		return err
	}
	var r recovered
	known := map[string]bool{}
	for g := range groups {
		for k := range keys {
			known[recordKey(g, k)] = true
		}
	}
	err := c.st.View(func(tx *oncelog.Tx) error {
		n, err := chainLength(tx)
		if err != nil {
			return err
		}
		for i := range n {
			key := chainKey(i + 1)
			v, ok, err := tx.Record([]byte(key))
			if err != nil {
				return err
			}
			known[key] = true
			r.Chain = append(r.Chain, writerOf(key, v, ok))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r.Mark, _, err = c.st.HighWater(chainSource); err != nil {
		return err
	}
	for rec, err := range c.st.Records() {
		if err != nil {
			return err
		}
		if key := string(rec.Key); !known[key] || writerOf(key, rec.Value, true) == garbled {
			r.Strange = append(r.Strange, key)
		}
	}
	say(sayRecovered, r)
	for g := range groups {
		if a := c.do(0, op{Kind: opLook, Group: g}); a.Err != "" {
			return errors.New(a.Err)
		}
		if a := c.do(0, op{Kind: opMark, Group: g}); a.Err != "" {
			return errors.New(a.Err)
		}
	}
	return nil
}

// ask asks for everything that is there as a sender would who delivers it again. Nothing of this writes, because a
// write would sync what lies before it.
func (c *child) ask() error {
	for g := range groups {
		for k := range keys {
			there, err := c.st.Has([]byte(recordKey(g, k)))
			if err != nil {
				return err
			}
			if there {
				if a := c.do(0, op{Kind: opPut, Group: g, Key: k}); a.Err != "" {
					return errors.New(a.Err)
				}
			}
		}
		mark, ok, err := c.st.HighWater(markSource(g))
		if err != nil {
			return err
		}
		if ok {
			if a := c.do(0, op{Kind: opAdvance, Group: g, Seq: mark}); a.Err != "" {
				return errors.New(a.Err)
			}
		}
		if a := c.do(0, op{Kind: opTx, Group: g, Puts: []int{0, 1, 2, 3}, Set: true, Seq: max(mark, 1), Abort: true}); a.Err != "" {
			return errors.New(a.Err)
		}
	}
	return nil
}

func (c *child) work(w int) {
	rnd := rand.New(rand.NewPCG(c.Seed, uint64(w)))
	for {
		if a := c.do(w, c.choose(rnd)); a.Err != "" {
			return
		}
	}
}

func (c *child) choose(rnd *rand.Rand) op {
	o := op{Kind: opTx, Group: rnd.IntN(groups), Key: rnd.IntN(keys)}
	if c.Mix.TTLs && rnd.IntN(4) == 0 {
		o.TTL = 1 + rnd.Int64N(100) // some end within the round, some later
	}
	n := rnd.IntN(100)
	for _, k := range []struct {
		kind  kind
		share int
	}{
		{opPut, c.Mix.Put}, {opDelete, c.Mix.Delete}, {opGet, c.Mix.Get}, {opAdvance, c.Mix.Advance}, {opMark, c.Mix.Mark}, {opLook, c.Mix.Look},
	} {
		if n < k.share {
			o.Kind = k.kind
			break
		}
		n -= k.share
	}
	seq := c.marks[o.Group].Load() + 3 - min(c.marks[o.Group].Load()+2, rnd.Uint64N(6)) // at least 1
	switch o.Kind {
	case opAdvance:
		o.Seq = seq
	case opTx:
		o.Key = 0
		order := rnd.Perm(keys)
		o.Puts = order[:1+rnd.IntN(keys)]
		o.Deletes = rnd.Perm(keys)[:rnd.IntN(3)]
		o.Set = rnd.IntN(4) > 0
		if rnd.IntN(4) > 0 {
			o.Seq = seq
		}
		o.Abort = c.Mix.Aborts && rnd.IntN(8) == 0
	default:
	}
	return o
}

// do announces the operation, calls the store and says what came of it.
func (c *child) do(w int, o op) answer {
	o.ID = c.Round<<32 | c.names.Add(1)
	o.Worker = w
	o.At = c.clock()
	say(sayIntent, &o)
	a := answer{ID: o.ID}
	err := c.call(&o, &a)
	if err != nil {
		a.Err = err.Error()
	}
	a.At = c.clock()
	say(sayAnswer, &a)
	return a
}

func (c *child) call(o *op, a *answer) error {
	key := recordKey(o.Group, o.Key)
	switch o.Kind {
	case opPut:
		existing, inserted, err := c.st.PutIfAbsent([]byte(key), valueOf(o.ID, key), c.ttl(o))
		a.Saw = sawRecord(o.Key, writerOf(key, existing, !inserted))
		return err
	case opDelete:
		existed, err := c.st.Delete([]byte(key))
		a.Saw = sawExisted(o.Key, existed)
		return err
	case opGet:
		v, ok, err := c.st.Get([]byte(key))
		a.Saw = sawRecord(o.Key, writerOf(key, v, ok))
		return err
	case opAdvance:
		fresh, err := c.st.Advance(markSource(o.Group), o.Seq)
		a.Saw = sawFresh(fresh)
		c.raise(o.Group, o.Seq)
		return err
	case opMark:
		n, _, err := c.st.HighWater(markSource(o.Group))
		a.Saw = sawMark(n)
		c.raise(o.Group, n)
		return err
	case opLook:
		return c.st.View(func(tx *oncelog.Tx) error { return c.look(tx, o, a) })
	case opTx:
		err := c.st.Update(func(tx *oncelog.Tx) error { return c.transact(tx, o, a) })
		if o.Abort && errors.Is(err, errAbort) {
			return nil
		}
		if o.Abort && err == nil {
			return errors.New("the function's error did not come out of Update")
		}
		return err
	}
	panic("unknown operation " + string(o.Kind))
}

func (c *child) ttl(o *op) time.Duration { return time.Duration(o.TTL) * time.Millisecond }

func (c *child) raise(g int, n uint64) {
	for {
		was := c.marks[g].Load()
		if n <= was || c.marks[g].CompareAndSwap(was, n) {
			return
		}
	}
}

func (c *child) look(tx *oncelog.Tx, o *op, a *answer) error {
	for k := range keys {
		if _, err := see(tx, o, a, k); err != nil {
			return err
		}
	}
	return seeState(tx, o, a)
}

var errAbort = errors.New("this transaction was not meant to happen")

func (c *child) transact(tx *oncelog.Tx, o *op, a *answer) error {
	for _, k := range o.Deletes {
		there, err := see(tx, o, a, k)
		if err != nil {
			return err
		}
		existed, err := tx.DeleteRecord([]byte(recordKey(o.Group, k)))
		if err != nil {
			return err
		}
		if existed != there {
			return fmt.Errorf("one transaction saw key %d there: %v, and deleted it: %v", k, there, existed)
		}
	}
	for _, k := range o.Puts {
		there, err := see(tx, o, a, k)
		if err != nil {
			return err
		}
		key := recordKey(o.Group, k)
		err = tx.PutRecord([]byte(key), valueOf(o.ID, key), c.ttl(o))
		if there && !errors.Is(err, oncelog.ErrExists) {
			return fmt.Errorf("one transaction saw key %d there and stored it: %w", k, err)
		}
		if !there && err != nil {
			return err
		}
	}
	if o.Set {
		if err := seeState(tx, o, a); err != nil {
			return err
		}
		key := stateKey(o.Group)
		if err := tx.Set([]byte(key), valueOf(o.ID, key)); err != nil {
			return err
		}
	}
	if o.Seq != 0 {
		fresh, err := tx.Advance(markSource(o.Group), o.Seq)
		if err != nil {
			return err
		}
		a.Saw += sawFresh(fresh)
		c.raise(o.Group, o.Seq)
	}
	a.Saw += "end"
	if o.Abort {
		return errAbort
	}
	return c.link(tx, o, a)
}

// see reads a record of the group inside a transaction.
func see(tx *oncelog.Tx, o *op, a *answer, k int) (there bool, err error) {
	key := recordKey(o.Group, k)
	v, ok, err := tx.Record([]byte(key))
	a.Saw += sawRecord(k, writerOf(key, v, ok))
	return ok, err
}

func seeState(tx *oncelog.Tx, o *op, a *answer) error {
	key := stateKey(o.Group)
	v, ok, err := tx.Get([]byte(key))
	a.Saw += sawState(writerOf(key, v, ok))
	return err
}

// link appends the transaction to the chain.
func (c *child) link(tx *oncelog.Tx, o *op, a *answer) error {
	n, err := chainLength(tx)
	if err != nil {
		return err
	}
	n++
	a.Chain = n
	key := chainKey(n)
	if err := tx.PutRecord([]byte(key), valueOf(o.ID, key), oncelog.Forever); err != nil {
		return err
	}
	if err := tx.Set([]byte(chainState), fmt.Append(nil, n)); err != nil {
		return err
	}
	fresh, err := tx.Advance(chainSource, n)
	if err == nil && !fresh {
		err = fmt.Errorf("number %d of the chain is not fresh", n)
	}
	return err
}

func chainLength(tx *oncelog.Tx) (n uint64, err error) {
	v, ok, err := tx.Get([]byte(chainState))
	if err != nil || !ok {
		return 0, err
	}
	_, err = fmt.Sscan(string(v), &n)
	return n, err
}
