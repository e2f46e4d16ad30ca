package oncelog

import "sync/atomic"

// gate counts the calls in progress, so that Close can wait for them and turn away those that come later. The
// counters are spread: all calls of a busy service on one cache line would be a lock by another name.
type gate struct {
	shut   atomic.Bool
	inside [16]struct {
		n atomic.Int64
		_ [56]byte
	}
	left chan struct{} // a call left after the gate was shut
}

func newGate() *gate { return &gate{left: make(chan struct{}, 1)} }

// enter returns false when the store is closing. Who enters leaves with the same number, which may be anything.
func (g *gate) enter(i uint64) bool {
	if g.shut.Load() {
		return false
	}
	g.inside[i%16].n.Add(1)
	if g.shut.Load() { // shut in between: close may have looked already
		g.leave(i)
		return false
	}
	return true
}

func (g *gate) leave(i uint64) {
	g.inside[i%16].n.Add(-1)
	if g.shut.Load() {
		select {
		case g.left <- struct{}{}:
		default:
		}
	}
}

// close shuts the gate and returns when nobody is inside. Each counter that was seen at zero once stays there but
// for callers that turn around at once.
func (g *gate) close() {
	g.shut.Store(true)
	for i := range g.inside {
		for g.inside[i].n.Load() != 0 {
			<-g.left
		}
	}
}
