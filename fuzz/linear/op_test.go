package linear

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
)

// All that an operation touches belongs to one group, so that a history falls apart into as many: keys of raw records,
// of state and of the receiver, a raw mark, a source that is handled in a window and one that is handled strictly in
// order, and a topic.
//
// A longer history has more groups, since looking for an order costs far more than twice as much for twice the calls of
// a group. What is looked for happens where clients meet, so they are nearly all in hot groups at a time, and walk
// through all of them in each life.
const (
	clients = 8
	hot     = 3
	each    = 2 // keys of each kind in a group
	window  = 4
	lastSeq = 60 // numbers are bits of a uint64 in the model
)

// in is one call. Which fields mean something depends on Op.
type in struct {
	Op    string
	Group int    `json:",omitempty"`
	Key   int    `json:",omitempty"`
	Value string `json:",omitempty"` // that a call stores
	Fails string `json:",omitempty"` // how fn ends, or an Update: one of the constants below, "" = well

	Payload string `json:",omitempty"`
	Intent  bool   `json:",omitempty"`
	Retry   bool   `json:",omitempty"` // OnDoubt
	Reject  bool   `json:",omitempty"` // does not wait
	Pause   int    `json:",omitempty"` // of fn, so that others come meanwhile

	Strict bool   `json:",omitempty"`
	Epoch  uint64 `json:",omitempty"`
	Seq    uint64 `json:",omitempty"`

	Steps []in `json:",omitempty"` // of a transaction
	Calls []in `json:",omitempty"` // of a DoAll

	met bool // something else was done about the same thing meanwhile; expand finds out
}

// How fn ends.
const (
	fails     = "fails"
	permanent = "permanent"
	unknown   = "unknown"
)

// out is what a call returned.
type out struct {
	Ran    bool   `json:",omitempty"` // this call's own fn
	OK     bool   `json:",omitempty"`
	Value  string `json:",omitempty"`
	Number uint64 `json:",omitempty"`
	Text   string `json:",omitempty"` // what a transaction saw
	Err    string `json:",omitempty"`

	Found map[string]string `json:",omitempty"` // of an iteration
	Outs  []out             `json:",omitempty"` // of a DoAll; the last one may be an error

	killed bool // nobody knows
}

// number is one of a source.
type number struct{ epoch, seq uint64 }

// A value is known by its name. What is stored is longer, so that segments fill up, and checked whole.
func pack(name string) []byte {
	if name == "" {
		return nil
	}
	h := fnv.New32()
	_, _ = h.Write([]byte(name))
	return []byte(name + "|" + strings.Repeat("v", int(h.Sum32()%300)))
}

func unpack(b []byte) string {
	name, _, _ := strings.Cut(string(b), "|")
	if string(b) != string(pack(name)) {
		return fmt.Sprintf("damaged %q", b)
	}
	return name
}

// kinds are the operations and how often they are drawn.
var kinds = []struct {
	op    string
	often int
}{
	{"put", 8}, {"get", 4}, {"append get", 4}, {"has", 4}, {"delete", 4}, {"records", 2},
	{"advance", 4}, {"high water", 2}, {"forget source", 2},
	{"update", 6}, {"view", 4},
	{"do", 12}, {"do tx", 8}, {"do all", 5}, {"lookup", 5}, {"forget", 6}, {"settle", 5}, {"doubts", 2},
	{"do seq", 10}, {"do seq tx", 5}, {"source high water", 3}, {"forget receiver source", 1},
	{"outgoing", 2}, {"relay", 2},
}

// groupsOf is the number of groups of a history.
func groupsOf(operations int) int { return max(hot, operations/100) }

// place draws the group of the n-th of a client's calls.
func place(rng *rand.Rand, n, calls, groups int) int {
	if rng.IntN(8) == 0 {
		return rng.IntN(groups)
	}
	return n*(groups-hot+1)/calls + rng.IntN(hot)
}

// draw draws a client's n-th call in its process, of a group. next is what a source that is handled in order may be
// waiting for.
func draw(rng *rand.Rand, life, client, n, group int, next func(group int) uint64) in {
	all := 0
	for _, k := range kinds {
		all += k.often
	}
	pick, op := rng.IntN(all), ""
	for _, k := range kinds {
		if pick -= k.often; pick < 0 {
			op = k.op
			break
		}
	}
	i := in{
		Op: op, Group: group, Key: rng.IntN(each), Value: fmt.Sprintf("%d.%d.%d", life, client, n),
		Seq: uint64(n/2 + rng.IntN(8) + 1),
	}
	one := func(in int) bool { return rng.IntN(in) == 0 }
	how := func(i *in, seq bool) {
		i.Fails = []string{"", "", "", "", fails, fails, permanent, unknown}[rng.IntN(8)]
		i.Intent, i.Retry, i.Reject = one(4), one(3), one(5)
		i.Pause = rng.IntN(3)
		if !seq && one(3) {
			i.Payload = payloads[rng.IntN(len(payloads))]
		}
		if seq {
			i.Epoch = uint64(max(0, life-rng.IntN(6)/5))
			if i.Value += ".seq"; one(2) {
				i.Value = "" // which the mark alone remembers
			}
			if i.Strict && !one(4) {
				i.Seq = next(i.Group)
			}
		}
		i.Seq = min(i.Seq, lastSeq)
	}
	steps := func(i *in, ops ...string) {
		for s := range rng.IntN(5) + 1 {
			i.Steps = append(i.Steps, in{
				Op: ops[rng.IntN(len(ops))], Key: rng.IntN(each), Value: fmt.Sprint(i.Value, ".", s), Seq: i.Seq,
			})
		}
	}
	switch op {
	case "update":
		steps(&i, "set", "unset", "state", "put", "delete", "record", "advance", "emit")
		if one(5) {
			i.Fails = fails
		}
	case "do", "do tx":
		how(&i, false)
	case "do seq", "do seq tx":
		i.Strict = one(3)
		how(&i, true)
	case "do all":
		for k := range rng.IntN(4) + 1 {
			c := in{Op: "do", Group: i.Group, Key: rng.IntN(each), Value: fmt.Sprint(i.Value, ".", k), Seq: i.Seq + uint64(rng.IntN(3))}
			if one(2) {
				c.Op = "do seq"
			}
			how(&c, c.Op == "do seq")
			i.Calls = append(i.Calls, c)
		}
	case "settle":
		i.Fails = []string{"", fails, permanent}[rng.IntN(3)]
	}
	if op == "do tx" || op == "do seq tx" {
		steps(&i, "set", "unset", "state", "state", "advance", "emit")
	}
	return i
}
