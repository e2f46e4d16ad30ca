package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/oncelog/oncelog"
)

const dedupHelp = `Reads lines and passes the first one of each key. The keys are kept in DIR, so
that later runs drop what earlier ones passed.

  --dir DIR        the store; it is created if it isn't there
  --field NAME     the key is a field of a JSON line: a top-level name, or the dotted
                   path to a nested one; of a name given twice the last counts
  --column N       the key is column N, counted from 1
  --delimiter C    what separates columns: one byte, or \t, which is the default
  --ttl D          forget a key after this long, as in 90m, 36h or 30d; default: never
  --out FILE       append to FILE instead of standard output, exactly once
  --max-line N     the longest line in bytes, default 16777216

Without --field and --column, the whole line is the key. JSON strings are compared
by what they say, "\u0041" is "A"; other values as they are written, 1 is neither
"1" nor 1.0. Lines are bytes: a carriage return before the newline belongs to the
line and to its last column. Only around JSON it is white space.

A line without the field or column, or with an empty one or null, is passed,
reported on standard error, and makes the exit code 1.

To standard output, a line is written before its key is recorded: a crash may
repeat the last lines, but never loses one. With --out, a run killed at any moment
and started again with the same input leaves FILE as if nothing had happened; the
same input again after the end adds nothing. Nobody else may write to FILE.

An interrupt finishes the lines at hand and stops; a second one kills.
`

type dedupOptions struct {
	dir     string
	keys    keySpec
	ttl     time.Duration
	out     string
	maxLine int
}

func parseDedup(args []string) (dedupOptions, error) {
	o := dedupOptions{ttl: oncelog.Forever, maxLine: 16 << 20}
	delim := ""
	fs := newFlags()
	fs.StringVar(&o.dir, "dir", "", "")
	fs.StringVar(&o.keys.field, "field", "", "")
	fs.IntVar(&o.keys.column, "column", 0, "")
	fs.StringVar(&delim, "delimiter", "", "")
	fs.StringVar(&o.out, "out", "", "")
	fs.IntVar(&o.maxLine, "max-line", o.maxLine, "")
	fs.Func("ttl", "", func(s string) (err error) {
		o.ttl, err = parseTTL(s)
		return err
	})
	rest, err := parse(fs, args)
	if err != nil {
		return o, err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case len(rest) > 0:
		return o, usagef("unexpected argument %q; the lines come from standard input", rest[0])
	case o.dir == "":
		return o, usagef("--dir is missing: name the directory for the keys")
	case given["field"] && given["column"]:
		return o, usagef("--field and --column exclude each other; choose one")
	// An empty value is an unset variable in a script. Taken as "not given", it
	// would make whole lines the keys and record them for ever.
	case given["field"] && o.keys.field == "":
		return o, usagef("--field is empty; name the field")
	case given["out"] && o.out == "":
		return o, usagef("--out is empty; name the file")
	case given["column"] && o.keys.column < 1:
		return o, usagef("--column %d: columns count from 1", o.keys.column)
	case given["delimiter"] && !given["column"]:
		return o, usagef("--delimiter needs --column")
	case o.maxLine < 1:
		return o, usagef("--max-line %d: give a number of bytes, at least 1", o.maxLine)
	}
	if o.keys.column > 0 {
		switch {
		case !given["delimiter"] || delim == `\t`:
			o.keys.delim = '\t'
		case len(delim) != 1 || delim == "\n":
			return o, usagef(`--delimiter %q: give one byte other than a newline, or \t`, delim)
		default:
			o.keys.delim = delim[0]
		}
	}
	return o, nil
}

// parseTTL reads a Go duration, or days, which Go's durations lack.
func parseTTL(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	var d time.Duration
	var err error
	if n, ok := strings.CutSuffix(s, "d"); ok {
		var days int64
		days, err = strconv.ParseInt(n, 10, 64)
		if days > int64(math.MaxInt64/day) {
			return 0, errors.New("longer than 292 years; without --ttl, keys are kept for ever")
		}
		d = time.Duration(days) * day
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil {
		return 0, errors.New("give a duration such as 90m, 36h or 30d")
	}
	if d <= 0 {
		return 0, errors.New("a key has to live for some time")
	}
	return d, nil
}

// counts are of one run, over its restarts.
type counts struct {
	Lines  int64 `json:"lines"`
	Passed int64 `json:"passed"`
	NoKey  int64 `json:"no_key"` // passed too
}

// A sink takes what is decided about a batch: it writes the passed lines and
// records the fresh keys, in the order that its promise needs.
type sink interface {
	commit(b *batch, passed []byte, fresh []string, c counts) error
}

// killpoint is called after each effect of a run on the disk. Tests put a kill
// there.
var killpoint = func() {}

func dedup(ctx context.Context, std streams, args []string) (err error) {
	o, err := parseDedup(args)
	if err != nil {
		return err
	}
	// The first signal ends the run between two batches; then the default is
	// back, so that the second one kills even when a write is stuck.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	// All that can be refused is refused before the store, which may have to be
	// created, is opened.
	var out *outFile
	to := regular(std.out.Writer)
	if o.out != "" {
		if out, err = findOut(o.out, o.dir, o.keys); err != nil {
			return err
		}
		defer out.close()
		to = out.info
	}
	// Lines without a key would go round for ever.
	if in := regular(std.in); in != nil && to != nil && os.SameFile(in, to) {
		return errors.New("the input and the output are the same file; write to another one")
	}
	st, err := openStore(o.dir, oncelog.Options{TTL: o.ttl, RetryWindow: oncelog.NoRetryWindow})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := st.Close(); err == nil {
			err = cerr
		}
	}()

	m := newMeter(std.err, isTerminal(std.err))
	m.start()
	defer m.stop()
	in := readLines(std.in, o.maxLine)
	defer in.stop()
	d := &deduper{st: st, keys: o.keys, meter: m, inBatch: map[string]struct{}{}}
	if out == nil {
		return d.run(ctx, in, &stream{st, std.out})
	}
	if err := out.open(ctx, st); err != nil {
		return err
	}
	if d.counts, err = out.resume(ctx, in); err != nil {
		return err
	}
	m.resumed(d.counts)
	return d.run(ctx, in, out)
}

