package receiver

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync"
)

// Step names what fn does next, for a transport that makes the key of an outgoing request: it is that of
// Derive(ctx, name). One step is one request, and its retries. Steps nest: inside the step "item 1", the step "pay" is
// another than inside "item 2". Outside fn there is nothing to name, and ctx is returned as it is. It panics with an
// empty name, and with one that has a zero byte in it.
func Step(ctx context.Context, name string) context.Context {
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		panic("receiver: Step without a name, or with a zero byte in it")
	}
	c := callFrom(ctx)
	if c == nil {
		return ctx
	}
	if outer, ok := StepFrom(ctx); ok {
		name = outer + "\x00" + name // no name has one, so no two paths are the same
	}
	return context.WithValue(ctx, stepKey{}, &step{c, name})
}

// StepFrom returns the step that ctx belongs to, as it is to be given to Derive. ok is false if fn, or that of the
// innermost call, has named none.
func StepFrom(ctx context.Context) (name string, ok bool) {
	s, _ := ctx.Value(stepKey{}).(*step)
	if s == nil || s.c != callFrom(ctx) {
		return "", false
	}
	return s.name, true
}

// step belongs to one call: the fn of a call inside it begins without one, or all of its requests would be the one step
// that the call around it has named.
type step struct {
	c    *call
	name string
}

type stepKey struct{}

// Pin ties a step of this run of fn to a content, given by its hash, and reports whether it is the first or the same as
// before: a retry. For a transport that has to name a step itself, of which it can't know that it is one request's
// alone. It panics outside fn.
func Pin(ctx context.Context, step string, content [sha256.Size]byte) bool {
	c := callFrom(ctx)
	if c == nil {
		panic("receiver: Pin outside fn: pass on the context that fn was given")
	}
	s := &c.steps
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok := s.pinned[step]; ok {
		return first == content
	}
	if s.pinned == nil {
		s.pinned = make(map[string][sha256.Size]byte)
	}
	s.pinned[step] = content
	return true
}

// steps are what the steps of a call are tied to.
type steps struct {
	mu     sync.Mutex
	pinned map[string][sha256.Size]byte
}
