package fuzz

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// state is what one group holds: who wrote each record and the piece of state (0 = nothing there), and the mark. A
// record that has expired stays in it until somebody deletes or replaces it.
type state struct {
	rec  [keys]uint64
	set  uint64
	mark uint64
}

// config is a state in which a group may be, with those calls in it that have happened and are not answered yet: for
// each pending call, by its slot, what it saw, "" if it has not happened.
type config struct {
	state
	done [slots]string
}

// slots is how many calls of a group can be pending: one a worker, and several where answers do not count.
const slots = 24

// possible is all that the ledger knows about a group.
type possible struct {
	configs map[config]struct{}
	pending []*op // announced and not answered
	broken  bool  // a contradiction was found; nothing is known any more
	history []string
}

// remembered is how many events of a group a contradiction tells.
const remembered = 40

func newPossible() *possible { return &possible{configs: map[config]struct{}{{}: {}}} }

// add makes o a pending call.
func (p *possible) add(o *op) {
	var used [slots]bool
	for _, other := range p.pending {
		used[other.slot] = true
	}
	if o.slot = slices.Index(used[:], false); o.slot < 0 {
		panic("too many calls are pending in one group")
	}
	p.pending = append(p.pending, o)
}

// forget takes back a pending call that changed nothing, whenever it happened.
func (p *possible) forget(o *op) {
	p.pending = slices.DeleteFunc(p.pending, func(other *op) bool { return other == o })
	left := map[config]struct{}{}
	for c := range p.configs {
		c.done[o.slot] = ""
		left[c] = struct{}{}
	}
	p.configs = left
}

func (p *possible) note(format string, args ...any) {
	if len(p.history) >= 2*remembered {
		p.history = slices.Clone(p.history[remembered:])
	}
	p.history = append(p.history, fmt.Sprintf(format, args...))
}

// branch is one way in which an operation can happen.
type branch struct {
	saw  string
	next state
}

// step returns the ways in which o can happen in s, at a time not after upTo. There are several only where a record
// may or may not have expired.
func (l *ledger) step(s state, o *op, upTo int64) []branch {
	switch o.Kind {
	case opPut, opGet, opDelete:
		var out []branch
		for _, id := range l.sees(s.rec[o.Key], o.At, upTo) {
			b := branch{sawRecord(o.Key, id), s}
			switch {
			case o.Kind == opDelete:
				b.saw = sawExisted(o.Key, id != 0)
				b.next.rec[o.Key] = 0
			case o.Kind == opPut && id == 0:
				b.next.rec[o.Key] = o.ID
			}
			out = append(out, b)
		}
		return out
	case opAdvance:
		b := branch{sawFresh(o.Seq > s.mark), s}
		b.next.mark = max(s.mark, o.Seq)
		return []branch{b}
	case opMark:
		return []branch{{sawMark(s.mark), s}}
	case opLook:
		out := []branch{{"", s}}
		for k := range keys {
			out = l.also(out, s.rec[k], o, upTo, func(b *branch, id uint64) { b.saw += sawRecord(k, id) })
		}
		for i := range out {
			out[i].saw += sawState(s.set)
		}
		return out
	case opTx:
		return l.stepTx(s, o, upTo)
	}
	panic("unknown operation " + string(o.Kind))
}

func (l *ledger) stepTx(s state, o *op, upTo int64) []branch {
	out := []branch{{"", s}}
	for _, k := range o.Deletes {
		out = l.also(out, s.rec[k], o, upTo, func(b *branch, id uint64) {
			b.saw += sawRecord(k, id)
			b.next.rec[k] = 0
		})
	}
	for _, k := range o.Puts {
		before := s.rec[k]
		if slices.Contains(o.Deletes, k) {
			before = 0
		}
		out = l.also(out, before, o, upTo, func(b *branch, id uint64) {
			b.saw += sawRecord(k, id)
			if id == 0 {
				b.next.rec[k] = o.ID
			}
		})
	}
	for i := range out {
		b := &out[i]
		if o.Set {
			b.saw += sawState(s.set)
			b.next.set = o.ID
		}
		if o.Seq != 0 {
			b.saw += sawFresh(o.Seq > s.mark)
			b.next.mark = max(s.mark, o.Seq)
		}
		if b.saw += "end"; o.Abort {
			b.next = s
		}
	}
	return out
}

