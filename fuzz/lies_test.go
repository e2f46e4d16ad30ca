package fuzz

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A ledger that believes everything would pass every test above. These tell it a short story and then a lie.

// story is a ledger that is being told what a child says. Each call is numbered by its ID.
type story struct{ *ledger }

func newStory() story { return story{newLedger()} }

// begin announces; end answers.
func (s story) begin(id uint64, o op) {
	o.ID, o.At = id, int64(id)*10
	s.intent(&o)
}

func (s story) end(id uint64, saw string) { s.endAt(id, int64(id)*10+5, saw, 0) }

func (s story) endAt(id uint64, at int64, saw string, chain uint64) {
	s.answer(&answer{ID: id, At: at, Saw: saw, Chain: chain})
}

func (s story) tell(id uint64, o op, saw string) {
	s.begin(id, o)
	s.end(id, saw)
}

// crash kills the child; the next one finds this chain.
func (s story) crash(now int64, chain ...uint64) {
	s.died(now)
	s.recovered(&recovered{Chain: chain, Mark: uint64(len(chain))})
}

var (
	putOp  = op{Kind: opPut}
	getOp  = op{Kind: opGet, Worker: 1}
	delOp  = op{Kind: opDelete}
	lookOp = op{Kind: opLook}
	txOp   = op{Kind: opTx, Puts: []int{1, 2}, Set: true, Seq: 7}
)

const sawNothing = "r0=0 r1=0 r2=0 r3=0 s=0 "

