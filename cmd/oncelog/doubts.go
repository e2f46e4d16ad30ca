package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"

	"github.com/oncelog/oncelog/receiver"
)

const doubtsHelp = `Prints what is in doubt in the store in DIR: work that was begun under an intent, or
ended without an answer, and of which nobody knows whether it happened. A line each:
scope, key and note, quoted; for a number of a sequence, its source, epoch and number
instead of the key. Safe beside a running owner, whose work in progress under an
intent is in the list too: it is in doubt once the owner is gone.

  --json   one JSON object a doubt; what is not UTF-8 is in a field with _base64

oncelog settle says what became of it.
`

type doubted struct {
	Scope      []string `json:"scope"`
	Key        *string  `json:"key,omitempty"`
	KeyBase64  []byte   `json:"key_base64,omitempty"`
	Source     string   `json:"source,omitempty"`
	Epoch      uint64   `json:"epoch,omitempty"`
	Seq        *uint64  `json:"seq,omitempty"`
	Note       *string  `json:"note,omitempty"`
	NoteBase64 []byte   `json:"note_base64,omitempty"`
}

func doubts(ctx context.Context, std streams, args []string) (err error) {
	st, _, asJSON, err := inspect(args)
	if err != nil {
		return err
	}
	defer st.Close()
	r, err := st.Receiver(nil)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(std.out)
	defer func() {
		if ferr := w.Flush(); err == nil {
			err = ferr
		}
	}()
	for d, err := range r.Doubts(ctx) {
		if err != nil {
			return err
		}
		if asJSON {
			err = printJSON(w, asDoubted(d))
		} else {
			_, err = w.Write(appendDoubt(nil, d))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func asDoubted(d receiver.Doubt) doubted {
	v := doubted{Scope: append([]string{}, d.Scope...)}
	if d.Key != "" {
		v.Key, v.KeyBase64 = text([]byte(d.Key))
	} else {
		v.Source, v.Epoch, v.Seq = d.Source, d.Epoch, &d.Seq
	}
	v.Note, v.NoteBase64 = text(d.Note)
	return v
}

func appendDoubt(dst []byte, d receiver.Doubt) []byte {
	for i, name := range d.Scope {
		if i > 0 {
			dst = append(dst, '/')
		}
		dst = strconv.AppendQuote(dst, name)
	}
	dst = append(dst, '\t')
	if d.Key != "" {
		dst = strconv.AppendQuote(dst, d.Key)
	} else {
		dst = strconv.AppendQuote(dst, d.Source)
		dst = fmt.Appendf(dst, " epoch %d number %d", d.Epoch, d.Seq)
	}
	dst = append(dst, '\t')
	return append(strconv.AppendQuote(dst, string(d.Note)), '\n')
}
