package fuzz

import (
	"fmt"
	"strings"
)

// ledger is what the world outside the store knows: what was asked, what was answered, and so what must be there.
type ledger struct {
	ops    map[uint64]*op
	groups [groups]*possible
	chain  []uint64 // who is under number i+1; 0 = not known yet

	// mayLose says that a power cut may take acknowledged transactions, the newest first. Then transactions must be
	// the only operations that write, so that the chain says what each group must hold.
	mayLose bool
	safe    int // so much of the chain was found by a process, and so promised
	// mayFail says that calls may return errors; what they did is then not known.
	mayFail bool
	cutting bool // the power is going: what is answered now nobody may have heard
	dark    bool // it is gone: nothing that is said now happens

	answers map[uint64]*answer // of the chain's transactions
	crashed int64              // the clock at the last crash that is not decided yet; 0 = none

	contradictions []string
	tally          tally
}

// tally says whether a run had anything to find.
type tally struct {
	Inserted, Duplicates, Exists, Deleted, Fresh, Stale, Committed, Aborted, Expired int // answers
	InFlight                                                                         int // writing calls that a crash interrupted
	KillsInFlight                                                                    int // crashes that interrupted any
	FoundWhole, FoundNot                                                             int // interrupted transactions that were there, or not
	Lost                                                                             int // acknowledged, and taken where that is allowed
	Errors                                                                           int
}

func newLedger() *ledger {
	l := &ledger{ops: map[uint64]*op{}, answers: map[uint64]*answer{}}
	for i := range l.groups {
		l.groups[i] = newPossible()
	}
	return l
}

func (l *ledger) contradict(format string, args ...any) {
	l.contradictions = append(l.contradictions, fmt.Sprintf(format, args...))
}

// contradictIn is contradict about a group, of which nothing is believed any more.
func (l *ledger) contradictIn(g int, format string, args ...any) {
	p := l.groups[g]
	l.contradict("group %d: %s%s", g, fmt.Sprintf(format, args...), p.describe())
	p.broken = true
}

// intent is the announcement of an operation.
func (l *ledger) intent(o *op) {
	l.ops[o.ID] = o
	p := l.groups[o.Group]
	p.add(o)
	p.note("%v", o)
}

// answer is what an operation returned.
func (l *ledger) answer(a *answer) {
	o := l.ops[a.ID]
	p := l.groups[o.Group]
	if l.cutting {
		// A machine without power gives no answers, and the emergency stop is not as sudden: into space that was
		// reserved and not written before, it lets 1 fdatasync in 250 succeed that has written nothing (a program
		// of pwrite and fdatasync alone, 500 stops; none of them before the stop began).
		if a.Err != "" {
			l.tally.Errors++
		} else if !o.writes() {
			p.forget(o)
		}
		return
	}
	p.note("%d at %d answers %q %s", a.ID, a.At, a.Saw, a.Err)
	if a.Err != "" {
		l.tally.Errors++
		if !l.mayFail {
			l.contradictIn(o.Group, "%v failed: %s", o, a.Err)
		}
		return // it stays pending: nobody knows
	}
	o.answered = a.At
	l.count(o, a)
	if o.chained() {
		l.link(a.Chain, o)
		l.answers[o.ID] = a
	}
	if p.broken {
		return
	}
	if !p.answer(l, o, a) {
		l.contradictIn(o.Group, "%v answers %q, which no order of the calls explains", o, a.Saw)
		return
	}
	if o.Kind == opGet && a.Saw == sawRecord(o.Key, 0) {
		for c := range p.configs {
			if c.rec[o.Key] != 0 { // nobody deleted it
				l.tally.Expired++
			}
			break
		}
	}
}