// also continues each branch with what can be seen of the record that id wrote.
func (l *ledger) also(in []branch, id uint64, o *op, upTo int64, then func(b *branch, id uint64)) []branch {
	var out []branch
	for _, b := range in {
		for _, id := range l.sees(id, o.At, upTo) {
			b := b
			then(&b, id)
			out = append(out, b)
		}
	}
	return out
}

// sees returns what can be seen between two times of a record that id wrote: it, nothing, or either.
func (l *ledger) sees(id uint64, from, upTo int64) []uint64 {
	if id == 0 {
		return []uint64{0}
	}
	w := l.ops[id]
	if w.TTL == 0 {
		return []uint64{id}
	}
	latest := int64(math.MaxInt64) // the last moment at which it may have been committed
	switch {
	case w.answered != 0:
		latest = w.answered
	case w.dead != 0:
		latest = w.dead
	}
	var out []uint64
	if latest == math.MaxInt64 || from < latest+w.TTL {
		out = append(out, id)
	}
	if upTo >= w.At+w.TTL {
		out = append(out, 0)
	}
	return out
}

// explore calls visit with c and each config that it can become if some of the pending calls that may happen do.
func (p *possible) explore(l *ledger, c config, upTo int64, may func(*op) bool, visit func(config)) {
	seen := map[config]struct{}{c: {}}
	todo := []config{c}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		visit(c)
		for _, o := range p.pending {
			if c.done[o.slot] != "" || !may(o) {
				continue
			}
			for _, b := range l.step(c.state, o, upTo) {
				n := config{b.next, c.done}
				n.done[o.slot] = b.saw
				if _, ok := seen[n]; !ok {
					seen[n] = struct{}{}
					todo = append(todo, n)
				}
			}
		}
	}
}

// answer leaves the configs in which o has happened and saw that. It reports whether there is one.
func (p *possible) answer(l *ledger, o *op, a *answer) bool {
	left := map[config]struct{}{}
	for c := range p.configs {
		if was := c.done[o.slot]; was != "" {
			if was == a.Saw {
				c.done[o.slot] = ""
				left[c] = struct{}{}
			}
			continue
		}
		// Others in flight may have happened before it.
		p.explore(l, c, a.At, func(other *op) bool { return other != o }, func(c config) {
			for _, b := range l.step(c.state, o, a.At) {
				if b.saw == a.Saw {
					left[config{b.next, c.done}] = struct{}{}
				}
			}
		})
	}
	p.pending = slices.DeleteFunc(p.pending, func(other *op) bool { return other == o })
	if len(left) == 0 {
		return false
	}
	p.configs = left
	return true
}

// died decides about the pending calls: a transaction that is in the chain has happened, one that is not has not, and
// of the others nobody knows. It reports whether that is possible.
func (p *possible) died(l *ledger, now int64) bool {
	left := map[config]struct{}{}
	for c := range p.configs {
		p.explore(l, c, now, func(o *op) bool { return !o.chained() || o.chain != 0 }, func(c config) {
			for _, o := range p.pending {
				if o.chained() && (c.done[o.slot] != "") != (o.chain != 0) {
					return
				}
			}
			left[config{state: c.state}] = struct{}{}
		})
	}
	p.pending = nil
	if len(left) == 0 {
		return false
	}
	p.configs = left
	return true
}

// only sets what is known: the group is in this state.
func (p *possible) only(s state) {
	p.configs = map[config]struct{}{{state: s}: {}}
	p.pending = nil
}

// describe tells what was held possible, and how it came to that.
func (p *possible) describe() string {
	var b strings.Builder
	n := 0
	for c := range p.configs {
		if n++; n > 5 {
			fmt.Fprintf(&b, "\n  ... and more, %d in all", len(p.configs))
			break
		}
		fmt.Fprintf(&b, "\n  possible was: records %v state %d mark %d, in flight and done: %q", c.rec, c.set, c.mark, c.done)
	}
	for _, o := range p.pending {
		fmt.Fprintf(&b, "\n  in flight: %v", o)
	}
	for _, h := range p.history[max(0, len(p.history)-remembered):] {
		fmt.Fprintf(&b, "\n  before: %s", h)
	}
	return b.String()
}
