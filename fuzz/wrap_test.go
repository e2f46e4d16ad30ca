package fuzz

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/record"
)

// No store lives long enough to see its numbers end; a test writes the files of one that has, by docs/FORMAT.md. What
// must not happen at the end is that a number starts anew from 0: a frame would pass for an old one, a segment would
// come before all others, and a number of a source or a topic would be new that was handled. So at the end there is an
// error that says so, and what is there stays readable.

// counters is where a store stands.
type counters struct {
	frame   uint64 // of its first transaction, which changes a state of the test's own
	segment uint64
	at      int64 // milliseconds
	records []record.Record
}

// write makes the store: its front was dropped long ago, up to one segment, in which there is one transaction.
func (c counters) write(t testing.TB, dir string) {
	le := binary.LittleEndian
	manifest := append([]byte("onceman\x00\x01"), make([]byte, 7)...)
	manifest = append(manifest, "sixteen bytes id"...)
	manifest = le.AppendUint64(manifest, 4711)
	manifest = le.AppendUint64(manifest, xxhash.Sum64(manifest))

	const nonce = 0x0123456789abcdef
	header := append([]byte("oncewal\x00\x01"), make([]byte, 7)...)
	header = append(header, "sixteen bytes id"...)
	for _, v := range []uint64{c.segment, nonce, c.frame, uint64(c.at), record.Forever} {
		header = le.AppendUint64(header, v)
	}
	header = le.AppendUint64(header, xxhash.Sum64(header))
	b := append([]byte{byte(len(header))}, header...)
	frame := func(syncedBack uint64, payload []byte) {
		body := binary.AppendUvarint(nil, 1)
		body = append(binary.AppendUvarint(body, syncedBack), payload...)
		sum := xxhash.NewWithSeed(nonce ^ c.frame*0x9E3779B97F4A7C15)
		_, _ = sum.Write(body)
		b = binary.AppendUvarint(b, uint64(8+len(body)))
		b = append(le.AppendUint64(b, sum.Sum64()), body...)
	}
	all := append(c.records, record.Record{Kind: record.State, At: c.at, Expires: record.Forever, Key: []byte("of the test")})
	var payload []byte
	for i := range all {
		payload = record.Append(payload, record.Base{At: c.at, TTL: record.Forever}, &all[i])
	}
	frame(1, payload)
	const dropThrough, syncMark = 28, 29
	frame(0, le.AppendUint64(le.AppendUint64([]byte{dropThrough}, c.segment-1), uint64(c.at)))
	frame(0, []byte{syncMark})

	segment := filepath.Join(dir, "wal", fmt.Sprintf("%020d", c.segment))
	require.NoError(t, os.MkdirAll(segment, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(segment, fmt.Sprintf("%020d", 1)), b, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "MANIFEST"), manifest, 0o600))
}

// refusals are the errors that the child's calls returned.
func (p *process) refusals(t testing.TB) (all []string) {
	for _, line := range p.lines {
		if line[0] == sayAnswer {
			var a answer
			require.NoError(t, json.Unmarshal(line[1:], &a))
			if a.Err != "" {
				all = append(all, a.Err)
			}
		}
	}
	return all
}

// Until the numbers end all is as ever, however the process dies; and from then on every write is refused, by this
// process and by each that opens the store after it.
func TestPromise2KillRoundsToTheLastNumber(t *testing.T) {
	m := mix{Put: 30, Delete: 10, Get: 5, Advance: 10, Mark: 2, Look: 2, Aborts: true}
	for _, c := range []struct {
		name string
		counters
	}{
		{"frames", counters{frame: math.MaxUint64 - 1200, segment: 1000, at: 1_000_000_000}},
		{"segments", counters{frame: 1000, segment: math.MaxUint64 - 12, at: 1_000_000_000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(t)
			r.life(filepath.Join(t.TempDir(), "store"))
			c.write(t, r.dir)
			kills, ended := 0, 0
			for ended < 3 {
				j := job{Dir: r.dir, Do: doWrite, Segment: 16 << 10, Mix: m}
				p := r.start(j)
				if ended == 0 && kills%3 == 2 {
					p.after(sayOpening, 1)
					r.pause()
				} else if !p.after(sayAnswer, 2*groups+1+r.rnd.IntN(400)) {
					ended++
				}
				p.kill()
				kills++
				r.ledger.mayFail = true
				r.bury(p)
				for _, err := range p.refusals(t) {
					require.Contains(t, err, "used up")
				}
				require.Less(t, kills, 500)
			}
			r.check(job{Dir: r.dir})
			r.check(job{Dir: r.dir})

			s, err := oncelog.Open(r.dir, &oncelog.Options{TTL: oncelog.Forever, RetryWindow: oncelog.NoRetryWindow})
			require.NoError(t, err)
			_, _, err = s.PutIfAbsent([]byte("new"), nil, 0)
			require.ErrorIs(t, err, oncelog.ErrFull)
			require.ErrorContains(t, err, "used up")
			require.NoError(t, s.Verify())
			require.NoError(t, s.Close())
			names, err := filepath.Glob(filepath.Join(r.dir, "wal", "0*"))
			require.NoError(t, err)
			if c.segment > 1000 {
				require.Empty(t, names, "a segment with a small number")
			}
			u := r.ledger.tally
			t.Logf("%d kills: %+v", kills, u)
			require.Greater(t, kills, 3)
			require.Positive(t, u.Inserted)
			require.Positive(t, u.Committed)
			require.Positive(t, u.KillsInFlight)
		})
	}
}

// The store's time ends one short of "never", and what was stored with an end then has none.
func TestPromise1KillRoundsToTheEndOfTime(t *testing.T) {
	r := newRun(t)
	const left = 3000 // milliseconds; less than the rounds take
	r.epoch = math.MaxInt64 - left
	r.life(filepath.Join(t.TempDir(), "store"))
	counters{frame: 1, segment: 7, at: r.epoch - 1000}.write(t, r.dir)
	for i := 0; i < 6 || r.clock() < math.MaxInt64; i++ {
		j := job{Dir: r.dir, Do: doWrite, Segment: 16 << 10, Mix: single}
		p := r.start(j)
		r.until(p, sayAnswer, 2*groups+1+r.rnd.IntN(300))
		p.kill()
		r.bury(p)
	}
	for range 3 {
		r.check(job{Dir: r.dir})
	}
	u := r.ledger.tally
	t.Logf("%d kills: %+v", r.round, u)
	require.Positive(t, u.Inserted)
	require.Positive(t, u.Duplicates)
	require.Positive(t, u.Committed)
	require.Positive(t, u.KillsInFlight)
}

// saturated is at+d, or the end of time.
func saturated(at int64, d time.Duration) int64 {
	if ms := d.Milliseconds(); at <= math.MaxInt64-ms {
		return at + ms
	}
	return math.MaxInt64
}
