package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oncelog/oncelog"
)

const demoHelp = `Shows the pattern at work. A sender delivers payments, each of them several times
and out of order, to a service that keeps a ledger: another process, which is
killed in the middle again and again. What was not answered is delivered again.
The service stores the change of the ledger and the payment's key in one
transaction, so each payment counts once.

  --requests N   payments (default 20000)
  --crashes N    kills (default 20)

Exit code 1 if the ledger is wrong.
`

// demoService is the command of the process that is killed. It is not for people.
const demoService = "demo-service"

func demo(ctx context.Context, std streams, args []string) (err error) {
	d := &demonstration{
		service: func(dir string) (*exec.Cmd, error) {
			self, err := os.Executable()
			return exec.Command(self, demoService, dir), err
		},
		seed: rand.Uint64(),
	}
	fs := newFlags()
	fs.IntVar(&d.payments, "requests", 20_000, "")
	fs.IntVar(&d.kills, "crashes", 20, "")
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usagef("unexpected argument %q; demo takes options only", rest[0])
	case d.payments < 1 || d.payments > 1_000_000:
		return usagef("--requests %d: give a number from 1 to 1000000", d.payments)
	case d.kills < 0 || d.kills > d.payments:
		return usagef("--crashes %d: give a number from 0 to that of the requests", d.kills)
	}
	dir, err := os.MkdirTemp("", "oncelog-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d.dir = filepath.Join(dir, "store")
	d.line = statusLine{w: std.err, tty: isTerminal(std.err), text: d.progress}
	d.line.start()
	err = d.run(ctx)
	d.line.stop()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(std.out, d.table()); err != nil {
		return err
	}
	return d.verdict()
}

// demonstration is the sender, and what it has seen.
type demonstration struct {
	service         func(dir string) (*exec.Cmd, error)
	dir             string
	payments, kills int
	seed            uint64
	line            statusLine

	todo   []int   // deliveries to make, a payment each, the next one last
	amount []int64 // of each payment, in cents

	mu       sync.Mutex
	sent     int // deliveries
	replayed int // answers that said so
	answered int
	killed   int
	between  int // kills that fell between an effect and its answer

	executed, total int64 // as the ledger has it in the end
	missing         int   // payments whose key the store does not have
}

const (
	accounts = 16 // of the ledger
	copies   = 4  // of a payment, at most
	window   = 64 // deliveries without an answer at a time
)

// plan makes the payments and the order in which they are delivered.
func (d *demonstration) plan(rng *rand.Rand) {
	for p := range d.payments {
		d.amount = append(d.amount, 1+rng.Int64N(100_00))
		for range 1 + rng.IntN(copies) {
			d.todo = append(d.todo, p)
		}
	}
	rng.Shuffle(len(d.todo), func(i, j int) { d.todo[i], d.todo[j] = d.todo[j], d.todo[i] })
}

func (d *demonstration) run(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(d.seed, 0))
	d.plan(rng)
	all := len(d.todo)
	for len(d.todo) > 0 {
		// The kills are spread over the run; the last life is left to its end.
		until := all + 1
		if d.killed < d.kills {
			until = all * (2*d.killed + 1) / (2*d.kills + 1)
		}
		if err := d.life(ctx, rng, until); err != nil {
			return err
		}
	}
	return d.audit()
}

// life runs the service once, and kills it at the first sign of work after so many answers.
func (d *demonstration) life(ctx context.Context, rng *rand.Rand, until int) error {
	cmd, err := d.service(d.dir)
	if err != nil {
		return err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the demonstration's service does not start: %w", err)
	}
	kill, lost := false, d.sent-d.answered // what earlier lives left unanswered
	open := map[int]int{}                  // payment → deliveries without an answer
	effect := map[int]bool{}               // payments whose change was made and not yet acknowledged
	afterEffect := rng.IntN(4) > 0         // or anywhere
	said := bufio.NewScanner(out)
	sending := func() error {
		for d.sent-d.answered-lost < window && len(d.todo) > 0 && !kill {
			p := d.todo[len(d.todo)-1]
			d.todo = d.todo[:len(d.todo)-1]
			open[p]++
			d.count(func() { d.sent++ })
			if _, err := fmt.Fprintf(in, "%d %d %d\n", p, p%accounts, d.amount[p]); err != nil {
				return nil // it is dying; its last words are still to be read
			}
		}
		if len(open) == 0 {
			return in.Close()
		}
		return nil
	}
	if err := sending(); err != nil {
		return err
	}
	for said.Scan() {
		var what string
		var p int
		if _, err := fmt.Sscan(said.Text(), &what, &p); err != nil {
			_ = cmd.Process.Kill()
			return fmt.Errorf("the demonstration's service said %q", said.Text())
		}
		if what == "effect" {
			effect[p] = true
		} else {
			if open[p]--; open[p] == 0 {
				delete(open, p)
			}
			if what == "executed" {
				delete(effect, p)
			}
			d.count(func() {
				d.answered++
				if what == "replayed" {
					d.replayed++
				}
			})
		}
		if ctx.Err() != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return context.Cause(ctx)
		}
		if !kill && d.answered >= until && (what == "effect" || !afterEffect) {
			kill = true
			if err := cmd.Process.Kill(); err != nil {
				return err
			}
		}
		if err := sending(); err != nil && !kill {
			return err
		}
	}
	err = cmd.Wait()
	if !kill {
		if err != nil {
			return fmt.Errorf("the demonstration's service failed: %s", strings.TrimSpace(complaint.String()))
		}
		return nil
	}
	d.count(func() {
		d.killed++
		if len(effect) > 0 {
			d.between++
		}
	})
	for p, n := range open { // not answered: the sender delivers again, by and by
		for range n {
			d.todo = append(d.todo, p)
			i, last := rng.IntN(len(d.todo)), len(d.todo)-1
			d.todo[i], d.todo[last] = d.todo[last], d.todo[i]
		}
	}
	return nil
}

