package oncelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/oncelog/oncelog/receiver"
)

// closing is the state of a store's end.
type closing struct {
	once  sync.Once
	done  chan struct{}
	err   error       // set before done is closed
	told  bool        // somebody was told err; guarded by mu
	files atomic.Bool // the log's files are being closed
	mu    sync.Mutex
}

// Close ends the store: it turns new calls away, waits for those in progress, makes all that was written durable
// under every policy, and gives the directory up. Calling it again is ErrClosed. It must not be called from inside
// a transaction, which it would wait for.
func (s *Store) Close() error { return s.Shutdown(context.Background()) }

// Shutdown is Close that stops waiting when ctx ends. Its error then wraps ctx's, and the store goes on closing in
// the background as soon as the last call has left; a later Close or Shutdown waits for that.
func (s *Store) Shutdown(ctx context.Context) error {
	if receiver.Inside() {
		return errInside
	}
	c := &s.closing
	c.once.Do(func() {
		s.gate.shut.Store(true) // now, not when the goroutine gets to run
		s.outbox.end()
		go func() {
			s.gate.close()
			c.err = s.endHousekeeping()
			c.files.Store(true)
			c.err = errors.Join(c.err, s.log.Close())
			if s.lock != nil {
				c.err = errors.Join(c.err, s.lock.release())
			}
			close(c.done)
		}()
	})
	select {
	case <-c.done:
	default:
		select {
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("oncelog: still closing, calls are in progress: %w", context.Cause(ctx))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told {
		return ErrClosed
	}
	c.told = true
	return c.err
}
