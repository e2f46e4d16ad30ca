package receiver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// Receiver runs work once per key. It is safe for use by any number of goroutines, and so are those made by Scope.
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
	// Window is how far behind its source's mark a number is still accepted that was not handled yet; 0 = 1024, at
	// most 65,536. Strict = -1: only the next number is accepted.
	Window int
	// Resolve finds out what became of work that is in doubt, for calls with OnDoubt(Resolve): it asks the service
	// downstream, for instance. It holds the key meanwhile. An error leaves the key in doubt.
	Resolve func(ctx context.Context, d Doubt) (Resolution, error)
	// Quota is how much a scope may hold; the argument is its names, joined by slashes. nil = no quotas. It is asked
	// before each call of Do that the store does not know yet, from any goroutine, so it should be quick.
	Quota func(scope string) Quota
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
// scopes differ. nil options are the defaults. It fails if an option is out of its range, or the store is nil or of a type
// that can't be compared.
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
	if w := r.opts.Window; w < Strict || w > maxWindow {
		return nil, fmt.Errorf("receiver: Options.Window is %d; it is Strict, 0 for the default, or at most %d", w, maxWindow)
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
