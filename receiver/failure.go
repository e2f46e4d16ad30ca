package receiver

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Permanent makes a failure the result: it is recorded, and every caller, the first included, gets it as a
// *StoredError. Return it from fn when running again could not succeed, or must not be tried. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Already says that the work had been done before this call, which found it out itself, by a unique constraint for
// instance: a success with this value, and Outcome.Replayed for every caller.
func Already(value []byte) error { return &alreadyError{value} }

type alreadyError struct{ value []byte }

func (e *alreadyError) Error() string { return "receiver: the work had been done already" }

// StoredError is a failure that was recorded as the result. Errors are not stored as Go values, so it has no cause to
// unwrap; errors.Is matches another StoredError of the same Code, and any error with a method Code() string that
// returns it, where the code is not empty.
type StoredError struct {
	Code     string // what the error's, or a wrapped one's, method Code() string returned; empty = there is none
	Message  string // its Error(), cut at 16 KiB
	Replayed bool   // fn did not run for this caller
}

func (e *StoredError) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return fmt.Sprintf("%s (code %s)", e.Message, e.Code)
}

// Is compares codes.
func (e *StoredError) Is(target error) bool {
	if e.Code == "" {
		return false
	}
	switch t := target.(type) {
	case *StoredError:
		return t.Code == e.Code
	case coder:
		return t.Code() == e.Code
	}
	return false
}

type coder interface{ Code() string }

// The most of a failure that is stored. A message is for people; one that is longer than this holds a page of
// something else.
const (
	maxMessage = 16 << 10
	maxCode    = 256
)

// failure makes the recorded result of a permanent failure.
func failure(err error) Result {
	res := Result{Kind: KindFailure, Message: cut(err.Error(), maxMessage)}
	var c coder
	if errors.As(err, &c) {
		res.Code = cut(c.Code(), maxCode)
	}
	return res
}

// cut shortens s to at most n bytes, at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	end := n
	for end > max(0, n-utf8.UTFMax) && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
