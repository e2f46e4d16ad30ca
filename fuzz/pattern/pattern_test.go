package pattern

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var killsWanted = flag.Int("pattern.kills", 0, "kills; 0 = 40, or 10 with -short")

// sender is the parent: it knows what was said, by all children so far.
type sender struct {
	t   *testing.T
	rnd *rand.Rand
	job job

	effects  map[int]map[string]int // message → key → times
	raw      map[int]int            // effects under an intent
	answered map[int]bool
	handed   map[string]map[uint64]string // topic → ordinal → payload and key
	payloads map[string]string            // topic and payload → ordinal and key

	between int // kills that fell between an effect and its record
	doubts  int
	count   string
}

// process is a child.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	// What this child has done and not answered: effects, changes and raw effects.
	open map[int]bool
	next map[string]uint64 // the ordinal that a topic must go on with
}

func TestPromise13KilledInTheMiddleOfItsMessages(t *testing.T) {
	kills := *killsWanted
	switch {
	case kills > 0:
	case testing.Short():
		kills = 10
	default:
		kills = 40
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &sender{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), effects: map[int]map[string]int{}, raw: map[int]int{}, answered: map[int]bool{},
		handed: map[string]map[uint64]string{}, payloads: map[string]string{},
		job: job{Dir: filepath.Join(t.TempDir(), "store")},
	}
	var unanswered map[int]bool
	// A kill falls between an effect and its record by luck, one in four here: when it was bad there are more kills.
	wanted := kills
	for kills = 0; kills < wanted || kills < 20*wanted && (s.between*10 < kills || s.doubts == 0); kills++ {
		s.job.Messages += 50
		s.job.Seed = s.rnd.Uint64()
		unanswered = s.killed(unanswered)
	}
	s.job.Finish = true
	p := s.start()
	s.welcome(p, unanswered)
	for s.next(p) != "end" {
	}
	require.NoError(t, p.cmd.Wait())
	s.verdict(kills)
}

func (s *sender) start() *process {
	text, err := json.Marshal(s.job)
	require.NoError(s.t, err)
	self, err := os.Executable()
	require.NoError(s.t, err)
	p := &process{cmd: exec.Command(self), open: map[int]bool{}, next: map[string]uint64{}}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(s.t, err)
	p.in, err = p.cmd.StdinPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, p.cmd.Start())
	p.lines = bufio.NewScanner(out)
	return p
}

// killed lets a child live for a while, and returns what it had done and not answered.
func (s *sender) killed(unanswered map[int]bool) map[int]bool {
	p := s.start()
	s.welcome(p, unanswered)
	// Then so many lines, and on to the next that says that something was done.
	for range s.rnd.IntN(400) {
		s.next(p)
	}
	for range 100 {
		if what := s.next(p); what == "effect" || what == "raw" || what == "changing" {
			break
		}
	}
	require.NoError(s.t, p.cmd.Process.Kill())
	for p.lines.Scan() { // what was in the pipe was said
		s.line(p, p.lines.Text())
	}
	_ = p.cmd.Wait()
	return p.open
}

// welcome hears what is in doubt, says what became of it, and finds out whether the kill before fell between an effect
// and its record.
func (s *sender) welcome(p *process, unanswered map[int]bool) {
	var doubts []int
	for {
		require.True(s.t, p.lines.Scan(), "the child ended")
		var m int
		if _, err := fmt.Sscanf(p.lines.Text(), "doubt %d", &m); err != nil {
			require.Equal(s.t, "doubts end", p.lines.Text())
			break
		}
		doubts = append(doubts, m)
	}
	inDoubt := map[int]bool{}
	for _, m := range doubts {
		inDoubt[m] = true
		require.False(s.t, s.answered[m], "message %d was answered, and is in doubt", m)
		require.Equal(s.t, byIntent, m%kinds)
		answer := "not"
		if s.raw[m] > 0 {
			answer = "happened"
		}
		_, err := fmt.Fprintln(p.in, m, answer)
		require.NoError(s.t, err)
	}
	_, err := fmt.Fprintln(p.in, "end")
	require.NoError(s.t, err)
	s.doubts += len(doubts)
	fell := false
	for m := range unanswered {
		fell = fell || inDoubt[m] && s.raw[m] > 0
	}
	if fell {
		s.between++
	} else if len(unanswered) > 0 {
		p.open = map[int]bool{}
		s.suspect(p, unanswered)
	}
}

