package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// The test binary is the command, too: a process to kill has to be a process.
const (
	envRun  = "ONCELOG_TEST_RUN"
	envKill = "ONCELOG_TEST_KILL" // at which killpoint it kills itself
)

func TestMain(m *testing.M) {
	if os.Getenv(envRun) == "" {
		os.Exit(m.Run())
	}
	if n, err := strconv.Atoi(os.Getenv(envKill)); err == nil {
		killpoint = func() {
			if n--; n == 0 {
				self, _ := os.FindProcess(os.Getpid())
				_ = self.Kill()
				select {} // nothing more happens until the signal does
			}
		}
	}
	main()
}

// process is the command as a process of its own.
func process(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), envRun+"=1")
	return cmd
}

type result struct {
	code     int
	out, err string
}

// oncelogIn runs the command within this process.
func oncelogIn(in io.Reader, args ...string) result {
	var out, errs bytes.Buffer
	code := run(context.Background(), args, in, &out, &errs)
	return result{code, out.String(), errs.String()}
}

func oncelogRun(in string, args ...string) result { return oncelogIn(strings.NewReader(in), args...) }

// done runs the command and requires that it succeeds.
func done(t testing.TB, in string, args ...string) string {
	t.Helper()
	r := oncelogRun(in, args...)
	require.Equal(t, result{exitDone, r.out, ""}, r)
	return r.out
}

// failsWith requires one line on standard error that has all of what.
func failsWith(t testing.TB, r result, code int, what ...string) {
	t.Helper()
	require.Equal(t, code, r.code, r.err)
	require.Equal(t, 1, strings.Count(r.err, "\n"), r.err)
	require.True(t, strings.HasPrefix(r.err, "oncelog") && strings.HasSuffix(r.err, "\n"), r.err)
	for _, w := range what {
		require.Contains(t, r.err, w)
	}
}

// tree is all that is below dir, by path: a file's mode and content, else the mode.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		all[path] = fi.Mode().String()
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[path] += " " + string(b)
		}
		return nil
	}))
	return all
}

