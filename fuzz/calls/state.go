package calls

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// State is what one caller's names hold.
type State struct {
	records map[string]entry
	state   map[string]string
	marks   map[string]uint64
	results map[string]result
	orders  numbers
	waiting []letter // in order
	parked  []letter
	ordinal uint64
}

type entry struct {
	value   string
	expires int64
}

type result struct {
	kind    receiver.Kind // or KindDoubt
	value   string        // of a doubt, its note
	message string
	expires int64
}

type letter struct {
	ordinal uint64
	payload string
}

// numbers are those of a numbered source that were handled.
type numbers struct {
	first, high uint64
	seen        map[uint64]bool
}

// NewState is that of a new store.
func NewState() *State {
	return &State{
		records: map[string]entry{}, state: map[string]string{}, marks: map[string]uint64{}, results: map[string]result{},
		orders: numbers{seen: map[uint64]bool{}},
	}
}

func (s *State) clone() *State {
	return &State{
		records: maps.Clone(s.records), state: maps.Clone(s.state), marks: maps.Clone(s.marks), results: maps.Clone(s.results),
		orders:  numbers{s.orders.first, s.orders.high, maps.Clone(s.orders.seen)},
		waiting: slices.Clone(s.waiting), parked: slices.Clone(s.parked), ordinal: s.ordinal,
	}
}

func (s *State) record(key string, now int64) (entry, bool) {
	e, ok := s.records[key]
	return e, ok && now < e.expires
}

func (s *State) result(key string, now int64) (result, bool) {
	r, ok := s.results[key]
	return r, ok && now < r.expires
}

func expiry(now int64, ttl time.Duration) int64 {
	if ttl == 0 {
		ttl = TTL
	}
	return now + ttl.Milliseconds()
}

// After is what the call must answer at that time, and the states that its commits lead through, one after the other;
// none if it has nothing to write. s itself stays as it is.
func (s *State) After(o Op, now int64) (states []*State, answer string) {
	n := s.clone()
	key := recordKey(o.Caller, o.Key)
	e, live := s.record(key, now)
	switch o.Kind {
	case Put:
		if live {
			return nil, fmt.Sprintf("exists %x", e.value)
		}
		n.records[key] = entry{string(value(o.N, 0)), expiry(now, o.TTL)}
		return []*State{n}, "inserted"
	case Get:
		return nil, found([]byte(e.value), live)
	case Delete:
		if _, there := n.records[key]; there {
			delete(n.records, key)
			states = []*State{n}
		}
		return states, fmt.Sprint("existed ", live)
	case Advance:
		if seq(o.N) <= s.marks[source(o.Caller)] {
			return nil, "fresh false"
		}
		n.marks[source(o.Caller)] = seq(o.N)
		return []*State{n}, "fresh true"
	case Mark:
		m, ok := s.marks[source(o.Caller)]
		return nil, fmt.Sprint(m, ok)
	case ForgetSource:
		if _, there := n.marks[source(o.Caller)]; there {
			delete(n.marks, source(o.Caller))
			states = []*State{n}
		}
		return states, ""
	case View:
		return nil, s.look(o, now)
	case Update, Abort:
		answer := s.update(n, o, now)
		if o.Kind == Abort {
			return nil, answer
		}
		return []*State{n}, answer
	case Do, DoFail, DoPermanent, DoUnknown, DoLarge, DoIntent, DoTx, DoTxFail, Emit:
		return s.deliver(o, doKey(o.Caller, o.Key), 0, now)
	case DoSeq:
		return s.number(n, seq(o.N))
	case DoAll:
		return s.doAll(o, now)
	case Settle:
		k := doKey(o.Caller, o.Key)
		if r, ok := s.results[k]; !ok || r.kind != receiver.KindDoubt {
			return nil, "not in doubt"
		}
		n.results[k] = result{kind: receiver.KindValue, value: string(value(o.N, 0)), expires: expiry(now, 0)}
		return []*State{n}, "settled"
	case Forget:
		k := doKey(o.Caller, o.Key)
		if _, there := n.results[k]; there {
			delete(n.results, k)
			states = []*State{n}
		}
		return states, ""
	case Lookup:
		return nil, s.lookup(doKey(o.Caller, o.Key), now)
	case HandOn, Park:
		if len(s.waiting) < 2 {
			return nil, "too few wait"
		}
		m := n.waiting[0]
		n.waiting = n.waiting[1:]
		if o.Kind == Park {
			n.parked = append(n.parked, m)
		}
		return []*State{n}, fmt.Sprintf("%s %d %x", topic, m.ordinal, m.payload)
	case Unpark:
		if len(s.parked) == 0 {
			return nil, "nothing is parked"
		}
		i := 0
		for j, m := range n.parked {
			if m.ordinal < n.parked[i].ordinal {
				i = j
			}
		}
		m := n.parked[i]
		n.parked = slices.Delete(n.parked, i, i+1)
		n.emit(m.payload)
		return []*State{n}, fmt.Sprint("unparked ", m.ordinal)
	case Snapshot, Compact, Verify:
		return nil, ""
	}
	panic("unknown call " + string(o.Kind))
}

