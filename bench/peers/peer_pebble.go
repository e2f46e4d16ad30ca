package main

import (
	"errors"
	"hash/maphash"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

type pebblePeer struct {
	db    *pebble.DB
	write *pebble.WriteOptions
	seed  maphash.Seed
	// Pebble has no put-if-absent. One lock for all would have commits go one by one; so many that callers seldom meet.
	locks [4096]sync.Mutex
}

func openPebble(dir string, m mode) (peer, error) {
	o := &pebble.Options{
		Cache:        pebble.NewCache(m.cache(256 << 20)), // CockroachDB's least; the default of 8 MiB has look-ups read files
		MemTableSize: uint64(m.cache(64 << 20)),           // as CockroachDB sets it: fewer flushes while commits run
		Logger:       quiet{},
	}
	// Bloom filters, as its documentation advises where most look-ups find nothing.
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(filepath.Join(dir, "db"), o)
	if err != nil {
		return nil, err
	}
	write := pebble.Sync
	if !m.Durable {
		write = pebble.NoSync
	}
	return &pebblePeer{db: db, write: write, seed: maphash.MakeSeed()}, nil
}

func (p *pebblePeer) Put(key, value []byte) (bool, error) {
	mu := &p.locks[maphash.Bytes(p.seed, key)%uint64(len(p.locks))]
	mu.Lock()
	defer mu.Unlock()
	_, c, err := p.db.Get(key)
	switch {
	case err == nil:
		return false, c.Close()
	case !errors.Is(err, pebble.ErrNotFound):
		return false, err
	}
	return true, p.db.Set(key, value, p.write)
}

func (p *pebblePeer) Get(dst, key []byte) ([]byte, bool, error) {
	v, c, err := p.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	dst = append(dst, v...)
	return dst, true, c.Close()
}

func (p *pebblePeer) Load(from, n uint64) error {
	b := p.db.NewBatch()
	return inBatches(from, n, func(key, value []byte) error { return b.Set(key, value, nil) }, func() error {
		err := b.Commit(pebble.NoSync)
		b = p.db.NewBatch()
		return err
	})
}

func (p *pebblePeer) Close() error { return p.db.Close() }

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("pebble: " + format)
}
