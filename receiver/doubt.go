package receiver

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// A key is in doubt when its work may have happened and nobody knows: its process died under an intent, or fn said so
// with Unknown. It stays so, without an end, until somebody settles it; its TTL begins then.

// DoubtPolicy is what a call does about a key in doubt.
type DoubtPolicy int

const (
	Block   DoubtPolicy = iota // ErrInDoubt
	Retry                      // run fn, which copes with having run before
	Resolve                    // ask Options.Resolve
)

// Doubt is a key in doubt.
type Doubt struct {
	Scope      []string // path from the receiver that tells of it
	Key        string   // empty = a number of a sequence
	Source     string   // of the sequence
	Epoch, Seq uint64   // in it
	Note       []byte   // of the intent
}

// Resolution is what became of work that was in doubt: Happened, HappenedNot or Failed.
type Resolution struct {
	kind  resolution
	value []byte
	err   error
}

type resolution int

const (
	unresolved resolution = iota
	happened
	happenedNot
	failed
)

// Happened says that the work was done, with this result.
func Happened(value []byte) Resolution { return Resolution{kind: happened, value: value} }

// HappenedNot says that the work was not done: the key is new.
func HappenedNot() Resolution { return Resolution{kind: happenedNot} }

// Failed says that the work failed for good: a permanent failure is the result.
func Failed(err error) Resolution { return Resolution{kind: failed, err: err} }

// Unknown says that the work may or may not have happened: sent, and no answer. The key goes in doubt, with an intent or
// without, and the caller's error wraps ErrInDoubt and err.
func Unknown(err error) error { return &unknownError{err} }

// NotDone says that the work certainly did not happen, though it failed in a way that would put its key in doubt under
// an intent: the connection was refused, say, before the context ended. The key is free.
func NotDone(err error) error { return &notDoneError{err} }

type unknownError struct{ err error }

func (e *unknownError) Error() string {
	return fmt.Sprintf("receiver: it is not known whether the work happened: %v", e.err)
}
func (e *unknownError) Unwrap() error { return e.err }

type notDoneError struct{ err error }

func (e *notDoneError) Error() string {
	return fmt.Sprintf("receiver: the work did not happen: %v", e.err)
}
func (e *notDoneError) Unwrap() error { return e.err }

