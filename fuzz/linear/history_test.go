package linear

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// recorder is the parent of the children that make one history.
type recorder struct {
	t    *testing.T
	rng  *rand.Rand
	dir  string
	time int64 // of the last line

	ops     []porcupine.Operation
	calls   int // of clients
	returns int // calls that returned
	kills   int
	lives   int
}

// record makes a history of at least so many operations, in so many lives or more, of which most end by SIGKILL.
func record(t *testing.T, dir string, seed uint64, operations, lives int) *recorder {
	r := &recorder{t: t, rng: rand.New(rand.NewPCG(seed, 0)), dir: dir}
	calls := (operations + lives*clients - 1) / (lives * clients)
	for life := 0; life < lives || r.calls < operations; life++ {
		r.live(job{dir, r.rng.Uint64(), life, calls, groupsOf(operations)}, life < lives-1 && r.rng.IntN(4) > 0)
	}
	return r
}

// live lets a child live, and kills it in the middle if told so.
func (r *recorder) live(j job, kill bool) {
	self, err := os.Executable()
	require.NoError(r.t, err)
	cmd := exec.Command(self)
	// With more threads than processors a call is interrupted anywhere, and others come in between.
	cmd.Env = append(os.Environ(), childEnv+"="+mustJSON(j), fmt.Sprint("GOMAXPROCS=", clients))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, cmd.Start())
	left := -1 // lines until it is killed
	if kill {
		left = 1 + 2*j.Groups + r.rng.IntN(2*clients*j.Calls) // not while it only reads
	}
	r.lives++
	open := map[int]int{} // by client, its operation
	lines, bad := bufio.NewReader(pipe), ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what it was writing when it was killed was not written
		}
		if what := r.line(line, open); what != "" {
			bad = what
		}
		if left--; left == 0 {
			require.NoError(r.t, cmd.Process.Kill())
			r.kills++
		}
	}
	err = cmd.Wait()
	require.Empty(r.t, bad)
	if left > 0 || !kill {
		require.NoError(r.t, err)
	}
	r.time++
	for _, at := range open {
		r.ops[at].Output, r.ops[at].Return = out{killed: true}, r.time
	}
}

// line takes one line of a child's, and returns what failed.
func (r *recorder) line(line string, open map[int]int) (bad string) {
	r.time++
	var what string
	var client int
	_, err := fmt.Sscan(line, &what, &client)
	require.NoError(r.t, err, line)
	text := []byte(strings.SplitN(line, " ", 3)[2])
	switch what {
	case "call":
		var i in
		require.NoError(r.t, json.Unmarshal(text, &i), line)
		open[client] = len(r.ops)
		if client < clients {
			r.calls++
		}
		r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: i, Call: r.time})
	case "return":
		var o out
		require.NoError(r.t, json.Unmarshal(text, &o), line)
		op := &r.ops[open[client]]
		delete(open, client)
		op.Output, op.Return = o, r.time
		r.returns++
	default:
		return line
	}
	return ""
}

// expand makes of each operation what happens at one moment and in one group.
func expand(history []porcupine.Operation) (kept []porcupine.Operation) {
	groups := hot
	for _, op := range history {
		groups = max(groups, op.Input.(in).Group+1)
	}
	ops := make([][]porcupine.Operation, groups)
	for _, op := range history {
		i, o := op.Input.(in), op.Output.(out)
		add := func(i in, o out) {
			op.Input, op.Output = i, o
			ops[i.Group] = append(ops[i.Group], op)
		}
		switch i.Op {
		case "do all": // each call for itself: those whose fn ran are recorded together, others are answered before that
			for k, c := range i.Calls {
				if o.killed {
					call(c, o, add)
				} else if k < len(o.Outs) {
					call(c, o.Outs[k], add)
				}
			}
		case "relay": // each message for itself
			for g := range groups {
				if o.killed {
					add(in{Op: "sent in the end", Group: g}, o)
					continue
				}
				for m := range strings.SplitSeq(o.Found[topic(in{Group: g})], ",") {
					if m != "" {
						add(in{Op: "sent", Group: g, Value: m}, out{})
					}
				}
			}
		case "records", "doubts": // each key for itself
			for g := range groups {
				for k := range each {
					one := in{Op: i.Op, Group: g, Key: k}
					v, found := o.Found[name(one)]
					if !o.killed {
						add(one, out{Value: v, OK: found})
					}
				}
			}
		default:
			call(i, o, add)
		}
	}
	for _, group := range ops {
		kept = append(kept, meet(group)...)
	}
	return kept
}

