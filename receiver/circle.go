package receiver

import (
	"slices"
	"sync"
)

// Calls made inside a fn can wait for each other in a circle: a holds key 1 and wants key 2, whose holder wants key 1.
// A circle is closed by a call that begins to wait while it is inside another's fn, so only such calls are looked
// at: before it waits, it follows the runners and what they wait for, and turns back if it meets itself. A call on its
// own key is the shortest circle.
//
// It knows the calls of this process, as far as the context was passed on.
var circles sync.Mutex

// block notes that c, and all calls around it, wait for f, unless that closes a circle.
func (c *call) block(f *flight) error {
	circles.Lock()
	defer circles.Unlock()
	seen := map[*flight]bool{}
	todo := []*flight{f}
	for len(todo) > 0 {
		f := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[f] {
			continue
		}
		seen[f] = true
		runner := f.runner.Load()
		if runner == nil {
			continue // another process, or the first in line, which does not wait yet
		}
		for p := c; p != nil; p = p.parent {
			if p == runner {
				return ErrReentrant
			}
		}
		todo = append(todo, runner.blocked...)
	}
	for p := c; p != nil; p = p.parent {
		p.blocked = append(p.blocked, f)
	}
	return nil
}

// unblock takes back what block noted.
func (c *call) unblock(f *flight) {
	circles.Lock()
	defer circles.Unlock()
	for p := c; p != nil; p = p.parent {
		if i := slices.Index(p.blocked, f); i >= 0 {
			p.blocked = slices.Delete(p.blocked, i, i+1)
		}
	}
}
