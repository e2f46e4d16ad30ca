//go:build linux

package bench

import (
	"cmp"
	"flag"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var sliceTime = flag.Duration("slice", 500*time.Millisecond, "how long each slice of a benchmark takes at the limit")

// contender is something that commits.
type contender struct {
	name string
	// open starts it in an empty directory; what it leaves open it closes by b.Cleanup.
	open func(b *testing.B, dir string) rival
}

// rival is a contender that was opened.
type rival struct {
	// writer returns what one goroutine calls over and over; each call returns when its frame is committed.
	writer func() func() error
	// prepare is called before each slice of so many operations, outside the measured time. May be nil.
	prepare func(ops int) error
	// logged returns the bytes of log so far. nil for the limit, whose frames have one size.
	logged func() uint64

	ops []func() error // of the goroutines so far
}

// sample is what one slice gave: operations a second, and quantiles of their latencies in microseconds.
type sample struct{ rate, p50, p99, p999 float64 }

// slice has so many writers do n operations between them. Counting operations, not time, tells beforehand how
// much space the limit needs, and taking them from one counter keeps all writers at work until the end.
func (r *rival) slice(b *testing.B, writers, n int) sample {
	for len(r.ops) < writers {
		r.ops = append(r.ops, r.writer())
	}
	if r.prepare != nil {
		require.NoError(b, r.prepare(n))
	}
	took := make([]time.Duration, n)
	errs := make([]error, writers)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for w := range writers {
		op := r.ops[w]
		wg.Go(func() {
			<-start
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				t := time.Now()
				if err := op(); err != nil {
					errs[w] = err
					return
				}
				took[i-1] = time.Since(t)
			}
		})
	}
	runtime.GC() // so that no slice pays for the garbage of the one before
	t := time.Now()
	close(start)
	wg.Wait()
	all := time.Since(t)
	for _, err := range errs {
		require.NoError(b, err)
	}
	s := quantiles(took)
	s.rate = float64(n) / all.Seconds()
	return s
}

// quantiles returns a sample without a rate.
func quantiles(took []time.Duration) (s sample) {
	if len(took) == 0 {
		return s
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / float64(time.Microsecond) }
	return sample{p50: at(0.5), p99: at(0.99), p999: at(0.999)}
}

// reportQuantiles reports the medians over samples of each quantile, under names that begin with prefix.
func reportQuantiles(b *testing.B, prefix string, samples ...sample) {
	b.ReportMetric(medianOf(samples, func(s sample) float64 { return s.p50 }), prefix+"p50-us")
	b.ReportMetric(medianOf(samples, func(s sample) float64 { return s.p99 }), prefix+"p99-us")
	b.ReportMetric(medianOf(samples, func(s sample) float64 { return s.p999 }), prefix+"p99.9-us")
}

// reportCalls times calls one by one and reports the quantiles: the loop of a benchmark knows only their sum. Taking
// the time is part of each, about 50 ns.
func reportCalls(b *testing.B, call func() error) {
	took := make([]time.Duration, 1<<14)
	for i := range took {
		t := time.Now()
		err := call()
		took[i] = time.Since(t)
		if err != nil {
			b.Fatal(err)
		}
	}
	reportQuantiles(b, "", quantiles(took))
}

// logPerByte returns how many bytes of log were written for each byte of so many keys and values.
func logPerByte(log uint64, records int) float64 {
	return float64(log) / float64(records*(keySize+valueSize))
}

// opsFor returns how many operations take the contender about d.
func (r *rival) opsFor(b *testing.B, writers int, d time.Duration) int {
	for n := 32 * writers; ; n *= 4 {
		s := r.slice(b, writers, n)
		if took := float64(n) / s.rate; took > d.Seconds()/8 {
			return max(n, int(s.rate*d.Seconds()))
		}
	}
}

// compare runs the contenders by turns, b.N rounds, and reports each one's medians and how the others do against
// the first.
func compare(b *testing.B, writers int, contenders []contender) {
	rivals := make([]rival, len(contenders))
	samples := make([][]sample, len(contenders))
	for i, c := range contenders {
		rivals[i] = c.open(b, workDir(b))
	}
	n := rivals[0].opsFor(b, writers, *sliceTime)
	for i := range rivals {
		rivals[i].slice(b, writers, n/4+1) // warm
	}
	logged := make([]uint64, len(rivals))
	for i, r := range rivals {
		if r.logged != nil {
			logged[i] = r.logged()
		}
	}
	b.ResetTimer()
	for round := range b.N {
		for k := range rivals {
			i := (k + round) % len(rivals) // whoever comes first gets the disk that the round before left
			samples[i] = append(samples[i], rivals[i].slice(b, writers, n))
		}
	}
	b.StopTimer()
	b.ReportMetric(0, "ns/op") // the time of a round says nothing
	for i, c := range contenders {
		b.ReportMetric(medianOf(samples[i], func(s sample) float64 { return s.rate }), c.name+"-ops/s")
		reportQuantiles(b, c.name+"-", samples[i]...)
		if rivals[i].logged != nil {
			b.ReportMetric(logPerByte(rivals[i].logged()-logged[i], b.N*n), c.name+"-log/byte")
		}
		if i == 0 {
			continue
		}
		against := contenders[0].name
		b.ReportMetric(medianRatio(samples[i], samples[0], func(s sample) float64 { return s.rate }), c.name+"/"+against)
		b.ReportMetric(medianRatio(samples[i], samples[0], func(s sample) float64 { return s.p999 }), c.name+"/"+against+"-p99.9")
	}
}

// workDir returns a directory on the file system to measure.
func workDir(b *testing.B) string {
	where := os.Getenv("ONCELOG_BENCH_DIR")
	if where == "" {
		return b.TempDir()
	}
	dir, err := os.MkdirTemp(where, "bench")
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, os.RemoveAll(dir)) })
	return dir
}

func medianOf(s []sample, of func(sample) float64) float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i])
	}
	return median(v)
}

// medianRatio is the median of the ratios of each round, not the ratio of the medians.
func medianRatio(s, against []sample, of func(sample) float64) float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = of(s[i]) / of(against[i])
	}
	return median(v)
}

func median[T cmp.Ordered](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