// call takes a call apart that happens at several moments. A number is found to be new, and then it is recorded; what a
// transaction saw that was undone is not of the moment at which a failure or a doubt is recorded.
func call(i in, o out, add func(in, out)) {
	if o.Ran && len(i.Steps) > 0 && (i.Fails == permanent || i.Fails == unknown) {
		add(in{Op: "update", Group: i.Group, Steps: i.Steps, Fails: fails}, out{Text: o.Text, Err: fails})
		o.Text = ""
	}
	if !i.seq() || !o.Ran && !o.killed {
		add(i, o)
		return
	}
	begin, complete := i, i
	begin.Op, complete.Op = "begin", "complete"
	if o.killed {
		add(begin, o)
	} else {
		add(begin, out{})
	}
	add(complete, o)
}

// meet finds out which operations of a group others ran beside, and drops what can't be said of those that promise something only
// when nothing did.
func meet(ops []porcupine.Operation) (kept []porcupine.Operation) {
	for at, op := range ops {
		i := op.Input.(in)
		mine := i.about()
		for other, b := range ops {
			j := b.Input.(in)
			if other != at && b.Call < op.Return && op.Call < b.Return && mine != "" && j.does(mine) {
				i.met = true
				break
			}
		}
		switch {
		case op.Output.(out).killed && !i.changes():
			continue // it only makes the search wider
		case i.Op == "records" && !i.met:
			i.Op = "get"
		case i.Op == "doubts" && !i.met:
			if i.Op = "lookup"; op.Output.(out).OK {
				op.Output = out{Value: "in doubt"}
				break
			}
			continue // what else it is, Doubts does not say
		case i.Op == "outgoing" && !i.met:
		case i.Op == "records", i.Op == "doubts", i.Op == "outgoing":
			continue
		}
		op.Input = i
		kept = append(kept, op)
	}
	return kept
}

// changes reports whether a call may leave something behind.
func (i in) changes() bool {
	switch i.Op {
	case "get", "append get", "has", "high water", "view", "lookup", "source high water", "outgoing":
		return false
	case "begin":
		return i.Strict
	case "update":
		return i.Fails == ""
	case "settle", "forget", "put", "delete":
		return true
	}
	return i.Fails != fails || i.Intent
}

// about is what others may be doing something about.
func (i in) about() string {
	switch i.Op {
	case "do", "do tx", "lookup", "forget", "settle", "doubts":
		return fmt.Sprint("key ", i.Key)
	case "do seq", "do seq tx":
		return fmt.Sprint("number ", i.numbered())
	case "records":
		return "records"
	case "outgoing":
		return "box"
	}
	return ""
}

// does reports whether a call changes, or holds, what another is about.
func (i in) does(what string) bool {
	switch i.Op {
	case "do", "do tx", "forget", "settle":
		if what == fmt.Sprint("key ", i.Key) {
			return true
		}
	case "do seq", "do seq tx", "begin", "complete":
		if what == fmt.Sprint("number ", i.numbered()) {
			return true
		}
	case "put", "delete":
		return what == "records"
	case "sent", "sent in the end":
		return what == "box"
	}
	return len(i.Steps) > 0 && (what == "box" || what == "records")
}