func TestTheLedgerObjects(t *testing.T) {
	for _, c := range []struct {
		name        string
		truth, lies func(s story)
	}{
		{
			"an acknowledged record is gone",
			func(s story) { s.tell(1, putOp, "r0=0 "); s.crash(20); s.tell(3, getOp, "r0=1 ") },
			func(s story) { s.tell(1, putOp, "r0=0 "); s.crash(20); s.tell(3, getOp, "r0=0 ") },
		}, {
			"an interrupted record was seen and is gone",
			func(s story) {
				s.begin(1, putOp)
				s.crash(20)
				s.tell(3, getOp, "r0=1 ")
				s.crash(40)
				s.tell(5, getOp, "r0=1 ")
			},
			func(s story) {
				s.begin(1, putOp)
				s.crash(20)
				s.tell(3, getOp, "r0=1 ")
				s.crash(40)
				s.tell(5, getOp, "r0=0 ")
			},
		}, {
			"an interrupted record was absent and comes later",
			func(s story) { s.begin(1, putOp); s.crash(20); s.tell(3, getOp, "r0=0 "); s.tell(5, getOp, "r0=0 ") },
			func(s story) { s.begin(1, putOp); s.crash(20); s.tell(3, getOp, "r0=0 "); s.tell(5, getOp, "r0=1 ") },
		}, {
			"a duplicate was answered and its record is gone",
			func(s story) {
				s.begin(1, putOp)
				s.tell(2, op{Kind: opPut, Worker: 2}, "r0=1 ")
				s.crash(30)
				s.tell(4, getOp, "r0=1 ")
			},
			func(s story) {
				s.begin(1, putOp)
				s.tell(2, op{Kind: opPut, Worker: 2}, "r0=1 ")
				s.crash(30)
				s.tell(4, getOp, "r0=0 ")
			},
		}, {
			"two are first",
			func(s story) { s.tell(1, putOp, "r0=0 "); s.tell(2, putOp, "r0=1 ") },
			func(s story) { s.tell(1, putOp, "r0=0 "); s.tell(2, putOp, "r0=0 ") },
		}, {
			"a deleted record comes back",
			func(s story) {
				s.tell(1, putOp, "r0=0 ")
				s.tell(2, delOp, "r0 existed ")
				s.crash(30)
				s.tell(4, getOp, "r0=0 ")
			},
			func(s story) {
				s.tell(1, putOp, "r0=0 ")
				s.tell(2, delOp, "r0 existed ")
				s.crash(30)
				s.tell(4, getOp, "r0=1 ")
			},
		}, {
			"a value that nobody wrote",
			func(s story) { s.tell(1, putOp, "r0=0 "); s.tell(2, getOp, "r0=1 ") },
			func(s story) { s.tell(1, putOp, "r0=0 "); s.tell(2, getOp, sawRecord(0, garbled)) },
		}, {
			"a mark runs back",
			func(s story) {
				s.tell(1, op{Kind: opAdvance, Seq: 5}, "fresh ")
				s.crash(20)
				s.tell(3, op{Kind: opAdvance, Seq: 5}, "stale ")
			},
			func(s story) {
				s.tell(1, op{Kind: opAdvance, Seq: 5}, "fresh ")
				s.crash(20)
				s.tell(3, op{Kind: opAdvance, Seq: 5}, "fresh ")
			},
		}, {
			"a record goes before its time",
			func(s story) { s.tell(1, op{Kind: opPut, TTL: 100}, "r0=0 "); s.tell(11, getOp, "r0=0 ") },
			func(s story) { s.tell(1, op{Kind: opPut, TTL: 100}, "r0=0 "); s.tell(10, getOp, "r0=0 ") },
		}, {
			"a record stays beyond its time",
			func(s story) { s.tell(1, op{Kind: opPut, TTL: 100}, "r0=0 "); s.tell(11, getOp, "r0=1 ") },
			func(s story) { s.tell(1, op{Kind: opPut, TTL: 100}, "r0=0 "); s.tell(12, getOp, "r0=1 ") },
		}, {
			"an interrupted transaction is there in part",
			func(s story) { s.begin(1, txOp); s.crash(20, 1); s.tell(3, lookOp, "r0=0 r1=1 r2=1 r3=0 s=1 ") },
			func(s story) { s.begin(1, txOp); s.crash(20, 1); s.tell(3, lookOp, "r0=0 r1=1 r2=0 r3=0 s=1 ") },
		}, {
			"a transaction is in the chain and not in its group",
			func(s story) { s.begin(1, txOp); s.crash(20); s.tell(3, lookOp, sawNothing) },
			func(s story) { s.begin(1, txOp); s.crash(20, 1); s.tell(3, lookOp, sawNothing) },
		}, {
			"a transaction is in its group and not in the chain",
			func(s story) { s.begin(1, txOp); s.crash(20, 1); s.tell(3, lookOp, "r0=0 r1=1 r2=1 r3=0 s=1 ") },
			func(s story) { s.begin(1, txOp); s.crash(20); s.tell(3, lookOp, "r0=0 r1=1 r2=1 r3=0 s=1 ") },
		}, {
			"its mark is not there with it",
			func(s story) { s.begin(1, txOp); s.crash(20, 1); s.tell(3, op{Kind: opMark}, "m=7 ") },
			func(s story) { s.begin(1, txOp); s.crash(20, 1); s.tell(3, op{Kind: opMark}, "m=0 ") },
		}, {
			"a transaction that was given up happened",
			func(s story) {
				s.begin(1, op{Kind: opTx, Set: true, Abort: true})
				s.end(1, "s=0 end")
				s.tell(2, lookOp, sawNothing)
			},
			func(s story) {
				s.begin(1, op{Kind: opTx, Set: true, Abort: true})
				s.end(1, "s=0 end")
				s.tell(2, lookOp, "r0=0 r1=0 r2=0 r3=0 s=1 ")
			},
		}, {
			"the chain lost an acknowledged end",
			func(s story) { s.begin(1, txOp); s.endAt(1, 15, "r1=0 r2=0 s=0 fresh end", 1); s.crash(20, 1) },
			func(s story) { s.begin(1, txOp); s.endAt(1, 15, "r1=0 r2=0 s=0 fresh end", 1); s.crash(20) },
		}, {
			"the chain has a hole",
			func(s story) {
				s.begin(1, txOp)
				s.begin(2, op{Kind: opTx, Group: 1, Worker: 1, Set: true})
				s.crash(30, 1, 2)
			},
			func(s story) {
				s.begin(1, txOp)
				s.begin(2, op{Kind: opTx, Group: 1, Worker: 1, Set: true})
				s.crash(30, 0, 2)
			},
		}, {
			"the chain changed its order",
			func(s story) {
				s.begin(1, txOp)
				s.begin(2, op{Kind: opTx, Group: 1, Worker: 1, Set: true})
				s.crash(30, 1, 2)
				s.crash(40, 1, 2)
			},
			func(s story) {
				s.begin(1, txOp)
				s.begin(2, op{Kind: opTx, Group: 1, Worker: 1, Set: true})
				s.crash(30, 1, 2)
				s.crash(40, 2, 1)
			},
		}, {
			"the chain's mark was not written with it",
			func(s story) { s.begin(1, txOp); s.died(20); s.recovered(&recovered{Chain: []uint64{1}, Mark: 1}) },
			func(s story) { s.begin(1, txOp); s.died(20); s.recovered(&recovered{Chain: []uint64{1}, Mark: 0}) },
		}, {
			"a key that nobody asked for",
			func(s story) { s.recovered(&recovered{}) },
			func(s story) { s.recovered(&recovered{Strange: []string{"key"}}) },
		}, {
			"a call fails though its disk is sound",
			func(s story) { s.mayFail = true; s.begin(1, putOp); s.answer(&answer{ID: 1, At: 15, Err: "no"}) },
			func(s story) { s.begin(1, putOp); s.answer(&answer{ID: 1, At: 15, Err: "no"}) },
		}, {
			"a cut takes what was found before it",
			func(s story) {
				s.mayLose = true
				s.begin(1, txOp)
				s.endAt(1, 15, "r1=0 r2=0 s=0 fresh end", 1)
				s.crash(20)
				s.tell(3, lookOp, sawNothing)
			},
			func(s story) {
				s.mayLose = true
				s.begin(1, txOp)
				s.endAt(1, 15, "r1=0 r2=0 s=0 fresh end", 1)
				s.crash(20, 1)
				s.crash(30)
			},
		}, {
			"a cut takes a part of a group",
			func(s story) {
				s.mayLose = true
				s.begin(1, txOp)
				s.endAt(1, 15, "r1=0 r2=0 s=0 fresh end", 1)
				s.crash(20, 1)
				s.tell(3, lookOp, "r0=0 r1=1 r2=1 r3=0 s=1 ")
			},
			func(s story) {
				s.mayLose = true
				s.begin(1, txOp)
				s.endAt(1, 15, "r1=0 r2=0 s=0 fresh end", 1)
				s.crash(20, 1)
				s.tell(3, lookOp, "r0=0 r1=1 r2=0 r3=0 s=1 ")
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory()
			c.truth(s)
			require.Empty(t, s.contradictions, "the truth")
			s = newStory()
			c.lies(s)
			require.NotEmpty(t, s.contradictions, "the lie")
		})
	}
}

