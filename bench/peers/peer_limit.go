package main

import "github.com/oncelog/oncelog/bench/limit"

// limitFrame is a key and a value with the 28 bytes that oncelog's format promises to put around them at most.
const limitFrame = keySize + valueSize + 28

type limitPeer struct {
	writeOnly
	log limit.Log
	dir string
}

func openLimit(dir string, _ mode) (peer, error) { return &limitPeer{dir: dir}, nil }

func (p *limitPeer) Prepare(ops int) error { return p.log.Prepare(p.dir, int64(ops)*limitFrame) }

func (p *limitPeer) Put(key, value []byte) (bool, error) {
	var frame [limitFrame]byte
	copy(frame[:], key)
	copy(frame[keySize:], value)
	return true, p.log.Commit(frame[:])
}

func (p *limitPeer) Close() error { return p.log.Close() }
