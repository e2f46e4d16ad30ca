package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
)

type badgerPeer struct {
	db  *badger.DB
	ttl time.Duration
}

func openBadger(dir string, m mode) (peer, error) {
	o := badger.DefaultOptions(filepath.Join(dir, "db")).
		WithLoggingLevel(badger.ERROR).
		WithSyncWrites(m.Durable) // its default is not durable
	if m.Memory > 0 {
		o = o.WithMemTableSize(m.cache(64<<20) / 2).WithNumMemtables(2).WithBlockCacheSize(m.cache(256 << 20)).WithIndexCacheSize(m.cache(64 << 20))
	}
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	return &badgerPeer{db, time.Duration(m.TTL) * time.Second}, nil
}

func (p *badgerPeer) Put(key, value []byte) (bool, error) {
	key = bytes.Clone(key) // it keeps what it is given until the commit is done
	for {
		inserted := false
		err := p.db.Update(func(tx *badger.Txn) error {
			_, err := tx.Get(key)
			if err == nil {
				inserted = false
				return nil
			}
			if !errors.Is(err, badger.ErrKeyNotFound) {
				return err
			}
			inserted = true
			e := badger.NewEntry(key, value)
			if p.ttl > 0 {
				e = e.WithTTL(p.ttl)
			}
			return tx.SetEntry(e)
		})
		if !errors.Is(err, badger.ErrConflict) {
			return inserted, err
		}
	}
}

func (p *badgerPeer) Get(dst, key []byte) (v []byte, ok bool, err error) {
	err = p.db.View(func(tx *badger.Txn) error {
		it, err := tx.Get(key)
		if err != nil {
			return err
		}
		ok = true
		return it.Value(func(val []byte) error { dst = append(dst, val...); return nil })
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		err = nil
	}
	return dst, ok, err
}

func (p *badgerPeer) Load(from, n uint64) error {
	b := p.db.NewWriteBatch()
	err := inBatches(from, n, func(key, value []byte) error { return b.Set(key, value) }, func() error {
		err := b.Flush()
		b = p.db.NewWriteBatch()
		return err
	})
	b.Cancel()
	return err
}

func (p *badgerPeer) Close() error { return p.db.Close() }
