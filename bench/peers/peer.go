package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
)

const (
	keySize   = 36
	valueSize = 256
)

// peer is a store that was opened on a directory. Any number of goroutines call Put and Get.
type peer interface {
	// Put stores value under key unless the key is there. It returns when that is durable, if the peer was opened so.
	Put(key, value []byte) (inserted bool, err error)
	// Get appends the value under key to dst.
	Get(dst, key []byte) (value []byte, ok bool, err error)
	Close() error
}

// loader is a peer with a faster way to take many fresh records than Put. Nothing is durable before Close.
type loader interface {
	Load(from, n uint64) error
}

// preparer is a peer that has to know beforehand how many Puts come.
type preparer interface {
	Prepare(ops int) error
}

// filler is a peer that writes space before it is used, and says how many bytes so far.
type filler interface {
	Filled() int64
}

// memoryHolder is a peer whose data is in another process's memory, of which it knows the size.
type memoryHolder interface {
	Resident() (int64, error)
}

// mode is how a peer is opened.
type mode struct {
	Durable bool  // Put returns when the record is on stable storage
	TTL     int   // seconds that a record lives; 0 = for ever
	Memory  int64 // bytes that the process is confined to; 0 = it is not
}

// cache is how many bytes of cache a peer takes that wants want: a quarter of what it is confined to.
func (m mode) cache(want int64) int64 {
	if m.Memory > 0 {
		return min(want, m.Memory/4)
	}
	return want
}

// kind is a peer that can be opened.
type kind struct {
	name    string
	module  string // whose version is reported
	setting string // what is not a default, in a line
	open    func(dir string, m mode) (peer, error)

	durable  bool // takes part in W1, W3
	lookups  bool // in W2, W4
	large    bool // also with 10 million keys: the others take too long to fill
	reopens  bool // W5
	expires  bool // W7
	confined bool // W8
}

// kinds are all peers, in the order of the tables.
var kinds = []kind{
	{name: "limit", module: core, setting: "4 MiB files, zero-filled beforehand; pwrite, fdatasync, group commit; nothing can be read", open: openLimit, durable: true},
	{name: "oncelog", module: core, setting: "defaults", open: openOncelog, durable: true, lookups: true, large: true, reopens: true, expires: true, confined: true},
	{name: "append", module: core, setting: "append and fdatasync under one lock; nothing can be read", open: openAppend, durable: true},
	{name: "tidwall", module: "github.com/tidwall/wal", setting: "64 MiB segments, group commit, a Go map of keys", open: openTidwall, durable: true},
	{name: "pebble", module: "github.com/cockroachdb/pebble/v2", setting: "Sync, 64 MiB memtable, 256 MiB cache, bloom filters of 10 bits, a lock a key", open: openPebble, durable: true, lookups: true, large: true, reopens: true, confined: true},
	{name: "badger", module: "github.com/dgraph-io/badger/v4", setting: "SyncWrites, one version", open: openBadger, durable: true, lookups: true, reopens: true, expires: true, confined: true},
	{name: "bbolt", module: "go.etcd.io/bbolt", setting: "Update; freelist a map, not synced", open: openBboltUpdate, durable: true},
	{name: "bbolt-batch", module: "go.etcd.io/bbolt", setting: "Batch of up to 256, 100 µs; freelist a map, not synced", open: openBboltBatch, durable: true, lookups: true, reopens: true, confined: true},
	{name: "buntdb", module: "github.com/tidwall/buntdb", setting: "SyncPolicy Always", open: openBunt, durable: true, lookups: true, reopens: true, expires: true},
	{name: "sqlite", module: "github.com/mattn/go-sqlite3", setting: "C; WAL, synchronous FULL, one writer's prepared statement", open: openSQLite("sqlite3", false), durable: true, lookups: true, reopens: true, confined: true},
	{name: "sqlite-grouped", module: "github.com/mattn/go-sqlite3", setting: "the same, all that wait in one transaction", open: openSQLite("sqlite3", true), durable: true},
	{name: "sqlite-go", module: "modernc.org/sqlite", setting: "without C; WAL, synchronous FULL, all that wait in one transaction", open: openSQLite("sqlite", true), durable: true},
	{name: "redis", module: "github.com/redis/go-redis/v9", setting: "redis-server, AOF always, unix socket, SET NX", open: openRedis, durable: true, lookups: true, reopens: true, expires: true},
	{name: "nats", module: "github.com/nats-io/nats-server/v2", setting: "JetStream in the process, file store, sync always, Nats-Msg-Id", open: openNATS, durable: true},
	{name: "sync.Map", module: "std", setting: "in memory", open: openSyncMap, lookups: true},
	{name: "xsync", module: "github.com/puzpuzpuz/xsync/v4", setting: "xsync.Map, in memory", open: openXsync, lookups: true, large: true},
	{name: "map", module: "std", setting: "256 Go maps, each with a lock, in memory", open: openShardedMap, lookups: true, large: true},
}

const core = "github.com/oncelog/oncelog"

// nameKey makes key the id's, in the form of a UUID without dashes. Neighbouring ids have nothing in common in front.
func nameKey(key []byte, id uint64) {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], id*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(raw[8:], id)
	hex.Encode(key[:32], raw[:])
	copy(key[32:], "-key")
}

// noise is what values are cut from: bytes that don't compress, since some of the peers would.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

// valueOf is the value of an id. It is not to be changed.
func valueOf(id uint64) []byte {
	at := id * 263 % uint64(len(noise)-valueSize)
	return noise[at : at+valueSize : at+valueSize]
}

// absent is added to the id of a key that nobody puts.
const absent = 1 << 60

// load puts the records from to from+n.
func load(p peer, from, n uint64) error {
	if l, ok := p.(loader); ok {
		return l.Load(from, n)
	}
	workers := uint64(4 * runtime.GOMAXPROCS(0))
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			key := make([]byte, keySize)
			for id := from + w; id < from+n; id += workers {
				nameKey(key, id)
				inserted, err := p.Put(key, valueOf(id))
				if err == nil && !inserted {
					err = fmt.Errorf("key %d is there already", id)
				}
				if err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// inBatches calls put for each record, and commit behind every 10,000 and the last.
func inBatches(from, n uint64, put func(key, value []byte) error, commit func() error) error {
	for i := range n {
		key := make([]byte, keySize)
		nameKey(key, from+i)
		if err := put(key, valueOf(from+i)); err != nil {
			return err
		}
		if i%10_000 == 9_999 || i == n-1 {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTransactions puts each record in a transaction, which it commits behind every 10,000 and the last.
func inTransactions[T interface {
	Commit() error
	Rollback() error
}](from, n uint64, begin func() (T, error), put func(tx T, key, value []byte) error) error {
	tx, err := begin()
	if err != nil {
		return err
	}
	err = inBatches(from, n, func(key, value []byte) error { return put(tx, key, value) }, func() error {
		if err := tx.Commit(); err != nil {
			return err
		}
		tx, err = begin()
		return err
	})
	if err != nil {
		return err
	}
	return tx.Rollback()
}
