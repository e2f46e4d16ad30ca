package oncelog

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	promiseInReadme = regexp.MustCompile(`(?m)^(\d+)\. \*\*`)
	promiseInTest   = regexp.MustCompile(`(?m)^func TestPromise(\d+)`)
)

// Every numbered promise of the README has a test of that number, and no test claims a number that is not there.
func TestPromisesAndTheirTests(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(readme), "\n## Guarantees\n")
	require.True(t, ok)
	section, _, _ := strings.Cut(rest, "\n## ")
	promised := map[string]bool{}
	for _, m := range promiseInReadme.FindAllStringSubmatch(section, -1) {
		require.False(t, promised[m[1]], "promise %s stands there twice", m[1])
		promised[m[1]] = true
	}
	require.NotEmpty(t, promised)
	tested := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range promiseInTest.FindAllStringSubmatch(string(b), -1) {
			tested[m[1]] = true
		}
		return err
	}))
	require.Equal(t, promised, tested)
}

// The pages name tests: one of that name must be there, or where the page ends it with …, one of that beginning.
func TestThePagesNameTheirTests(t *testing.T) {
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	}))
	for page, least := range map[string]int{"docs/PATTERN.md": 15, "docs/DURABILITY.md": 50, "docs/TESTING.md": 0} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		named := regexp.MustCompile("`(Test\\w+)(…?)`").FindAllStringSubmatch(string(text), -1)
		require.GreaterOrEqual(t, len(named), least, page)
		for _, name := range named {
			want := "func " + name[1]
			if name[2] == "" {
				want += "("
			}
			require.True(t, strings.Contains(all.String(), want), "%s names %s, which is not there", page, name[1])
		}
	}
}

// The README's program is the Example, line by line.
func TestTheProgramOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	require.True(t, ok)
	program, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	for line := range strings.Lines(program) {
		require.Contains(t, string(example), strings.TrimSpace(line))
	}
}

// A look-up waits for nobody's sync: while a commit hangs, all keys are answered, the one in question with what was
// true before.
func TestPromise6LookupsWaitForNoCommit(t *testing.T) {
	s, _ := fresh(t)
	put(t, s, "old", "1")
	commit, ch := staged(t, s, recordFor("k", "v"))

	has(t, s, "old", "1")
	hasNot(t, s, "k")
	hasNot(t, s, "other")
	_, inserted, err := s.PutIfAbsent([]byte("old"), nil, 0)
	require.NoError(t, err)
	require.False(t, inserted)
	for range s.Records() {
	}
	require.NoError(t, s.Verify())
	_, ok, err := s.HighWater("source")
	require.NoError(t, err)
	require.False(t, ok)

	require.NoError(t, s.settle(commit, ch))
	has(t, s, "k", "v")
}

// What a store cannot promise, pinned so that nobody relies on it: a directory that is rolled back forgets.
func TestPromise7ARolledBackDirectoryForgets(t *testing.T) {
	s, dir := fresh(t)
	put(t, s, "before", "1")
	require.NoError(t, s.Close())
	backup := crashed(t, dir)
	s = open(t, dir, quick)
	put(t, s, "after", "1")
	require.NoError(t, s.Close())
	s = open(t, backup, quick)
	has(t, s, "before", "1")
	put(t, s, "after", "again")
}

// Nor rot behind the last sync mark: what was written after it looks like the end that a crash has torn. Under
// SyncAlways that is the newest batch before a crash, and nothing once the store was closed or opened again.
func TestPromise7RotBehindTheLastSyncMark(t *testing.T) {
	s, dir := fresh(t)
	put(t, s, "first", "1")
	put(t, s, "last", "1")
	flip := func(dir string) {
		paths, err := filepath.Glob(filepath.Join(dir, "wal", "0*", "0*"))
		require.NoError(t, err)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			if at := strings.Index(string(b), "last"); at >= 0 {
				changeByte(t, path, at, 'x')
				return
			}
		}
		t.Fatal("the record is nowhere")
	}
	rotten := crashed(t, dir)
	flip(rotten)
	s2 := open(t, rotten, quick)
	has(t, s2, "first", "1")
	hasNot(t, s2, "last")

	require.NoError(t, s.Close())
	flip(dir)
	_, err := Open(dir, &quick)
	require.ErrorIs(t, err, ErrCorrupt)
}

// As a newcomer would: in an empty folder, the README's program builds and runs.
func TestTheProgramOfTheReadmeRuns(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	program, _, _ := strings.Cut(rest, "```")
	here, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	sums, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	module, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	_, requirements, _ := strings.Cut(string(module), "\n\n")
	for name, content := range map[string]string{
		"go.sum": string(sums),
		"go.mod": "module newcomer\n\n" + requirements + "\nrequire github.com/oncelog/oncelog v0.0.0\n\nreplace github.com/oncelog/oncelog => " + here + "\n",
		"main.go": "package main\n\nimport (\n\t\"context\"\n\t\"fmt\"\n\t\"log\"\n\n\t\"github.com/oncelog/oncelog\"\n)\n\nfunc main() {\n" +
			program + "}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	cmd := exec.Command("go", "run", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "charged false <nil>\ncharged true <nil>\n", string(out))
}