func write(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// interrupted leaves an unfinished run on FILE, one batch of in recorded. Both
// --dir d and FILE don't exist before.
func interrupted(t testing.TB, in string, args ...string) {
	t.Helper()
	cmd := process(t, append([]string{"dedup", "--dir", "d"}, args...)...)
	cmd.Env = append(cmd.Env, envKill+"=4") // after: created, begun, written, running
	cmd.Stdin = strings.NewReader(in)
	require.ErrorContains(t, cmd.Run(), "signal: killed")
	// Recovery writes; after it, what changes the store is the command.
	st, err := oncelog.Open("d", nil)
	require.NoError(t, err)
	require.NoError(t, st.Close())
}

func TestBadInputIsOneUsefulLineAndChangesNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links and SIGKILL")
	}
	full := strings.Repeat("a line without a tab\nx\ty\n", batchLines) // two batches
	for _, c := range []struct {
		name string
		prep func(t *testing.T) // in an empty current directory
		in   string
		args []string
		code int
		want []string
	}{
		{name: "no command", code: 2, want: []string{"no command", "try: oncelog help"}},
		{name: "unknown command", args: []string{"dedupe"}, code: 2, want: []string{`"dedupe"`, "try: oncelog help"}},
		{name: "unknown flag", args: []string{"dedup", "--dir", "d", "--key", "id"}, code: 2, want: []string{"-key", "see --help"}},
		{name: "a newline in a flag", args: []string{"dedup", "--dir", "d", "--k\ney"}, code: 2, want: []string{`k\ney`, "see --help"}},
		{name: "no dir", args: []string{"dedup"}, code: 2, want: []string{"--dir is missing: name the directory"}},
		{name: "field and column", args: []string{"dedup", "--dir", "d", "--field", "id", "--column", "1"}, code: 2, want: []string{"choose one"}},
		{name: "empty field", args: []string{"dedup", "--dir", "d", "--field", ""}, code: 2, want: []string{"name the field"}},
		{name: "empty out", args: []string{"dedup", "--dir", "d", "--out", ""}, code: 2, want: []string{"name the file"}},
		{name: "column without a number", args: []string{"dedup", "--dir", "d", "--column"}, code: 2, want: []string{"-column", "see --help"}},
		{name: "column by name", args: []string{"dedup", "--dir", "d", "--column", "id"}, code: 2, want: []string{"-column", "see --help"}},
		{name: "column 0", args: []string{"dedup", "--dir", "d", "--column", "0"}, code: 2, want: []string{"count from 1"}},
		{name: "delimiter alone", args: []string{"dedup", "--dir", "d", "--delimiter", ","}, code: 2, want: []string{"needs --column"}},
		{name: "delimiter of two", args: []string{"dedup", "--dir", "d", "--column", "1", "--delimiter", ",,"}, code: 2, want: []string{"give one byte"}},
		{name: "delimiter newline", args: []string{"dedup", "--dir", "d", "--column", "1", "--delimiter", "\n"}, code: 2, want: []string{"give one byte"}},
		{name: "bad ttl", args: []string{"dedup", "--dir", "d", "--ttl", "week"}, code: 2, want: []string{`"week"`, "give a duration such as"}},
		{name: "ttl in odd days", args: []string{"dedup", "--dir", "d", "--ttl", "1.5d"}, code: 2, want: []string{"give a duration such as"}},
		{name: "ttl 0", args: []string{"dedup", "--dir", "d", "--ttl", "0s"}, code: 2, want: []string{"has to live"}},
		{name: "negative ttl", args: []string{"dedup", "--dir", "d", "--ttl=-3d"}, code: 2, want: []string{"has to live"}},
		{name: "endless ttl", args: []string{"dedup", "--dir", "d", "--ttl", "106752d"}, code: 2, want: []string{"without --ttl"}},
		{name: "max-line 0", args: []string{"dedup", "--dir", "d", "--max-line", "0"}, code: 2, want: []string{"at least 1"}},
		{name: "input as an argument", args: []string{"dedup", "--dir", "d", "in"}, code: 2, want: []string{`"in"`, "standard input"}},
		{name: "stat of nothing", args: []string{"stat"}, code: 2, want: []string{"Name its directory"}},
		{name: "stat of two", args: []string{"stat", "a", "b"}, code: 2, want: []string{"one directory at a time"}},
		{name: "help of nothing known", args: []string{"help", "me"}, code: 2, want: []string{"try: oncelog help"}},
		{name: "help of two", args: []string{"help", "stat", "dump"}, code: 2, want: []string{"one command at a time"}},
		{name: "version of what", args: []string{"version", "2"}, code: 2, want: []string{"takes none"}},

		{name: "stat of a missing store", args: []string{"stat", "nope"}, code: 1, want: []string{"nope", "check the path"}},
		{name: "verify of a missing store", args: []string{"verify", "nope"}, code: 1, want: []string{"nope", "check the path"}},
		{name: "dump of a missing store", args: []string{"dump", "nope"}, code: 1, want: []string{"nope", "check the path"}},
		{
			name: "stat of an empty directory", args: []string{"stat", "empty"}, code: 1, want: []string{"empty", "check the path"},
			prep: func(t *testing.T) { require.NoError(t, os.Mkdir("empty", 0o700)) },
		},
		{
			name: "stat of a file", args: []string{"stat", "file"}, code: 1, want: []string{"file is a file", "name a directory"},
			prep: func(t *testing.T) { write(t, "file", "x") },
		},
		{
			name: "a store in a file", args: []string{"dedup", "--dir", "file"}, in: "a\n", code: 1, want: []string{"file is a file", "name a directory"},
			prep: func(t *testing.T) { write(t, "file", "x") },
		},
		{
			name: "a store below a file", args: []string{"dedup", "--dir", "file/d"}, in: "a\n", code: 1, want: []string{"file/d", "check the directory's path"},
			prep: func(t *testing.T) { write(t, "file", "x") },
		},
		{
			name: "a store among other things", args: []string{"dedup", "--dir", "photos"}, in: "a\n", code: 1, want: []string{"cat.jpg", "name an empty directory"},
			prep: func(t *testing.T) { require.NoError(t, os.Mkdir("photos", 0o700)); write(t, "photos/cat.jpg", "x") },
		},
		{
			name: "a store in use", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"in use", "wait for that process"},
			prep: func(t *testing.T) {
				st, err := oncelog.Open("d", nil)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, st.Close()) })
			},
		},
		{
			name: "an unknown FILE and no store", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"knows nothing of it", "move it away"},
			prep: func(t *testing.T) { write(t, "out", "x") },
		},
		{
			name: "an unknown FILE", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"knows nothing of it", "move it away"},
			prep: func(t *testing.T) { done(t, "b\n", "dedup", "--dir", "d"); write(t, "out", "x") },
		},
		{
			name: "a moved FILE", args: []string{"dedup", "--dir", "d", "--out", "new"}, in: "a\n", code: 1, want: []string{"knows nothing of it", "move it away"},
			prep: func(t *testing.T) {
				done(t, "b\n", "dedup", "--dir", "d", "--out", "out")
				require.NoError(t, os.Rename("out", "new"))
			},
		},
		{
			name: "FILE is a directory", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"not a regular file", "name one"},
			prep: func(t *testing.T) { require.NoError(t, os.Mkdir("out", 0o700)) },
		},
		{name: "FILE is a device", args: []string{"dedup", "--dir", "d", "--out", "/dev/null"}, in: "a\n", code: 1, want: []string{"not a regular file", "redirect"}},
		{name: "FILE nowhere", args: []string{"dedup", "--dir", "d", "--out", "no/out"}, in: "a\n", code: 1, want: []string{"no/out", "make the directory first"}},
		{
			name: "FILE in the store", args: []string{"dedup", "--dir", "d", "--out", "d/out"}, in: "a\n", code: 1, want: []string{"inside --dir", "choose a place outside"},
			prep: func(t *testing.T) { done(t, "b\n", "dedup", "--dir", "d") },
		},
		{
			name: "FILE is a link to nowhere", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"leads nowhere", "remove it"},
			prep: func(t *testing.T) { require.NoError(t, os.Symlink("gone", "out")) },
		},
		{
			name: "FILE gone", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"is gone", "put it back"},
			prep: func(t *testing.T) {
				done(t, "b\n", "dedup", "--dir", "d", "--out", "out")
				require.NoError(t, os.Remove("out"))
			},
		},
		{
			name: "FILE shorter", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"1 bytes, but 2 are recorded", "put the rest back"},
			prep: func(t *testing.T) { done(t, "b\n", "dedup", "--dir", "d", "--out", "out"); write(t, "out", "b") },
		},
		{
			name: "FILE longer", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"4 bytes, but 2 are recorded", "remove what was added"},
			prep: func(t *testing.T) { done(t, "b\n", "dedup", "--dir", "d", "--out", "out"); write(t, "out", "b\nc\n") },
		},
		{
			name: "FILE edited", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "a\n", code: 1, want: []string{"other content", "put back"},
			prep: func(t *testing.T) { done(t, "b\n", "dedup", "--dir", "d", "--out", "out"); write(t, "out", "c\n") },
		},
		{
			name: "unfinished FILE shorter", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: full, code: 1, want: []string{"0 bytes, but", "put the rest back"},
			prep: func(t *testing.T) { interrupted(t, full, "--out", "out"); write(t, "out", "") },
		},
		{
			name: "unfinished FILE edited", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: full, code: 1, want: []string{"other content", "put back"},
			prep: func(t *testing.T) {
				interrupted(t, full, "--out", "out")
				write(t, "out", strings.ToUpper(read(t, "out")))
			},
		},
		{
			name: "other keys for an unfinished run", args: []string{"dedup", "--dir", "d", "--out", "out", "--column", "2"}, in: full, code: 1, want: []string{"the whole line", "finish that run first"},
			prep: func(t *testing.T) { interrupted(t, full, "--out", "out") },
		},
		{
			name: "another delimiter for an unfinished run", args: []string{"dedup", "--dir", "d", "--out", "out", "--column", "2", "--delimiter", ","}, in: full, code: 1, want: []string{"finish that run first"},
			prep: func(t *testing.T) { interrupted(t, full, "--out", "out", "--column", "2") },
		},
		{
			name: "other input for an unfinished run", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: "b" + full[1:], code: 1, want: []string{"not those that were read before", "with its own input first"},
			prep: func(t *testing.T) { interrupted(t, full, "--out", "out") },
		},
		{
			name: "short input for an unfinished run", args: []string{"dedup", "--dir", "d", "--out", "out"}, in: full[:100], code: 1, want: []string{"fewer than", "with its own input first"},
			prep: func(t *testing.T) { interrupted(t, full, "--out", "out") },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if c.prep != nil {
				c.prep(t)
			}
			before := tree(t, ".")
			r := oncelogRun(c.in, c.args...)
			failsWith(t, r, c.code, c.want...)
			require.Empty(t, r.out)
			delete(before, "d/LOCK") // the owner's process id
			after := tree(t, ".")
			delete(after, "d/LOCK")
			require.Equal(t, before, after)
		})
	}
}

func TestDirectoryThatMayNotBeRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	done(t, "a\n", "dedup", "--dir", dir)
	want := "check the directory's path and permissions"
	if os.Geteuid() == 0 {
		// Nothing is unreadable for root, but it may only open its own.
		require.NoError(t, os.Chown(dir, 12345, 12345))
		want = "not a directory for this store"
	} else {
		require.NoError(t, os.Chmod(dir, 0))
		t.Cleanup(func() { require.NoError(t, os.Chmod(dir, 0o700)) })
	}
	for _, args := range [][]string{{"dedup", "--dir", dir}, {"stat", dir}, {"verify", dir}, {"dump", dir}} {
		failsWith(t, oncelogRun("b\n", args...), exitFailed, dir, want)
	}
}

func TestErrorsStayOnTheirLine(t *testing.T) {
	failsWith(t, oncelogRun("", "stat", "no\x1b[31m\nsuch\u202edir"), exitFailed, `no\x1b[31m\nsuch\u202edir`)
}

func TestHelp(t *testing.T) {
	all := done(t, "", "help")
	require.Equal(t, all, done(t, "", "--help"))
	require.Equal(t, all, done(t, "", "-h"))
	for _, c := range commands() {
		require.Contains(t, all, "oncelog "+c.name)
		one := done(t, "", "help", c.name)
		require.True(t, strings.HasPrefix(one, "usage: oncelog "+c.name), one)
		require.Equal(t, one, done(t, "", c.name, "--help"))
		for line := range strings.Lines(all + one) {
			require.LessOrEqual(t, len(line), 100, line)
		}
	}
	flags := done(t, "", "help", "dedup")
	for _, f := range []string{"--dir", "--field", "--column", "--delimiter", "--ttl", "--out", "--max-line"} {
		require.Contains(t, flags, "\n  "+f+" ")
	}
	require.Regexp(t, `^oncelog \S+.* go1\S+ \w+/\w+\n$`, done(t, "", "version"))
}

func TestFlagsMayFollowTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	done(t, "a\n", "dedup", "--dir", dir)
	require.Equal(t, done(t, "", "stat", "--json", dir), done(t, "", "stat", dir, "--json"))
	failsWith(t, oncelogRun("", "stat", "--", dir, "--json"), exitUsage, `"--json"`)
}

func TestFullDiskUnderStandardOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here: ", err)
	}
	defer full.Close()
	dir := filepath.Join(t.TempDir(), "d")
	for _, args := range [][]string{{"dedup", "--dir", dir}, {"stat", dir}, {"dump", dir}, {"verify", dir}, {"help"}, {"version"}, {"stat", "-h"}} {
		if args[0] == "dump" {
			require.Equal(t, "a\n", done(t, "a\n", "dedup", "--dir", dir), "what could not be written is not recorded")
		}
		var errs bytes.Buffer
		code := run(t.Context(), args, strings.NewReader("a\n"), full, &errs)
		failsWith(t, result{code, "", errs.String()}, exitFailed, "standard output", syscall.ENOSPC.Error(), "run the same command again")
	}
}

func TestReaderOfStandardOutputGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for _, args := range [][]string{{"dedup", "--dir", dir}, {"dump", dir}} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, r.Close())
		cmd := process(t, args...)
		var errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("a\n"), w, &errs
		err = cmd.Run()
		require.NoError(t, w.Close())
		require.IsType(t, &exec.ExitError{}, err)
		failsWith(t, result{cmd.ProcessState.ExitCode(), "", errs.String()}, exitFailed, "standard output", "run the same command again")
		if args[0] == "dedup" {
			require.Equal(t, "a\n", done(t, "a\n", "dedup", "--dir", dir), "what nobody read is not recorded")
		}
	}
}
