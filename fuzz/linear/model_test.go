package linear

import (
	"fmt"
	"maps"
	"strings"

	"github.com/anishathalye/porcupine"
)

// state is all that a group holds.
type state struct {
	flat
	numbers map[numbered]cell // results of numbers of the sources
}

// flat can be compared with ==. "" is what is not there: no value is empty but that of a number.
type flat struct {
	records, values [each]string
	mark            uint64 // 0 = none
	keys            [each]cell
	sources         [2]mark // handled in a window, and strictly in order
	box             string  // messages that wait, a comma behind each
}

type numbered struct {
	strict bool
	number
}

// cell is what is recorded under a key of the receiver's.
type cell struct {
	kind           kind
	value, payload string // of a failure its code
}

type kind byte

const (
	absent kind = iota
	done
	failed
	doubt
)

// alternative is what may come of a call in a state.
type alternative struct {
	out   out
	state state
}

// killed is an answer that nobody gets: what is left when the process dies in the middle.
const killed = "killed"

var model = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		var parts [][]porcupine.Operation
		for _, op := range history {
			g := op.Input.(in).Group
			for len(parts) <= g {
				parts = append(parts, nil)
			}
			parts[g] = append(parts[g], op)
		}
		return parts
	},
	Init: func() []any { return []any{state{}} },
	Step: func(st, input, output any) (next []any) {
		s, i, o := st.(state), input.(in), output.(out)
		if o.killed {
			next = append(next, s)
		}
		for _, a := range s.alternatives(i) {
			if o.killed || a.out.same(o) {
				next = append(next, a.state)
			}
		}
		return next
	},
	Equal: func(a, b any) bool {
		x, y := a.(state), b.(state)
		return x.flat == y.flat && maps.Equal(x.numbers, y.numbers)
	},
	DescribeOperation: func(input, output any) string {
		if output.(out).killed {
			return mustJSON(input) + " → killed"
		}
		return mustJSON(input) + " → " + mustJSON(output)
	},
	DescribeState: func(st any) string { return fmt.Sprintf("%+v", st) },
}).ToModel()

func (o *out) same(p out) bool {
	return o.Ran == p.Ran && o.OK == p.OK && o.Value == p.Value && o.Number == p.Number && o.Text == p.Text && o.Err == p.Err
}

// alternatives are all that a call can come to: what it returns and leaves.
func (s state) alternatives(i in) []alternative {
	one := func(o out, s state) []alternative { return []alternative{{o, s}} }
	record := s.records[i.Key]
	switch i.Op {
	case "put":
		if record != "" {
			return one(out{Value: record}, s)
		}
		s.records[i.Key] = i.Value
		return one(out{OK: true}, s)
	case "get", "append get":
		return one(out{Value: record, OK: record != ""}, s)
	case "has":
		return one(out{OK: record != ""}, s)
	case "delete":
		s.records[i.Key] = ""
		return one(out{OK: record != ""}, s)
	case "advance":
		if i.Seq <= s.mark {
			return one(out{}, s)
		}
		s.mark = i.Seq
		return one(out{OK: true}, s)
	case "high water":
		return one(out{Number: s.mark, OK: s.mark > 0}, s)
	case "forget source":
		s.mark = 0
		return one(out{}, s)
	case "update":
		after, text := s.steps(i.Steps)
		if i.Fails != "" {
			return one(out{Text: text, Err: fails}, s)
		}
		return one(out{Text: text}, after)
	case "view":
		text := ""
		for k := range each {
			text += s.values[k] + ";" + s.records[k] + ";"
		}
		return one(out{Text: text}, s)
	case "survey":
		return one(out{Text: s.survey()}, s)
	case "do", "do tx", "do seq", "do seq tx":
		return s.run(i)
	case "begin":
		if after, ok := s.begin(i); ok {
			return one(out{}, after)
		}
	case "complete":
		return s.complete(i)
	case "lookup", "forget", "settle":
		return s.byHand(i)
	case "source high water":
		m := s.sources[at(i.Strict)]
		return one(out{Number: m.seq(), OK: m.there && !m.awaits}, s)
	case "forget receiver source":
		s.sources[at(i.Strict)] = mark{}
		return one(out{}, s)
	case "outgoing":
		return one(out{Text: s.box}, s)
	case "sent":
		first, rest, ok := strings.Cut(s.box, ",")
		if ok && first == i.Value {
			s.box = rest
			return one(out{}, s)
		}
	case "sent in the end": // by a relay that was killed: some of them, or all
		var all []alternative
		for s.box != "" {
			_, s.box, _ = strings.Cut(s.box, ",")
			all = append(all, alternative{out{}, s})
		}
		return all
	}
	return nil
}

// survey tells all of what the state is that can be read without changing it. That is nearly all: not whether the result
// of a number is kept, nor which epoch a source is in.
func (s state) survey() (text string) {
	for k := range each {
		text += s.values[k] + ";" + s.records[k] + ";"
	}
	text += fmt.Sprint("mark ", s.mark, ";")
	for k := range each {
		text += s.keys[k].status() + " of " + s.keys[k].payload + ";"
	}
	for n, m := range s.sources {
		text += fmt.Sprint("source ", m.seq(), " ", m.there && !m.awaits)
		for _, gap := range m.gaps(n == 1) {
			text += fmt.Sprint(" -", gap)
		}
		var doubts []numbered
		for number, c := range s.numbers {
			if c.kind == doubt && at(number.strict) == n {
				doubts = append(doubts, number)
			}
		}
		text += doubtful(doubts)
	}
	return text + s.box
}