func (s *State) look(o Op, now int64) string {
	e, live := s.record(recordKey(o.Caller, o.Key), now)
	v, ok := s.state[stateKey(o.Caller, o.Key)]
	return found([]byte(e.value), live) + ", state " + found([]byte(v), ok)
}

func (s *State) update(n *State, o Op, now int64) string {
	_, existed := s.record(recordKey(o.Caller, o.Key), now)
	delete(n.records, recordKey(o.Caller, o.Key))
	_, exists := n.record(recordKey(o.Caller, o.Key+1), now)
	if !exists {
		n.records[recordKey(o.Caller, o.Key+1)] = entry{string(value(o.N, 0)), expiry(now, o.TTL)}
	}
	n.state[stateKey(o.Caller, o.Key)] = string(value(o.N, 1))
	delete(n.state, stateKey(o.Caller, o.Key+1))
	fresh := seq(o.N) > s.marks[source(o.Caller)]
	if fresh {
		n.marks[source(o.Caller)] = seq(o.N)
	}
	return s.look(o, now) + fmt.Sprintf("; existed %v, exists %v, fresh %v", existed, exists, fresh)
}

func (s *State) emit(payload string) {
	s.ordinal++
	s.waiting = append(s.waiting, letter{s.ordinal, payload})
}

// replay is the answer to a message that was delivered before.
func (r result) replay() string {
	switch r.kind {
	case receiver.KindFailure:
		return "ran false: failed for good, " + r.message
	case receiver.KindDoubt:
		return "ran false: in doubt"
	case receiver.KindGone:
		return "ran false: gone"
	}
	return fmt.Sprintf("ran false: %x", r.value)
}

// deliver is a Do that stores the call's i-th value.
func (s *State) deliver(o Op, key string, i int, now int64) (states []*State, answer string) {
	if r, ok := s.result(key, now); ok {
		return nil, r.replay()
	}
	n := s.clone()
	v := string(value(o.N, i))
	r := result{kind: receiver.KindValue, value: v, expires: expiry(now, 0)}
	answer = fmt.Sprintf("ran true: %x", v)
	switch o.Kind {
	case DoFail, DoTxFail:
		return nil, "ran true: no"
	case DoPermanent:
		r.kind, r.value, r.message = receiver.KindFailure, "", errNo.Error()
		answer = "ran true: failed for good, no"
	case DoUnknown:
		r = result{kind: receiver.KindDoubt, expires: math.MaxInt64}
		answer = "ran true: in doubt"
	case DoLarge:
		r.kind, r.value = receiver.KindGone, ""
		answer = fmt.Sprintf("ran true: %x", "large")
	case DoIntent:
		between := s.clone()
		between.results[key] = result{kind: receiver.KindDoubt, value: string(value(o.N, 4)), expires: math.MaxInt64}
		states = append(states, between)
	case DoTx, Emit:
		n.state[stateKey(o.Caller, o.Key)] = string(value(o.N, 1))
		if o.Kind == Emit {
			n.emit(string(value(o.N, 2)))
			n.emit(string(value(o.N, 3)))
		}
	default:
	}
	n.results[key] = r
	return append(states, n), answer
}

// doAll ends with the first message that gets an error.
func (s *State) doAll(o Op, now int64) (states []*State, answer string) {
	var all []string
	at := s
	for i := range o.Batch {
		key := doKey(o.Caller, o.Key+i)
		r, replayed := at.result(key, now)
		next, one := at.deliver(o, key, i, now)
		all = append(all, one)
		if replayed && r.kind != receiver.KindValue {
			break
		}
		for _, n := range next {
			at, states = n, append(states, n)
		}
	}
	return states, strings.Join(all, "; ")
}

func (s *State) number(n *State, seq uint64) ([]*State, string) {
	o := &n.orders
	switch {
	case o.seen[seq] && o.high-seq <= window:
		return nil, "ran false: "
	case o.high > 0 && seq < o.high && o.high-seq > window:
		return nil, "ran false: too old"
	}
	if o.first == 0 || seq < o.first {
		o.first = seq
	}
	o.seen[seq] = true
	o.high = max(o.high, seq)
	return []*State{n}, "ran true: "
}

func (s *State) lookup(key string, now int64) string {
	r, ok := s.result(key, now)
	switch {
	case !ok:
		return "absent"
	case r.kind == receiver.KindDoubt:
		return fmt.Sprintf("in doubt %x", r.value)
	}
	return fmt.Sprintf("done %d %x %q until %d", r.kind, r.value, r.message, r.expires)
}
