package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// The numbers that the store counts for others, to their end: those of a source that Advance keeps, those of a
// receiver's source, strictly in order, the ordinals of a topic's messages, and the tokens of claims, of which each
// process that makes a claim takes a million.

// count is what a child says of one of them: before the call, and after it.
type count struct {
	What string
	N    uint64
	Err  string `json:",omitempty"`
}

const (
	countMark    = "mark"
	countSource  = "source"
	countOrdinal = "ordinal"
	countClaim   = "claim"
)

// countFrom is the last number of each that was used before.
const countFrom = math.MaxUint64 - 150

var counted = []string{countMark, countSource, countOrdinal, countClaim}

// doCount goes on until nothing can be counted any more.
const doCount task = "count"

type counter struct {
	st *oncelog.Store
	r  *receiver.Receiver
}

func openCounter(dir string) (counter, error) {
	st, err := oncelog.Open(dir, &oncelog.Options{TTL: oncelog.Forever, RetryWindow: oncelog.NoRetryWindow, SegmentSize: 16 << 10, Pace: -1})
	if err != nil {
		return counter{}, err
	}
	r, err := st.Receiver(&receiver.Options{Window: receiver.Strict})
	return counter{st, r}, err
}

// found returns how far each has come; claims are known to nobody.
func (c counter) found() (all map[string]uint64, err error) {
	all = map[string]uint64{}
	if all[countMark], _, err = c.st.HighWater(countMark); err != nil {
		return nil, err
	}
	if all[countSource], _, err = c.r.HighWater(context.Background(), countSource); err != nil {
		return nil, err
	}
	all[countOrdinal] = countFrom // and none waits
	for m, err := range c.r.Outgoing(context.Background()) {
		if err != nil {
			return nil, err
		}
		all[countOrdinal] = max(all[countOrdinal], m.Ordinal)
	}
	return all, nil
}

// next makes the call that follows after n.
func (c counter) next(what string, n uint64) error {
	switch what {
	case countMark:
		fresh, err := c.st.Advance(countMark, n+1)
		if err == nil && !fresh {
			err = errors.New("not fresh")
		}
		return err
	case countSource:
		out, err := c.r.DoSeq(context.Background(), countSource, n+1, func(context.Context) ([]byte, error) { return nil, nil })
		if err == nil && out.Replayed {
			err = errors.New("handled already")
		}
		return err
	case countOrdinal:
		return c.st.Update(func(tx *oncelog.Tx) error { return tx.Emit(countOrdinal, fmt.Append(nil, n+1)) })
	}
	_, err := c.r.Do(context.Background(), fmt.Sprint("claim ", time.Now().UnixNano()), func(context.Context) ([]byte, error) { return nil, nil })
	return err
}

func (c *child) count() error {
	say(sayOpening, nil)
	all, err := openCounter(c.Dir)
	if err != nil {
		return err
	}
	at, err := all.found()
	if err != nil {
		return err
	}
	say(sayRecovered, at)
	over := map[string]bool{}
	for len(over) < len(counted) {
		for _, what := range counted {
			if over[what] {
				continue
			}
			v := count{What: what, N: at[what] + 1}
			say(sayIntent, v)
			if err := all.next(what, at[what]); err != nil {
				v.Err, over[what] = err.Error(), true
			}
			at[what]++
			say(sayAnswer, v)
		}
	}
	say(sayDone, nil)
	return nil
}

