package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// workloads in their order: those before leave filled stores to those behind.
var workloads = []struct {
	name string
	run  func(*run) error
}{
	{"W1", (*run).puts}, {"W3", (*run).duplicates}, {"W7", (*run).day},
	{"W2", (*run).lookups}, {"W6", (*run).collector}, {"W4", (*run).sizes}, {"W5", (*run).openings}, {"W8", (*run).confined},
}

var writers = []int{1, 8, 64, 256}

func (r *run) puts() error {
	logical := float64(keySize + valueSize)
	return r.turns("W1", func(k kind) bool { return k.durable }, mode{Durable: true}, func(round int, p *process) error {
		for _, n := range writers {
			rep, err := p.ask(request{Do: "put", Writers: n, For: r.slice})
			if err != nil {
				return err
			}
			at := fmt.Sprint("writers=", n)
			r.res.add("W1", at, p.kind.name, round, "ops/s", float64(rep.Ops)/rep.Seconds)
			r.res.latency("W1", at, p.kind.name, round, "", rep.Latency)
			if rep.Written > 0 {
				r.res.add("W1", at, p.kind.name, round, "device-B/B", float64(rep.Written)/float64(rep.Ops)/logical)
				r.res.add("W1", at, p.kind.name, round, "filled-B/B", float64(rep.Filled)/float64(rep.Ops)/logical)
			}
		}
		return nil
	})
}

func (r *run) duplicates() error {
	knows := func(k kind) bool { return k.durable && k.name != "limit" && k.name != "append" }
	return r.turns("W3", knows, mode{Durable: true}, func(round int, p *process) error {
		rep, err := p.ask(request{Do: "mixed", Writers: 64, For: r.slice})
		if err != nil {
			return err
		}
		r.res.add("W3", "callers=64", p.kind.name, round, "ops/s", float64(rep.Ops)/rep.Seconds)
		r.res.latency("W3", "callers=64", p.kind.name, round, "duplicate-", rep.Latency)
		r.res.latency("W3", "callers=64", p.kind.name, round, "fresh-", rep.Fresh)
		return nil
	})
}

func (r *run) lookups() error {
	for _, keys := range []uint64{r.keys, r.manyKeys} {
		if keys == 0 {
			continue
		}
		var all []*process
		for _, k := range r.kinds {
			if !k.lookups || keys == r.manyKeys && !k.large {
				continue
			}
			p, err := r.filled(k, keys)
			if r.lacks(k, err) {
				continue
			}
			if err != nil {
				return err
			}
			all = append(all, p)
		}
		at := "keys=" + count(keys)
		for round := range r.rounds {
			for i := range all {
				p := all[(i+round)%len(all)]
				r.say("W2, %d keys, round %d of %d: %s", keys, round+1, r.rounds, p.kind.name)
				if err := warm(p.dir); err != nil {
					return err
				}
				for _, do := range []string{"miss", "hit"} {
					rep, err := p.ask(request{Do: do, For: r.slice})
					if err != nil {
						return err
					}
					r.res.add("W2", at+"/"+do, p.kind.name, round, "ns", rep.Each)
					r.res.latency("W2", at+"/"+do, p.kind.name, round, "", rep.Latency)
				}
			}
		}
	}
	return nil
}

// warm reads a peer's files, so that they are in the page cache. A peer that stood still while others had their turns may
// find that the system has taken its pages back; W2 and W6 are not about the disk, and W8 is.
func warm(dir string) error {
	buf := make([]byte, 1<<20)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		for err == nil {
			_, err = f.Read(buf)
		}
		if err == io.EOF {
			err = nil
		}
		return errors.Join(err, f.Close())
	})
}

// sizes closes what was filled, which tells how large it is on disk.
func (r *run) sizes() error {
	for _, k := range r.kinds {
		for _, keys := range []uint64{r.keys, r.manyKeys} {
			if keys == 0 || !k.reopens || keys == r.manyKeys && !k.large {
				continue
			}
			if _, err := r.onDisk(k, keys); err != nil && !r.lacks(k, err) {
				return err
			}
		}
	}
	return nil
}

