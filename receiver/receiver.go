package receiver

import (
	"errors"
	"fmt"
	"reflect"
	"time"
)

// Receiver runs work once a key. It is safe for use by any number of goroutines, and so are those made by Scope.
type Receiver struct {
	store Store
	opts  Options
	scope []byte // encoded path
	name  string // the same for people, in events
}

// Options of New. The zero value of each field is its default.
type Options struct {
	// InFlight is what a duplicate does while its key is being handled: Wait, the default, or Reject.
	InFlight InFlight
	// Observe is told of each call's end, and before that when the call begins to wait for another, on the caller's
	// goroutine. What it takes the caller waits. nil = nobody is told, and nothing is measured.
	Observe func(Event)
}

// InFlight is a policy for duplicates of a key that is being handled.
type InFlight int

const (
	Wait   InFlight = iota // as long as the context lasts
	Reject                 // ErrInFlight at once
)

// New returns a Receiver over a store. Keys of two receivers over the same store are the same keys, unless their
// scopes differ.
func New(store Store, opts *Options) (*Receiver, error) {
	if store == nil {
		return nil, errors.New("receiver: New without a store")
	}
	if !reflect.TypeOf(store).Comparable() {
		return nil, fmt.Errorf("receiver: a store of type %T can't be compared with others; make it a pointer", store)
	}
	r := &Receiver{store: store, scope: rootScope}
	if opts != nil {
		r.opts = *opts
	}
	if p := r.opts.InFlight; p != Wait && p != Reject {
		return nil, fmt.Errorf("receiver: Options.InFlight is %d; it is Wait or Reject", p)
	}
	return r, nil
}

// Scope returns a receiver over the same store whose keys never meet those of another scope, nor those of r itself.
// Scopes nest: Scope("a").Scope("b") is the path (a, b), which is not Scope("a/b"). Use one for each sender whose
// keys you do not control, a tenant for instance; its name counts towards the store's limit for keys.
func (r *Receiver) Scope(name string) *Receiver {
	sub := *r
	sub.scope = subScope(r.scope, name)
	sub.name = name
	if r.name != "" {
		sub.name = r.name + "/" + name
	}
	return &sub
}

// Outcome is what came of a call.
type Outcome struct {
	Value    []byte
	Replayed bool      // the stored result; fn did not run
	Until    time.Time // duplicates are recognised at least until then; zero = always
}
