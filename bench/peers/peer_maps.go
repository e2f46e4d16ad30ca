package main

import (
	"hash/maphash"
	"sync"

	"github.com/puzpuzpuz/xsync/v4"
)

// The maps keep everything in memory and nothing else. They are here for look-ups: what a key costs that is only there.

type syncMap struct{ m sync.Map }

func openSyncMap(string, mode) (peer, error) { return &syncMap{}, nil }

func (p *syncMap) Put(key, value []byte) (bool, error) {
	_, there := p.m.LoadOrStore(string(key), append([]byte(nil), value...))
	return !there, nil
}

func (p *syncMap) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := p.m.Load(string(key))
	if !ok {
		return dst, false, nil
	}
	return append(dst, v.([]byte)...), true, nil
}

func (p *syncMap) Close() error { return nil }

type xsyncMap struct{ m *xsync.Map[string, []byte] }

func openXsync(string, mode) (peer, error) { return &xsyncMap{xsync.NewMap[string, []byte]()}, nil }

func (p *xsyncMap) Put(key, value []byte) (bool, error) {
	_, there := p.m.LoadOrStore(string(key), append([]byte(nil), value...))
	return !there, nil
}

func (p *xsyncMap) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := p.m.Load(string(key))
	return append(dst, v...), ok, nil
}

func (p *xsyncMap) Close() error { return nil }

type shardedMap struct {
	seed   maphash.Seed
	shards [256]struct {
		mu sync.RWMutex
		m  map[string][]byte
		_  [96]byte // no two locks in one cache line
	}
}

func openShardedMap(string, mode) (peer, error) {
	p := &shardedMap{seed: maphash.MakeSeed()}
	for i := range p.shards {
		p.shards[i].m = map[string][]byte{}
	}
	return p, nil
}

func (p *shardedMap) Put(key, value []byte) (bool, error) {
	s := &p.shards[maphash.Bytes(p.seed, key)%uint64(len(p.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.m[string(key)]; there {
		return false, nil
	}
	s.m[string(key)] = append([]byte(nil), value...)
	return true, nil
}

func (p *shardedMap) Get(dst, key []byte) ([]byte, bool, error) {
	s := &p.shards[maphash.Bytes(p.seed, key)%uint64(len(p.shards))]
	s.mu.RLock()
	v, ok := s.m[string(key)]
	s.mu.RUnlock()
	return append(dst, v...), ok, nil
}

func (p *shardedMap) Close() error { return nil }
