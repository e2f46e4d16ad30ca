package main

import (
	"bufio"
	"context"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/oncelog/oncelog"
)

const dumpHelp = `Prints every live record in the store in DIR, in no particular order: its key and
its value, quoted, when it was committed and when it expires. Safe beside a running owner.

  --json   one JSON object a record; what is not UTF-8 is in key_base64 or
           value_base64 instead of key or value; expires is missing for never

The keys that oncelog dedup records start with = for the bytes of a line, of a column
or in a JSON string, : for another JSON value, # for the SHA-256 of a longer key.
`

type dumped struct {
	Key         *string    `json:"key,omitempty"`
	KeyBase64   []byte     `json:"key_base64,omitempty"`
	Value       *string    `json:"value,omitempty"`
	ValueBase64 []byte     `json:"value_base64,omitempty"`
	Committed   time.Time  `json:"committed"`
	Expires     *time.Time `json:"expires,omitempty"`
}

func dump(_ context.Context, std streams, args []string) (err error) {
	st, _, asJSON, err := inspect(args)
	if err != nil {
		return err
	}
	defer st.Close()
	w := bufio.NewWriterSize(std.out, 64<<10)
	defer func() {
		if ferr := w.Flush(); err == nil {
			err = ferr
		}
	}()
	var line []byte
	for r, err := range st.Records() {
		if err != nil {
			return err
		}
		if asJSON {
			err = printJSON(w, asDumped(r))
		} else {
			line = appendRecord(line[:0], r)
			_, err = w.Write(line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func asDumped(r oncelog.Record) dumped {
	d := dumped{Committed: r.Committed.UTC()}
	d.Key, d.KeyBase64 = text(r.Key)
	d.Value, d.ValueBase64 = text(r.Value)
	if !r.Expires.IsZero() {
		t := r.Expires.UTC()
		d.Expires = &t
	}
	return d
}

// text returns b as a string if that loses nothing; encoding/json would put
// U+FFFD for what is not UTF-8.
func text(b []byte) (s *string, base64 []byte) {
	if !utf8.Valid(b) {
		return nil, b
	}
	t := string(b)
	return &t, nil
}

func appendRecord(dst []byte, r oncelog.Record) []byte {
	dst = append(strconv.AppendQuote(dst, string(r.Key)), '\t')
	dst = append(strconv.AppendQuote(dst, string(r.Value)), '\t')
	dst = append(r.Committed.UTC().AppendFormat(dst, time.RFC3339), '\t')
	if r.Expires.IsZero() {
		dst = append(dst, "never"...)
	} else {
		dst = r.Expires.UTC().AppendFormat(dst, time.RFC3339)
	}
	return append(dst, '\n')
}
