package main

import (
	"context"
	"fmt"
	"io"

	"github.com/oncelog/oncelog"
)

const statHelp = `Prints how many keys the store in DIR holds, and what they cost. Safe beside a
running owner.

  --json   one JSON object
`

func stat(_ context.Context, std streams, args []string) (err error) {
	st, dir, asJSON, err := inspect(args)
	if err != nil {
		return err
	}
	defer st.Close()
	return printStats(std.out, dir, st.Stats(), asJSON)
}

// storeStats leaves out the Stats of what the owner did: this process did nothing.
type storeStats struct {
	Dir        string `json:"dir"`
	Keys       int64  `json:"keys"`
	IndexBytes int64  `json:"index_bytes"`
	DiskBytes  int64  `json:"disk_bytes"`
	Segments   int64  `json:"segments"`
}

func printStats(w io.Writer, dir string, s oncelog.Stats, asJSON bool) error {
	v := storeStats{dir, int64(s.Keys), int64(s.IndexBytes), int64(s.DiskBytes), int64(s.Segments)}
	if asJSON {
		return printJSON(w, v)
	}
	_, err := fmt.Fprintf(w, "keys         %d\nindex bytes  %d\ndisk bytes   %d\nsegments     %d\n",
		v.Keys, v.IndexBytes, v.DiskBytes, v.Segments)
	return err
}
