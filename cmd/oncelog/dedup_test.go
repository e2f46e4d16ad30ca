package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// model is what a store and a FILE should have become.
type model struct {
	seen map[string]bool
	file string
	last string // the FILE's last input
}

func newModel() *model { return &model{seen: map[string]bool{}} }

// pass says what passes of in, and how many lines had no key. The key is column 2.
func (m *model) pass(in string) (passed string, noKey int) {
	var b strings.Builder
	for line := range strings.Lines(in) {
		cols := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case len(cols) < 2 || cols[1] == "":
			noKey++
		case m.seen[cols[1]]:
			continue
		default:
			m.seen[cols[1]] = true
		}
		b.WriteString(line)
	}
	return b.String(), noKey
}

// append is a run on FILE.
func (m *model) append(in string) (noKey int) {
	passed, noKey := m.pass(in)
	if in == m.last {
		return noKey // that run again
	}
	m.last = in
	if passed != "" && m.file != "" && !strings.HasSuffix(m.file, "\n") {
		m.file += "\n"
	}
	m.file += passed
	return noKey
}

func exitFor(noKey int) int { return min(noKey, exitFailed) }

func TestRunsAgainstAModel(t *testing.T) {
	lines := rapid.SliceOfN(rapid.StringMatching(`[xy]?\t?[abc]{0,2}(\t|\r|\x00|\xff)?`), 0, 8)
	rapid.Check(t, func(rt *rapid.T) {
		tmp, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(rt, err)
		dir, file := filepath.Join(tmp, "d"), filepath.Join(tmp, "out")
		m := newModel()
		for range rapid.IntRange(1, 6).Draw(rt, "runs") {
			in := strings.Join(lines.Draw(rt, "lines"), "\n")
			if rapid.Bool().Draw(rt, "standard output") {
				want, noKey := m.pass(in)
				r := oncelogRun(in, "dedup", "--dir", dir, "--column", "2")
				require.Equal(rt, want, r.out)
				require.Equal(rt, exitFor(noKey), r.code, r.err)
				continue
			}
			if rapid.Bool().Draw(rt, "same or longer") {
				in = m.last + rapid.SampledFrom([]string{"", "\n", "x\n", "\tz\n"}).Draw(rt, "tail")
			}
			noKey := m.append(in)
			r := oncelogRun(in, "dedup", "--dir", dir, "--column", "2", "--out", file)
			require.Equal(rt, exitFor(noKey), r.code, r.err)
			require.Equal(rt, m.file, read(t, file))
		}
	})
}

func TestSampleOfOrders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	in := read(t, "testdata/orders.jsonl")
	seen := map[string]bool{}
	want := ""
	for line := range strings.Lines(in) {
		var o struct{ ID string }
		require.NoError(t, json.Unmarshal([]byte(line), &o))
		require.NotEmpty(t, o.ID)
		if !seen[o.ID] {
			want += line
		}
		seen[o.ID] = true
	}
	require.Equal(t, 40, strings.Count(in, "\n"))
	require.Less(t, len(seen), 30, "a sample has redeliveries")
	require.Equal(t, want, done(t, in, "dedup", "--dir", dir, "--field", "id"))
	require.Empty(t, done(t, in, "dedup", "--dir", dir, "--field", "id"))
	require.NotEmpty(t, done(t, in, "dedup", "--dir", dir+"2", "--field", "customer.no"))
}

func TestLinesWithoutAKeyAreReportedBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	in := strings.Repeat("{\"id\":7}\nno\x1b json\n", 25)
	r := oncelogRun(in, "dedup", "--dir", dir, "--field", "id")
	require.Equal(t, "{\"id\":7}\n"+strings.Repeat("no\x1b json\n", 25), r.out)
	require.Equal(t, exitFailed, r.code)
	var want strings.Builder
	for i := range 10 {
		fmt.Fprintf(&want, "oncelog dedup: line %d: not a JSON object; passed as it is\n", 2*i+2)
	}
	want.WriteString("oncelog dedup: 25 of 50 lines had no key and were passed as they are; the key is --field \"id\": correct the lines or the options\n")
	require.Equal(t, want.String(), r.err)
}

func TestTTL(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	done(t, "month\n", "dedup", "--dir", dir, "--ttl", "30d")
	done(t, "blink\n", "dedup", "--dir", dir, "--ttl", "1ms")
	done(t, "ever\n", "dedup", "--dir", dir)
	lives := map[string]time.Duration{}
	for line := range strings.Lines(done(t, "", "dump", dir, "--json")) {
		var d dumped
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		lives[*d.Key] = 0
		if d.Expires != nil {
			lives[*d.Key] = d.Expires.Sub(d.Committed)
		}
	}
	delete(lives, "=blink") // perhaps gone
	require.Equal(t, map[string]time.Duration{"=month": 30 * 24 * time.Hour, "=ever": 0}, lives)
	require.Eventually(t, func() bool {
		return done(t, "month\nblink\never\n", "dedup", "--dir", dir, "--ttl", "1h") == "blink\n"
	}, 10*time.Second, time.Millisecond)
}

