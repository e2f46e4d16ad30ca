package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

const settleHelp = `Ends the doubt about KEY in the store in DIR. happened: the work was done, and
duplicates get its result, which is --value. not: it was not done, and the key is new.
The store must have no other owner.

  --scope NAME    the key's scope; once for each name of its path, outermost first
  --source NAME   KEY is a number of this source's sequence
  --epoch N       of that sequence
  --value TEXT    the result, with happened; default empty

Settling a key that is not in doubt is an error and changes nothing.
`

// names collects a flag that may be given several times.
type names []string

func (n *names) String() string { return strings.Join(*n, "/") }

func (n *names) Set(name string) error {
	*n = append(*n, name)
	return nil
}

func settle(ctx context.Context, _ streams, args []string) error {
	var scope names
	flags := newFlags()
	flags.Var(&scope, "scope", "")
	source := flags.String("source", "", "")
	epoch := flags.Uint64("epoch", 0, "")
	value := flags.String("value", "", "")
	rest, err := parse(flags, args)
	if err != nil {
		return err
	}
	if len(rest) != 3 || rest[0] == "" || rest[1] == "" {
		return usagef("settle what, and how? settle DIR KEY happened|not")
	}
	dir, key := rest[0], rest[1]
	var res receiver.Resolution
	switch rest[2] {
	case "happened":
		res = receiver.Happened([]byte(*value))
	case "not":
		if *value != "" {
			return usagef("--value is the result of work that happened")
		}
		res = receiver.HappenedNot()
	default:
		return usagef("%q is no answer: it happened, or not", rest[2])
	}
	seq := uint64(0)
	if *source != "" {
		if seq, err = strconv.ParseUint(key, 10, 64); err != nil {
			return usagef("%q is no number of a sequence", key)
		}
	}
	st, err := openStore(dir, oncelog.Options{MustExist: true})
	if err != nil {
		return err
	}
	r, err := st.Receiver(nil)
	if err == nil {
		for _, name := range scope {
			r = r.Scope(name)
		}
		if *source != "" {
			err = r.SettleSeq(ctx, *source, *epoch, seq, res)
		} else {
			err = r.Settle(ctx, key, res)
		}
	}
	if errors.Is(err, receiver.ErrNotInDoubt) {
		err = fmt.Errorf("%q is not in doubt; oncelog doubts %s lists what is", key, dir)
	}
	return errors.Join(err, st.Close())
}
