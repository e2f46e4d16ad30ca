package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tests are the packages whose tests count: those of the code itself, and the rungs that open damaged logs, kill
// processes and make system calls fail.
var tests = []string{".", "wal", "snapshot", "compaction", "fuzz", "fuzz/crash", "fuzz/calls", "fuzz/rot", "fuzz/pattern"}

// whole are what the tests of a package are told besides: which calls fail, and of what workload, is chance otherwise,
// and so is what that reaches.
var whole = map[string][]string{"fuzz/calls": {"-calls.all", "-calls.seed=1"}}

// counted are the packages whose branches are counted while those run.
const counted = ".,./wal,./snapshot,./compaction,./index"

// measure runs the tests of some packages, all if none is named, and writes the profile of all that dir knows. A
// process that a test starts leaves its counters where the test's are, unless it is killed: GOCOVERDIR says so to both,
// for the one that ends without having tested anything as well as for the one that does.
func measure(dir string, packages []string) (profile string, err error) {
	if len(packages) == 0 {
		packages = tests
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	for _, p := range packages {
		began := time.Now()
		name := "root"
		if p = filepath.Clean(p); p != "." {
			name = strings.ReplaceAll(filepath.ToSlash(p), "/", "-")
		}
		counters, binary := filepath.Join(dir, "counters", name), filepath.Join(dir, name+".test")
		if err := os.RemoveAll(counters); err != nil {
			return "", err
		}
		if err := os.MkdirAll(counters, 0o700); err != nil {
			return "", err
		}
		if err := command(".", nil, "go", "test", "-c", "-cover", "-coverpkg="+counted, "-o", binary, "./"+p); err != nil {
			return "", err
		}
		env := append(os.Environ(), "GOCOVERDIR="+counters)
		args := append([]string{"-test.gocoverdir=" + counters, "-test.timeout=30m"}, whole[filepath.ToSlash(p)]...)
		if err := command(p, env, binary, args...); err != nil {
			return "", err
		}
		fmt.Printf("%s: %s\n", p, time.Since(began).Round(time.Second))
	}
	all, err := filepath.Glob(filepath.Join(dir, "counters", "*"))
	if err != nil {
		return "", err
	}
	profile = filepath.Join(dir, "profile")
	return profile, command(".", nil, "go", "tool", "covdata", "textfmt", "-i="+strings.Join(all, ","), "-o="+profile)
}

func command(dir string, env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = filepath.FromSlash(dir), env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s in %s: %w", filepath.Base(name), dir, err)
	}
	return nil
}
