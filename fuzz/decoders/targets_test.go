package decoders

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var each = flag.Duration("decoders.each", 0, "run each fuzz target for so long; 0 = look for seeds only")

type target struct{ dir, name string }

// targets finds the fuzz targets of the module.
func targets(t *testing.T) (all []target) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
				return fs.SkipDir // another module
			}
			if name := d.Name(); path != root && (name == "testdata" || strings.HasPrefix(name, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				all = append(all, target{filepath.Dir(path), fn.Name.Name})
			}
		}
		return nil
	})
	require.NoError(t, err)
	return all
}

// A target that begins with nothing finds nothing.
func TestEveryTargetHasSeeds(t *testing.T) {
	all := targets(t)
	require.Greater(t, len(all), 10)
	for _, g := range all {
		seeds, err := os.ReadDir(filepath.Join(g.dir, Corpus(g.name)))
		require.NoError(t, err, "%s of %s", g.name, g.dir)
		require.NotEmpty(t, seeds, "%s of %s", g.name, g.dir)
		t.Logf("%-24s %-20s %3d seeds", g.dir, g.name, len(seeds))
	}
	// And none is left of a target that is there no more.
	var corpora []string
	for _, at := range []string{"../..", "../../*", "../../cmd/*"} {
		some, err := filepath.Glob(filepath.Join(at, "testdata/fuzz/*"))
		require.NoError(t, err)
		corpora = append(corpora, some...)
	}
	require.GreaterOrEqual(t, len(corpora), len(all))
	for _, dir := range corpora {
		name := filepath.Base(dir)
		pkg := filepath.Clean(strings.TrimSuffix(dir, Corpus(name)))
		require.Contains(t, all, target{pkg, name}, "seeds of no target")
	}
}

// Each target runs for a while, one after the other.
func TestEachTargetRuns(t *testing.T) {
	if *each == 0 {
		t.Log("not asked for: -decoders.each=12s")
		return
	}
	for _, g := range targets(t) {
		cmd := exec.Command("go", "test", ".", "-run", "^$", "-fuzz", "^"+g.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", "20x") // 60 s each otherwise, in which nothing is looked for
		cmd.Dir = g.dir
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		began := time.Now()
		err := cmd.Run()
		// The go command itself may trip over the end of the time. A target that failed has left its input.
		if !strings.Contains(out.String(), "context deadline exceeded") || strings.Contains(out.String(), "Failing input") {
			require.NoError(t, err, "%s of %s:\n%s", g.name, g.dir, out.String())
		}
		last := ""
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "execs:") {
				last = strings.TrimSpace(line)
			}
		}
		require.NotEmpty(t, last, "%s ran nothing:\n%s", g.name, out.String())
		t.Logf("%-20s %5.0f s  %s", g.name, time.Since(began).Seconds(), last)
	}
}

// The measure sees what it is for: a decoder that believes a length.
func TestALengthThatIsBelievedIsSeen(t *testing.T) {
	var kept []byte
	require.Greater(t, allocated(func() { kept = make([]byte, 1<<20) }), uint64(1<<20-1))
	require.Len(t, kept, 1<<20)
	Bounded(t, 1<<20, 2, func() { kept = make([]byte, 1<<20) })
	f := &failing{TB: t}
	Bounded(f, 100, 2, func() { kept = make([]byte, 1<<20) })
	require.True(t, f.failed)
}

type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Fatalf(string, ...any) { f.failed = true }
