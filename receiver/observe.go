package receiver

import (
	"errors"
	"time"
)

// observed is do for a receiver that is observed. Others do not look at the clock at all.
func (a *attempt) observed() (Outcome, error) {
	start := time.Now()
	kind := EventFailed // what is left when fn does not return
	defer func() {
		if a.early && kind == EventFailed {
			kind = EventExecuted
		}
		wait := time.Since(start)
		if !a.began.IsZero() {
			wait = a.began.Sub(start)
		}
		a.tell(Event{Kind: kind, Scope: a.r.name, Wait: wait, Run: a.tookRun, Commit: a.tookCommit})
	}()
	out, err := a.do()
	kind = a.kind(err)
	return out, err
}

func (a *attempt) tell(e Event) {
	if f := a.r.opts.Observe; f != nil {
		f(e)
	}
}

// kind says how the call ended.
func (a *attempt) kind(err error) EventKind {
	var stored *StoredError
	switch {
	case errors.Is(err, ErrInDoubt):
		return EventInDoubt
	case errors.Is(err, ErrUnrecorded) || errors.Is(err, ErrLeaseLost):
		return EventUnrecorded
	case !a.began.IsZero() && (a.early || err == nil || errors.As(err, &stored)):
		return EventExecuted
	case !a.began.IsZero():
		return EventFailed
	case err == nil || errors.As(err, &stored) || errors.Is(err, ErrResultGone):
		return EventReplayed
	case errors.Is(err, ErrInFlight):
		return EventInFlight
	}
	return EventRefused
}

func (a *attempt) now() (t time.Time) {
	if a.r.opts.Observe != nil {
		t = time.Now()
	}
	return t
}

func (a *attempt) begin() { a.began = a.now() }

func (a *attempt) ranFor() {
	if !a.began.IsZero() {
		a.tookRun = time.Since(a.began)
	}
}
