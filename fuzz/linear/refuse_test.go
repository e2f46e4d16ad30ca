package linear

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// pair is a call and what came of it.
type pair struct {
	in  in
	out out
}

// oneByOne is the history of calls of which none meets another.
func oneByOne(pairs ...pair) (history []porcupine.Operation) {
	for n, p := range pairs {
		history = append(history, porcupine.Operation{Input: p.in, Call: int64(3 * n), Output: p.out, Return: int64(3*n + 1)})
	}
	return history
}

func accepted(history []porcupine.Operation) bool {
	return porcupine.CheckOperations(model, expand(history))
}

var (
	put      = pair{in{Op: "put", Value: "a"}, out{OK: true}}
	ran      = pair{in{Op: "do", Value: "a"}, out{Ran: true, Value: "a"}}
	inDoubt  = pair{in{Op: "do", Value: "a", Fails: unknown}, out{Ran: true, Err: "in doubt"}}
	advanced = pair{in{Op: "advance", Seq: 3}, out{OK: true}}
	emitted  = pair{in{Op: "update", Steps: []in{{Op: "emit", Value: "m"}, {Op: "emit", Value: "n"}}}, out{}}
	changes  = []in{{Op: "state"}, {Op: "set", Value: "s"}}
	third    = pair{in{Op: "do seq", Value: "a", Seq: 3}, out{Ran: true, Value: "a"}}
	ninth    = pair{in{Op: "do seq", Seq: 9}, out{Ran: true}}
)

