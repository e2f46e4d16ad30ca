package calls

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// Line is what a child says to its parent, as JSON.
type Line struct {
	What     string
	Caller   int      `json:",omitempty"`
	Op       *Op      `json:",omitempty"`
	Now      int64    `json:",omitempty"`
	Answer   string   `json:",omitempty"`
	Contents string   `json:",omitempty"`
	Failure  *Failure `json:",omitempty"`
}

// Encode returns the line with its end.
func (l Line) Encode() []byte {
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(b, '\n')
}

// Failure is an error on its way to the parent.
type Failure struct {
	Text   string
	Failed bool            // ErrFailed: what became of it is not known
	Lost   bool            // ErrUnrecorded: the work was done, and the key stays claimed
	Errnos []syscall.Errno // those that it is, for errors.Is
}

// Errnos are those that a Failure is asked for.
var Errnos = []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE, syscall.EROFS, syscall.ENOMEM}

// NewFailure returns nil for nil.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Text: err.Error(), Failed: errors.Is(err, oncelog.ErrFailed), Lost: errors.Is(err, receiver.ErrUnrecorded)}
	for _, errno := range Errnos {
		if errors.Is(err, errno) {
			f.Errnos = append(f.Errnos, errno)
		}
	}
	return f
}

// Ledger is what the world knows of one caller's calls.
type Ledger struct {
	// Lazy says that answers promise what is on the way to the disk, not on it: what is found may be any state since
	// the last Synced.
	Lazy bool

	caller   int
	now      *State   // what the caller sees
	may      []*State // what may be found, in the order of commits
	failed   bool     // a call had ErrFailed, and the store was not opened since
	partly   bool     // and it was one of several commits
	claimed  []string // messages whose handling could not be recorded, and so belong to it for as long as it is open
	time     int64
	op       *Op
	began    int // states in may before the call that is under way
	states   []*State
	answer   string
	Answered int // calls
}

// NewLedger is that of a caller of a new store.
func NewLedger(caller int) *Ledger {
	s := NewState()
	return &Ledger{caller: caller, now: s, may: []*State{s}}
}

// Begin says that the call is about to be made.
func (l *Ledger) Begin(o Op, now int64) {
	l.op, l.began, l.time = &o, len(l.may), now
	l.states, l.answer = l.now.After(o, now)
	if !l.failed {
		l.may = append(l.may, l.states...)
	}
}

// Answer says what the call that is under way has answered, and reports a contradiction.
func (l *Ledger) Answer(answer string, f *Failure) error {
	o := l.op
	l.op = nil
	if f != nil && (f.Failed || f.Lost) {
		for i := range max(1, o.Batch) {
			l.claimed = append(l.claimed, doKey(o.Caller, o.Key+i))
		}
	}
	switch {
	case f != nil && f.Failed:
		if !l.failed {
			l.failed, l.partly = true, len(l.states) > 1
		}
		return nil
	case f != nil && f.Lost && o.Kind == DoIntent && !l.failed: // its first commit was made
		l.now = l.states[0]
		l.may = []*State{l.now}
		return nil
	case f != nil && o.Kind == DoAll && !f.Lost && !l.failed: // those before the one that was refused are done
		o.Batch = 0
		if answer != "" {
			o.Batch = strings.Count(answer, ";") + 1
		}
		l.states, l.answer = l.now.After(*o, l.time)
		l.may = append(l.may[:l.began], l.states...)
	case f != nil && o.Kind == Park && answer != "" && !l.failed: // done, and then something else failed
	case f != nil: // refused: nothing was written
		l.may = l.may[:l.began]
		return nil
	}
	l.Answered++
	switch {
	case o.Kind == Lookup && answer == "in flight" && slices.Contains(l.claimed, doKey(o.Caller, o.Key)):
		return nil
	case l.failed:
		return l.still(o, answer)
	}
	if answer != l.answer {
		return fmt.Errorf("%+v answered %q, and it must be %q", o, answer, l.answer)
	}
	if n := len(l.states); n > 0 {
		l.now = l.states[n-1]
	}
	if !l.Lazy {
		l.may = []*State{l.now}
	}
	return nil
}

// still checks an answer of a store that has failed. It acknowledges no change, and what failed does not show, but for
// this: a call of several commits shows as far as it came, and a message that was handed on, and is not recorded so,
// does not wait in the process that has done it.
func (l *Ledger) still(o *Op, answer string) error {
	may := []*State{l.now}
	if l.partly || slices.Contains(outbox, o.Kind) {
		may = l.may
	}
	for _, s := range may {
		if states, want := s.After(*o, l.time); len(states) == 0 && want == answer {
			return nil
		}
	}
	return fmt.Errorf("%+v answered %q in a store that has failed; without a failure it must be %q, with %d changes", o, answer, l.answer, len(l.states))
}

// Synced says that all that was answered is on the disk.
func (l *Ledger) Synced() { l.may = []*State{l.now} }

// Found says what a store that was opened holds, and reports a contradiction. From now on that is certain.
func (l *Ledger) Found(contents string, now int64) error {
	l.op, l.failed, l.claimed = nil, false, nil
	for i := len(l.may) - 1; i >= 0; i-- {
		if l.may[i].Contents(l.caller, now) == contents {
			l.now = l.may[i]
			l.may = []*State{l.now}
			return nil
		}
	}
	return fmt.Errorf("caller %d: of %d states that it may be in, what was found is none. From what was acknowledged it differs so:\n%s",
		l.caller, len(l.may), Difference(l.now.Contents(l.caller, now), contents))
}

// Now is what the caller sees.
func (l *Ledger) Now() *State { return l.now }

// May reports whether the contents are such as may be found.
func (l *Ledger) May(contents string, now int64) bool {
	for _, s := range l.may {
		if s.Contents(l.caller, now) == contents {
			return true
		}
	}
	return false
}
