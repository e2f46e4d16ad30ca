package main

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/tidwall/buntdb"
)

type buntPeer struct {
	db   *buntdb.DB
	opts *buntdb.SetOptions
}

func openBunt(dir string, m mode) (peer, error) {
	db, err := buntdb.Open(filepath.Join(dir, "db"))
	if err != nil {
		return nil, err
	}
	var c buntdb.Config
	if err := db.ReadConfig(&c); err != nil {
		return nil, err
	}
	c.SyncPolicy = buntdb.Never
	if m.Durable {
		c.SyncPolicy = buntdb.Always
	}
	p := &buntPeer{db: db}
	if m.TTL > 0 {
		p.opts = &buntdb.SetOptions{Expires: true, TTL: time.Duration(m.TTL) * time.Second}
	}
	return p, db.SetConfig(c)
}

func (p *buntPeer) Put(key, value []byte) (inserted bool, err error) {
	// A look first: an Update that changes nothing takes the lock that writers sync under.
	if _, ok, err := p.Get(nil, key); ok || err != nil {
		return false, err
	}
	err = p.db.Update(func(tx *buntdb.Tx) error {
		_, err := tx.Get(string(key))
		if !errors.Is(err, buntdb.ErrNotFound) {
			return err
		}
		inserted = true
		_, _, err = tx.Set(string(key), string(value), p.opts)
		return err
	})
	return inserted, err
}

func (p *buntPeer) Get(dst, key []byte) (v []byte, ok bool, err error) {
	err = p.db.View(func(tx *buntdb.Tx) error {
		v, err := tx.Get(string(key))
		if err == nil {
			dst, ok = append(dst, v...), true
		}
		return err
	})
	if errors.Is(err, buntdb.ErrNotFound) {
		err = nil
	}
	return dst, ok, err
}

func (p *buntPeer) Load(from, n uint64) error {
	return inTransactions(from, n, func() (*buntdb.Tx, error) { return p.db.Begin(true) }, func(tx *buntdb.Tx, key, value []byte) error {
		_, _, err := tx.Set(string(key), string(value), nil)
		return err
	})
}

func (p *buntPeer) Close() error { return p.db.Close() }
