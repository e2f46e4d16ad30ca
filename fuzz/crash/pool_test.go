//go:build linux && amd64

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// pool recovers states, each in memory and on its own, so as many at a time as there are processors.
type pool struct {
	t         *testing.T
	w         workload
	base      string
	jobs      chan job
	running   sync.WaitGroup
	seen      map[uint64]bool // what was recovered already, for the same expectation: recovering it again says nothing
	recovered atomic.Int64
	lost      atomic.Int64
	bad       atomic.Bool
	kept      func(dir string) // leaves beside a state what repeats it

	mu    sync.Mutex
	first error // guarded by mu
}

type job struct {
	image image
	ex    expectation
	twice bool
	what  string
}

func newPool(t *testing.T, w workload) *pool {
	p := &pool{t: t, w: w, base: memoryDir(t), jobs: make(chan job, 16), seen: map[uint64]bool{}, kept: func(string) {}}
	for i := range runtime.GOMAXPROCS(0) {
		p.running.Go(func() {
			for j := range p.jobs {
				if p.failed() {
					continue
				}
				if err := p.recover(filepath.Join(p.base, fmt.Sprint(i)), j); err != nil {
					p.fail(fmt.Errorf("%s, behind %s: %w", j.what, j.ex.behind, err), j)
				}
			}
		})
	}
	return p
}

// check reports whether the state is one that was not there yet.
func (p *pool) check(j job) bool {
	key := j.image.sum() ^ j.ex.key*0x9E3779B97F4A7C15
	if p.seen[key] {
		return false
	}
	p.seen[key] = true
	p.jobs <- j
	return true
}

func (p *pool) failed() bool { return p.bad.Load() }

// wait returns when all is recovered, as it should be.
func (p *pool) wait() {
	close(p.jobs)
	p.running.Wait()
	require.NoError(p.t, p.first)
}

func (p *pool) recover(dir string, j job) error {
	defer func() { _ = os.RemoveAll(dir) }()
	if err := j.image.write(dir); err != nil {
		return err
	}
	p.recovered.Add(1)
	store := filepath.Join(dir, "store")
	got, err := look(store, j.ex.clock, p.w.contents)
	if err != nil {
		return err
	}
	lost, err := j.ex.accepts(got)
	if err != nil {
		return err
	}
	if lost {
		p.lost.Add(1)
	}
	if j.twice {
		again, err := look(store, j.ex.clock, p.w.contents)
		if err != nil {
			return fmt.Errorf("the second time: %w", err)
		}
		if again != got {
			return fmt.Errorf("the second time it is other:\n%s", difference(got, again))
		}
	}
	if j.ex.restored != nil {
		return j.ex.restored.check(dir)
	}
	return nil
}

// fail keeps the first state that was not recovered.
func (p *pool) fail(err error, j job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first != nil {
		return
	}
	dir := p.t.ArtifactDir()
	if e := j.image.write(filepath.Join(dir, "state")); e != nil {
		p.t.Log(e)
	}
	p.kept(dir)
	p.first = fmt.Errorf("%w\nthe state is in %s (go test -artifacts keeps it)", err, dir)
	p.bad.Store(true)
}
