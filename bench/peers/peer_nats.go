package main

import (
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// natsPeer is a stream that drops messages whose id it has seen within a window. It keeps ids, not results.
type natsPeer struct {
	writeOnly
	server *server.Server
	conn   *nats.Conn
	js     nats.JetStreamContext
}

func openNATS(dir string, m mode) (peer, error) {
	s, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
		SyncAlways: m.Durable, // its default syncs every two minutes
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the NATS server does not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return nil, err
	}
	js, err := conn.JetStream()
	if err != nil {
		return nil, err
	}
	_, err = js.AddStream(&nats.StreamConfig{Name: "keys", Subjects: []string{"keys"}, Storage: nats.FileStorage, Duplicates: time.Hour})
	return &natsPeer{server: s, conn: conn, js: js}, err
}

func (p *natsPeer) Put(key, value []byte) (bool, error) {
	ack, err := p.js.Publish("keys", value, nats.MsgId(string(key)))
	if err != nil {
		return false, err
	}
	return !ack.Duplicate, nil
}

func (p *natsPeer) Close() error {
	p.conn.Close()
	p.server.Shutdown()
	p.server.WaitForShutdown()
	return nil
}
