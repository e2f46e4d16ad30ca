package receiver

import "time"

// Event is the end of one call, or that it begins to wait, as Options.Observe is told of it. It holds no keys and no
// values.
type Event struct {
	Kind  EventKind
	Scope string // the scope's names, joined by slashes
	// Wait is the time until fn began, or until there was an answer without it. Run is fn's. Commit is the time that
	// recording took.
	Wait, Run, Commit time.Duration
}

// EventKind says how a call ended.
type EventKind int

const (
	EventExecuted   EventKind = iota + 1 // fn ran, and that is recorded
	EventReplayed                        // the stored result was returned
	EventFailed                          // fn ran and returned an error, panicked or exited; nothing is recorded
	EventUnrecorded                      // fn ran and it could not be recorded: ErrUnrecorded or ErrLeaseLost
	EventWaiting                         // the call has taken its place in the line of a key in flight; its end follows
	EventInFlight                        // ErrInFlight
	EventRefused                         // refused without running fn: by the store, or ErrKeyReused, ErrReentrant
	EventInDoubt                         // the key is in doubt: since before the call, or because of it
)