// suspect counts the kill as between effect and record if one of its effects happens again in this life.
func (s *sender) suspect(p *process, unanswered map[int]bool) {
	before := map[int]int{}
	for m := range unanswered {
		for _, n := range s.effects[m] {
			before[m] += n
		}
	}
	pending = func(m int) {
		if n, ok := before[m]; ok && n > 0 {
			s.between++
			pending = nil
		}
	}
}

// pending is told of each effect until the kill before this life is decided about; nil = it is.
var pending func(m int)

// next hears a line and returns its first word.
func (s *sender) next(p *process) string {
	require.True(s.t, p.lines.Scan(), "the child ended")
	return s.line(p, p.lines.Text())
}

func (s *sender) line(p *process, line string) string {
	what, rest, _ := strings.Cut(line, " ")
	var m int
	switch what {
	case "effect":
		var key string
		_, err := fmt.Sscan(rest, &m, &key)
		require.NoError(s.t, err)
		if s.effects[m] == nil {
			s.effects[m] = map[string]int{}
		}
		s.effects[m][key]++
		require.Len(s.t, s.effects[m], 1, "message %d: another key", m)
		require.False(s.t, s.answered[m], "message %d: its effect again, after it was answered", m)
		if pending != nil {
			pending(m)
		}
		p.open[m] = true
	case "raw":
		_, err := fmt.Sscan(rest, &m)
		require.NoError(s.t, err)
		s.raw[m]++
		require.Equal(s.t, 1, s.raw[m], "message %d: its effect under an intent again", m)
		p.open[m] = true
	case "changing":
		_, err := fmt.Sscan(rest, &m)
		require.NoError(s.t, err)
		require.False(s.t, s.answered[m], "message %d: its transaction runs again, after it was answered", m)
	case "answered":
		_, err := fmt.Sscan(rest, &m)
		require.NoError(s.t, err)
		s.answered[m] = true
		delete(p.open, m)
	case "message":
		var topic, payload, key string
		var ordinal uint64
		_, err := fmt.Sscan(rest, &topic, &ordinal, &payload, &key)
		require.NoError(s.t, err)
		s.message(p, topic, ordinal, payload, key)
	case "count":
		s.count = rest
	case "gap":
		s.t.Errorf("number %s is missing in the end", rest)
	case "end":
	default:
		require.Fail(s.t, "the child says", line)
	}
	return what
}

// message is one that the relay handed on.
func (s *sender) message(p *process, topic string, ordinal uint64, payload, key string) {
	if s.handed[topic] == nil {
		s.handed[topic] = map[uint64]string{}
	}
	all := s.handed[topic]
	if was, ok := all[ordinal]; ok {
		require.Equal(s.t, was, payload+" "+key, "%s %d is another message", topic, ordinal)
	}
	if want, ok := p.next[topic]; ok {
		require.Equal(s.t, want, ordinal, "%s: out of order", topic)
	} else if ordinal > 1 {
		require.Contains(s.t, all, ordinal-1, "%s: a message was passed over", topic)
	}
	p.next[topic] = ordinal + 1
	all[ordinal] = payload + " " + key
	name := topic + " " + payload
	place := fmt.Sprint(ordinal, " ", key)
	if was, ok := s.payloads[name]; ok {
		require.Equal(s.t, was, place, "the message of %s was emitted twice", name)
	}
	s.payloads[name] = place
}

func (s *sender) verdict(kills int) {
	t := s.t
	changes := 0
	for m := range s.job.Messages {
		require.True(t, s.answered[m], "message %d", m)
		switch m % kinds {
		case byTx, bySeqTx:
			changes++
			require.Contains(t, s.payloads, fmt.Sprintf("topic%d %d", m%topics, m), "its message was lost")
		case byIntent:
			require.Equal(t, 1, s.raw[m], "message %d", m)
		default:
			require.Len(t, s.effects[m], 1, "message %d", m)
		}
	}
	require.Equal(t, fmt.Sprint(changes), s.count, "the state counts each message once")
	require.Len(t, s.payloads, changes)
	repeated := 0
	for _, keys := range s.effects {
		for _, n := range keys {
			if n > 1 {
				repeated++
			}
		}
	}
	t.Logf("%d messages, %d kills, %d of them between an effect and its record: %d effects again with their key, %d doubts",
		s.job.Messages, kills, s.between, repeated, s.doubts)
	require.GreaterOrEqual(t, s.between*10, kills, "too few kills between effect and record: nothing was shown")
	require.Positive(t, s.doubts)
}