// inDoubt reports whether fn's error leaves the key in doubt.
func (a *attempt) inDoubt(err error) bool {
	var unknown *unknownError
	var not *notDoneError
	switch {
	case errors.As(err, &unknown):
		return true
	case !a.intent || errors.As(err, &not):
		return false
	}
	return a.ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// resolve does what the call wants done about a key in doubt, which it holds.
func (a *attempt) resolve(c Claim) (Outcome, error) {
	if err := a.compare(c.Fingerprint); err != nil {
		a.giveBack(c)
		return Outcome{}, err
	}
	switch a.doubt {
	case Retry:
		return a.execute(c, nil)
	case Resolve:
		res, err := a.ask(c)
		if err != nil {
			a.giveBack(c)
			return Outcome{}, fmt.Errorf("%w: %w", ErrInDoubt, err)
		}
		if res.kind != happenedNot {
			ans, err := a.settle(c, res)
			if err != nil {
				return Outcome{}, err
			}
			return a.replay(&ans)
		}
		a.settled = true
		return a.execute(c, nil)
	}
	a.giveBack(c)
	return Outcome{}, ErrInDoubt
}

// giveBack leaves a key in doubt as it was. Should that fail, its lease ends.
func (a *attempt) giveBack(c Claim) {
	_ = a.r.store.Release(context.WithoutCancel(a.ctx), a.key, c.Token)
}

// ask calls Options.Resolve. Should it panic, the key is given back, and in doubt as before.
func (a *attempt) ask(c Claim) (res Resolution, err error) {
	landed := false
	defer func() {
		if !landed {
			a.giveBack(c)
		}
	}()
	d := Doubt{Key: a.name, Note: c.Note}
	if a.seq != nil {
		d.Key, d.Source, d.Epoch, d.Seq = "", a.seq.source, a.epoch, a.seq.seq
	}
	res, err = a.r.opts.Resolve(a.ctx, d)
	landed = true
	if err == nil && res.kind == unresolved {
		err = errors.New("receiver: Options.Resolve returned no resolution; an error says that there is none")
	}
	return res, err
}

// settle records a resolution other than HappenedNot.
func (a *attempt) settle(c Claim, res Resolution) (answer, error) {
	stored, err := res.result()
	if err != nil {
		a.giveBack(c)
		return answer{}, fmt.Errorf("%w: %w", ErrInDoubt, err)
	}
	stored.TTL, stored.ResultTTL = a.ttl, a.resultTTL
	until, err := a.r.store.Complete(context.WithoutCancel(a.ctx), a.key, c.Token, stored)
	if err != nil {
		a.giveBack(c)
		return answer{}, fmt.Errorf("receiver: the doubt could not be settled: %w", err)
	}
	return answer{fingerprint: c.Fingerprint, res: stored, until: until}, nil
}

// result is what is to be recorded for a resolution.
func (res Resolution) result() (Result, error) {
	switch res.kind {
	case happened:
		return Result{Kind: KindValue, Value: res.value}, nil
	case happenedNot:
		return Result{Kind: KindNot}, nil
	case failed:
		if res.err == nil {
			return Result{}, errors.New("receiver: Failed without an error")
		}
		return failure(res.err), nil
	}
	return Result{}, errors.New("receiver: no resolution: use Happened, HappenedNot or Failed")
}

// Doubts yields what is in doubt in the receiver's scope and those below it, in no order. What is running is not in
// doubt. An error ends it. errors.ErrUnsupported if the store can't tell.
func (r *Receiver) Doubts(ctx context.Context) iter.Seq2[Doubt, error] {
	return func(yield func(Doubt, error) bool) {
		in, ok := r.store.(Inspector)
		if !ok {
			yield(Doubt{}, r.unsupported("can't be asked about keys"))
			return
		}
		above := scopePath(r.scope)
		for key, err := range in.Doubts(ctx) {
			if err != nil {
				yield(Doubt{}, err)
				return
			}
			k, ok := ParseKey(key)
			if !ok || !hasPrefix(k.Scope, above) {
				continue
			}
			c, err := in.Inspect(ctx, key)
			if err != nil {
				yield(Doubt{}, err)
				return
			}
			if c.State != StateInDoubt {
				continue // settled meanwhile
			}
			d := Doubt{Scope: k.Scope[len(above):], Key: k.Name, Source: k.Source, Epoch: k.Epoch, Seq: k.Seq, Note: c.Note}
			if !yield(d, nil) {
				return
			}
		}
	}
}

func hasPrefix(path, prefix []string) bool {
	if len(path) < len(prefix) {
		return false
	}
	for i := range prefix {
		if path[i] != prefix[i] {
			return false
		}
	}
	return true
}

// Settle ends the doubt about a key of the receiver's own scope, durably. ErrNotInDoubt if there is none.
func (r *Receiver) Settle(ctx context.Context, key string, res Resolution) error {
	if key == "" {
		return ErrEmptyKey
	}
	return r.settle(ctx, appendKey(nil, r.scope, key), res, nil)
}

// SettleSeq is Settle for a number of a sequence. The source's mark moves if it happened, or failed for good.
func (r *Receiver) SettleSeq(ctx context.Context, source string, epoch, seq uint64, res Resolution) error {
	if source == "" {
		return ErrEmptyKey
	}
	a := attempt{r: r, settings: settings{epoch: epoch}, seq: &number{source: source, seq: seq}}
	a.seq.complete(&a)
	a.seq.mark.Strict = false // which would begin a source, and refuse what is settled out of order
	return r.settle(ctx, appendNumber(nil, r.scope, source, epoch, seq), res, &a.seq.mark)
}

func (r *Receiver) settle(ctx context.Context, key []byte, res Resolution, mark *Mark) error {
	stored, err := res.result()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	c, err := r.store.Claim(ctx, Request{Key: key, Mark: mark})
	switch {
	case err != nil:
		return err
	case c.State == StateInFlight:
		return ErrInFlight
	case c.State == StateClaimed:
		return errors.Join(ErrNotInDoubt, r.store.Release(ctx, key, c.Token))
	case c.State != StateInDoubt:
		return ErrNotInDoubt
	}
	if _, err = r.store.Complete(context.WithoutCancel(ctx), key, c.Token, stored); err != nil {
		_ = r.store.Release(context.WithoutCancel(ctx), key, c.Token)
		return fmt.Errorf("receiver: the doubt could not be settled: %w", err)
	}
	return nil
}