func TestTooLongLineLosesNothing(t *testing.T) {
	tmp := t.TempDir()
	in := strings.Repeat("\tshort\nno key\n", 3000) + "\t" + strings.Repeat("long", 10) + "\nlast"
	for _, c := range []struct {
		name  string
		extra []string
	}{{"stdout", nil}, {"file", []string{"--out", filepath.Join(tmp, "out")}}} {
		args := append([]string{"dedup", "--dir", filepath.Join(tmp, c.name), "--column", "2"}, c.extra...)
		r := oncelogRun(in, append(args, "--max-line", "40")...)
		require.Equal(t, exitFailed, r.code)
		require.Contains(t, r.err, "oncelog dedup: line 6001 is longer than the 40 bytes of --max-line; ")
		require.Contains(t, r.err, "raise --max-line")
		r2 := oncelogRun(in, append(args, "--max-line", "41")...)
		require.Equal(t, exitFailed, r2.code)
		want, _ := newModel().pass(in)
		if c.extra == nil {
			// No progress is kept for a stream: lines without a key come again.
			require.Equal(t, strings.Replace(want, "\tshort\n", "", 1), r2.out)
			require.True(t, strings.HasPrefix(want, r.out))
		} else {
			require.Equal(t, want, read(t, c.extra[1]))
		}
	}
}

func TestBatchOfTheLongestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	var b strings.Builder
	for i := range batchLines + 1 {
		fmt.Fprintf(&b, "%0*d\n", maxKey-1, i)
	}
	require.Equal(t, b.String(), done(t, b.String(), "dedup", "--dir", dir))
	require.Empty(t, done(t, b.String(), "dedup", "--dir", dir))
	require.Contains(t, done(t, "", "stat", dir), fmt.Sprintf("keys          %d\n", batchLines+1))
}

func TestInputAndOutputAreOneFile(t *testing.T) {
	dir, name := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "f")
	write(t, name, "")
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	failsWith(t, oncelogIn(f, "dedup", "--dir", dir, "--out", name), exitFailed, "same file", "write to another one")
	require.NoDirExists(t, dir)
}

// A crash between writing and recording repeats the batch; no crash loses a line.
func TestKilledAtEveryStepToStandardOutput(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGKILL")
	}
	var b strings.Builder
	for i := range 3 * batchLines {
		fmt.Fprintf(&b, "%d\n", i-i%3)
	}
	in := b.String()
	want := done(t, in, "dedup", "--dir", filepath.Join(t.TempDir(), "undisturbed"))
	kills := 0
	for {
		dir := filepath.Join(t.TempDir(), "d")
		cmd := process(t, "dedup", "--dir", dir)
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", envKill, kills+1))
		cmd.Stdin = strings.NewReader(in)
		first, err := cmd.Output()
		if err == nil {
			break
		}
		require.EqualError(t, err, "signal: killed")
		kills++
		second := done(t, in, "dedup", "--dir", dir)
		require.True(t, strings.HasPrefix(want, string(first)))
		require.True(t, strings.HasSuffix(want, second))
		repeated := len(first) + len(second) - len(want)
		require.GreaterOrEqual(t, repeated, 0, "a line was lost")
		if repeated > 0 {
			require.LessOrEqual(t, strings.Count(second[:repeated], "\n"), batchLines)
		}
	}
	require.Equal(t, 6, kills)
}

// A line that is typed comes out before the next one is, and a signal ends the
// run after it.
func TestSignalFinishesTheBatch(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGTERM")
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		dir := filepath.Join(t.TempDir(), "d")
		cmd := process(t, "dedup", "--dir", dir)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		require.NoError(t, cmd.Start())
		r := bufio.NewReader(out)
		for _, line := range []string{"a\n", "b\n"} {
			_, err = io.WriteString(in, line)
			require.NoError(t, err)
			got, err := r.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, line, got)
		}
		require.NoError(t, cmd.Process.Signal(sig))
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Error(t, cmd.Wait())
		failsWith(t, result{cmd.ProcessState.ExitCode(), "", errs.String()}, exitFailed, "stopped", "after line 2", "goes on")
		require.Equal(t, "c\n", done(t, "a\nb\nc\n", "dedup", "--dir", dir), "the batch was recorded")
	}
}
