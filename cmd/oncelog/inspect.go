package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/oncelog/oncelog"
)

// The commands in stat.go, verify.go and dump.go look at a store that may be in
// use. They take no lock and write nothing; they see what was durable when they
// opened it.

// inspect parses DIR [--json] and opens DIR. A directory that isn't there is an
// error: to look at a store must not make one.
func inspect(args []string) (st *oncelog.Store, dir string, asJSON bool, err error) {
	flags := newFlags()
	flags.BoolVar(&asJSON, "json", false, "")
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return nil, "", false, err
	case len(rest) == 0 || rest[0] == "":
		return nil, "", false, usagef("which store? Name its directory")
	case len(rest) > 1:
		return nil, "", false, usagef("one directory at a time; unexpected argument %q", rest[1])
	}
	dir = rest[0]
	st, err = openStore(dir, oncelog.Options{ReadOnly: true, MustExist: true})
	return st, dir, asJSON, err
}

// openStore is Open with advice where the operating system's error alone would
// stand.
func openStore(dir string, opts oncelog.Options) (*oncelog.Store, error) {
	st, err := oncelog.Open(dir, &opts)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("%w; check the directory's path and permissions", err)
	}
	return st, err
}

// printJSON prints a value on a line.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