// audit reads the ledger.
func (d *demonstration) audit() (err error) {
	st, err := oncelog.Open(d.dir, &oncelog.Options{MustExist: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for p := range d.payments {
		ok, err := st.Has(paymentKey(p))
		if err != nil {
			return err
		}
		if !ok {
			d.missing++
		}
	}
	return st.View(func(tx *oncelog.Tx) error {
		for a := range accounts {
			balance, executed, err := account(tx, a)
			if err != nil {
				return err
			}
			d.total += balance
			d.executed += executed
		}
		return nil
	})
}

func (d *demonstration) expected() (total int64) {
	for _, a := range d.amount {
		total += a
	}
	return total
}

// verdict is what is wrong with the ledger.
func (d *demonstration) verdict() error {
	switch {
	case d.total != d.expected():
		return fmt.Errorf("the ledger holds %s instead of %s", money(d.total), money(d.expected()))
	case d.executed != int64(d.payments):
		return fmt.Errorf("%d payments were executed instead of %d", d.executed, d.payments)
	case d.missing > 0:
		return fmt.Errorf("the store does not know %d payments", d.missing)
	}
	return nil
}

func (d *demonstration) count(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *demonstration) progress() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("%d payments: %d deliveries, %d answers, %d of them replayed, %d kills", d.payments, d.sent, d.answered, d.replayed, d.killed)
}

func (d *demonstration) table() string {
	var b strings.Builder
	row := func(name string, value any, note string) {
		fmt.Fprintf(&b, "%-13s %14v   %s\n", name, value, note)
	}
	row("payments", d.payments, "")
	row("deliveries", d.sent, "each payment up to four times, out of order, and again when there was no answer")
	row("kills", d.killed, fmt.Sprintf("SIGKILL; %d of them between an effect and its record", d.between))
	row("executed", d.executed, "each of them once")
	row("replayed", d.replayed, "answered from the store")
	row("ledger total", money(d.total), "expected "+money(d.expected()))
	return b.String()
}

func money(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

func paymentKey(p int) []byte { return fmt.Appendf(nil, "payment-%d", p) }

func accountKey(a int) []byte { return fmt.Appendf(nil, "account-%d", a) }

// account returns an account's balance and how many payments it has seen: 8 bytes each.
func account(tx *oncelog.Tx, a int) (balance, executed int64, err error) {
	v, ok, err := tx.Get(accountKey(a))
	if err != nil || !ok {
		return 0, 0, err
	}
	return int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:])), nil
}

// serve is the service: it applies the payments that it reads, several at a time, and answers when they are durable.
func serve(_ context.Context, std streams, args []string) (err error) {
	if len(args) != 1 {
		return usagef("%s is a part of demo", demoService)
	}
	st, err := oncelog.Open(args[0], &oncelog.Options{LockWait: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	var mu sync.Mutex
	say := func(what string, p int) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintf(std.out, "%s %d\n", what, p)
		return err
	}
	lines := make(chan string)
	failed := make(chan error, 8)
	var workers sync.WaitGroup
	for range cap(failed) {
		workers.Go(func() {
			for line := range lines {
				if err := apply(st, line, say); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	in := bufio.NewScanner(std.in)
	for in.Scan() && err == nil {
		select {
		case lines <- in.Text():
		case err = <-failed:
		}
	}
	close(lines)
	workers.Wait()
	select {
	case e := <-failed:
		err = errors.Join(err, e)
	default:
	}
	return errors.Join(err, in.Err())
}

// apply is the whole pattern: the payment's key and the change of the ledger are one transaction.
func apply(st *oncelog.Store, line string, say func(what string, p int) error) error {
	var p, a int
	var amount int64
	if _, err := fmt.Sscan(line, &p, &a, &amount); err != nil {
		return fmt.Errorf("not a payment: %q", line)
	}
	err := st.Update(func(tx *oncelog.Tx) error {
		if err := tx.PutRecord(paymentKey(p), nil, 0); err != nil {
			return err
		}
		balance, executed, err := account(tx, a)
		if err != nil {
			return err
		}
		v := binary.BigEndian.AppendUint64(nil, uint64(balance+amount))
		v = binary.BigEndian.AppendUint64(v, uint64(executed+1))
		if err := tx.Set(accountKey(a), v); err != nil {
			return err
		}
		return say("effect", p) // not a part of the pattern: it tells the sender when to kill
	})
	switch {
	case errors.Is(err, oncelog.ErrExists):
		return say("replayed", p)
	case err != nil:
		return err
	}
	return say("executed", p)
}
