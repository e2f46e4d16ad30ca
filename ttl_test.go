package oncelog

import (
	"fmt"
	"math"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testClock is an injected clock that a test sets.
type testClock struct{ ms atomic.Int64 }

func clockAt(ms int64) *testClock {
	c := &testClock{}
	c.ms.Store(ms)
	return c
}

func (c *testClock) now() time.Time          { return time.UnixMilli(c.ms.Load()) }
func (c *testClock) advance(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func putFor(t testing.TB, s *Store, key string, ttl time.Duration) bool {
	t.Helper()
	_, inserted, err := s.PutIfAbsent([]byte(key), []byte(key), ttl)
	require.NoError(t, err)
	return inserted
}

func TestPromise8RecordsLiveForTheirTTL(t *testing.T) {
	c := clockAt(1_000_000_000_000)
	o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, Sync: SyncNever, Now: c.now}
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, o)
	require.True(t, putFor(t, s, "hour", 0))
	require.True(t, putFor(t, s, "minute", time.Minute))
	require.True(t, putFor(t, s, "nano", time.Nanosecond))
	require.True(t, putFor(t, s, "ever", Forever))
	require.True(t, putFor(t, s, "long", math.MaxInt64-1))
	has(t, s, "nano", "nano") // rounded up to a millisecond, never down
	c.advance(time.Millisecond)
	hasNot(t, s, "nano")
	c.advance(time.Minute - 2*time.Millisecond)
	has(t, s, "minute", "minute")
	require.False(t, putFor(t, s, "minute", time.Minute))
	c.advance(time.Millisecond)
	hasNot(t, s, "minute")
	existed, err := s.Delete([]byte("minute"))
	require.NoError(t, err)
	require.False(t, existed)
	require.True(t, putFor(t, s, "minute", time.Minute))
	has(t, s, "minute", "minute")
	require.NoError(t, s.Update(func(tx *Tx) error {
		require.ErrorIs(t, tx.PutRecord([]byte("minute"), nil, 0), ErrExists)
		_, ok, err := tx.Record([]byte("nano"))
		require.NoError(t, err)
		require.False(t, ok)
		return tx.PutRecord([]byte("nano"), []byte("nano"), 2*time.Minute)
	}))

	// What was live stays live, and what was gone stays gone, after a crash.
	s = open(t, crashed(t, dir), o)
	has(t, s, "minute", "minute")
	has(t, s, "hour", "hour")
	c.advance(time.Minute)
	hasNot(t, s, "minute")
	has(t, s, "nano", "nano")
	c.advance(time.Hour)
	hasNot(t, s, "hour")
	c.advance(10 * 365 * 24 * time.Hour)
	has(t, s, "ever", "ever")
	has(t, s, "long", "long")
}

// A TTL belongs to the record: opening with another default changes nothing for records that are there.
func TestTTLStaysWithTheRecord(t *testing.T) {
	c := clockAt(1_000_000_000_000)
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, Options{TTL: time.Hour, Now: c.now})
	require.True(t, putFor(t, s, "k", 0))
	require.NoError(t, s.Close())
	s = open(t, dir, Options{TTL: time.Minute, Now: c.now})
	require.True(t, putFor(t, s, "l", 0))
	c.advance(time.Hour - time.Millisecond)
	has(t, s, "k", "k")
	hasNot(t, s, "l")
	c.advance(time.Millisecond)
	hasNot(t, s, "k")
}

// The store's time never runs back: a record that was gone does not come back when the clock is set back, over a
// restart neither.
func TestPromise8TimeNeverRunsBack(t *testing.T) {
	c := clockAt(1_000_000_000_000)
	o := Options{TTL: time.Hour, Sync: SyncNever, Now: c.now}
	dir := filepath.Join(t.TempDir(), "store")
	s := open(t, dir, o)
	require.True(t, putFor(t, s, "k", 0))
	c.advance(time.Hour)
	hasNot(t, s, "k")
	c.advance(-2 * time.Hour)
	hasNot(t, s, "k")
	require.True(t, putFor(t, s, "l", 0)) // at the time that the store has reached
	require.NoError(t, s.Close())
	s = open(t, dir, o)
	hasNot(t, s, "k")
	has(t, s, "l", "l")
	c.advance(2*time.Hour + time.Hour - time.Millisecond)
	has(t, s, "l", "l")
	c.advance(time.Millisecond)
	hasNot(t, s, "l")
}