// The model must be able to say no, about each operation: what is told of a call is right after what was before, and
// each of the other answers is not.
func TestTheModelRefuses(t *testing.T) {
	told := map[string]bool{}
	for _, c := range []struct {
		before []pair
		call   pair
		wrong  []out
	}{
		{nil, put, []out{{}, {Value: "b"}}},
		{[]pair{put}, pair{in{Op: "put", Value: "b"}, out{Value: "a"}}, []out{{OK: true}, {Value: "b"}, {}}},
		{[]pair{put}, pair{in{Op: "get"}, out{Value: "a", OK: true}}, []out{{}, {Value: "b", OK: true}}},
		{[]pair{put}, pair{in{Op: "append get"}, out{Value: "a", OK: true}}, []out{{}, {Value: "b", OK: true}}},
		{[]pair{put}, pair{in{Op: "has"}, out{OK: true}}, []out{{}}},
		{[]pair{put}, pair{in{Op: "delete"}, out{OK: true}}, []out{{}}},
		{[]pair{put, {in{Op: "delete"}, out{OK: true}}}, pair{in{Op: "has"}, out{}}, []out{{OK: true}}},
		{
			[]pair{put}, pair{in{Op: "records"}, out{Found: map[string]string{"group 0 key 0": "a"}}},
			[]out{{}, {Found: map[string]string{"group 0 key 0": "b"}}, {Found: map[string]string{"group 0 key 0": "a", "group 0 key 1": "a"}}},
		},
		{nil, advanced, []out{{}}},
		{[]pair{advanced}, pair{in{Op: "advance", Seq: 3}, out{}}, []out{{OK: true}}},
		{[]pair{advanced}, pair{in{Op: "high water"}, out{OK: true, Number: 3}}, []out{{}, {OK: true, Number: 2}}},
		{[]pair{advanced, {in{Op: "forget source"}, out{}}}, pair{in{Op: "high water"}, out{}}, []out{{OK: true, Number: 3}}},
		{[]pair{advanced}, pair{in{Op: "forget source"}, out{}}, []out{{Err: "in flight"}}},
		{
			[]pair{put}, pair{in{Op: "update", Steps: []in{{Op: "record"}, {Op: "put"}, {Op: "delete"}, {Op: "advance", Seq: 1}, {Op: "state"}}}, out{Text: "a;exists;true;true;;"}},
			[]out{{Text: ";true;true;;"}, {Text: "a;exists;false;true;;"}, {Text: "a;exists;true;false;;"}, {Text: "a;exists;true;true;s;"}},
		},
		{ // undone
			[]pair{{in{Op: "update", Fails: fails, Steps: changes}, out{Text: ";", Err: fails}}}, pair{in{Op: "view"}, out{Text: ";;;;"}},
			[]out{{Text: "s;;;;"}},
		},
		{
			[]pair{{in{Op: "update", Steps: changes}, out{Text: ";"}}, put}, pair{in{Op: "view"}, out{Text: "s;a;;;"}},
			[]out{{Text: ";a;;;"}, {Text: "s;;;;"}},
		},
		{nil, ran, []out{{Value: "a"}, {Ran: true, Value: "b"}, {Err: "in flight"}, {Err: "reused"}, {Err: "in doubt"}}},
		{[]pair{ran}, pair{in{Op: "do", Value: "b"}, out{Value: "a"}}, []out{{Ran: true, Value: "b"}, {}, {Value: "b"}, {Err: "in flight"}}},
		{
			[]pair{{in{Op: "do", Value: "a", Fails: permanent}, out{Ran: true, Value: "a", Err: permanent}}}, pair{in{Op: "do"}, out{Value: "a", Err: permanent}},
			[]out{{Ran: true}, {Value: "a"}, {Value: "b", Err: permanent}},
		},
		{
			[]pair{{in{Op: "do", Value: "a", Payload: "p"}, out{Ran: true, Value: "a"}}}, pair{in{Op: "do", Payload: "q"}, out{Err: "reused"}},
			[]out{{Value: "a"}, {Ran: true}},
		},
		{[]pair{{in{Op: "do", Value: "a", Fails: fails}, out{Ran: true, Err: fails}}}, pair{in{Op: "do", Value: "b"}, out{Ran: true, Value: "b"}}, []out{{Value: "a"}}},
		{[]pair{inDoubt}, pair{in{Op: "do"}, out{Err: "in doubt"}}, []out{{Ran: true}, {Value: "a"}}},
		{[]pair{inDoubt}, pair{in{Op: "do", Value: "b", Retry: true}, out{Ran: true, Value: "b"}}, []out{{Err: "in doubt"}}},
		{nil, pair{in{Op: "do tx", Value: "a", Steps: changes}, out{Ran: true, Value: "a", Text: ";"}}, []out{{Ran: true, Value: "a", Text: "s;"}}},
		{ // state and result are there together
			[]pair{{in{Op: "do tx", Value: "a", Steps: changes}, out{Ran: true, Value: "a", Text: ";"}}}, pair{in{Op: "view"}, out{Text: "s;;;;"}},
			[]out{{Text: ";;;;"}},
		},
		{ // a failure for good undoes the state, and what fn saw is right
			nil, pair{in{Op: "do tx", Value: "a", Fails: permanent, Steps: changes}, out{Ran: true, Value: "a", Err: permanent, Text: ";"}},
			[]out{{Ran: true, Value: "a", Err: permanent, Text: "s;"}},
		},
		{
			[]pair{ran}, pair{
				in{Op: "do all", Calls: []in{{Op: "do", Value: "b"}, {Op: "do", Key: 1, Value: "c"}}}, out{Outs: []out{{Value: "a"}, {Ran: true, Value: "c"}}},
			},
			[]out{{Outs: []out{{Ran: true, Value: "b"}, {Ran: true, Value: "c"}}}, {Outs: []out{{Value: "a"}, {Value: "c"}}}},
		},
		{
			[]pair{{in{Op: "do all", Calls: []in{{Op: "do", Value: "b"}, {Op: "do", Key: 1, Value: "c"}}}, out{Outs: []out{{Ran: true, Value: "b"}, {Ran: true, Value: "c"}}}}},
			pair{in{Op: "lookup", Key: 1}, out{Value: "done c"}}, []out{{Value: "absent"}, {Value: "done b"}},
		},
		{[]pair{ran}, pair{in{Op: "lookup"}, out{Value: "done a"}}, []out{{Value: "absent"}, {Value: "in flight"}, {Value: "in doubt"}, {Value: "failed a"}}},
		{[]pair{ran}, pair{in{Op: "forget"}, out{}}, []out{{Err: "in flight"}}},
		{[]pair{ran, {in{Op: "forget"}, out{}}}, pair{in{Op: "do", Value: "b"}, out{Ran: true, Value: "b"}}, []out{{Value: "a"}}},
		{[]pair{inDoubt}, pair{in{Op: "settle", Value: "b"}, out{}}, []out{{Err: "not in doubt"}, {Err: "in flight"}}},
		{[]pair{ran}, pair{in{Op: "settle", Value: "b"}, out{Err: "not in doubt"}}, []out{{}}},
		{[]pair{inDoubt, {in{Op: "settle", Value: "b"}, out{}}}, pair{in{Op: "do"}, out{Value: "b"}}, []out{{Ran: true}, {Err: "in doubt"}}},
		{[]pair{inDoubt, {in{Op: "settle", Fails: fails}, out{}}}, pair{in{Op: "do"}, out{Ran: true}}, []out{{Value: "b"}, {Err: "in doubt"}}},
		{[]pair{ran}, pair{in{Op: "doubts"}, out{}}, []out{{Found: map[string]string{"group 0 key 0": "in doubt"}}}},
		{nil, third, []out{{}, {Err: "too old"}, {Err: "result gone"}}},
		{[]pair{third}, pair{in{Op: "do seq", Value: "b", Seq: 3}, out{Value: "a"}}, []out{{}, {Ran: true, Value: "b"}, {Err: "too old"}, {Err: "result gone"}}},
		{[]pair{ninth}, pair{in{Op: "do seq", Seq: 9}, out{}}, []out{{Ran: true}}},
		{[]pair{ninth}, pair{in{Op: "do seq", Seq: 5}, out{Ran: true}}, []out{{}, {Err: "too old"}}},
		{[]pair{ninth}, pair{in{Op: "do seq", Seq: 4}, out{Err: "too old"}}, []out{{}, {Ran: true}}},
		{[]pair{third, ninth}, pair{in{Op: "do seq", Seq: 3}, out{Value: "a"}}, []out{{Err: "too old"}, {Ran: true}}},
		{[]pair{ninth}, pair{in{Op: "do seq", Seq: 1, Epoch: 1}, out{Ran: true}}, []out{{Err: "too old"}, {Err: "fenced"}}},
		{[]pair{{in{Op: "do seq", Seq: 1, Epoch: 1}, out{Ran: true}}}, pair{in{Op: "do seq", Seq: 2}, out{Err: "fenced"}}, []out{{Ran: true}}},
		{ // strictly in order
			[]pair{{in{Op: "do seq", Strict: true, Seq: 2}, out{Ran: true}}}, pair{in{Op: "do seq", Strict: true, Seq: 4}, out{Err: "out of order"}},
			[]out{{Ran: true}, {}},
		},
		{ // the first one failed
			[]pair{{in{Op: "do seq", Strict: true, Seq: 2, Fails: fails}, out{Ran: true, Err: fails}}}, pair{in{Op: "do seq", Strict: true, Seq: 3}, out{Err: "out of order"}},
			[]out{{Ran: true}},
		},
		{
			[]pair{{in{Op: "do seq tx", Seq: 2, Steps: changes}, out{Ran: true, Text: ";"}}}, pair{in{Op: "do seq tx", Seq: 3, Steps: changes}, out{Ran: true, Text: "s;"}},
			[]out{{Ran: true, Text: ";"}, {}},
		},
		{[]pair{ninth}, pair{in{Op: "source high water"}, out{OK: true, Number: 9}}, []out{{}, {OK: true, Number: 8}}},
		{[]pair{ninth}, pair{in{Op: "forget receiver source"}, out{}}, []out{{Err: "in flight"}}},
		{[]pair{ninth, {in{Op: "forget receiver source"}, out{}}}, pair{in{Op: "do seq", Seq: 9}, out{Ran: true}}, []out{{}, {Err: "result gone"}}},
		{[]pair{emitted}, pair{in{Op: "outgoing"}, out{Text: "m,n,"}}, []out{{}, {Text: "m,"}, {Text: "n,m,"}, {Text: "m,n,n,"}}},
		{
			[]pair{emitted}, pair{in{Op: "relay"}, out{Found: map[string]string{"group 0": "m,"}}},
			[]out{{Found: map[string]string{"group 0": "n,"}}, {Found: map[string]string{"group 0": "m,m,"}}, {Found: map[string]string{"group 1": "m,"}}},
		},
		{[]pair{emitted, {in{Op: "relay"}, out{Found: map[string]string{"group 0": "m,"}}}}, pair{in{Op: "outgoing"}, out{Text: "n,"}}, []out{{}, {Text: "m,n,"}}},
		{
			[]pair{put, ran, advanced, third, emitted}, pair{in{Op: "survey"}, out{Text: ";a;;;mark 3;done a of ;absent of ;source 3 true, in doubt;source 0 false, in doubt;m,n,"}},
			[]out{
				{}, {Text: ";a;;;mark 3;done a of ;absent of ;source 3 true, in doubt;source 0 false, in doubt;m,"},
				{Text: ";a;;;mark 3;done a of ;absent of ;source 3 true, in doubt 0#3;source 0 false, in doubt;m,n,"},
			},
		},
		{
			[]pair{third, ninth, {in{Op: "do seq", Seq: 8, Intent: true, Fails: unknown}, out{Ran: true, Err: "in doubt"}}},
			pair{in{Op: "survey"}, out{Text: ";;;;mark 0;absent of ;absent of ;source 9 true -5 -6 -7 -8, in doubt 0#8;source 0 false, in doubt;"}},
			[]out{{Text: ";;;;mark 0;absent of ;absent of ;source 9 true -5 -6 -7, in doubt 0#8;source 0 false, in doubt;"}},
		},
		// Killed. It has happened or not, and all of it, and it is decided before the next process serves.
		{[]pair{{in{Op: "put", Value: "a"}, out{killed: true}}}, pair{in{Op: "get"}, out{OK: true, Value: "a"}}, []out{{OK: true, Value: "b"}}},
		{[]pair{{in{Op: "put", Value: "a"}, out{killed: true}}, {in{Op: "get"}, out{}}}, pair{in{Op: "get"}, out{}}, []out{{OK: true, Value: "a"}}},
		{
			[]pair{{in{Op: "update", Steps: []in{{Op: "set", Value: "s"}, {Op: "put", Value: "a"}}}, out{killed: true}}}, pair{in{Op: "view"}, out{Text: "s;a;;;"}},
			[]out{{Text: "s;;;;"}, {Text: ";a;;;"}},
		},
		{
			[]pair{{in{Op: "do tx", Value: "a", Steps: changes}, out{killed: true}}, {in{Op: "lookup"}, out{Value: "done a"}}}, pair{in{Op: "view"}, out{Text: "s;;;;"}},
			[]out{{Text: ";;;;"}},
		},
		{[]pair{{in{Op: "do", Value: "a", Intent: true}, out{killed: true}}}, pair{in{Op: "lookup"}, out{Value: "in doubt"}}, []out{{Value: "in flight"}, {Value: "failed a"}}},
		{[]pair{{in{Op: "do", Value: "a"}, out{killed: true}}}, pair{in{Op: "lookup"}, out{Value: "absent"}}, []out{{Value: "in doubt"}}},
		{[]pair{{in{Op: "do seq", Value: "a", Seq: 3}, out{killed: true}}}, pair{in{Op: "do seq", Seq: 3}, out{Value: "a"}}, []out{{}, {Err: "result gone"}}},
		{[]pair{emitted, {in{Op: "relay"}, out{killed: true}}}, pair{in{Op: "outgoing"}, out{Text: "n,"}}, []out{{Text: "m,"}}},
	} {
		told[c.call.in.Op] = true
		right := oneByOne(append(c.before, c.call)...)
		require.True(t, accepted(right), "%+v", c)
		for _, wrong := range c.wrong {
			right[len(right)-1].Output = wrong
			require.False(t, accepted(right), "%+v → %+v", c, wrong)
		}
	}
	for _, k := range kinds {
		require.True(t, told[k.op], k.op)
	}
}

