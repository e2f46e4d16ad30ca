package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/oncelog/oncelog"
)

const verifyHelp = `Reads everything in the store in DIR back and checks it. Exits 1 when something is
damaged, and says where. Safe beside a running owner.

  --json   one JSON object, also when damaged: {"ok":false,"file":...,"offset":...,"reason":...}
`

type verdict struct {
	OK     bool   `json:"ok"`
	File   string `json:"file,omitempty"`
	Offset *int64 `json:"offset,omitempty"` // 0 is a place too
	Reason string `json:"reason,omitempty"`
}

func verify(_ context.Context, std streams, args []string) error {
	st, dir, asJSON, err := inspect(args)
	if _, wrongUse := errors.AsType[*usageError](err); wrongUse || errors.Is(err, flag.ErrHelp) {
		return err
	}
	// Opening reads a store too, and is where most damage shows.
	if err == nil {
		err = st.Verify()
		st.Close()
	}
	if asJSON {
		v := verdict{OK: err == nil}
		if damage, ok := errors.AsType[*oncelog.CorruptError](err); ok {
			v.File, v.Offset, v.Reason = damage.File, &damage.Offset, damage.Reason
		} else if err != nil {
			v.Reason = err.Error()
		}
		if printErr := printJSON(std.out, v); err == nil {
			err = printErr
		}
		return err
	}
	if err == nil {
		_, err = fmt.Fprintf(std.out, "%s is whole\n", oneLine(dir))
	}
	return err
}