// A record that has expired is deleted in the log all the same: were its tombstone spared, a clock that is set back while
// nobody has the store open would bring back what somebody was told is gone.
func TestPromise8WhatWasDeletedStaysAway(t *testing.T) {
	for name, remove := range map[string]func(s *Store) (existed bool, err error){
		"alone": func(s *Store) (bool, error) { return s.Delete([]byte("k")) },
		"in a transaction": func(s *Store) (existed bool, err error) {
			err = s.Update(func(tx *Tx) error {
				existed, err = tx.DeleteRecord([]byte("k"))
				return err
			})
			return existed, err
		},
	} {
		c := clockAt(1_000_000_000_000)
		o := Options{TTL: time.Hour, Now: c.now}
		dir := filepath.Join(t.TempDir(), "store")
		s := open(t, dir, o)
		require.True(t, putFor(t, s, "k", 0), name)
		c.advance(time.Hour)
		existed, err := remove(s)
		require.NoError(t, err, name)
		require.False(t, existed, name)
		killed := crashed(t, dir)
		c.advance(-time.Minute)
		s = open(t, killed, o)
		hasNot(t, s, "k")
		require.True(t, putFor(t, s, "k", 0), name)
	}
}

// Without an injected clock T starts where the log ended, even if the machine's clock was wrong before.
func TestSystemClockContinuesTheLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	ahead := time.Now().Add(1000 * time.Hour)
	s := open(t, dir, Options{TTL: time.Hour, Now: func() time.Time { return ahead }})
	require.True(t, putFor(t, s, "k", 0))
	require.NoError(t, s.Close())
	s = open(t, dir, Options{TTL: time.Hour})
	has(t, s, "k", "k")
	require.GreaterOrEqual(t, s.clock.millis(), ahead.UnixMilli())
	a := s.clock.millis()
	require.Eventually(t, func() bool { return s.clock.millis() > a }, 10*time.Second, time.Millisecond)
}

func TestPromise8TTLMustExceedTheRetryWindow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, o := range []Options{
		{TTL: time.Hour, RetryWindow: time.Hour},
		{TTL: time.Hour, RetryWindow: 2 * time.Hour},
		{TTL: -1},
		{RetryWindow: -2},
		{RetryWindow: Forever},
	} {
		_, err := Open(dir, &o)
		require.ErrorIs(t, err, ErrTTL, "%+v", o)
		require.NoDirExists(t, dir)
	}
	_, err := Open(dir, &Options{TTL: time.Hour, RetryWindow: 90 * time.Minute})
	require.ErrorContains(t, err, "1h0m0s")
	require.ErrorContains(t, err, "1h30m0s")

	s := open(t, dir, Options{TTL: 10 * time.Hour, RetryWindow: time.Hour})
	for _, ttl := range []time.Duration{time.Hour, time.Minute, -1} {
		_, _, err := s.PutIfAbsent([]byte("k"), nil, ttl)
		require.ErrorIs(t, err, ErrTTL)
		require.ErrorContains(t, err, fmt.Sprint(ttl))
		require.ErrorIs(t, s.Update(func(tx *Tx) error { return tx.PutRecord([]byte("k"), nil, ttl) }), ErrTTL)
	}
	require.True(t, putFor(t, s, "k", time.Hour+1))
	require.NoError(t, s.Close())

	// The defaults: 72 hours against 24, and a third of what is shorter.
	o, err := (*Options)(nil).withDefaults()
	require.NoError(t, err)
	require.Equal(t, DefaultTTL, o.TTL)
	require.Equal(t, maxRetryWindow, o.RetryWindow)
	o, err = (&Options{TTL: 3 * time.Hour}).withDefaults()
	require.NoError(t, err)
	require.Equal(t, time.Hour, o.RetryWindow)
	_, err = (&Options{TTL: 1, RetryWindow: NoRetryWindow}).withDefaults()
	require.NoError(t, err)
}