// Each number is one above the last, over kills too, until there is no number above it: then there is an error, and no
// number starts anew.
func TestPromise1KillRoundsOfOtherCounters(t *testing.T) {
	r := newRun(t)
	r.life(filepath.Join(t.TempDir(), "store"))
	const at = 1_000_000_000
	key := append([]byte{0}, countSource...) // of no scope
	forever := func(rec record.Record) record.Record {
		rec.At, rec.Expires = at, record.Forever
		return rec
	}
	counters{frame: 1, segment: 1, at: at, records: []record.Record{
		forever(record.Record{Kind: record.Mark, Key: []byte(countMark), Value: record.AppendMark(nil, record.MarkValue{Number: countFrom})}),
		forever(record.Record{
			Kind: record.Mark, Receiver: true, Key: key, Value: record.AppendMark(nil, record.MarkValue{Number: countFrom}),
			Attrs: record.AppendAttributes(nil, &record.Attributes{Token: countFrom - 1, Ordinal: countFrom}),
		}),
		forever(record.Record{Kind: record.Sent, Key: []byte(countOrdinal), Attrs: record.AppendAttributes(nil, &record.Attributes{Ordinal: countFrom})}),
		forever(record.Record{Kind: record.State, Receiver: true, Key: []byte("tokens"), Value: binary.LittleEndian.AppendUint64(nil, math.MaxUint64-20<<20)}),
	}}.write(t, r.dir)

	last := map[string]uint64{countMark: countFrom, countSource: countFrom, countOrdinal: countFrom}
	intended := map[string]uint64{}
	ends := map[string]string{}
	kills, ended := 0, 0
	for ; ended < 2; kills++ {
		p := r.start(job{Dir: r.dir, Do: doCount})
		if !p.after(sayAnswer, 1+r.rnd.IntN(240)) {
			ended++
		}
		p.kill()
		p.drain(t)
		for _, line := range p.lines {
			var v count
			switch line[0] {
			case sayRecovered:
				var found map[string]uint64
				require.NoError(t, json.Unmarshal(line[1:], &found))
				for what, n := range found {
					require.GreaterOrEqual(t, n, last[what], "%s: child %d", what, r.round)
					require.LessOrEqual(t, n, max(last[what], intended[what]), "%s: child %d", what, r.round)
					last[what] = n
				}
				continue
			case sayIntent, sayAnswer:
				require.NoError(t, json.Unmarshal(line[1:], &v))
			case sayFailed:
				require.Fail(t, "a child could not go on", "%s", line)
			}
			switch {
			case line[0] == sayIntent:
				intended[v.What] = v.N
			case v.Err != "":
				ends[v.What] = v.Err
			case line[0] == sayAnswer && v.What != countClaim:
				require.Equal(t, last[v.What]+1, v.N, v.What)
				last[v.What] = v.N
			}
		}
		require.Less(t, kills, 200)
	}
	t.Logf("%d kills; the ends: %q", kills, ends)
	require.Greater(t, kills, 10)
	require.Equal(t, map[string]uint64{countMark: math.MaxUint64, countSource: math.MaxUint64, countOrdinal: math.MaxUint64 - 1}, last)
	require.Equal(t, "not fresh", ends[countMark])
	for _, what := range []string{countOrdinal, countClaim} {
		require.Contains(t, ends[what], oncelog.ErrFull.Error(), what)
		require.Contains(t, ends[what], "used up", what)
	}
	require.NotEmpty(t, ends[countSource])

	// What waits is handed on, to the last.
	c, err := openCounter(r.dir)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	n := uint64(countFrom)
	err = c.r.Relay(ctx, func(_ context.Context, m receiver.Message) error {
		n++
		if m.Ordinal != n || string(m.Payload) != fmt.Sprint(n) {
			return fmt.Errorf("message %d says %s where %d was to come", m.Ordinal, m.Payload, n)
		}
		if n == math.MaxUint64-1 {
			stop()
		}
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, uint64(math.MaxUint64-1), n)
	for range c.r.Outgoing(context.Background()) {
		require.Fail(t, "a message was left")
	}
	require.NoError(t, c.st.Verify())
	require.NoError(t, c.st.Close())
}

// drain reads what the killed child has said, and waits for its end.
func (p *process) drain(t testing.TB) {
	for {
		if _, ok := p.next(); !ok {
			break
		}
	}
	<-p.ended
	require.Empty(t, strings.TrimSpace(string(bytes.TrimSpace(p.errs.Bytes()))))
}
