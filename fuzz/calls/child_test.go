//go:build linux && amd64

package calls

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/fuzz/trace"
)

// dirEnv makes this binary the child, with this directory; seedEnv chooses its workload.
const (
	dirEnv  = "ONCELOG_CALLS_DIR"
	seedEnv = "ONCELOG_CALLS_SEED"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		seed, err := strconv.ParseUint(os.Getenv(seedEnv), 10, 64)
		if err == nil {
			err = trace.StopAt(slices.Collect(maps.Keys(watched)))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		c := &child{dir: dir, seed: seed}
		c.now.Store(Begins)
		c.run()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child lives the life of a store, whatever fails.
type child struct {
	dir  string
	seed uint64
	now  atomic.Int64 // housekeeping reads it too
	st   *oncelog.Store
	s    *Service
}

var saying sync.Mutex

func say(l Line) {
	saying.Lock()
	defer saying.Unlock()
	if _, err := os.Stdout.Write(l.Encode()); err != nil {
		fmt.Fprintln(os.Stderr, "the child cannot speak:", err)
		os.Exit(1)
	}
}

const (
	lifeRounds  = 2
	reopenAfter = 18 // calls
)

func (c *child) run() {
	if !c.open() {
		return
	}
	for i, o := range EveryKind(c.seed, lifeRounds) {
		say(Line{What: "begin", Op: &o, Now: c.now.Load()})
		answer, err := c.s.Do(o)
		say(Line{What: "answer", Answer: answer, Failure: NewFailure(err)})
		if i%reopenAfter == reopenAfter-1 {
			if i/reopenAfter == 1 {
				c.copy()
			}
			c.close()
			c.now.Add(30 * 3600 * 1000) // some of the records expire
			if !c.open() {
				return
			}
		}
	}
	c.close()
}

// open tries twice, so that what fails once may not keep the store shut.
func (c *child) open() bool {
	for range 2 {
		say(Line{What: "open"})
		o := Options(c.now.Load)
		o.Logger = slog.New(logger{})
		st, err := oncelog.Open(filepath.Join(c.dir, "store"), o)
		say(Line{What: "opened", Failure: NewFailure(err)})
		if err != nil {
			continue
		}
		c.st = st
		if c.s, err = NewService(st); err != nil {
			panic(err)
		}
		say(Line{What: "look"})
		got, err := c.s.Contents(0)
		say(Line{What: "found", Contents: got, Now: c.now.Load(), Failure: NewFailure(err)})
		if err == nil {
			return true
		}
		c.close()
	}
	return false
}

func (c *child) close() {
	say(Line{What: "close"})
	say(Line{What: "closed", Failure: NewFailure(c.st.Close())})
}

// copy makes a backup, restores it, and says what is in it.
func (c *child) copy() {
	dir := filepath.Join(c.dir, "copy")
	var b bytes.Buffer
	say(Line{What: "back up"})
	err := c.st.Backup(&b)
	say(Line{What: "backed up", Failure: NewFailure(err)})
	if err != nil {
		return
	}
	say(Line{What: "restore"})
	err = oncelog.Restore(dir, &b)
	say(Line{What: "restored", Failure: NewFailure(err)})
	if err != nil {
		return
	}
	o := Options(c.now.Load)
	o.ReadOnly = true
	say(Line{What: "open copy"})
	st, err := oncelog.Open(dir, o)
	if err != nil {
		say(Line{What: "copy", Failure: NewFailure(err)})
		return
	}
	s, err := NewService(st)
	if err != nil {
		panic(err)
	}
	got, err := s.Contents(0)
	say(Line{What: "copy", Contents: got, Now: c.now.Load(), Failure: NewFailure(err)})
	_ = st.Close() // wrote nothing
}

// logger says what the store logs.
type logger struct{}

func (logger) Enabled(context.Context, slog.Level) bool { return true }
func (l logger) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l logger) WithGroup(string) slog.Handler          { return l }
func (logger) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			say(Line{What: "log", Answer: r.Message, Failure: NewFailure(err)})
		}
		return true
	})
	return nil
}