// Calls that run at the same time may have happened in any order, and only in one.
func TestTheLedgerAllowsAnyOrderOfCallsThatMeet(t *testing.T) {
	meet := func(second, later string) []string {
		s := newStory()
		s.begin(1, putOp)
		s.begin(2, op{Kind: opDelete, Worker: 1})
		s.begin(3, op{Kind: opPut, Worker: 2})
		s.endAt(1, 40, "r0=0 ", 0)
		s.endAt(3, 41, second, 0)
		s.endAt(2, 42, "r0 existed ", 0)
		s.tell(5, getOp, later)
		return s.contradictions
	}
	require.Empty(t, meet("r0=1 ", "r0=0 "))    // 1, 3, 2
	require.Empty(t, meet("r0=0 ", "r0=3 "))    // 1, 2, 3
	require.Empty(t, meet("r0=0 ", "r0=1 "))    // 3, 2, 1
	require.NotEmpty(t, meet("r0=0 ", "r0=0 ")) // two were stored and one was deleted
	require.NotEmpty(t, meet("r0=1 ", "r0=1 "))
}

// Only what one call wrote under one key passes for it.
func TestValuesNameTheirWriter(t *testing.T) {
	v := valueOf(7, "a")
	require.EqualValues(t, 7, writerOf("a", v, true))
	require.EqualValues(t, 0, writerOf("a", nil, false))
	for _, bad := range [][]byte{nil, v[:7], v[:len(v)-1], append([]byte{1}, v[1:]...), append(v[:len(v):len(v)], 0), valueOf(7, "b")} {
		require.EqualValues(t, uint64(garbled), writerOf("a", bad, true))
	}
}