func (r *run) openings() error {
	for _, keys := range []uint64{r.keys, r.manyKeys} {
		if keys == 0 {
			continue
		}
		at := "keys=" + count(keys)
		for round := range r.rounds {
			for _, k := range r.kinds {
				if !k.reopens || keys == r.manyKeys && !k.large {
					continue
				}
				dir, err := r.onDisk(k, keys)
				if r.lacks(k, err) {
					continue
				}
				if err != nil {
					return err
				}
				r.say("W5, %d keys, round %d of %d: %s", keys, round+1, r.rounds, k.name)
				if err := r.openInTurn(k, dir, keys, at, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// openInTurn opens a filled store after writes and a kill, after a close, and with nothing of it in memory.
func (r *run) openInTurn(k kind, dir string, keys uint64, at string, round int) error {
	p, err := r.open(k, dir, mode{Durable: true}, keys, nil)
	if err != nil {
		return err
	}
	if _, err := p.ask(request{Do: "put", Writers: 8, For: r.slice}); err != nil {
		return err
	}
	if err := p.kill(); err != nil {
		return err
	}
	for _, how := range []string{"killed", "closed", "cold"} {
		if how == "cold" && !dropCaches() {
			continue
		}
		p, err := start(k, dir, nil)
		if err != nil {
			return err
		}
		rep, err := p.open(mode{Durable: true}, keys)
		if err != nil {
			return err
		}
		r.res.add("W5", at+"/"+how, k.name, round, "ms", rep.Seconds*1e3)
		if err := p.close(); err != nil {
			return err
		}
	}
	return nil
}

// dropCaches empties the page cache. It reports false where it may not.
func dropCaches() bool {
	f, err := os.OpenFile("/proc/sys/vm/drop_caches", os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.WriteString("3")
	return err == nil
}

func (r *run) collector() error {
	keys := max(r.keys, r.manyKeys)
	var all []*process
	// An empty heap: a map that holds a single key.
	for _, k := range kinds {
		if k.name == "map" {
			k.name = "nothing"
			p, err := r.startEmpty(k)
			if err != nil {
				return err
			}
			defer func() { _ = p.close() }()
			all = append(all, p)
		}
	}
	for _, k := range r.kinds {
		if k.lookups && (k.large || keys == r.keys) && k.name != "redis" {
			p, err := r.filled(k, keys)
			if err != nil {
				return err
			}
			all = append(all, p)
		}
	}
	for round := range r.rounds {
		for i := range all {
			p := all[(i+round)%len(all)]
			r.say("W6, round %d of %d: %s", round+1, r.rounds, p.kind.name)
			if err := warm(p.dir); err != nil {
				return err
			}
			rep, err := p.ask(request{Do: "collect", For: r.slice})
			if err != nil {
				return err
			}
			at := "keys=" + count(keys)
			r.res.add("W6", at, p.kind.name, round, "GC-ms", rep.CPU*1e3)
			r.res.add("W6", at, p.kind.name, round, "over-1ms/M", rep.Over)
			r.res.latency("W6", at, p.kind.name, round, "", rep.Latency)
		}
	}
	return nil
}

// startEmpty starts a peer of another name with one key.
func (r *run) startEmpty(k kind) (*process, error) {
	real := k
	real.name = "map"
	p, err := r.start(real, mode{})
	if err == nil {
		p.kind.name = k.name
		_, err = p.ask(request{Do: "load", Keys: 1})
	}
	return p, err
}

// day is W7: half a day in half a minute, as a TTL of 5 s in 30 is one of 2 hours in 12. Each peer begins a new store in
// each round, and is alone on the machine: what is left of one that is open turns over in the others' time.
func (r *run) day() error {
	var all []kind
	for _, k := range r.kinds {
		if k.expires {
			all = append(all, k)
		}
	}
	rounds := r.rounds
	if *short {
		rounds = 1
	}
	for round := range rounds {
		for i := range all {
			k := all[(i+round)%len(all)]
			r.say("W7, round %d of %d: %s, for %v", round+1, rounds, k.name, r.turning)
			if err := r.turnOver(k, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// turnOver is one round of W7 for one peer.
func (r *run) turnOver(k kind, round int) error {
	p, err := r.start(k, mode{Durable: true, TTL: 5})
	if r.lacks(k, err) {
		return nil
	}
	if err != nil {
		return err
	}
	rep, err := p.ask(request{Do: "turn", Writers: 8, For: r.turning})
	if err != nil {
		return err
	}
	size, err := diskUsage(p.dir)
	if err != nil {
		return err
	}
	r.res.add("W7", "TTL=5s", k.name, round, "ops/s", float64(rep.Ops)/rep.Seconds)
	r.res.latency("W7", "TTL=5s", k.name, round, "lookup-", rep.Latency)
	r.res.latency("W7", "TTL=5s", k.name, round, "commit-", rep.Fresh)
	// What five seconds of puts take, for comparison: the rest has expired.
	live := float64(rep.Ops) / rep.Seconds * 5 * (keySize + valueSize)
	r.res.add("W7", "TTL=5s", k.name, round, "disk/live", float64(size)/live)
	return errors.Join(p.close(), os.RemoveAll(p.dir))
}

// confined is W8.
func (r *run) confined() error {
	limit := int64(r.keys) * (keySize + valueSize) / 4
	limit = max(limit, 64<<20) // less and the Go runtime itself has no room
	group, err := newCgroup(limit)
	if err != nil {
		fmt.Fprintf(os.Stderr, "\r\x1b[KW8 needs root and a memory cgroup, and was left out: %v\n", err)
		return nil
	}
	defer group.remove()
	for round := range r.rounds {
		for _, k := range r.kinds {
			if !k.confined {
				continue
			}
			dir, err := r.onDisk(k, r.keys)
			if err != nil {
				return err
			}
			r.say("W8, round %d of %d: %s", round+1, r.rounds, k.name)
			p, err := r.open(k, dir, mode{Durable: true, Memory: limit}, r.keys, group.add)
			if err != nil {
				return err
			}
			for _, do := range []string{"hit", "miss", "put"} {
				rep, err := p.ask(request{Do: do, Writers: 8, For: 2 * r.slice})
				if err != nil {
					return err
				}
				r.res.add("W8", do, k.name, round, "ops/s", float64(rep.Ops)/rep.Seconds)
				r.res.latency("W8", do, k.name, round, "", rep.Latency)
			}
			if err := p.close(); err != nil {
				return err
			}
		}
	}
	return nil
}
