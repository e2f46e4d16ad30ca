package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// request is what the parent asks of a child, a line of JSON each. A child serves one peer.
type request struct {
	Do      string // open, load, put, mixed, miss, hit, memory, collect, turn, close
	Peer    string
	Dir     string
	Mode    mode
	Keys    uint64 // of which so many are there
	Writers int
	For     time.Duration
}

// reply is what came of it.
type reply struct {
	Err string

	Ops      int
	Seconds  float64
	Latency  quantiles // of all calls; of mixed, of the duplicates
	Fresh    quantiles // of mixed: of the keys that were new
	Each     float64   // ns a call, without taking the time of each
	Over     float64   // calls of over a millisecond, a million
	Resident int64     // bytes of anonymous memory
	Filled   int64     // bytes written beforehand, for use later
	Written  int64     // bytes that the device was written in all
	CPU      float64   // seconds of processors
}

// quantiles of latencies, in microseconds.
type quantiles struct{ P50, P99, P999, P9999, Max float64 }

func quantilesOf(all []time.Duration) (q quantiles) {
	if len(all) == 0 {
		return q
	}
	slices.Sort(all)
	at := func(p float64) float64 { return float64(all[int(p*float64(len(all)-1))]) / 1e3 }
	return quantiles{at(0.5), at(0.99), at(0.999), at(0.9999), at(1)}
}

// child is a process with one peer.
type child struct {
	kind   kind
	peer   peer
	dir    string
	next   atomic.Uint64 // id of the next fresh key
	there  uint64        // ids below it are there, from 0
	perSec float64       // what it did last, for a preparer
}

// serve answers requests until there are no more.
func serve(in io.Reader, out io.Writer) error {
	var c child
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var req request
		if err := json.Unmarshal(line, &req); err != nil {
			return err
		}
		rep, err := c.do(req)
		if err != nil {
			rep.Err = err.Error()
			if errors.Is(err, errAbsent) {
				rep.Err = errAbsent.Error()
			}
		}
		b, err := json.Marshal(rep)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(b, '\n')); err != nil {
			return err
		}
	}
}

func (c *child) do(req request) (rep reply, err error) {
	switch req.Do {
	case "open":
		return c.open(req)
	case "load":
		c.there = req.Keys
		return rep, load(c.peer, 0, req.Keys)
	case "put":
		return c.put(req)
	case "mixed":
		return c.mixed(req)
	case "miss", "hit":
		return c.look(req)
	case "memory":
		return c.memory()
	case "collect":
		return c.collect(req)
	case "turn":
		return c.turn(req)
	case "close":
		return rep, c.peer.Close()
	}
	return rep, fmt.Errorf("unknown request %q", req.Do)
}

// open opens the peer. With Keys, the time includes the first answer.
func (c *child) open(req request) (rep reply, err error) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == req.Peer })
	if i < 0 {
		return rep, fmt.Errorf("no peer %q", req.Peer)
	}
	c.kind, c.dir, c.there = kinds[i], req.Dir, req.Keys
	c.next.Store(1<<40 + uint64(rand.Uint32())<<24) // apart from those of other processes on the directory
	began := time.Now()
	if c.peer, err = c.kind.open(filepath.Clean(req.Dir), req.Mode); err != nil {
		return rep, err
	}
	if req.Keys > 0 {
		key := make([]byte, keySize)
		nameKey(key, req.Keys/2)
		if _, ok, err := c.peer.Get(nil, key); err != nil || !ok {
			return rep, fmt.Errorf("a key that was stored is there: %v, %w", ok, err)
		}
	}
	rep.Seconds = time.Since(began).Seconds()
	return rep, nil
}

