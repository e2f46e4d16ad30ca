package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// results are all figures of a run: for each workload, setting and peer the rounds, and in a round a figure for each unit.
type results struct {
	machine []string
	cells   map[cell][]map[string]float64
	order   []cell
}

type cell struct{ workload, at, peer string }

func newResults(machine []string) *results {
	return &results{machine: machine, cells: map[cell][]map[string]float64{}}
}

func (r *results) add(workload, at, peer string, round int, unit string, v float64) {
	c := cell{workload, at, peer}
	if r.cells[c] == nil {
		r.order = append(r.order, c)
	}
	for len(r.cells[c]) <= round {
		r.cells[c] = append(r.cells[c], map[string]float64{})
	}
	r.cells[c][round][unit] = v
}

func (r *results) latency(workload, at, peer string, round int, of string, q quantiles) {
	for _, v := range []struct {
		unit string
		v    float64
	}{{"p50-us", q.P50}, {"p99-us", q.P99}, {"p99.9-us", q.P999}, {"p99.99-us", q.P9999}} {
		r.add(workload, at, peer, round, of+v.unit, v.v)
	}
}

// figure is a median over the rounds, with the least and the most.
type figure struct {
	median, least, most float64
	known               bool
}

func (r *results) figure(workload, at, peer, unit string) figure {
	var all []float64
	for _, round := range r.cells[cell{workload, at, peer}] {
		if v, ok := round[unit]; ok {
			all = append(all, v)
		}
	}
	return figureOf(all)
}

func figureOf(all []float64) figure {
	if len(all) == 0 {
		return figure{}
	}
	slices.Sort(all)
	return figure{all[len(all)/2], all[0], all[len(all)-1], true}
}

// ratio is that of two peers' figures in the same round.
func (r *results) ratio(workload, at, peer, against, unit string) figure {
	a, b := r.cells[cell{workload, at, peer}], r.cells[cell{workload, at, against}]
	var all []float64
	for i := range min(len(a), len(b)) {
		x, ok := a[i][unit]
		y := b[i][unit]
		if ok && y != 0 {
			all = append(all, x/y)
		}
	}
	return figureOf(all)
}

// peers are those that have a figure, in the order of kinds.
func (r *results) peers(workload, at, unit string) (names []string) {
	for _, name := range append(kindNames(), "nothing") {
		if r.figure(workload, at, name, unit).known {
			names = append(names, name)
		}
	}
	return names
}

func kindNames() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// settings of a workload, in the order of the run.
func (r *results) settings(workload string) (all []string) {
	for _, c := range r.order {
		if c.workload == workload && !slices.Contains(all, c.at) {
			all = append(all, c.at)
		}
	}
	return all
}

// write writes the text that benchstat and readResults read, the table and the pictures.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.txt"), []byte(r.text()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.md"), []byte(r.markdown()), 0o644); err != nil {
		return err
	}
	return r.draw(dir)
}

// text is a line for each round, in the format of the benchmarks of Go.
func (r *results) text() string {
	var b strings.Builder
	for _, line := range r.machine {
		fmt.Fprintln(&b, line)
	}
	for _, c := range r.order {
		for _, round := range r.cells[c] {
			if len(round) == 0 {
				continue
			}
			fmt.Fprintf(&b, "Benchmark%s/%s/peer=%s 1", c.workload, c.at, c.peer)
			units := make([]string, 0, len(round))
			for unit := range round {
				units = append(units, unit)
			}
			slices.Sort(units)
			for _, unit := range units {
				fmt.Fprintf(&b, " %.5g %s", round[unit], unit)
			}
			fmt.Fprintln(&b)
		}
	}
	return b.String()
}

// readResults reads what text wrote.
func readResults(path string) (*results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := newResults(nil)
	rounds := map[cell]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, ok := strings.CutPrefix(lines.Text(), "Benchmark")
		if !ok {
			r.machine = append(r.machine, lines.Text())
			continue
		}
		fields := strings.Fields(name)
		workload, rest, _ := strings.Cut(fields[0], "/")
		at, peer, ok := strings.Cut(rest, "/peer=")
		if !ok || len(fields)%2 != 0 {
			return nil, fmt.Errorf("%s: %q is no result", path, lines.Text())
		}
		c := cell{workload, at, peer}
		for i := 2; i < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
			}
			r.add(workload, at, peer, rounds[c], fields[i+1], v)
		}
		rounds[c]++
	}
	return r, nil
}
