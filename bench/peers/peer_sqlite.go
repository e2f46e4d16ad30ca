package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	_ "github.com/mattn/go-sqlite3"
	_ "modernc.org/sqlite"
)

// sqlitePeer has one connection that writes, since SQLite has one writer, and a pool that reads beside it.
type sqlitePeer struct {
	write, read    *sql.DB
	insert, lookup *sql.Stmt
	mu             sync.Mutex
	grouped        bool
	group
}

// openSQLite opens a database by one of the two drivers.
func openSQLite(driver string, grouped bool) func(string, mode) (peer, error) {
	return func(dir string, m mode) (peer, error) {
		sync := "FULL" // in WAL mode NORMAL does not sync at a commit
		if !m.Durable {
			sync = "OFF"
		}
		cache := fmt.Sprint(-m.cache(64<<20) / 1024 / 4) // KiB, of each connection
		path := "file:" + filepath.Join(dir, "db")
		connect := func(conns int) (*sql.DB, error) {
			dsn := path + "?_journal_mode=WAL&_busy_timeout=10000&_synchronous=" + sync + "&_cache_size=" + cache
			if driver == "sqlite" {
				dsn = path + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(" + sync + ")&_pragma=cache_size(" + cache + ")"
			}
			db, err := sql.Open(driver, dsn)
			if err == nil {
				db.SetMaxOpenConns(conns)
				db.SetMaxIdleConns(conns)
			}
			return db, err
		}
		p := &sqlitePeer{grouped: grouped}
		p.commit = p.insertAll
		var err error
		if p.write, err = connect(1); err != nil {
			return nil, err
		}
		if p.read, err = connect(8); err != nil {
			return nil, err
		}
		// Without a rowid the row is in the key's own tree: one look-up instead of two.
		if _, err = p.write.Exec(`CREATE TABLE IF NOT EXISTS keys (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID`); err != nil {
			return nil, err
		}
		if p.insert, err = p.write.Prepare(`INSERT INTO keys (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING`); err != nil {
			return nil, err
		}
		p.lookup, err = p.read.Prepare(`SELECT value FROM keys WHERE key = ?`)
		return p, err
	}
}

// Put looks first, as for bbolt.
func (p *sqlitePeer) Put(key, value []byte) (bool, error) {
	if _, ok, err := p.Get(nil, key); ok || err != nil {
		return false, err
	}
	if p.grouped {
		return p.put(bytes.Clone(key), value)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return inserted(p.insert.Exec(key, value))
}

func inserted(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

func (p *sqlitePeer) insertAll(batch []*item) error {
	tx, err := p.write.Begin()
	if err != nil {
		return err
	}
	stmt := tx.Stmt(p.insert)
	for _, it := range batch {
		if it.inserted, err = inserted(stmt.Exec(it.key, it.value)); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (p *sqlitePeer) Get(dst, key []byte) ([]byte, bool, error) {
	var v sql.RawBytes
	rows, err := p.lookup.Query(key)
	if err != nil {
		return dst, false, err
	}
	ok := rows.Next()
	if ok {
		err = rows.Scan(&v)
		dst = append(dst, v...)
	}
	return dst, ok, errors.Join(err, rows.Err(), rows.Close())
}

func (p *sqlitePeer) Load(from, n uint64) error {
	tx, err := p.write.Begin()
	if err != nil {
		return err
	}
	stmt := tx.Stmt(p.insert)
	err = inBatches(from, n, func(key, value []byte) error {
		ok, err := inserted(stmt.Exec(key, value))
		if err == nil && !ok {
			err = fmt.Errorf("key %q is there already", key)
		}
		return err
	}, func() error {
		if err := tx.Commit(); err != nil {
			return err
		}
		if tx, err = p.write.Begin(); err == nil {
			stmt = tx.Stmt(p.insert)
		}
		return err
	})
	if err != nil {
		return err
	}
	return tx.Rollback()
}

func (p *sqlitePeer) Close() error {
	return errors.Join(p.insert.Close(), p.lookup.Close(), p.read.Close(), p.write.Close())
}
