package calls

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oncelog/oncelog"
)

// Contents is what the store answers about one caller's names, in words.
func (s *Service) Contents(caller int) (string, error) {
	ctx := context.Background()
	var all []string
	line := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	mine := fmt.Sprint(caller, "/")
	for r, err := range s.st.Records() {
		if err != nil {
			return "", err
		}
		if !strings.HasPrefix(string(r.Key), mine) {
			continue
		}
		line("record %s: %x until %d", r.Key, r.Value, milli(r.Expires))
		if v, ok, err := s.st.Get(r.Key); err != nil {
			return "", err
		} else if !ok || string(v) != string(r.Value) {
			line("and Get says %x %v", v, ok)
		}
	}
	for i := range keyNames {
		there, err := s.st.Has([]byte(recordKey(caller, i)))
		if err != nil {
			return "", err
		}
		line("%s is there: %v", recordKey(caller, i), there)
	}
	err := s.st.View(func(tx *oncelog.Tx) error {
		for i := range stateNames {
			v, ok, err := tx.Get([]byte(stateKey(caller, i)))
			if err != nil {
				return err
			}
			line("%s: %s", stateKey(caller, i), found(v, ok))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	n, ok, err := s.st.HighWater(source(caller))
	if err != nil {
		return "", err
	}
	line("mark %d %v", n, ok)
	for i := range doNames {
		l, err := s.lookup(ctx, doKey(caller, i))
		if err != nil {
			return "", err
		}
		line("%s: %s", doKey(caller, i), l)
	}
	n, ok, err = s.r.HighWater(ctx, orders(caller))
	if err != nil {
		return "", err
	}
	line("orders %d %v", n, ok)
	for n, err := range s.r.Gaps(ctx, orders(caller)) {
		if err != nil {
			return "", err
		}
		line("gap %d", n)
	}
	if caller == 0 {
		for m, err := range s.r.Outgoing(ctx) {
			if err != nil {
				return "", err
			}
			line("waiting %s %d %x", m.Topic, m.Ordinal, m.Payload)
		}
		for m, err := range s.r.Parked(ctx) {
			if err != nil {
				return "", err
			}
			line("parked %s %d %x", m.Topic, m.Ordinal, m.Payload)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n"), nil
}

func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Contents is what a store must answer about the caller's names at that time.
func (s *State) Contents(caller int, now int64) string {
	var all []string
	line := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for k := range s.records {
		if e, ok := s.record(k, now); ok {
			line("record %s: %x until %d", k, e.value, e.expires)
		}
	}
	for i := range keyNames {
		_, there := s.record(recordKey(caller, i), now)
		line("%s is there: %v", recordKey(caller, i), there)
	}
	for i := range stateNames {
		v, ok := s.state[stateKey(caller, i)]
		line("%s: %s", stateKey(caller, i), found([]byte(v), ok))
	}
	m, ok := s.marks[source(caller)]
	line("mark %d %v", m, ok)
	for i := range doNames {
		line("%s: %s", doKey(caller, i), s.lookup(doKey(caller, i), now))
	}
	o := s.orders
	line("orders %d %v", o.high, o.high > 0)
	for n := max(o.first, o.high-min(o.high, window)); n < o.high; n++ {
		if !o.seen[n] {
			line("gap %d", n)
		}
	}
	for _, m := range s.waiting {
		line("waiting %s %d %x", topic, m.ordinal, m.payload)
	}
	for _, m := range s.parked {
		line("parked %s %d %x", topic, m.ordinal, m.payload)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// Difference shows the lines that only one has.
func Difference(want, got string) string {
	w, g := map[string]bool{}, map[string]bool{}
	for l := range strings.SplitSeq(want, "\n") {
		w[l] = true
	}
	for l := range strings.SplitSeq(got, "\n") {
		g[l] = true
	}
	var b strings.Builder
	for l := range strings.SplitSeq(want, "\n") {
		if !g[l] {
			fmt.Fprintf(&b, "- %.120s\n", l)
		}
	}
	for l := range strings.SplitSeq(got, "\n") {
		if !w[l] {
			fmt.Fprintf(&b, "+ %.120s\n", l)
		}
	}
	return b.String()
}
