package main

import (
	"fmt"
	"math"
	"strings"
)

// markdown is a table for each workload: medians, with the least and the most of the rounds behind them.
func (r *results) markdown() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# oncelog beside others\n")
	say("Medians over the rounds; in brackets the least and the most. Peers took turns in one run. %s", "A ratio is that of two slices of the same round.\n")
	for _, line := range r.machine {
		if !strings.HasPrefix(line, "peer: ") {
			say("- %s", line)
		}
	}
	say("")

	if at := r.settings("W1"); len(at) > 0 {
		say("## W1: durable put-if-absent of fresh keys, operations a second\n")
		r.table(&b, "W1", at, "ops/s", "")
		say("\nOf the limit, same round:\n")
		r.table(&b, "W1", at, "ops/s", "limit")
		say("\n99.9th percentile of the latency, µs:\n")
		r.table(&b, "W1", at, "p99.9-us", "")
		say("\nBytes written to the device for each byte of keys and values. For oncelog, %s\n", "zeros that prepare the next segment are part of it:")
		r.table(&b, "W1", at, "device-B/B", "")
		if f := r.figure("W1", at[len(at)-1], "oncelog", "filled-B/B"); f.known {
			say("\nOf oncelog's, zeros written beforehand:")
			for _, a := range at {
				say("- %s: %s", a, show(r.figure("W1", a, "oncelog", "filled-B/B")))
			}
		}
		say("")
	}
	if at := r.settings("W2"); len(at) > 0 {
		say("## W2: look-ups by one caller, ns; files in the page cache\n")
		r.table(&b, "W2", at, "ns", "")
		say("\n99th percentile, µs (with the time that taking the time takes, about 0.05):\n")
		r.table(&b, "W2", at, "p99-us", "")
		say("")
	}
	if at := r.settings("W3"); len(at) > 0 {
		say("## W3: 64 callers, nine of ten calls are duplicates; oncelog through `Receiver.Do`\n")
		r.units(&b, "W3", at[0], "ops/s", "duplicate-p50-us", "duplicate-p99-us", "duplicate-p99.9-us", "fresh-p50-us", "fresh-p99.9-us")
		say("")
	}
	for _, at := range r.settings("W4") {
		say("## W4: what %s take\n", strings.ReplaceAll(at, "keys=", "")+" keys")
		r.units(&b, "W4", at, "RAM-B/key", "disk-B/key", "load-s")
		say("\nA key and a value have %d bytes.\n", keySize+valueSize)
	}
	if at := r.settings("W5"); len(at) > 0 {
		say("## W5: from opening to the first answer, ms\n")
		r.table(&b, "W5", at, "ms", "")
		say("\nThe first round's `killed` comes behind the whole load; the least is what a kill soon after opening costs.\n")
	}
	for _, at := range r.settings("W6") {
		say("## W6: the collector with %s keys, and look-ups while it runs without a pause; files in the page cache\n", strings.TrimPrefix(at, "keys="))
		r.units(&b, "W6", at, "GC-ms", "p50-us", "p99.9-us", "over-1ms/M")
		say("\nGC-ms: processor time of a collection. over-1ms/M: of a million look-ups.\n")
	}
	for _, at := range r.settings("W7") {
		say("## W7: half a day in half a minute: 8 callers put keys that live for 5 s\n")
		r.units(&b, "W7", at, "ops/s", "commit-p50-us", "commit-p99.99-us", "lookup-p50-us", "lookup-p99.99-us", "disk/live")
		say("")
	}
	if at := r.settings("W8"); len(at) > 0 {
		say("## W8: data larger than the memory that a cgroup allows, operations a second\n")
		r.table(&b, "W8", at, "ops/s", "")
		say("\n99th percentile, µs:\n")
		r.table(&b, "W8", at, "p99-us", "")
		say("")
	}
	say("## Settings\n")
	say("| peer | version, and what is not a default |\n|---|---|")
	for _, line := range r.machine {
		if peer, ok := strings.CutPrefix(line, "peer: "); ok {
			name, rest, _ := strings.Cut(peer, " ")
			say("| %s | %s |", name, strings.TrimSpace(rest))
		}
	}
	return b.String()
}

// table has a row a peer and a column a setting.
func (r *results) table(b *strings.Builder, workload string, settings []string, unit, against string) {
	rows(b, settings, func(peer, at string) figure {
		switch against {
		case "":
			return r.figure(workload, at, peer, unit)
		case peer:
			return figure{}
		}
		return r.ratio(workload, at, peer, against, unit)
	})
}

// units has a row a peer and a column a unit.
func (r *results) units(b *strings.Builder, workload, at string, units ...string) {
	rows(b, units, func(peer, unit string) figure { return r.figure(workload, at, peer, unit) })
}

// rows leaves out the peers of which nothing is known.
func rows(b *strings.Builder, columns []string, of func(peer, column string) figure) {
	fmt.Fprintf(b, "| | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("--:|", len(columns)))
	for _, peer := range append(kindNames(), "nothing") {
		row, known := "", false
		for _, column := range columns {
			f := of(peer, column)
			known = known || f.known
			row += " " + show(f) + " |"
		}
		if known {
			fmt.Fprintf(b, "| %s |%s\n", bold(peer), row)
		}
	}
}

func bold(peer string) string {
	if peer == "oncelog" {
		return "**oncelog**"
	}
	return peer
}

func show(f figure) string {
	switch {
	case !f.known:
		return "–"
	case f.least == f.most:
		return short3(f.median)
	}
	return fmt.Sprintf("%s (%s–%s)", short3(f.median), short3(f.least), short3(f.most))
}

// short3 is a number to three digits, without an exponent.
func short3(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	if digits > 0 {
		return fmt.Sprintf("%.*f", min(digits, 3), v)
	}
	p := math.Pow(10, float64(-digits))
	whole := fmt.Sprintf("%.0f", math.Round(v/p)*p)
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return whole
}
