package lying

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/fuzz/calls"
)

// job is what a child is told to do.
type job struct {
	Dir     string // where the disk is mounted
	Seed    uint64
	Now     int64    // the store's time, which stands still while the child runs
	Next    []uint64 // the number of each caller's next call
	Sync    oncelog.SyncPolicy
	Segment int64
	Calls   int // each caller makes so many, unless the child is killed
	Copies  int // how many copies were restored
	Copy    bool
}

const childEnv = "ONCELOG_LYING_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var c child
		if err := json.Unmarshal([]byte(text), &c.job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		c.run()
		os.Exit(0)
	}
	if path := os.Getenv(mapEnv); path != "" {
		if err := mapFile(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type child struct {
	job
	st *oncelog.Store
	s  *calls.Service
}

// say is one write into a pipe. What is in it outlives the child, and a long line that is cut off was not said.
func say(l calls.Line) {
	saying.Lock()
	defer saying.Unlock()
	if _, err := os.Stdout.Write(l.Encode()); err != nil {
		os.Exit(1) // the parent is gone
	}
}

var saying sync.Mutex

// What a child says, beside its calls.
const (
	opening   = "open"
	opened    = "opened"
	found     = "found"
	begin     = "begin"
	answer    = "answer"
	restoring = "restoring"
	restored  = "restored"
	copied    = "copied" // what a copy that was restored before holds
	closed    = "closed"
)

// lives is how often a child opens the store, should it fail: each failed sync costs one.
const lives = 3

func (c *child) run() {
	for life := range lives {
		if !c.open() {
			continue
		}
		if c.Copy && life == 0 {
			c.lookAtCopy()
			c.makeCopy()
		}
		var callers sync.WaitGroup
		for i := range c.Next {
			callers.Go(func() { c.call(i) })
		}
		callers.Wait()
		err := c.st.Close()
		say(calls.Line{What: closed, Failure: calls.NewFailure(err)})
		if err == nil {
			return
		}
	}
}

func (c *child) options() *oncelog.Options {
	o := calls.Options(func() int64 { return c.Now })
	o.Sync, o.SegmentSize = c.Sync, c.Segment
	return o
}

// open opens the store and says all that is in it.
func (c *child) open() bool {
	say(calls.Line{What: opening})
	var err error
	c.st, err = oncelog.Open(filepath.Join(c.Dir, "store"), c.options())
	say(calls.Line{What: opened, Failure: calls.NewFailure(err)})
	if err != nil {
		return false
	}
	if c.s, err = calls.NewService(c.st); err != nil {
		panic(err)
	}
	for i := range c.Next {
		got, err := c.s.Contents(i)
		if err == nil && i == 0 {
			err = c.st.Verify()
		}
		say(calls.Line{What: found, Caller: i, Contents: got, Now: c.Now, Failure: calls.NewFailure(err)})
		if err != nil {
			_ = c.st.Close()
			return false
		}
	}
	return true
}

// call makes calls until there were enough, or a few have failed.
func (c *child) call(caller int) {
	rnd := rand.New(rand.NewPCG(c.Seed, uint64(caller)))
	for failures := 0; c.Calls > 0 && failures < 3; c.Next[caller]++ {
		if rnd.IntN(c.Calls) == 0 {
			return
		}
		o := calls.Choose(rnd, caller, c.Next[caller])
		say(calls.Line{What: begin, Caller: caller, Op: &o, Now: c.Now})
		got, err := c.s.Do(o)
		say(calls.Line{What: answer, Caller: caller, Answer: got, Failure: calls.NewFailure(err)})
		if err != nil {
			failures++
		}
	}
}

func (c *child) copyDir(n int) string { return filepath.Join(c.Dir, fmt.Sprint("copy", n)) }

// makeCopy restores a backup on the same disk. There is one caller, and it waits.
func (c *child) makeCopy() {
	var b bytes.Buffer
	err := c.st.Backup(&b)
	if err == nil {
		say(calls.Line{What: restoring})
		err = oncelog.Restore(c.copyDir(c.Copies+1), &b)
	}
	say(calls.Line{What: restored, Failure: calls.NewFailure(err)})
}

// lookAtCopy says what the last copy holds, and removes it.
func (c *child) lookAtCopy() {
	if c.Copies == 0 {
		return
	}
	o := c.options()
	o.MustExist = true
	st, err := oncelog.Open(c.copyDir(c.Copies), o)
	got := ""
	if err == nil {
		var s *calls.Service
		if s, err = calls.NewService(st); err == nil {
			got, err = s.Contents(0)
		}
		if closing := st.Close(); err == nil {
			err = closing
		}
	}
	say(calls.Line{What: copied, Contents: got, Now: c.Now, Failure: calls.NewFailure(err)})
	_ = os.RemoveAll(c.copyDir(c.Copies))
}
