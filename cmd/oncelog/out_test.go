package main

import (
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

	"github.com/oncelog/oncelog"
)

// onFile runs dedup --column 2 on FILE within this process.
func onFile(t testing.TB, dir, file, in string) result {
	t.Helper()
	r := oncelogRun(in, "dedup", "--dir", dir, "--column", "2", "--out", file)
	require.Empty(t, r.out)
	return r
}

// batches makes some batches of lines, keys twice and none at all among them, and
// no newline at the end.
func batches(n int, of string) string {
	var b strings.Builder
	for i := range n * batchLines {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "%s without a key %d\n", of, i)
		case 1:
			fmt.Fprintf(&b, "x\t%s %d\n", of, i)
		default:
			fmt.Fprintf(&b, "%d\t%d\n", i, i%1000)
		}
	}
	return b.String() + of
}

// TestPromise11KilledAtEveryStep kills a run after each of its effects on the disk, and of
// the restarts two in three again after an early effect.
func TestPromise11KilledAtEveryStep(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGKILL")
	}
	a, b := batches(2, "a"), batches(2, "b")
	noKeys := strings.Repeat("no key\n", batchLines+1)
	for _, c := range []struct {
		name   string
		before string // an earlier run's input
		in     string
		kills  int // that there are at least; an input that pauses makes more
	}{
		{"first run", "", a, 7},
		{"next run", a, b, 6},
		{"same run again", a, a, 6},
		{"next run that begins the same", a, a[:len(a)/2] + b, 6},
		{"no keys at all", noKeys, noKeys + noKeys, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			// It waits for syncs. Every run is a process: a store that is open here
			// while another test starts a process would seem locked a moment longer.
			t.Parallel()
			m := newModel()
			m.append(c.before)
			wantBefore := m.file
			m.append(c.in)
			kills := 0
			for ; ; kills++ {
				again := kills % 3
				dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
				// try runs the command and kills it after effect n, 0 = never.
				try := func(in string, n int) (killed bool) {
					cmd := process(t, "dedup", "--dir", dir, "--column", "2", "--out", file)
					cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", envKill, n))
					cmd.Stdin = strings.NewReader(in)
					var errs strings.Builder
					cmd.Stderr = &errs
					err := cmd.Run()
					if err != nil && err.Error() == "signal: killed" {
						return true
					}
					require.ErrorContains(t, err, "exit status 1")
					require.Contains(t, errs.String(), "lines had no key")
					return false
				}
				if c.before != "" {
					require.False(t, try(c.before, 0))
					require.True(t, wantBefore == read(t, file))
				}
				all := !try(c.in, kills+1)
				if again > 0 && !all {
					try(c.in, again)
				}
				require.False(t, try(c.in, 0))
				require.True(t, m.file == read(t, file), "killed after effect %d, then %d: FILE differs", kills+1, again)
				if all {
					break
				}
			}
			require.GreaterOrEqual(t, kills, c.kills)
		})
	}
}

func TestFileIsAppendedTo(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	for _, c := range []struct{ in, want string }{
		{"1\ta\nnone\n2\tb", "1\ta\nnone\n2\tb"},
		{"1\ta\nnone\n2\tb", "1\ta\nnone\n2\tb"},             // that run again
		{"3\ta", "1\ta\nnone\n2\tb"},                         // duplicates alone
		{"none\n", "1\ta\nnone\n2\tb\nnone\n"},               // two lines don't become one
		{"none\n", "1\ta\nnone\n2\tb\nnone\n"},               // that run again
		{"none", "1\ta\nnone\n2\tb\nnone\nnone"},             // its line is another one
		{"", "1\ta\nnone\n2\tb\nnone\nnone"},                 // nothing
		{"none", "1\ta\nnone\n2\tb\nnone\nnone\nnone"},       // no longer that run again
		{"nope", "1\ta\nnone\n2\tb\nnone\nnone\nnone\nnope"}, // as long, but another
		{"4\tc\n", "1\ta\nnone\n2\tb\nnone\nnone\nnone\nnope\n4\tc\n"},
	} {
		onFile(t, dir, file, c.in)
		require.Equal(t, c.want, read(t, file))
	}
	link := file + "-link"
	require.NoError(t, os.Symlink(file, link))
	onFile(t, dir, link, "5\td\n")
	require.True(t, strings.HasSuffix(read(t, file), "\n4\tc\n5\td\n"), "a link is the file that it names")
}

func TestCopyPutBackIsAsGood(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	onFile(t, dir, file, "1\ta\n")
	b := read(t, file)
	require.NoError(t, os.Remove(file))
	write(t, file, b)
	onFile(t, dir, file, "2\tb\n")
	require.Equal(t, "1\ta\n2\tb\n", read(t, file))
}

func TestEmptyInputMakesAnEmptyFile(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	done(t, "", "dedup", "--dir", dir, "--out", file)
	require.Empty(t, read(t, file))
	require.NoError(t, os.Remove(file))
	done(t, "a\n", "dedup", "--dir", dir, "--out", file)
	require.Equal(t, "a\n", read(t, file))
}

func TestTwoFilesShareTheKeys(t *testing.T) {
	tmp := t.TempDir()
	done(t, "a\nb\n", "dedup", "--dir", tmp+"/d", "--out", tmp+"/1")
	done(t, "b\nc\n", "dedup", "--dir", tmp+"/d", "--out", tmp+"/2")
	done(t, "c\nd\n", "dedup", "--dir", tmp+"/d", "--out", tmp+"/1")
	require.Equal(t, "a\nb\nd\n", read(t, tmp+"/1"))
	require.Equal(t, "c\n", read(t, tmp+"/2"))
}

