package owners

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oncelog/oncelog"
)

const (
	childEnv = "ONCELOG_OWNERS_CHILD" // its number
	dirEnv   = "ONCELOG_OWNERS_DIR"
)

// What the parent tells a child, a line each.
const (
	tellOpen  = "open"  // once, and no waiting
	tellWait  = "wait"  // until the owner has left
	tellWrite = "write" // until told to close
	tellClose = "close"
)

// What a child says, behind its number.
const (
	sayGot    = "got"    // it owns the directory; the number that it found follows
	sayLocked = "locked" // it does not; the error follows
	sayPut    = "put"    // this number is durable
	sayLeft   = "left"   // it is about to close
	sayClosed = "closed"
	sayFailed = "failed" // and why
	// The parent's own: it is about to kill the child.
	remarkKill = "kill"
)

// source counts what the owners have written, all of them together.
const source = "owners"

// patience is how long a child waits for another owner to leave: longer than a test may take. Who does not get in has
// the test time out.
const patience = time.Hour

func TestMain(m *testing.M) {
	if number := os.Getenv(childEnv); number != "" {
		n, err := strconv.Atoi(number)
		c := child{number: n}
		if err == nil {
			err = c.run()
		}
		if err != nil {
			c.say(sayFailed, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type child struct {
	number  int
	st      *oncelog.Store
	stop    chan struct{} // ends writing
	writing sync.WaitGroup
}

// say is one write into a pipe, which arrives whole whenever the process dies.
func (c *child) say(what string, v any) {
	if _, err := os.Stdout.WriteString(fmt.Sprintf("%d %s %v\n", c.number, what, v)); err != nil {
		os.Exit(1)
	}
}

func (c *child) run() error {
	in := bufio.NewScanner(os.Stdin) // ends with the parent
	for in.Scan() {
		var err error
		switch in.Text() {
		case tellOpen:
			err = c.open(0)
		case tellWait:
			err = c.open(patience)
		case tellWrite:
			c.write()
		case tellClose:
			err = c.close()
		default:
			err = fmt.Errorf("the parent says %q", in.Text())
		}
		if err != nil {
			return err
		}
	}
	return in.Err()
}

func (c *child) open(wait time.Duration) error {
	st, err := oncelog.Open(os.Getenv(dirEnv), &oncelog.Options{LockWait: wait, SegmentSize: 16 << 10, Pace: -1})
	if errors.Is(err, oncelog.ErrLocked) {
		c.say(sayLocked, err)
		return nil
	}
	if err != nil {
		return err
	}
	c.st = st
	if err := st.Compact(); err != nil { // what is left to do in the background; then the directory rests
		return err
	}
	n, _, err := st.HighWater(source)
	if err != nil {
		return err
	}
	c.say(sayGot, n)
	return st.Verify()
}

// write counts on until told to stop.
func (c *child) write() {
	c.stop = make(chan struct{})
	c.writing.Go(func() {
		n, _, err := c.st.HighWater(source)
		for err == nil {
			select {
			case <-c.stop:
				return
			default:
			}
			n++
			var fresh bool
			if fresh, err = c.st.Advance(source, n); err == nil && !fresh {
				err = fmt.Errorf("somebody else has counted %d", n)
			}
			if err == nil {
				c.say(sayPut, n)
			}
		}
		c.say(sayFailed, err)
		os.Exit(1)
	})
}

func (c *child) close() error {
	if c.stop != nil {
		close(c.stop)
		c.writing.Wait()
		c.stop = nil
	}
	c.say(sayLeft, "")
	err := c.st.Close()
	c.st = nil
	if err == nil {
		c.say(sayClosed, "")
	}
	return err
}
