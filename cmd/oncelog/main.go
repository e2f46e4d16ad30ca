package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/oncelog/oncelog"
)

func main() {
	// A reader that went away is an error of the write, not this process's death.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// The exit codes are part of the command's interface.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are the three standard streams, so that tests run commands in
// process.
type streams struct {
	in  io.Reader
	out output
	err io.Writer
}

// output is standard output. Its errors say so: a file's own name for it is
// "/dev/stdout", or "|1".
type output struct{ io.Writer }

func (w output) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, outputError(err)
}

// sync makes a regular file durable.
func (w output) sync() error {
	if regular(w.Writer) == nil {
		return nil
	}
	return outputError(w.Writer.(*os.File).Sync())
}

func outputError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("standard output: %w; see to it, then run the same command again", err)
}

type command struct {
	name, args, summary, help string
	run                       func(ctx context.Context, std streams, args []string) error
}

func commands() []command {
	return []command{
		{"dedup", "--dir DIR [options] < in > out", "pass the first line of each key, across runs", dedupHelp, dedup},
		{"demo", "[--requests N] [--crashes N]", "the pattern, live: kills and retries, one effect", demoHelp, demo},
		{"proxy", "--listen ADDR --upstream URL --dir DIR [options]", "guard an HTTP service", proxyHelp, proxy},
		{"stat", "DIR [--json]", "how much a store holds", statHelp, stat},
		{"verify", "DIR [--json]", "read a store back and check every byte", verifyHelp, verify},
		{"dump", "DIR [--json]", "print every live record", dumpHelp, dump},
		{"doubts", "DIR [--json]", "list work that may have happened", doubtsHelp, doubts},
		{"settle", "DIR KEY happened|not [options]", "say what became of it", settleHelp, settle},
		{"help", "[COMMAND]", "say more about a command", helpHelp, help},
		{"version", "", "print the version", versionHelp, version},
	}
}

// run is main without the process: it never exits and touches no global.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	std := streams{stdin, output{stdout}, stderr}
	if len(args) == 0 {
		return fail(stderr, "oncelog", usagef("no command; try: oncelog help"))
	}
	name, args := args[0], args[1:]
	if name == "-h" || name == "-help" || name == "--help" {
		name = "help"
	}
	known := commands()
	if name == demoService {
		known = []command{{name: demoService, run: serve}}
	}
	for _, c := range known {
		if c.name != name {
			continue
		}
		err := c.run(ctx, std, args)
		if errors.Is(err, flag.ErrHelp) {
			err = printHelp(std.out, c)
		}
		if err != nil {
			return fail(stderr, "oncelog "+c.name, err)
		}
		return exitDone
	}
	return fail(stderr, "oncelog", usagef("unknown command %q; try: oncelog help", name))
}

// A usageError is the caller's mistake: exit code 2, and nothing was opened.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

func fail(stderr io.Writer, who string, err error) int {
	what := strings.TrimPrefix(err.Error(), "oncelog: ") // who says it already
	fmt.Fprintf(stderr, "%s: %s\n", who, oneLine(what+advice(err)))
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// advice is what to do about an error whose text only says what happened. The
// store can't say it: it doesn't know that it is driven by a command.
func advice(err error) string {
	switch {
	case errors.Is(err, oncelog.ErrLocked):
		return "; wait for that process to end, or use another directory"
	case errors.Is(err, oncelog.ErrFull):
		return "; make room, then run the same command again"
	case errors.Is(err, oncelog.ErrFailed):
		return "; see to the disk, then run the same command again"
	}
	return ""
}

// oneLine keeps an error on its line, whatever file names and line contents are
// in it: newlines would break scripts that read a line an error, and escape
// sequences would be obeyed by the terminal.
func oneLine(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// newFlags makes a flag set that reports by its error alone.
func newFlags() *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// parse parses flags before, between and after the other arguments, which it
// returns; the flag package alone stops at the first one.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usagef("%v; see --help", err)
		}
		left := fs.Args()
		if len(left) == 0 {
			return rest, nil
		}
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			return append(rest, left...), nil
		}
		rest = append(rest, left[0])
		args = left[1:]
	}
}

func help(_ context.Context, std streams, args []string) error {
	rest, err := parse(newFlags(), args)
	switch {
	case err != nil:
		return err
	case len(rest) > 1:
		return usagef("one command at a time, not %d", len(rest))
	case len(rest) == 1:
		for _, c := range commands() {
			if c.name == rest[0] {
				return printHelp(std.out, c)
			}
		}
		return usagef("unknown command %q; try: oncelog help", rest[0])
	}
	var b strings.Builder
	b.WriteString("oncelog remembers which messages were handled.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  oncelog %-8s %-31s %s\n", c.name, c.args, c.summary)
	}
	b.WriteString("\nExit codes: 0 done, 1 failed, 2 usage. oncelog help COMMAND says more.\n")
	_, err = io.WriteString(std.out, b.String())
	return err
}

func printHelp(w io.Writer, c command) error {
	_, err := fmt.Fprintf(w, "usage: %s\n\n%s", strings.TrimSpace("oncelog "+c.name+" "+c.args), c.help)
	return err
}

const helpHelp = "Without a command, lists all of them.\n"

const versionHelp = "Prints the version, the Go version and the platform it was built for.\n"

func version(_ context.Context, std streams, args []string) error {
	rest, err := parse(newFlags(), args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usagef("unexpected argument %q; version takes none", rest[0])
	}
	v := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = info.Main.Version
		for _, s := range info.Settings {
			// A build from a checkout says (devel); its commit says more.
			if s.Key == "vcs.revision" && v == "(devel)" {
				v += " " + s.Value
			}
		}
	}
	_, err = fmt.Fprintf(std.out, "oncelog %s %s %s/%s\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
