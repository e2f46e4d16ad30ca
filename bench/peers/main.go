package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

var (
	short  = flag.Bool("short", false, "fewer keys, rounds and peers' turns: at most 4 minutes, for a look and not to quote")
	only   = flag.String("only", "", "workloads, comma-separated: W1,W3; all unless given")
	names  = flag.String("peers", "", "peers, comma-separated; all unless given")
	out    = flag.String("out", "bench/results", "where the results go")
	work   = flag.String("dir", "", "where the stores go, on the disk to measure; a temporary directory unless given")
	rounds = flag.Int("rounds", 0, "rounds; 0 = 5, or 2 with -short")
	render = flag.Bool("render", false, "measure nothing: make table and pictures again from results.txt")
)

func main() {
	if os.Getenv(childEnv) != "" {
		// In place of the parent's; SIGINT is the parent's to answer.
		signal.Ignore(os.Interrupt)
		if err := serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "peers: child:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := parent(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func parent() error {
	if *render {
		res, err := readResults(filepath.Join(*out, "results.txt"))
		if err != nil {
			return err
		}
		return res.write(*out)
	}
	if *rounds == 0 {
		*rounds = 5
		if *short {
			*rounds = 2
		}
	}
	dir, err := os.MkdirTemp(*work, "peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		_ = os.RemoveAll(dir)
		os.Exit(130) // the children die with their parent
	}()
	r := &run{dir: dir, rounds: *rounds, began: time.Now(), res: newResults(describeMachine(dir)), loaded: map[string]*process{}}
	r.size()
	for _, k := range kinds {
		if *names == "" || slices.Contains(strings.Split(*names, ","), k.name) {
			r.kinds = append(r.kinds, k)
		}
	}
	for _, w := range workloads {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), w.name) {
			continue
		}
		if err := w.run(r); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	if err := r.closeLoaded(); err != nil {
		return err
	}
	r.say("done")
	fmt.Fprintln(os.Stderr)
	return r.res.write(*out)
}