// slice has so many callers at it for so long, and returns what each call took, by what call says it was.
func slice(callers int, d time.Duration, call func(w int) func() (class int, err error)) (took [2][]time.Duration, seconds float64, err error) {
	type result struct {
		took [2][]time.Duration
		err  error
	}
	results := make([]result, callers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	var stop atomic.Bool
	for w := range callers {
		one := call(w)
		r := &results[w]
		for i := range r.took {
			r.took[i] = make([]time.Duration, 0, 4096)
		}
		wg.Go(func() {
			<-start
			for !stop.Load() {
				began := time.Now()
				class, err := one()
				if err != nil {
					r.err = err
					return
				}
				r.took[class] = append(r.took[class], time.Since(began))
			}
		})
	}
	runtime.GC() // so that no slice pays for the garbage of the one before
	began := time.Now()
	time.AfterFunc(d, func() { stop.Store(true) })
	close(start)
	wg.Wait()
	seconds = time.Since(began).Seconds()
	for _, r := range results {
		err = errors.Join(err, r.err)
		for i := range took {
			took[i] = append(took[i], r.took[i]...)
		}
	}
	return took, seconds, err
}

func (c *child) prepare(d time.Duration) error {
	p, ok := c.peer.(preparer)
	if !ok {
		return nil
	}
	if c.perSec == 0 {
		c.perSec = 1e6 // more than any disk here does
	}
	return p.Prepare(int(2*c.perSec*d.Seconds()) + 10_000)
}

func (c *child) filled() int64 {
	if f, ok := c.peer.(filler); ok {
		return f.Filled()
	}
	return 0
}

// put is W1: fresh keys.
func (c *child) put(req request) (rep reply, err error) {
	if err := c.prepare(req.For); err != nil {
		return rep, err
	}
	syscall.Sync() // what was written before is not this slice's
	before, device := c.filled(), written(c.dir)
	took, seconds, err := slice(req.Writers, req.For, func(int) func() (int, error) {
		key := make([]byte, keySize)
		return func() (int, error) {
			id := c.next.Add(1)
			nameKey(key, id)
			inserted, err := c.peer.Put(key, valueOf(id))
			if err == nil && !inserted {
				err = errors.New("a fresh key is there")
			}
			return 0, err
		}
	})
	rep.Ops, rep.Seconds, rep.Latency = len(took[0]), seconds, quantilesOf(took[0])
	rep.Filled, rep.Written = c.filled()-before, written(c.dir)-device
	c.perSec = float64(rep.Ops) / seconds
	return rep, err
}

// doer is a peer that has the whole pattern, with a function to run.
type doer interface {
	Do(key string, value []byte) (ran bool, err error)
}

// mixed is W3: of ten calls nine are for keys that are there.
func (c *child) mixed(req request) (rep reply, err error) {
	do := func(key, value []byte) (bool, error) { return c.peer.Put(key, value) }
	if d, ok := c.peer.(doer); ok {
		do = func(key, value []byte) (bool, error) { return d.Do(string(key), value) }
	}
	first := c.next.Load() + 1
	const known = 10_000 // the messages that are delivered again
	seed := make([]byte, keySize)
	for range known {
		nameKey(seed, c.next.Add(1))
		if _, err := do(seed, valueOf(0)); err != nil {
			return rep, err
		}
	}
	took, seconds, err := slice(req.Writers, req.For, func(int) func() (int, error) {
		key := make([]byte, keySize)
		return func() (int, error) {
			if rand.IntN(10) == 0 {
				id := c.next.Add(1)
				nameKey(key, id)
				ran, err := do(key, valueOf(id))
				if err == nil && !ran {
					err = errors.New("a fresh key is there")
				}
				return 1, err
			}
			nameKey(key, first+rand.Uint64N(known))
			ran, err := do(key, valueOf(0))
			if err == nil && ran {
				err = errors.New("a duplicate was taken for new")
			}
			return 0, err
		}
	})
	rep.Ops, rep.Seconds = len(took[0])+len(took[1]), seconds
	rep.Latency, rep.Fresh = quantilesOf(took[0]), quantilesOf(took[1])
	return rep, err
}

// look is W2: one caller, random keys, first without taking each call's time and then with.
func (c *child) look(req request) (rep reply, err error) {
	dst, key := make([]byte, 0, valueSize), make([]byte, keySize)
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
	one := func() error {
		id := rnd.Uint64N(c.there)
		if req.Do == "miss" {
			id += absent
		}
		nameKey(key, id)
		v, ok, err := c.peer.Get(dst, key)
		if err == nil && (ok == (req.Do == "miss") || ok && !bytes.Equal(v, valueOf(id))) {
			err = fmt.Errorf("key %d is there: %v, with %d bytes", id, ok, len(v))
		}
		return err
	}
	// What making a name costs, which is not the store's.
	const names = 1 << 16
	began := time.Now()
	for range names {
		nameKey(key, rnd.Uint64N(c.there))
	}
	naming := float64(time.Since(began)) / names
	runtime.GC()
	began = time.Now()
	n := 0
	for ; time.Since(began) < req.For; n += 64 {
		for range 64 {
			if err := one(); err != nil {
				return rep, err
			}
		}
	}
	rep.Ops, rep.Seconds = n, time.Since(began).Seconds()
	rep.Each = rep.Seconds*1e9/float64(n) - naming
	took, over := timed(req.For, one)
	rep.Latency, rep.Over = quantilesOf(took), over
	return rep, err
}

// timed takes the time of each call for so long. over is how many of a million took more than a millisecond.
func timed(d time.Duration, one func() error) (took []time.Duration, over float64) {
	took = make([]time.Duration, 0, 1<<20)
	slow := 0
	for began := time.Now(); time.Since(began) < d && len(took) < cap(took); {
		at := time.Now()
		if err := one(); err != nil {
			return took, -1
		}
		t := time.Since(at)
		if t > time.Millisecond {
			slow++
		}
		took = append(took, t)
	}
	return took, float64(slow) * 1e6 / float64(len(took))
}

// memory is what the process holds, its peer's own process included.
func (c *child) memory() (rep reply, err error) {
	debug.FreeOSMemory()
	if m, ok := c.peer.(memoryHolder); ok {
		rep.Resident, err = m.Resident()
		return rep, err
	}
	rep.Resident, err = residentOf("self")
	return rep, err
}

func residentOf(pid string) (int64, error) {
	f, err := os.Open(filepath.Join("/proc", pid, "status"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb int64
		if _, err := fmt.Sscanf(lines.Text(), "RssAnon: %d kB", &kb); err == nil {
			return kb << 10, nil
		}
	}
	return 0, errors.New("the system does not say how much memory the process has")
}

// collect is W6: what a collection costs, and look-ups beside collections that never pause.
func (c *child) collect(req request) (rep reply, err error) {
	before := cpuSeconds()
	const rounds = 5
	for range rounds {
		runtime.GC()
	}
	rep.CPU = (cpuSeconds() - before) / rounds
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			runtime.GC()
		}
	}()
	dst, key := make([]byte, 0, valueSize), make([]byte, keySize)
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
	took, over := timed(req.For, func() error {
		nameKey(key, rnd.Uint64N(max(c.there, 1)))
		_, _, err := c.peer.Get(dst, key)
		return err
	})
	stop.Store(true)
	<-done
	rep.Latency, rep.Over = quantilesOf(took), over
	return rep, nil
}

// turn is W7: callers put fresh keys that expire, and one looks up what was put lately.
func (c *child) turn(req request) (rep reply, err error) {
	look := make(chan []time.Duration, 1)
	errs := make(chan error, 1)
	var stop atomic.Bool
	first := c.next.Load()
	go func() {
		var took []time.Duration
		key, dst := make([]byte, keySize), make([]byte, 0, valueSize)
		for !stop.Load() {
			last := c.next.Load()
			nameKey(key, first+1+rand.Uint64N(max(last-first, 1)))
			began := time.Now()
			_, _, err := c.peer.Get(dst, key)
			if err != nil {
				errs <- err
				break
			}
			took = append(took, time.Since(began))
			time.Sleep(20 * time.Microsecond) // it is a witness, not a load
		}
		look <- took
	}()
	rep, err = c.put(req)
	stop.Store(true)
	rep.Fresh, rep.Latency = rep.Latency, quantilesOf(<-look)
	select {
	case e := <-errs:
		err = errors.Join(err, e)
	default:
	}
	return rep, err
}
