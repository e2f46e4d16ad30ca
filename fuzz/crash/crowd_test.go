//go:build linux && amd64

package crash

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// The second workload has several callers at once, so that batches hold frames of several, and answers, housekeeping and
// the next segment's preparation fall between each other's calls. Each caller owns its keys and does one thing after the
// other, so what must be found of its keys is known as exactly as for one caller. Of all together it is known that
// transactions are committed in some order, and that a cut leaves a beginning of it: each takes the next number of a
// chain, in the same commit.

const (
	crowdSize  = 6
	crowdSteps = 42 // of each caller, in each of two processes
	crowdKeys  = 5  // of each caller
)

// member is a caller.
type member struct {
	number int
	st     *oncelog.Store
	r      *receiver.Receiver
}

func (m *member) key(i int) []byte { return fmt.Appendf(nil, "%d key %d", m.number, i%crowdKeys) }

func (m *member) mark(step int) string { return fmt.Sprintf("%d.%d", m.number, step) }

func (m *member) value(step int) []byte {
	return []byte("#" + m.mark(step) + "#" + strings.Repeat(" v", step*31%90))
}

// link takes the chain's next number, for a step of this caller.
func (m *member) link(tx *oncelog.Tx, step int) error {
	head, _, err := tx.Get([]byte("head"))
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(head))
	n++
	return errors.Join(tx.Set([]byte("head"), []byte(fmt.Sprint(n))), tx.Set(fmt.Appendf(nil, "link %d", n), []byte(m.mark(step))))
}

// do takes a step. What it does depends on its number alone, and shows whole or not at all.
func (m *member) do(step int) error {
	ctx := context.Background()
	name := fmt.Sprintf("%d message %d", m.number, step%crowdKeys)
	switch step % 7 {
	case 0:
		_, _, err := m.st.PutIfAbsent(m.key(step), m.value(step), 0)
		return err
	case 1, 5:
		return m.st.Update(func(tx *oncelog.Tx) error {
			_, err := tx.DeleteRecord(m.key(step + 2))
			_, seqErr := tx.Advance(fmt.Sprint("source ", m.number), uint64(step))
			return errors.Join(err, seqErr, tx.Set(fmt.Appendf(nil, "%d state %d", m.number, step%2), m.value(step)), m.link(tx, step))
		})
	case 2:
		_, err := m.r.Do(ctx, name, func(context.Context) ([]byte, error) { return m.value(step), nil })
		return err
	case 3:
		_, err := m.r.DoTx(ctx, name+" sends", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			return m.value(step), tx.Emit(fmt.Sprint("mail ", m.number), m.value(step))
		})
		return err
	case 4:
		_, err := m.st.Delete(m.key(step - 4))
		return err
	}
	if m.number == 0 { // the one that keeps house, beside the store itself
		return errors.Join(m.st.Compact(), m.st.Snapshot())
	}
	_, _, err := m.st.PutIfAbsent(m.key(step), m.value(step), oncelog.Forever)
	return err
}

// crowdRun has these callers take all their steps, in two processes' lives. told is called after each.
func crowdRun(dir string, never bool, callers []int, told func(st *oncelog.Store, caller, step int) error, phase func(what string) error) error {
	var clock atomic.Int64
	clock.Store(begins)
	o := options(&clock)
	if never {
		o.Sync = oncelog.SyncNever
	}
	for life := range 2 {
		st, err := oncelog.Open(filepath.Join(dir, "store"), o)
		if err != nil {
			return err
		}
		r, err := st.Receiver(nil)
		if err != nil {
			return err
		}
		if err := phase("open"); err != nil {
			return err
		}
		errs := make([]error, len(callers))
		var all sync.WaitGroup
		for i, number := range callers {
			all.Go(func() {
				m := member{number, st, r}
				for step := life * crowdSteps; step < (life+1)*crowdSteps && errs[i] == nil; step++ {
					if errs[i] = m.do(step); errs[i] == nil {
						errs[i] = told(st, number, step)
					}
				}
			})
		}
		all.Wait()
		if err := errors.Join(append(errs, st.Close())...); err != nil {
			return err
		}
		if err := phase("close"); err != nil {
			return err
		}
	}
	return nil
}

func everybody() (all []int) {
	for i := range crowdSize {
		all = append(all, i)
	}
	return all
}

func init() {
	children["crowd"] = func(dir, arg string) error {
		return crowdRun(dir, arg == "never", everybody(), func(_ *oncelog.Store, caller, step int) error {
			note(dir, fmt.Sprintf("answered %d.%d", caller, step))
			return nil
		}, func(what string) error { note(dir, "answered all "+what); return nil })
	}
	contentsOf["crowd"] = crowdContents
}

