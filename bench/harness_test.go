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
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(n-1))]) / float64(time.Microsecond) }
	return sample{rate: float64(n) / all.Seconds(), p50: at(0.5), p99: at(0.99), p999: at(0.999)}
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
		b.ReportMetric(medianOf(samples[i], func(s sample) float64 { return s.p50 }), c.name+"-p50-us")
		b.ReportMetric(medianOf(samples[i], func(s sample) float64 { return s.p99 }), c.name+"-p99-us")
		b.ReportMetric(medianOf(samples[i], func(s sample) float64 { return s.p999 }), c.name+"-p99.9-us")
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
