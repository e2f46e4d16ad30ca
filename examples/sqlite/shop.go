// Package sqlite is an example: the effect lives in a database of its own, whose unique constraint is the last word on
// whether it happened.
//
// The receiver answers duplicates without touching the database. Where its record is missing, because a crash fell
// between the database's commit and the record, the constraint says so, and Already tells the receiver.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/oncelog/oncelog/receiver"
)

// Shop keeps orders in SQLite.
type Shop struct{ db *sql.DB }

// Open opens a shop's database, and makes its table.
func Open(path string) (*Shop, error) {
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return nil, err
	}
	_, err = db.Exec(`CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, article TEXT NOT NULL, number INTEGER NOT NULL)`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Shop{db}, nil
}

// Close closes the database.
func (s *Shop) Close() error { return s.db.Close() }

// Order places an order once for its key, and returns its number.
func (s *Shop) Order(ctx context.Context, r *receiver.Receiver, key, article string) (number string, replayed bool, err error) {
	out, err := r.Do(ctx, key, func(ctx context.Context) ([]byte, error) {
		return s.place(ctx, key, article)
	}, receiver.WithPayload([]byte(article)))
	return string(out.Value), out.Replayed, err
}

// place inserts the order, unless the constraint says that it is there.
func (s *Shop) place(ctx context.Context, key, article string) ([]byte, error) {
	var number int64
	err := s.db.QueryRowContext(ctx,
		`INSERT INTO orders (key, article, number) SELECT ?, ?, coalesce(max(number), 0) + 1 FROM orders RETURNING number`, key, article).Scan(&number)
	var constraint *sqlite.Error
	if errors.As(err, &constraint) && constraint.Code() == lib.SQLITE_CONSTRAINT_PRIMARYKEY {
		if err := s.db.QueryRowContext(ctx, `SELECT number FROM orders WHERE key = ?`, key).Scan(&number); err != nil {
			return nil, err
		}
		return nil, receiver.Already(fmt.Append(nil, number))
	}
	if err != nil {
		return nil, err
	}
	return fmt.Append(nil, number), nil
}
