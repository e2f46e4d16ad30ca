package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// run is one run of the workloads.
type run struct {
	dir    string
	rounds int
	kinds  []kind
	began  time.Time
	res    *results

	keys, manyKeys uint64        // what "1 million" and "10 million" are
	slice          time.Duration // how long each peer has its turn
	turning        time.Duration // of W7
	loaded         map[string]*process
	absent         map[string]bool
}

func (r *run) size() {
	r.absent = map[string]bool{}
	r.keys, r.manyKeys, r.slice, r.turning = 1_000_000, 10_000_000, 500*time.Millisecond, 30*time.Second
	if *short {
		r.keys, r.manyKeys, r.slice, r.turning = 100_000, 0, 150*time.Millisecond, 10*time.Second
	}
}

// say is the progress line.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "\r\x1b[K%5s  %s", time.Since(r.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// lacks reports whether err says that a peer is not on this machine, and says so once.
func (r *run) lacks(k kind, err error) bool {
	if !errors.Is(err, errAbsent) {
		return false
	}
	if !r.absent[k.name] {
		r.absent[k.name] = true
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s is not on this machine and was left out\n", k.name)
	}
	return true
}

// start starts a peer in a new directory.
func (r *run) start(k kind, m mode) (*process, error) {
	dir, err := os.MkdirTemp(r.dir, k.name+"-")
	if err != nil {
		return nil, err
	}
	return r.open(k, dir, m, 0, nil)
}

// open starts a process on a directory, and closes it again if it can't be used.
func (r *run) open(k kind, dir string, m mode, keys uint64, enter func(pid int) error) (*process, error) {
	p, err := start(k, dir, enter)
	if err != nil {
		return nil, err
	}
	if _, err := p.open(m, keys); err != nil {
		_ = p.kill()
		return nil, err
	}
	return p, nil
}

// turns opens the peers that are chosen, and gives each its turn in each round. Who comes first changes, because the
// first gets the disk that the round before left.
func (r *run) turns(workload string, chosen func(kind) bool, m mode, turn func(round int, p *process) error) error {
	var all []*process
	for _, k := range r.kinds {
		if !chosen(k) {
			continue
		}
		p, err := r.start(k, m)
		if r.lacks(k, err) {
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	for round := range r.rounds {
		for i := range all {
			p := all[(i+round)%len(all)]
			r.say("%s, round %d of %d: %s", workload, round+1, r.rounds, p.kind.name)
			if err := turn(round, p); err != nil {
				return err
			}
		}
	}
	for _, p := range all {
		if err := errors.Join(p.close(), os.RemoveAll(p.dir)); err != nil {
			return err
		}
	}
	return nil
}

// filled returns a process whose peer holds so many keys. It notes on the way what they take.
func (r *run) filled(k kind, keys uint64) (*process, error) {
	name := fmt.Sprint(k.name, " ", keys)
	if p := r.loaded[name]; p != nil {
		return p, nil
	}
	r.say("loading %d keys into %s", keys, k.name)
	p, err := r.start(k, mode{})
	if err != nil {
		return nil, err
	}
	before, err := p.ask(request{Do: "memory"})
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if _, err := p.ask(request{Do: "load", Keys: keys}); err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := p.ask(request{Do: "memory"})
	if err != nil {
		return nil, err
	}
	r.res.add("W4", "keys="+count(keys), k.name, 0, "RAM-B/key", float64(after.Resident-before.Resident)/float64(keys))
	r.res.add("W4", "keys="+count(keys), k.name, 0, "load-s", took.Seconds())
	r.loaded[name] = p
	return p, nil
}

// closeLoaded closes what filled has opened. What is on disk stays.
func (r *run) closeLoaded() error {
	var errs []error
	for _, p := range r.loaded {
		if p.cmd.ProcessState == nil {
			errs = append(errs, p.close())
		}
	}
	return errors.Join(errs...)
}

// onDisk returns the directory of a closed peer that holds so many keys.
func (r *run) onDisk(k kind, keys uint64) (string, error) {
	p, err := r.filled(k, keys)
	if err != nil {
		return "", err
	}
	if p.cmd.ProcessState == nil {
		if err := p.close(); err != nil {
			return "", err
		}
		size, err := diskUsage(p.dir)
		if err != nil {
			return "", err
		}
		r.res.add("W4", "keys="+count(keys), k.name, 0, "disk-B/key", float64(size)/float64(keys))
	}
	return p.dir, nil
}

func diskUsage(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, err := blocksOf(path)
		size += n
		return err
	})
	return size, err
}

// count is a number of keys in words.
func count(n uint64) string {
	switch {
	case n%1_000_000 == 0:
		return fmt.Sprint(n/1_000_000, "M")
	case n%1000 == 0:
		return fmt.Sprint(n/1000, "k")
	}
	return fmt.Sprint(n)
}
