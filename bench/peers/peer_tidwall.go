package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync"

	"github.com/tidwall/wal"
)

// tidwallPeer is the library that oncelog is built on, used as its README shows, with a map in front.
type tidwallPeer struct {
	mu   sync.RWMutex
	log  *wal.Log
	at   map[string]uint64
	next uint64
	group
}

func openTidwall(dir string, m mode) (peer, error) {
	// 64 MiB: with its default of 20 MiB it changes segments, which it does by reading none of the old but writing a
	// new file under its lock, three times as often.
	log, err := wal.Open(filepath.Join(dir, "log"), &wal.Options{SegmentSize: 64 << 20, NoSync: !m.Durable, NoCopy: true, DirPerms: 0o700, FilePerms: 0o600})
	if err != nil {
		return nil, err
	}
	p := &tidwallPeer{log: log, at: map[string]uint64{}}
	p.commit = p.write
	first, err := log.FirstIndex()
	last, lastErr := log.LastIndex()
	if err = errors.Join(err, lastErr); err != nil {
		return nil, err
	}
	for i := first; i > 0 && i <= last; i++ {
		entry, err := log.Read(i)
		if err != nil {
			return nil, err
		}
		p.at[string(entry[:keySize])] = i
	}
	p.next = last + 1
	return p, nil
}

func (p *tidwallPeer) Put(key, value []byte) (bool, error) {
	p.mu.RLock()
	_, there := p.at[string(key)]
	p.mu.RUnlock()
	if there {
		return false, nil
	}
	return p.put(bytes.Clone(key), value)
}

func (p *tidwallPeer) write(batch []*item) error {
	var b wal.Batch
	next := p.next
	seen := map[string]bool{}
	for _, it := range batch {
		p.mu.RLock()
		_, there := p.at[string(it.key)]
		p.mu.RUnlock()
		if it.inserted = !there && !seen[string(it.key)]; it.inserted {
			seen[string(it.key)] = true
			b.Write(next, append(append(make([]byte, 0, keySize+valueSize), it.key...), it.value...))
			next++
		}
	}
	if err := p.log.WriteBatch(&b); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, it := range batch {
		if it.inserted {
			p.at[string(it.key)] = p.next
			p.next++
		}
	}
	return nil
}

func (p *tidwallPeer) Get(dst, key []byte) ([]byte, bool, error) {
	p.mu.Lock() // the library's Read races with itself
	defer p.mu.Unlock()
	i, ok := p.at[string(key)]
	if !ok {
		return dst, false, nil
	}
	entry, err := p.log.Read(i)
	if err != nil {
		return dst, false, err
	}
	return append(dst, entry[keySize:]...), true, nil
}

func (p *tidwallPeer) Close() error { return p.log.Close() }
