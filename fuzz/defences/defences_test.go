package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The list does not rot: what is to be taken out is there, once, and the tests that are to notice are there too. That
// they do is what the command finds out.
func TestTheListIsOfThisCode(t *testing.T) {
	root, err := moduleRoot()
	require.NoError(t, err)
	names := map[string]bool{}
	require.GreaterOrEqual(t, len(defences), 22)
	for _, d := range defences {
		require.False(t, names[d.name], "%q is there twice", d.name)
		names[d.name] = true
		require.NotEmpty(t, d.prevents, d.name)
		require.NotEmpty(t, d.rungs, d.name)
		text, err := os.ReadFile(filepath.Join(root, d.file))
		require.NoError(t, err, d.name)
		without, err := d.replaced(string(text))
		require.NoError(t, err, d.name)
		require.NotEqual(t, string(text), without, d.name)
		for _, r := range d.rungs {
			tests := testsOf(t, filepath.Join(root, r.pkg))
			for name := range strings.SplitSeq(r.tests, "|") {
				require.Contains(t, tests, "func "+name+"(t *testing.T)", "%s: %v", d.name, r)
			}
		}
	}
}

// testsOf returns the text of a package's tests.
func testsOf(t *testing.T, dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	require.NoError(t, err)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		all.Write(text)
	}
	return all.String()
}

// docs/DURABILITY.md names for each clause of the contract what is taken out to prove it: these, and no others.
func TestThePageNamesTheDefences(t *testing.T) {
	root, err := moduleRoot()
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs", "DURABILITY.md"))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "\n| | clause | shown by | defences |\n")
	require.True(t, ok)
	table, _, _ := strings.Cut(rest, "\n\n")
	named := map[string]bool{}
	for row := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(row), "|")
		require.Len(t, cells, 6, row)
		for name := range strings.SplitSeq(cells[4], ",") {
			named[strings.TrimSpace(name)] = true
		}
	}
	delete(named, "")
	delete(named, "---")
	known := map[string]bool{}
	for _, d := range defences {
		known[d.name] = true
	}
	require.Equal(t, known, named)
}

// A text that is not there, or there more often than once, is an error.
func TestATextThatIsNotThereOnce(t *testing.T) {
	d := defence{file: "a.go", old: "sync()", new: ""}
	for text, want := range map[string]string{"a; sync(); b": "a; ; b", "a; b": "", "sync(); sync()": ""} {
		got, err := d.replaced(text)
		require.Equal(t, want, got)
		require.Equal(t, want == "", err != nil)
	}
}

// Red is a test that failed, not one that did not build or never ran; green is one that ran.
func TestWhatIsRed(t *testing.T) {
	for said, want := range map[string]struct{ ok, failed end }{
		"=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n":                     {green, unclear},
		"=== RUN   TestA\n    --- FAIL: TestA/b (0.00s)\n--- FAIL: TestA (0s)": {unclear, red},
		"=== RUN   TestA\n    --- SKIP: TestA/b\n--- PASS: TestA (0.00s)\n":    {green, unclear},
		"=== RUN   TestA\n--- SKIP: TestA (0.00s)\nPASS\n":                     {skipped, unclear},
		"--- PASS: TestA (0.00s)\n--- SKIP: TestB (0.00s)\nPASS\n":             {skipped, unclear},
		"testing: warning: no tests to run\nPASS\n":                            {unclear, unclear},
		"panic: test timed out after 2m0s\n":                                   {unclear, red},
		"=== RUN   TestA\nfatal error: concurrent map writes\n":                {unclear, red},
		"flag provided but not defined: -crash.stats\n":                        {unclear, unclear},
	} {
		require.Equal(t, want.ok, judge(true, said), said)
		require.Equal(t, want.failed, judge(false, said), said)
	}
}

// The same seed chooses the same defences, each once.
func TestTheChoice(t *testing.T) {
	a, err := choose("", 3, 7)
	require.NoError(t, err)
	b, err := choose("", 3, 7)
	require.NoError(t, err)
	require.Len(t, a, 3)
	for i := range a {
		require.Equal(t, a[i].name, b[i].name)
	}
	require.NotEqual(t, a[0].name, a[1].name)
	all, err := choose("", 0, 0)
	require.NoError(t, err)
	require.Len(t, all, len(defences))
	_, err = choose("none of this name", 0, 0)
	require.Error(t, err)
}
