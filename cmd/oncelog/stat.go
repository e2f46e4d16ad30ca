package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/oncelog/oncelog"
)

const statHelp = `Prints how many keys the store in DIR holds, what they cost, and the segments of
its log on a time line: how much of each is live, and when the last of it
expires. Safe beside a running owner.

  --json   one JSON object
`

func stat(_ context.Context, std streams, args []string) (err error) {
	st, dir, asJSON, err := inspect(args)
	if err != nil {
		return err
	}
	defer st.Close()
	v := newStoreStats(dir, st)
	if asJSON {
		return printJSON(std.out, v)
	}
	return v.print(std.out, time.Now())
}

// storeStats leaves out the Stats of what the owner did: this process did nothing.
type storeStats struct {
	Dir           string         `json:"dir"`
	Keys          int64          `json:"keys"`
	IndexBytes    int64          `json:"index_bytes"`
	DiskBytes     int64          `json:"disk_bytes"`
	LiveBytes     int64          `json:"live_bytes"`
	Segments      int            `json:"segments"`
	Outgoing      int            `json:"outgoing"`
	Parked        int            `json:"parked"`
	Doubts        int            `json:"doubts"`
	LogBytes      uint64         `json:"log_bytes"`
	CopiedBytes   uint64         `json:"copied_bytes"`
	SnapshotBytes uint64         `json:"snapshot_bytes"`
	Amplification float64        `json:"write_amplification"`
	Snapshot      *time.Time     `json:"snapshot,omitempty"`
	TimeLine      []segmentStats `json:"time_line"`
}

type segmentStats struct {
	Number  uint64     `json:"number"`
	Bytes   int64      `json:"bytes"`
	Keys    int64      `json:"keys"`
	Live    int64      `json:"live"`
	Dead    int64      `json:"dead"`
	Expires *time.Time `json:"expires,omitempty"`
	Never   bool       `json:"never"`
}

func newStoreStats(dir string, st *oncelog.Store) *storeStats {
	s := st.Stats()
	v := &storeStats{
		Dir: dir, Keys: s.Keys, IndexBytes: s.IndexBytes, DiskBytes: s.DiskBytes, LiveBytes: s.LiveBytes,
		Segments: s.Segments, Outgoing: s.Outgoing, Parked: s.Parked, Doubts: s.Doubts, LogBytes: s.LogBytes, CopiedBytes: s.CopiedBytes, SnapshotBytes: s.SnapshotBytes,
	}
	if asked := s.LogBytes - s.CopiedBytes; asked > 0 {
		v.Amplification = float64(s.LogBytes+s.SnapshotBytes) / float64(asked)
	}
	if !s.Snapshot.IsZero() {
		v.Snapshot = &s.Snapshot
	}
	for _, seg := range st.Segments() {
		one := segmentStats{seg.Number, seg.Bytes, seg.Keys, seg.Live, seg.Dead, nil, seg.Never}
		if !seg.Expires.IsZero() {
			one.Expires = &seg.Expires
		}
		v.TimeLine = append(v.TimeLine, one)
	}
	return v
}

func (v *storeStats) print(out io.Writer, now time.Time) error {
	w := bufio.NewWriter(out)
	row := func(name string, value any) { fmt.Fprintf(w, "%-13s %v\n", name, value) }
	row("keys", v.Keys)
	row("index bytes", v.IndexBytes)
	row("disk bytes", v.DiskBytes)
	row("live bytes", v.LiveBytes)
	row("segments", v.Segments)
	row("outgoing", v.Outgoing)
	row("parked", v.Parked)
	row("doubts", v.Doubts)
	if v.Snapshot == nil {
		row("snapshot", "none")
	} else {
		row("snapshot", v.Snapshot.UTC().Format(time.RFC3339))
	}
	if v.Amplification > 0 {
		fmt.Fprintf(w, "%-13s %.2f (log %d bytes, copies %d of them, snapshots %d)\n",
			"amplification", v.Amplification, v.LogBytes, v.CopiedBytes, v.SnapshotBytes)
	}
	fmt.Fprintf(w, "\n%8s %10s %10s  %-22s %s\n", "segment", "bytes", "live", "# live  . dead", "the last expires")
	for _, s := range v.TimeLine {
		fmt.Fprintf(w, "%8d %10d %10d  %s  %s\n", s.Number, s.Bytes, s.Live, s.bar(), s.ends(now))
	}
	return w.Flush()
}

// bar draws how much of a segment's records is live.
func (s *segmentStats) bar() string {
	const width = 20
	if s.Live+s.Dead <= 0 {
		return strings.Repeat(" ", width)
	}
	live := int(s.Live * width / (s.Live + s.Dead))
	if live == 0 && s.Live > 0 {
		live = 1 // a little is not nothing
	}
	return strings.Repeat("#", live) + strings.Repeat(".", width-live)
}

func (s *segmentStats) ends(now time.Time) string {
	switch {
	case s.Never:
		return "never"
	case s.Expires == nil:
		return ""
	case s.Expires.Before(now):
		return "expired"
	}
	return "in " + s.Expires.Sub(now).Round(time.Second).String()
}
