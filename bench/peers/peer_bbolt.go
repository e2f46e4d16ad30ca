package main

import (
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

type bboltPeer struct {
	db     *bbolt.DB
	update func(func(*bbolt.Tx) error) error
}

var bucket = []byte("keys")

func openBbolt(dir string, m mode) (*bboltPeer, error) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{
		FreelistType:    bbolt.FreelistMapType, // the array's cost grows with the file
		NoFreelistSync:  true,                  // one write less a commit, a slower open
		InitialMmapSize: 1 << 30,               // so that no commit waits for readers to leave a mapping that is too small
		NoSync:          !m.Durable,
	})
	if err != nil {
		return nil, err
	}
	db.MaxBatchSize = 256
	db.MaxBatchDelay = 100 * time.Microsecond // a sync's time; with the default of 10 ms a lone writer does 90 a second
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	return &bboltPeer{db: db, update: db.Update}, err
}

func openBboltUpdate(dir string, m mode) (peer, error) { return openBbolt(dir, m) }

func openBboltBatch(dir string, m mode) (peer, error) {
	p, err := openBbolt(dir, m)
	if err == nil {
		p.update = p.db.Batch
	}
	return p, err
}

// Put looks before it takes the writer's lock: most calls of a receiver find their key.
func (p *bboltPeer) Put(key, value []byte) (bool, error) {
	there := false
	err := p.db.View(func(tx *bbolt.Tx) error {
		there = tx.Bucket(bucket).Get(key) != nil
		return nil
	})
	if err != nil || there {
		return false, err
	}
	err = p.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if there = b.Get(key) != nil; there {
			return nil
		}
		return b.Put(key, value)
	})
	return !there, err
}

func (p *bboltPeer) Get(dst, key []byte) (v []byte, ok bool, err error) {
	err = p.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucket).Get(key); v != nil {
			dst, ok = append(dst, v...), true
		}
		return nil
	})
	return dst, ok, err
}

func (p *bboltPeer) Load(from, n uint64) error {
	return inTransactions(from, n, func() (*bbolt.Tx, error) { return p.db.Begin(true) }, func(tx *bbolt.Tx, key, value []byte) error {
		return tx.Bucket(bucket).Put(key, value)
	})
}

func (p *bboltPeer) Close() error {
	if err := p.db.Sync(); err != nil {
		return err
	}
	return p.db.Close()
}
