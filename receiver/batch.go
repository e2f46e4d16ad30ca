package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Call is one call of a DoAll.
type Call struct {
	Key     string // or else
	Source  string // of a sequence, as with DoSeq,
	Seq     uint64 // and the number in it
	Fn      func(ctx context.Context) ([]byte, error)
	Options []CallOption
}

// DoAll is Do, or DoSeq, for a consumer's batch: each call in order, on the caller's goroutine, and all results durable
// in one sync at the end, which is what a call of Do by a lone consumer costs. It stops at the first call that returns
// an error; the outcomes are those of the calls before it, which are done. Deliver the rest again. With Strict, each
// number of a source waits for the record of the one before it, and costs a sync.
//
// A crash before the end leaves up to the whole batch without its records, so all of it runs again. A key that
// somebody else is handling is waited for only after what this batch has done is recorded, so that two batches never
// wait for each other. errors.ErrUnsupported if the store can't.
func (r *Receiver) DoAll(ctx context.Context, calls []Call) ([]Outcome, error) {
	store, ok := r.store.(Batcher)
	if !ok {
		return nil, r.unsupported("can't complete many claims at once")
	}
	b := batch{
		r: r, ctx: ctx, store: store, outs: make([]Outcome, 0, len(calls)),
		around: &call{Context: ctx, r: r, parent: callFrom(ctx)},
	}
	defer b.abandon()
	for i := range calls {
		if err := b.call(&calls[i]); err != nil {
			if flushed := b.flush(); flushed != nil {
				err = flushed
			} else if b.failed == 0 {
				err = fmt.Errorf("receiver: call %d of the batch: %w", i, err)
			}
			return b.done(), err
		}
	}
	err := b.flush()
	return b.done(), err
}

// batch is a DoAll in progress.
type batch struct {
	r      *Receiver
	ctx    context.Context
	store  Batcher
	around *call // stands for the batch: its items hold keys that are not recorded before the batch goes on
	outs   []Outcome
	failed int // place of the outcome that could not be recorded, plus 1; 0 = none
	open   []*item
}

// item is a call whose fn has returned and whose result is not recorded yet.
type item struct {
	attempt
	room    scratch
	c       *call
	res     Result
	already bool
	start   time.Time // for Options.Observe
	at      int       // of its outcome
}

func (b *batch) done() []Outcome {
	if b.failed > 0 {
		return b.outs[:b.failed-1]
	}
	return b.outs
}

// abandon records what was done when a fn panics or exits.
func (b *batch) abandon() { _ = b.flush() }

// call makes one call, up to its record.
func (b *batch) call(call *Call) error {
	it := &item{attempt: attempt{r: b.r, ctx: b.ctx, name: call.Key, fn: call.Fn}, at: len(b.outs)}
	if call.Source != "" {
		if call.Key != "" {
			return errors.New("receiver: a Call with a Key and a Source")
		}
		it.seq = &number{source: call.Source, seq: call.Seq}
	}
	if err := it.prepare(call.Options, b.around, &it.room); err != nil {
		return err
	}
	it.start = it.now()
	if flights.find(b.r.store, it.key) != nil { // this batch's own, perhaps
		return b.single(it)
	}
	c, err := it.claim()
	if errors.Is(err, ErrOutOfOrder) && len(b.open) > 0 { // the number before it may be one of this batch's
		if err := b.flush(); err != nil {
			return err
		}
		c, err = it.claim()
	}
	if err != nil {
		return err
	}
	switch c.State {
	case StateClaimed:
		return b.run(it, c)
	case StateInFlight:
		return b.single(it)
	case StateInDoubt:
		if err := b.flush(); err != nil {
			it.giveBack(c)
			return err
		}
		return b.keep(it.resolve(c))
	}
	ans, err := it.found(c)
	if err != nil {
		return err
	}
	return b.keep(it.replay(&ans))
}

func (b *batch) keep(out Outcome, err error) error {
	if err == nil {
		b.outs = append(b.outs, out)
	}
	return err
}

// single makes a call on its own, after what this batch holds is recorded: it may have to wait.
func (b *batch) single(it *item) error {
	if err := b.flush(); err != nil {
		return err
	}
	if b.r.opts.Observe != nil {
		return b.keep(it.observed())
	}
	return b.keep(it.do())
}

// run runs an item's fn.
func (b *batch) run(it *item, claim Claim) error {
	it.c = it.begun(claim, nil)
	res, already, err := it.run(it.c, claim)
	if it.early {
		it.tellEnd(err)
		return b.keep(it.c.earlyOutcome(res), err)
	}
	if res.Kind == 0 {
		it.tellEnd(err)
		return err
	}
	res.Value = bytes.Clone(res.Value) // a later fn may use the same buffer
	res.TTL, res.ResultTTL = it.ttl, it.resultTTL
	it.res, it.already = res, already
	// Until the batch is recorded, who waits for this key waits for the batch.
	flights.handOver(it.c, b.around, it.key)
	b.open = append(b.open, it)
	b.outs = append(b.outs, Outcome{Value: res.Value, Replayed: already})
	if res.Kind == KindFailure {
		return b.flush() // which returns it
	}
	return nil
}

// flush records what is done. Its error is that of the first call that could not be recorded, or is a failure.
func (b *batch) flush() (first error) {
	if len(b.open) == 0 {
		return nil
	}
	open := b.open
	b.open = nil
	ctx := context.WithoutCancel(b.ctx)
	began := time.Now()
	present := make([]uint64, len(open))
	all := make([]Completion, len(open))
	stored := make([]Result, len(open))
	for i, it := range open {
		present[i] = flights.present(it.c.flight, it.key)
		stored[i] = it.res
		all[i] = Completion{Key: it.key, Token: it.c.token, Result: it.res}
	}
	ends := b.store.CompleteAll(ctx, all)
	var again []int
	var retry []Completion
	for i := range ends {
		if res, ok := withoutValue(stored[i], ends[i].Err); ok {
			again = append(again, i)
			retry = append(retry, Completion{Key: all[i].Key, Token: all[i].Token, Result: res})
		}
	}
	if len(again) > 0 {
		for n, end := range b.store.CompleteAll(ctx, retry) {
			i := again[n]
			if end.Err == nil {
				stored[i], ends[i] = retry[n].Result, end
			} else {
				ends[i].Err = both(ends[i].Err, end.Err)
			}
		}
	}
	for i, it := range open {
		it.tookCommit = time.Since(began)
		out, err := it.c.recorded(it.res, stored[i], ends[i].Until, ends[i].Err, present[i])
		out.Replayed = it.already
		it.tellEnd(err)
		if err != nil && b.failed == 0 {
			first, b.failed = fmt.Errorf("receiver: call %d of the batch: %w", it.at, err), it.at+1
		}
		b.outs[it.at] = out
	}
	return first
}

// tellEnd is what observed tells of other calls.
func (it *item) tellEnd(err error) {
	if it.r.opts.Observe == nil {
		return
	}
	wait := time.Since(it.start)
	if !it.began.IsZero() {
		wait = it.began.Sub(it.start)
	}
	it.tell(Event{Kind: it.kind(err), Scope: it.r.name, Wait: wait, Run: it.tookRun, Commit: it.tookCommit})
}
