package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

type oncelogPeer struct {
	st *oncelog.Store
	r  *receiver.Receiver
}

func openOncelog(dir string, m mode) (peer, error) {
	o := &oncelog.Options{TTL: oncelog.Forever}
	if m.TTL > 0 {
		o.TTL, o.RetryWindow = time.Duration(m.TTL)*time.Second, time.Second
	}
	if !m.Durable {
		o.Sync = oncelog.SyncNever
	}
	st, err := oncelog.Open(filepath.Join(dir, "store"), o)
	if err != nil {
		return nil, err
	}
	r, err := st.Receiver(nil)
	if err != nil {
		return nil, err
	}
	return &oncelogPeer{st, r}, nil
}

func (p *oncelogPeer) Put(key, value []byte) (bool, error) {
	_, inserted, err := p.st.PutIfAbsent(key, value, 0)
	return inserted, err
}

// Do is Put through the receiver: the whole pattern, with a function to run and its result to keep.
func (p *oncelogPeer) Do(key string, value []byte) (bool, error) {
	out, err := p.r.Do(context.Background(), key, func(context.Context) ([]byte, error) { return value, nil })
	return !out.Replayed, err
}

func (p *oncelogPeer) Get(dst, key []byte) ([]byte, bool, error) { return p.st.AppendGet(dst, key) }

// Filled is what was written as zeros beforehand: every segment but the first, whole.
func (p *oncelogPeer) Filled() int64 {
	segments := p.st.Segments()
	if len(segments) == 0 {
		return 0
	}
	return int64(segments[len(segments)-1].Number) * oncelog.DefaultSegmentSize
}

func (p *oncelogPeer) Close() error { return p.st.Close() }