func TestPathLongerThanAKey(t *testing.T) {
	tmp := t.TempDir()
	long := filepath.Join(append([]string{tmp}, strings.Split(strings.Repeat(strings.Repeat("x", 200)+"/", 6), "/")...)...)
	require.NoError(t, os.MkdirAll(long, 0o700))
	for _, name := range []string{"1", "2"} {
		done(t, name+"\n", "dedup", "--dir", tmp+"/d", "--out", filepath.Join(long, name))
		require.Equal(t, name+"\n", read(t, filepath.Join(long, name)))
	}
}

func TestRecordOfFile(t *testing.T) {
	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	onFile(t, dir, file, "1\ta\n2\ta\nnone")
	real, err := filepath.EvalSymlinks(file)
	require.NoError(t, err)
	key := []byte("dedup/out/" + real)
	change := func(with string) (was string) {
		st, err := oncelog.Open(dir, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, st.Close()) }()
		require.NoError(t, st.Update(func(tx *oncelog.Tx) error {
			v, _, err := tx.Get(key)
			was = string(v)
			if with == "" || err != nil {
				return err
			}
			return tx.Set(key, []byte(with))
		}))
		return was
	}
	was := change("")
	var rec outRecord
	require.NoError(t, json.Unmarshal([]byte(was), &rec))
	require.Equal(t, finished, rec.Phase)
	require.EqualValues(t, len("1\ta\nnone"), rec.Length)
	require.Equal(t, `--column 2 --delimiter "\t"`, rec.Run.Keys)
	require.EqualValues(t, len("1\ta\n2\ta\nnone"), rec.Run.Bytes)
	require.Equal(t, counts{Lines: 3, Passed: 2, NoKey: 1}, rec.Run.Counts)

	change(strings.Replace(was, `"v":1`, `"v":2`, 1))
	failsWith(t, onFile(t, dir, file, "3\tb\n"), exitFailed, "version 2", "use the newer oncelog")
	change("{")
	failsWith(t, onFile(t, dir, file, "3\tb\n"), exitFailed, "can't be read", "use another --dir")
	require.Equal(t, "1\ta\nnone", read(t, file))
}

// typed runs dedup on FILE with lines that come one after the other, each when the
// one before is in FILE; between two of them it calls do.
func typed(t *testing.T, dir, file string, first string, do func(), second string) result {
	t.Helper()
	r, w := io.Pipe()
	ended := make(chan result, 1)
	go func() { ended <- oncelogIn(r, "dedup", "--dir", dir, "--out", file) }()
	_, err := io.WriteString(w, first)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.HasSuffix(string(b), first)
	}, 10*time.Second, time.Millisecond)
	do()
	go func() {
		io.WriteString(w, second)
		w.Close()
	}()
	res := <-ended
	r.Close() // frees the writer
	return res
}

func TestFileTouchedDuringTheRun(t *testing.T) {
	for _, c := range []struct {
		name, want string
		touch      func(t *testing.T, file string)
	}{
		{"written to", "somebody else writes to it; put things right", func(t *testing.T, file string) {
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			_, err = f.WriteString("someone else's\n")
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}},
		{"removed", "taken away during the run; put things right", func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) }},
		{"replaced", "replaced by another file during the run; put things right", func(t *testing.T, file string) {
			write(t, file+".new", "a\n")
			require.NoError(t, os.Rename(file+".new", file))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
			failsWith(t, typed(t, dir, file, "a\n", func() { c.touch(t, file) }, "b\n"), exitFailed, c.want)
			// Put right, the same input goes on.
			require.NoError(t, os.RemoveAll(file))
			write(t, file, "a\n")
			done(t, "a\nb\n", "dedup", "--dir", dir, "--out", file)
			require.Equal(t, "a\nb\n", read(t, file))
		})
	}
}

// Lines that may only be the last run's again don't stay in FILE when the run is
// stopped before that is known.
func TestStoppedInDoubt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGTERM")
	}
	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	onFile(t, dir, file, "none\n1\ta\n")
	cmd := process(t, "dedup", "--dir", dir, "--column", "2", "--out", file)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.WriteString(in, "none\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return read(t, file) == "none\n1\ta\nnone\n" }, 10*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	require.Equal(t, exitFailed, cmd.ProcessState.ExitCode())
	require.Equal(t, "none\n1\ta\n", read(t, file))
	onFile(t, dir, file, "none\n1\ta\n")
	require.Equal(t, "none\n1\ta\n", read(t, file))
	onFile(t, dir, file, "none\n1\tb\n")
	require.Equal(t, "none\n1\ta\nnone\n1\tb\n", read(t, file))
}

// A stopped run goes on where it was, lines without a key included.
func TestStoppedThenGoesOn(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGTERM")
	}
	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	full := batches(2, "x")
	cmd := process(t, "dedup", "--dir", dir, "--column", "2", "--out", file)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.WriteString(in, full[:len(full)/2])
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		fi, err := os.Stat(file)
		return err == nil && fi.Size() > 0
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	require.Equal(t, exitFailed, cmd.ProcessState.ExitCode())
	m := newModel()
	m.append(full)
	require.True(t, strings.HasPrefix(m.file, read(t, file)))
	onFile(t, dir, file, full)
	require.True(t, m.file == read(t, file))
}