// crowdContents is all that the store answers, in words, each line behind its owner's number; and the chain.
func crowdContents(st *oncelog.Store) (string, error) {
	var all []string
	line := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	ctx := context.Background()
	for r, err := range st.Records() {
		if err != nil {
			return "", err
		}
		line("%s: %x, %d to %d", r.Key, r.Value, r.Committed.UnixMilli(), r.Expires.UnixMilli())
	}
	r, err := st.Receiver(nil)
	if err != nil {
		return "", err
	}
	err = st.View(func(tx *oncelog.Tx) error {
		head, _, err := tx.Get([]byte("head"))
		if err != nil {
			return err
		}
		line("chain head %s", head)
		for n := 1; ; n++ {
			who, ok, err := tx.Get(fmt.Appendf(nil, "link %d", n))
			if err != nil {
				return err
			}
			if !ok && n > crowdSize*crowdSteps { // holes are found, and links behind them
				return nil
			}
			if ok {
				line("chain %06d %s", n, who)
			}
		}
	})
	for i := range crowdSize {
		err = errors.Join(err, st.View(func(tx *oncelog.Tx) error {
			for j := range 2 {
				v, ok, err := tx.Get(fmt.Appendf(nil, "%d state %d", i, j))
				if err != nil {
					return err
				}
				if ok {
					line("%d state %d: %x", i, j, v)
				}
			}
			return nil
		}))
		mark, ok, e := st.HighWater(fmt.Sprint("source ", i))
		err = errors.Join(err, e)
		line("%d mark %d %v", i, mark, ok)
		for j := range crowdKeys {
			for _, end := range []string{"", " sends"} {
				name := fmt.Sprintf("%d message %d%s", i, j, end)
				l, e := r.Lookup(ctx, name)
				if err = errors.Join(err, e); e == nil && l.State == receiver.StateDone {
					line("%s: %d %x %d", name, l.Result.Kind, l.Result.Value, l.Until.UnixMilli())
				}
			}
		}
	}
	for m, e := range r.Outgoing(ctx) {
		if e != nil {
			return "", e
		}
		line("%s waiting %d %s %x", strings.TrimPrefix(m.Topic, "mail "), m.Ordinal, m.Key, m.Payload)
	}
	slices.Sort(all)
	return strings.Join(all, "\n"), err
}

// crowd is the workload of several callers.
func crowd(t *testing.T, never bool) workload {
	w := workload{name: "crowd", role: "crowd", contents: crowdContents}
	if never {
		w.name, w.arg = "crowd without syncs", "never"
	}
	var owned [crowdSize][]string
	for i := range owned {
		owned[i] = append(owned[i], split(empty(t, crowdContents))[i])
		require.NoError(t, crowdRun(memoryDir(t), never, []int{i}, func(st *oncelog.Store, _, _ int) error {
			c, err := crowdContents(st)
			owned[i] = append(owned[i], split(c)[i])
			return err
		}, func(string) error { return nil }))
	}
	w.begin = func() tracker { return &crowdTracker{owned: owned, never: never} }
	return w
}

// split returns what is each caller's, with its links of the chain, without their numbers.
func split(contents string) (owned [crowdSize]string) {
	for line := range strings.SplitSeq(contents, "\n") {
		if rest, ok := strings.CutPrefix(line, "chain "); ok {
			if _, link, ok := strings.Cut(rest, " "); ok && !strings.HasPrefix(rest, "head") {
				owned[link[0]-'0'] += "link " + link + "\n"
			}
			continue
		}
		owned[line[0]-'0'] += line + "\n"
	}
	return owned
}

// chained checks that the links found are the first, without holes.
func chained(contents string) error {
	n, head := 0, ""
	for line := range strings.SplitSeq(contents, "\n") {
		rest, ok := strings.CutPrefix(line, "chain ")
		if !ok {
			continue
		}
		number, _, _ := strings.Cut(rest, " ")
		if number == "head" {
			head = strings.TrimPrefix(rest, "head ")
			continue
		}
		if n++; number != fmt.Sprintf("%06d", n) {
			return fmt.Errorf("the chain has link %s in the place of link %d", number, n)
		}
	}
	if head != fmt.Sprint(n) && (n > 0 || head != "") {
		return fmt.Errorf("the chain has %d links, and its head is %s", n, head)
	}
	return nil
}

type crowdTracker struct {
	owned            [crowdSize][]string // what each has after so many of its steps
	never            bool
	answered, synced [crowdSize]int
	lives            int
}

func (c *crowdTracker) note(what string) error {
	rest := strings.TrimPrefix(what, "answered ")
	if rest == "all close" {
		c.synced = c.answered
		c.lives++
		return nil
	}
	caller, step, ok := strings.Cut(rest, ".")
	if !ok {
		return nil
	}
	i, _ := strconv.Atoi(caller)
	if step != fmt.Sprint(c.answered[i]) {
		return fmt.Errorf("%q, and %d were answered", what, c.answered[i])
	}
	c.answered[i]++
	return nil
}

func (c *crowdTracker) over() bool { return c.lives == 2 }

func (c *crowdTracker) cut() expectation {
	if c.never {
		return c.from(c.synced)
	}
	return c.killed()
}

func (c *crowdTracker) killed() expectation { return c.from(c.answered) }

func (c *crowdTracker) from(first [crowdSize]int) expectation {
	answered, owned := c.answered, c.owned
	e := expectation{behind: fmt.Sprint("answers ", answered), clock: begins}
	for i := range answered {
		e.key = e.key*0x100000001b3 ^ uint64(first[i])<<32 ^ uint64(answered[i])
	}
	e.accepts = func(found string) (lost bool, err error) {
		if err := chained(found); err != nil {
			return false, err
		}
		for i, own := range split(found) {
			last := min(answered[i]+1, len(owned[i])-1)
			at := last
			for at >= first[i] && owned[i][at] != own {
				at--
			}
			if at < first[i] {
				return false, fmt.Errorf("found is neither what caller %d was answered nor what was in flight:\n%s", i, difference(owned[i][answered[i]], own))
			}
			lost = lost || at < answered[i] && owned[i][answered[i]] != own
		}
		return lost, nil
	}
	return e
}
