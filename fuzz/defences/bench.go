package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// rungTime bounds one run of a rung. Without a defence a test may wait for ever, and that is red too.
const rungTime = 2 * time.Minute

// bench builds tests, of the code as it is and without a defence, and runs them.
type bench struct {
	root  string // of the module
	tmp   string
	built map[string]string // packages tested as they are: the tests' program
	whole map[string]end    // how rungs ended there
}

func newBench() (*bench, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "oncelog-defences-")
	if err != nil {
		return nil, err
	}
	return &bench{root: root, tmp: tmp, built: map[string]string{}, whole: map[string]end{}}, nil
}

func (b *bench) close() { _ = os.RemoveAll(b.tmp) }

// moduleRoot is the directory of the module in which this was started.
func moduleRoot() (string, error) {
	cmd := exec.Command("go", "env", "GOMOD")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.mod" {
		return "", errors.New("start it inside of the module")
	}
	return filepath.Dir(file), nil
}

// environment is that of all commands: each module for itself, as users build it.
func environment() []string { return append(os.Environ(), "GOWORK=off") }

// takeOut returns the rungs that are red without the defence: the first of them, or all.
func (b *bench) takeOut(d defence, all bool) (caught []string, err error) {
	overlay, err := b.overlay(d)
	if err != nil {
		return nil, err
	}
	programs := map[string]string{}
	defer func() {
		for _, program := range programs {
			_ = os.Remove(program)
		}
	}()
	for _, r := range d.rungs {
		if end, err := b.runWhole(r); err != nil {
			return nil, err
		} else if end == skipped {
			continue
		}
		program := programs[r.pkg]
		if program == "" {
			if program, err = b.build(r.pkg, "without", "-overlay="+overlay); err != nil {
				return nil, err
			}
			programs[r.pkg] = program
		}
		end, said, err := b.run(program, r)
		if err != nil {
			return nil, err
		}
		if end == red {
			caught = append(caught, r.String())
			if !all {
				break
			}
		} else if end != green {
			return nil, fmt.Errorf("%v ended in a way that is neither green nor red:\n%s", r, said)
		}
	}
	return caught, nil
}

// overlay writes the file without the defence, and what tells the go command to take it.
func (b *bench) overlay(d defence) (path string, err error) {
	file := filepath.Join(b.root, d.file)
	whole, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	without, err := d.replaced(string(whole))
	if err != nil {
		return "", err
	}
	changed := filepath.Join(b.tmp, "changed.go")
	if err := os.WriteFile(changed, []byte(without), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", err
	}
	path = filepath.Join(b.tmp, "overlay.json")
	return path, os.WriteFile(path, text, 0o600)
}

// replaced returns a file's text without the defence.
func (d defence) replaced(text string) (string, error) {
	if n := strings.Count(text, d.old); n != 1 {
		return "", fmt.Errorf("%s has the text that is to be replaced %d times; it must be there once:\n%s", d.file, n, d.old)
	}
	return strings.Replace(text, d.old, d.new, 1), nil
}

// runWhole runs a rung on the code as it is, once. It is green there, or skipped because this machine lacks something.
func (b *bench) runWhole(r rung) (end end, err error) {
	if end, known := b.whole[r.String()]; known {
		return end, nil
	}
	program := b.built[r.pkg]
	if program == "" {
		if program, err = b.build(r.pkg, "whole"); err != nil {
			return unclear, err
		}
		b.built[r.pkg] = program
	}
	end, said, err := b.run(program, r)
	if err != nil {
		return unclear, err
	}
	switch end {
	case skipped:
		fmt.Printf("%v is skipped here:\n%s\n", r, said)
	case red, unclear:
		return unclear, fmt.Errorf("%v is not green with all defences in place, so it proves nothing:\n%s", r, said)
	}
	b.whole[r.String()] = end
	return end, nil
}

// build builds a package's tests. What does not build is an error, and never red.
func (b *bench) build(pkg, name string, flags ...string) (program string, err error) {
	program = filepath.Join(b.tmp, name+strings.ReplaceAll(pkg, "/", "-")+".test")
	cmd := exec.Command("go", append(append([]string{"test", "-c", "-vet=off", "-ldflags=-w", "-o", program}, flags...), pkg)...)
	cmd.Dir, cmd.Env = b.root, environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not build: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// end is how a rung ended.
type end int

const (
	unclear end = iota // also when nothing ran
	skipped            // some of it at least
	green
	red
)

// run runs a rung's tests, with a directory for temporary files of its own: a test that is torn down by a panic cleans
// nothing up.
func (b *bench) run(program string, r rung) (end, string, error) {
	tmp, err := os.MkdirTemp(b.tmp, "run")
	if err != nil {
		return unclear, "", err
	}
	defer os.RemoveAll(tmp)
	ctx, stop := context.WithTimeout(context.Background(), rungTime+10*time.Second) // should the test not end itself
	defer stop()
	args := []string{"-test.v", "-test.count=1", "-test.run=^(" + r.tests + ")$", "-test.timeout=" + rungTime.String()}
	cmd := exec.CommandContext(ctx, program, append(args, r.flags...)...)
	cmd.Dir, cmd.Env = filepath.Join(b.root, r.pkg), append(environment(), "TMPDIR="+tmp)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return unclear, "", fmt.Errorf("%v: %w", r, err)
	}
	said := out.String()
	if len(said) > 8<<10 {
		said = said[:4<<10] + "\n...\n" + said[len(said)-4<<10:]
	}
	return judge(err == nil, out.String()), said, nil
}

// judge says what a test program's output and its end mean.
func judge(ok bool, said string) end {
	begins := func(with string) bool { return strings.HasPrefix(said, with) || strings.Contains(said, "\n"+with) }
	switch {
	case !ok && (begins("--- FAIL") || begins("panic:") || begins("fatal error:") || begins("unexpected fault address")):
		return red
	case ok && begins("--- SKIP"):
		return skipped
	case ok && begins("--- PASS"):
		return green
	}
	return unclear
}