// regular returns what is known of a stream that is a regular file, else nil.
func regular(stream any) os.FileInfo {
	f, ok := stream.(*os.File)
	if !ok {
		return nil
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	return fi
}

// reportLines is how many lines without a key are named. A wrong --field makes
// every line one.
const reportLines = 10

type deduper struct {
	st     *oncelog.Store
	keys   keySpec
	meter  *meter
	counts counts

	// of the batch; kept to be used again
	key     []byte
	passed  []byte
	fresh   []string
	inBatch map[string]struct{}
}

func (d *deduper) run(ctx context.Context, in *lines, to sink) error {
	for {
		b := in.fill(ctx)
		if err := d.decide(b); err != nil {
			return err
		}
		if err := to.commit(b, d.passed, d.fresh, d.counts); err != nil {
			return err
		}
		d.meter.set(d.counts)
		if b.end != nil {
			return d.end(b.end, in.max)
		}
	}
}

// decide sorts a batch's lines. Nobody else owns the directory, so a key that is
// absent now is absent when the batch is recorded; a transaction held open
// meanwhile would promise no more.
func (d *deduper) decide(b *batch) error {
	d.passed, d.fresh = d.passed[:0], d.fresh[:0]
	clear(d.inBatch)
	for i := range b.ends {
		line := b.line(i)
		d.counts.Lines++
		key, why := d.keys.appendKey(d.key[:0], bytes.TrimSuffix(line, []byte{'\n'}))
		if why != "" {
			d.counts.NoKey++
			if d.counts.NoKey <= reportLines {
				d.meter.printf("oncelog dedup: line %d: %s; passed as it is", d.counts.Lines, why)
			}
		} else {
			d.key = key
			if _, ok := d.inBatch[string(key)]; ok {
				continue
			}
			seen, err := d.st.Has(key)
			if err != nil {
				return fmt.Errorf("line %d: %w", d.counts.Lines, err)
			}
			if seen {
				continue
			}
			k := string(key)
			d.inBatch[k] = struct{}{}
			d.fresh = append(d.fresh, k)
		}
		d.counts.Passed++
		d.passed = append(d.passed, line...)
	}
	return nil
}

// end turns the reason for which no more lines came into the run's result. What
// came before is committed.
func (d *deduper) end(why error, maxLine int) error {
	n := d.counts.Lines
	switch {
	case why == errLineTooLong:
		return fmt.Errorf("line %d is longer than the %d bytes of --max-line; the lines before it are done: raise --max-line and run the same command on the same input again", n+1, maxLine)
	case why != io.EOF:
		return fmt.Errorf("%w after line %d; the same command with the same input goes on", why, n)
	}
	d.meter.summary()
	if d.counts.NoKey > 0 {
		return fmt.Errorf("%d of %d lines had no key and were passed as they are; the key is %s: correct the lines or the options", d.counts.NoKey, n, d.keys)
	}
	return nil
}

// A stream is standard output. Lines are written before their keys are recorded:
// after a crash between the two they come again, but none is lost.
type stream struct {
	st *oncelog.Store
	w  output
}

func (s *stream) commit(_ *batch, passed []byte, fresh []string, _ counts) error {
	if len(passed) == 0 {
		return nil
	}
	if _, err := s.w.Write(passed); err != nil {
		return err
	}
	killpoint()
	// A power cut takes what is only in the page cache, and would leave its keys
	// in the store.
	if err := s.w.sync(); err != nil {
		return err
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := s.st.Update(func(tx *oncelog.Tx) error { return record(tx, fresh) }); err != nil {
		return err
	}
	killpoint()
	return nil
}

func record(tx *oncelog.Tx, fresh []string) error {
	for _, k := range fresh {
		if err := tx.PutRecord([]byte(k), nil, 0); err != nil {
			return err
		}
	}
	return nil
}
