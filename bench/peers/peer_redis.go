package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// errAbsent is a peer that is not installed.
var errAbsent = errors.New("not on this machine")

type redisPeer struct {
	server *exec.Cmd
	client *redis.Client
	ttl    time.Duration
}

func openRedis(dir string, m mode) (peer, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server is %w: install Redis 7 to have it measured", errAbsent)
	}
	fsync := "always"
	if !m.Durable {
		fsync = "no"
	}
	// A unix socket's path is at most 107 bytes, which those of temporary directories can exceed.
	sockets, err := os.MkdirTemp("/tmp", "redis-")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(sockets, "s")
	log, err := os.Create(filepath.Join(sockets, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	server := exec.Command(program, "--port", "0", "--unixsocket", socket, "--dir", dir, "--appendonly", "yes",
		"--appendfsync", fsync, "--save", "", "--auto-aof-rewrite-percentage", "0") // no rewrite in the middle of a slice
	server.Stdout, server.Stderr = log, log
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a killed child must not leave it behind
	if err := server.Start(); err != nil {
		return nil, err
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, PoolSize: 256, MaxRetries: -1, ReadTimeout: time.Minute, DisableIdentity: true})
	p := &redisPeer{server, client, time.Duration(m.TTL) * time.Second}
	for began := time.Now(); ; time.Sleep(time.Millisecond) { // it says LOADING until its log is read
		err := client.Ping(context.Background()).Err()
		if err == nil {
			return p, nil
		}
		if time.Since(began) > 2*time.Minute {
			return nil, errors.Join(err, p.Close())
		}
	}
}

func (p *redisPeer) Put(key, value []byte) (bool, error) {
	_, err := p.client.SetArgs(context.Background(), string(key), value, redis.SetArgs{Mode: "NX", TTL: p.ttl}).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}

func (p *redisPeer) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := p.client.Get(context.Background(), string(key)).Bytes()
	if errors.Is(err, redis.Nil) {
		return dst, false, nil
	}
	return append(dst, v...), err == nil, err
}

func (p *redisPeer) Load(from, n uint64) error {
	ctx := context.Background()
	pipe := p.client.Pipeline()
	return inBatches(from, n, func(key, value []byte) error { return pipe.Set(ctx, string(key), value, 0).Err() }, func() error {
		_, err := pipe.Exec(ctx)
		return err
	})
}

func (p *redisPeer) Resident() (int64, error) {
	info, err := p.client.Info(context.Background(), "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory_rss:"); ok {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, errors.New("redis does not say how much memory it has")
}

func (p *redisPeer) Close() error {
	_ = p.client.Close()
	if err := p.server.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.server.Wait()
}