func (l *ledger) count(o *op, a *answer) {
	t := &l.tally
	switch o.Kind {
	case opPut:
		if a.Saw == sawRecord(o.Key, 0) {
			t.Inserted++
		} else {
			t.Duplicates++
		}
	case opDelete:
		if a.Saw == sawExisted(o.Key, true) {
			t.Deleted++
		}
	case opTx:
		if o.Abort {
			t.Aborted++
		} else {
			t.Committed++
		}
		for _, k := range o.Puts {
			if !strings.Contains(a.Saw, sawRecord(k, 0)) {
				t.Exists++
			}
		}
	}
	if strings.Contains(a.Saw, sawFresh(true)) {
		t.Fresh++
	}
	if strings.Contains(a.Saw, sawFresh(false)) {
		t.Stale++
	}
}

// link writes down who has a number of the chain.
func (l *ledger) link(n uint64, o *op) {
	if n == 0 || n > 1<<32 {
		l.contradict("%v got number %d", o, n)
		return
	}
	for uint64(len(l.chain)) < n {
		l.chain = append(l.chain, 0)
	}
	if was := l.chain[n-1]; was != 0 && was != o.ID || o.chain != 0 && o.chain != n {
		l.contradict("number %d of the chain was %d's, and now it is %v's", n, was, o)
		return
	}
	l.chain[n-1], o.chain = o.ID, n
}

// died says that the process is gone, or the power. What it leaves is decided when the next one says what it found.
func (l *ledger) died(now int64) {
	n := 0
	for _, p := range l.groups {
		for _, o := range p.pending {
			if o.dead == 0 {
				o.dead = now
				if o.writes() {
					n++
				}
			}
		}
		p.note("--- died at %d", now)
	}
	l.tally.InFlight += n
	if n > 0 {
		l.tally.KillsInFlight++
	}
	l.crashed = now
}

// recovered compares the chain that was found with the one in the ledger, and then knows which of the interrupted
// transactions happened.
func (l *ledger) recovered(r *recovered) {
	if len(r.Strange) > 0 {
		l.contradict("nobody wrote %q", r.Strange)
	}
	found := uint64(len(r.Chain))
	if r.Mark != found {
		l.contradict("the chain has %d transactions and its mark says %d; they were written together", found, r.Mark)
	}
	if l.mayLose && found >= uint64(l.safe) && found < uint64(len(l.chain)) {
		l.tally.Lost += len(l.chain) - len(r.Chain)
		for _, id := range l.chain[found:] {
			if id != 0 {
				l.ops[id].chain = 0
			}
		}
		l.chain = l.chain[:found]
	}
	if found < uint64(len(l.chain)) {
		l.contradict("the chain ends with %d, and number %d was acknowledged", found, len(l.chain))
	}
	for i, id := range r.Chain {
		n := uint64(i + 1)
		o := l.ops[id]
		if o == nil || !o.chained() {
			l.contradict("under number %d of the chain is %d, which is no transaction of anybody", n, id)
			continue
		}
		if o.chain == 0 && o.answered == 0 {
			l.tally.FoundWhole++
		}
		if o.chain == 0 && l.crashed == 0 {
			l.contradict("number %d of the chain is %v, which was not there before and did not run since", n, o)
		}
		l.link(n, o)
	}
	for g, p := range l.groups {
		for _, o := range p.pending {
			if o.chained() && o.chain == 0 {
				l.tally.FoundNot++
			}
		}
		if !p.broken && !l.mayLose && l.crashed != 0 && !p.died(l, l.crashed) {
			l.contradictIn(g, "what is in the chain cannot have happened")
		}
	}
	if l.mayLose {
		l.replay()
	}
	l.crashed, l.safe = 0, len(r.Chain)
}

// replay sets each group to what the transactions of the chain, one after the other, make of it, and checks that
// each of them saw what its predecessors had left.
func (l *ledger) replay() {
	var states [groups]state
	for _, id := range l.chain {
		o := l.ops[id]
		if o == nil {
			continue // contradicted above
		}
		b := l.step(states[o.Group], o, o.At)[0]
		if a := l.answers[id]; a != nil && a.Saw != b.saw {
			l.contradictIn(o.Group, "%v answered %q, and in the order of the chain it must be %q", o, a.Saw, b.saw)
		}
		states[o.Group] = b.next
	}
	for g, p := range l.groups {
		p.only(states[g])
	}
}