func (c cell) status() string {
	return [...]string{"absent", "done " + c.value, "failed " + c.value, "in doubt"}[c.kind]
}

func at(strict bool) int {
	if strict {
		return 1
	}
	return 0
}

// steps are those of a transaction, and what it sees.
func (s state) steps(steps []in) (after state, text string) {
	for _, i := range steps {
		switch i.Op {
		case "set":
			s.values[i.Key] = i.Value
		case "unset":
			s.values[i.Key] = ""
		case "state":
			text += s.values[i.Key] + ";"
		case "put":
			if s.records[i.Key] != "" {
				text += "exists;"
				continue
			}
			s.records[i.Key] = i.Value
		case "delete":
			text += fmt.Sprint(s.records[i.Key] != "", ";")
			s.records[i.Key] = ""
		case "record":
			text += s.records[i.Key] + ";"
		case "advance":
			text += fmt.Sprint(i.Seq > s.mark, ";")
			s.mark = max(s.mark, i.Seq)
		case "emit":
			s.box += i.Value + ","
		}
	}
	return s, text
}

func (i in) seq() bool {
	return i.Op == "do seq" || i.Op == "do seq tx" || i.Seq > 0 && i.Op == "complete"
}

func (i in) numbered() numbered { return numbered{i.Strict, number{i.Epoch, i.Seq}} }

func (s *state) cell(i in) cell {
	if i.seq() {
		return s.numbers[i.numbered()]
	}
	return s.keys[i.Key]
}

func (s *state) setCell(i in, c cell) {
	if !i.seq() {
		s.keys[i.Key] = c
		return
	}
	s.numbers = maps.Clone(s.numbers)
	if c.kind == absent {
		delete(s.numbers, i.numbered())
		return
	}
	if s.numbers == nil {
		s.numbers = map[numbered]cell{}
	}
	s.numbers[i.numbered()] = c
}

// run is a call that runs fn or not. Those of numbers that run it are begin and complete.
func (s state) run(i in) (all []alternative) {
	add := func(o out) { all = append(all, alternative{o, s}) }
	if i.met {
		add(out{Err: "in flight"})
		if i.Payload != "" {
			add(out{Err: "reused"}) // the one in flight may have another
		}
	}
	c := s.cell(i)
	switch {
	case c.kind != absent && c.payload != "" && i.Payload != "" && c.payload != i.Payload:
		add(out{Err: "reused"})
	case c.kind == done:
		add(out{Value: c.value})
	case c.kind == failed:
		add(out{Err: permanent, Value: c.value})
	case c.kind == doubt && !i.Retry:
		add(out{Err: "in doubt"})
	case !i.seq():
		all = append(all, s.complete(i)...)
	case c.kind == absent:
		if o, ok := s.sources[at(i.Strict)].judge(i); ok {
			add(o)
		}
	}
	return all
}

// begin is the moment at which a number is found to be new. A source that is handled in order begins with it.
func (s state) begin(i in) (after state, ok bool) {
	i.Op = "do seq"
	switch c := s.cell(i); {
	case c.kind == doubt:
		return s, i.Retry
	case c.kind != absent:
		return s, false
	}
	m := &s.sources[at(i.Strict)]
	if _, known := m.judge(i); known {
		return s, false
	}
	if i.Strict && (!m.there || m.epoch < i.Epoch) {
		*m = mark{there: true, awaits: true, number: i.Seq, epoch: i.Epoch}
	}
	return s, true
}

// complete is the moment at which what fn came to is recorded, and its transaction happens.
func (s state) complete(i in) (all []alternative) {
	c := s.cell(i)
	m := &s.sources[at(i.Strict)]
	if c.kind == done || c.kind == failed || i.seq() && m.has(i) {
		return nil
	}
	with := func(o out, c cell) {
		o.Ran = true
		after := s
		after.setCell(i, c)
		all = append(all, alternative{o, after})
	}
	changed, text := s.steps(i.Steps)
	switch i.Fails {
	case "":
		before := s
		s = changed
		r := cell{done, i.Value, i.Payload}
		if i.seq() && !s.sources[at(i.Strict)].handle(i, i.Value != "") {
			r = cell{} // the mark alone tells of it
		}
		with(out{Value: i.Value, Text: text}, r)
		s = before
	case fails:
		with(out{Err: fails, Text: text}, c)
	case permanent:
		before := s
		r := cell{failed, i.Value, i.Payload}
		if i.seq() {
			s.sources[at(i.Strict)].handle(i, true)
		}
		with(out{Err: permanent, Value: i.Value}, r)
		s = before
	case unknown:
		if c.kind == absent {
			c = cell{doubt, "", i.Payload}
		}
		with(out{Err: "in doubt"}, c)
	}
	if i.Intent && c.kind == absent {
		with(out{Err: killed}, cell{doubt, "", i.Payload})
	}
	return all
}

// byHand is what people do about a key.
func (s state) byHand(i in) (all []alternative) {
	add := func(o out) { all = append(all, alternative{o, s}) }
	c := s.keys[i.Key]
	if i.met {
		if i.Op == "lookup" {
			add(out{Value: "in flight"})
		} else {
			add(out{Err: "in flight"})
		}
	}
	switch {
	case i.Op == "lookup":
		add(out{Value: c.status()})
	case i.Op == "forget":
		s.keys[i.Key] = cell{}
		add(out{})
	case c.kind != doubt:
		add(out{Err: "not in doubt"})
	default:
		s.keys[i.Key] = map[string]cell{"": {kind: done, value: i.Value}, permanent: {kind: failed, value: i.Value}}[i.Fails]
		add(out{})
	}
	return all
}
