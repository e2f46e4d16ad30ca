//go:build linux

package bench

import (
	"sync"
	"sync/atomic"
	"testing"
)

const (
	busyGoroutines = 8
	loneOps        = 500 // of a slice; beside the busy ones they take up to a second
)

// BenchmarkLoneWriter measures one writer alone, and beside goroutines that keep all processors busy. A leader that
// yields to them without need waits until each has had its turn, which takes milliseconds.
func BenchmarkLoneWriter(b *testing.B) {
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			r := c.open(b, workDir(b))
			r.slice(b, 1, loneOps) // warm
			var quiet, beside []sample
			b.ResetTimer()
			for range b.N {
				quiet = append(quiet, r.slice(b, 1, loneOps))
				stop := keepBusy()
				beside = append(beside, r.slice(b, 1, loneOps))
				stop()
			}
			b.StopTimer()
			b.ReportMetric(0, "ns/op")
			reportQuantiles(b, "quiet-", quiet...)
			reportQuantiles(b, "busy-", beside...)
			b.ReportMetric(medianRatio(beside, quiet, func(s sample) float64 { return s.p50 }), "busy/quiet")
		})
	}
}

// keepBusy spins in goroutines until the function it returns is called.
func keepBusy() (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for range busyGoroutines {
		wg.Go(func() {
			for x := uint64(1); !done.Load(); {
				for range 1000 {
					x = spin(x)
				}
			}
		})
	}
	return func() {
		done.Store(true)
		wg.Wait()
	}
}

// spin is a call, where the scheduler may step in.
//
//go:noinline
func spin(x uint64) uint64 { return x*6364136223846793005 + 1442695040888963407 }
