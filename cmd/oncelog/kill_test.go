package main

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

const awkProgram = `NF < 2 || $2 == "" || !seen[$2]++`

// findAwk returns an awk that takes NUL and other bytes as they are, or "".
func findAwk(t *testing.T) string {
	for _, name := range []string{"gawk", "mawk", "awk"} {
		path, err := exec.LookPath(name)
		if err == nil && bytes.Equal(awk(t, path, []byte("\ta\x00b\n\ta\x00c\n\t\xff\n\ta\x00b\n")), []byte("\ta\x00b\n\ta\x00c\n\t\xff\n")) {
			return path
		}
	}
	return ""
}

func awk(t *testing.T, path string, in []byte) []byte {
	cmd := exec.Command(path, "-F", "\t", awkProgram)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	require.NoError(t, err, path)
	return out
}

// goSource returns the lines of Go's own source, a megabyte line, lines with NUL
// bytes, and no newline at the end. Indented lines have a second column, and many
// of them the same.
func goSource(t *testing.T) []byte {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	const enough = 200_000
	long := "\t" + strings.Repeat("0123456789abcdef", 1<<16)
	odd := []string{
		long, long + "\tagain", "x" + long, long + "0", "\ta\x00b", "\ta\x00c", "x\ta\x00b\ty", "\x00", "\t\x00", "\xff\xfe\t\xff\xfe", "\r", "\t\r",
	}
	var b bytes.Buffer
	lines := 0
	err = filepath.WalkDir(filepath.Join(strings.TrimSpace(string(root)), "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		src, err := os.ReadFile(path)
		b.Write(src)
		if !bytes.HasSuffix(src, []byte("\n")) {
			b.WriteByte('\n')
		}
		if lines += bytes.Count(src, []byte("\n")); len(odd) > 0 && lines > enough/(len(odd)+1) {
			b.WriteString(odd[0] + "\n")
			odd = odd[1:]
		}
		if lines > enough {
			return fs.SkipAll
		}
		return err
	})
	require.NoError(t, err)
	require.Empty(t, odd)
	require.Greater(t, lines, enough)
	b.WriteString("\tthe end")
	return b.Bytes()
}

// TestPromise11KilledAtRandom kills a run on FILE twenty times while its input flows. FILE
// ends as that of an undisturbed run, and as awk and a map have it.
func TestPromise11KilledAtRandom(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs SIGKILL")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	input := goSource(t)

	dir, file := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "out")
	args := []string{"dedup", "--dir", dir, "--column", "2", "--out", file}
	began := time.Now()
	onFile(t, dir, file, string(input))
	undisturbed := read(t, file)
	t.Logf("%d lines, %d bytes; undisturbed in %v, %d bytes", bytes.Count(input, []byte("\n"))+1, len(input), time.Since(began), len(undisturbed))
	m := newModel()
	noKey := m.append(string(input))
	require.True(t, m.file == undisturbed, "an undisturbed run differs from the model")
	require.Greater(t, noKey, 10_000)
	require.Less(t, len(undisturbed), len(input)*9/10, "the input has duplicates")

	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Remove(file))
	const kills = 20
	// More than is read ahead and fits into a pipe: the run has taken lines.
	const ahead = blocks*blockBytes + 256<<10
	moments := make([]int, kills)
	for i := range moments {
		moments[i] = ahead + rnd.IntN(len(input)-ahead)
	}
	slices.Sort(moments)
	live, running, torn := 0, 0, 0
	for _, moment := range moments {
		// The input's end is never given, so the run can't be over; what it is
		// doing when the pipe has taken the bytes up to the moment is chance.
		cmd := process(t, args...)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = in.Write(input[:moment])
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Kill())
		require.EqualError(t, cmd.Wait(), "signal: killed")
		phase, length := recorded(t, dir, file)
		if phase != "" {
			live++
		}
		if phase == "running" {
			running++
		}
		if fi, err := os.Stat(file); err == nil && fi.Size() > length {
			torn++
		}
	}
	t.Logf("%d kills: %d in a run, %d of them with batches recorded, %d left FILE longer than recorded", kills, live, running, torn)
	require.GreaterOrEqual(t, live, 15)
	require.GreaterOrEqual(t, running, 10, "kills at the very beginning alone")

	r := onFile(t, dir, file, string(input))
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.err, "lines had no key")
	require.True(t, undisturbed == read(t, file), "FILE differs from an undisturbed run")

	name := findAwk(t)
	if name == "" {
		t.Skip("all but the comparison with awk passed: there is no awk here that takes NUL bytes")
	}
	// awk ends its last line, which the input doesn't.
	require.True(t, string(awk(t, name, input)) == undisturbed+"\n", "%s differs", name)
	t.Logf("the same as %s -F '\\t' '%s'", name, awkProgram)
}

// recorded returns what the store knows of FILE.
func recorded(t *testing.T, dir, file string) (phase string, length int64) {
	st, err := oncelog.Open(dir, &oncelog.Options{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	o, err := findOut(file, dir, keySpec{})
	require.NoError(t, err)
	defer o.close()
	o.st = st
	known, err := o.load()
	require.NoError(t, err)
	if !known {
		return "", 0
	}
	return o.rec.Phase, o.rec.Length
}