// Calls that meet may come in either order, and some answers are right only then.
func TestCallsThatMeet(t *testing.T) {
	meeting := func(a, b pair) []porcupine.Operation {
		return []porcupine.Operation{
			{ClientId: 0, Input: a.in, Call: 0, Output: a.out, Return: 9}, {ClientId: 1, Input: b.in, Call: 1, Output: b.out, Return: 3},
		}
	}
	second := in{Op: "do", Value: "b"}
	require.True(t, accepted(meeting(ran, pair{second, out{Value: "a"}})))
	require.True(t, accepted(meeting(ran, pair{second, out{Err: "in flight"}})))
	require.True(t, accepted(meeting(pair{ran.in, out{Value: "b"}}, pair{second, out{Ran: true, Value: "b"}})))
	require.False(t, accepted(meeting(ran, pair{second, out{Ran: true, Value: "b"}})), "fn ran twice")
	require.False(t, accepted(meeting(pair{ran.in, out{Value: "b"}}, pair{second, out{Value: "a"}})), "nobody ran")
	// One that left nothing behind when it was killed was in the way all the same.
	require.True(t, accepted(meeting(pair{in{Op: "do", Fails: fails}, out{killed: true}}, pair{in{Op: "settle"}, out{Err: "in flight"}})))
	get := in{Op: "get"}
	require.True(t, accepted(meeting(put, pair{get, out{}})))
	require.True(t, accepted(meeting(put, pair{get, out{OK: true, Value: "a"}})))
	two := append(meeting(put, pair{get, out{OK: true, Value: "a"}}), porcupine.Operation{ClientId: 1, Input: get, Call: 5, Output: out{}, Return: 7})
	require.False(t, accepted(two), "seen, and gone later")
}
