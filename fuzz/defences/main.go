package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "take out this `defence` alone")
	pick := flag.Int("pick", 0, "take out so many, chosen at random; 0 = all")
	seed := flag.Uint64("seed", 0, "of the choice; 0 = another one each time")
	list := flag.Bool("list", false, "name the defences, what each prevents and its rungs")
	all := flag.Bool("all", false, "run all rungs of each, not only until the first is red")
	flag.Parse()
	chosen, err := choose(*only, *pick, *seed)
	if err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("%q is no flag", flag.Arg(0))
	}
	if err == nil && *list {
		for _, d := range chosen {
			fmt.Printf("%s\n\t%s.\n\ttaken out of %s\n", d.name, d.prevents, d.file)
			for _, r := range d.rungs {
				fmt.Printf("\t%v\n", r)
			}
		}
		return
	}
	if err == nil {
		err = run(chosen, *all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "defences:", err)
		os.Exit(1)
	}
}

// choose returns the defences that the flags ask for.
func choose(only string, pick int, seed uint64) ([]defence, error) {
	if only != "" {
		for _, d := range defences {
			if d.name == only {
				return []defence{d}, nil
			}
		}
		return nil, fmt.Errorf("there is no defence %q, see -list", only)
	}
	if pick == 0 || pick >= len(defences) {
		return defences, nil
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("%d of %d, -seed %d\n", pick, len(defences), seed)
	var chosen []defence
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(defences))[:pick] {
		chosen = append(chosen, defences[i])
	}
	return chosen, nil
}

// run takes the defences out, one after the other.
func run(chosen []defence, all bool) error {
	b, err := newBench()
	if err != nil {
		return err
	}
	defer b.close()
	began := time.Now()
	var rows, missed []string
	for _, d := range chosen {
		start := time.Now()
		caught, err := b.takeOut(d, all)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		took := time.Since(start).Seconds()
		by := strings.Join(caught, ", ")
		if len(caught) == 0 {
			missed = append(missed, d.name)
			by = "nothing"
		}
		fmt.Printf("%5.1f s  %-30s %s\n", took, d.name, by)
		rows = append(rows, fmt.Sprintf("| %s | %s | %.1f |", d.name, by, took))
	}
	fmt.Printf("\n| taken out | red | s |\n|---|---|---|\n%s\n\n", strings.Join(rows, "\n"))
	if len(missed) > 0 {
		return fmt.Errorf("no rung has noticed that this is gone: %s", strings.Join(missed, ", "))
	}
	fmt.Printf("%d defences were taken out, each was missed, %.0f s\n", len(chosen), time.Since(began).Seconds())
	return nil
}
