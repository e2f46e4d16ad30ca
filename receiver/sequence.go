package receiver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
)

// Strict, as Options.Window, accepts the numbers of a source in their order alone, without gaps.
const Strict = -1

// A window of 1,024 numbers is 128 bytes of bitmap in each record of a mark; the largest is 8 KiB.
const (
	defaultWindow = 1024
	maxWindow     = 1 << 16
)

// DoSeq is Do for messages that a source numbers. Instead of a key each, it remembers one mark for the source: the
// highest number that was handled, and which of the Options.Window numbers behind it were too. A result that is not
// empty is stored beside it, and expires; one that is empty costs nothing.
//
// The first number of a source is new whatever it is. One behind the window is ErrTooOld: whether it was handled is not
// known any more. With Strict, fn runs only for the number that follows the mark, others are ErrOutOfOrder: after n
// has failed, until n succeeds.
func (r *Receiver) DoSeq(ctx context.Context, source string, seq uint64, fn func(ctx context.Context) ([]byte, error), opts ...CallOption) (Outcome, error) {
	a := attempt{r: r, ctx: ctx, fn: fn, seq: &number{source: source, seq: seq}}
	return a.start(opts)
}

// number is a number of a sequence.
type number struct {
	source string
	seq    uint64
	mark   Mark
}

// name is what KeyFrom returns for a number.
func (n *number) name() string {
	name := n.source + "#" + strconv.FormatUint(n.seq, 10)
	if n.mark.Epoch != 0 {
		name += "." + strconv.FormatUint(n.mark.Epoch, 10)
	}
	return name
}

// complete fills in what the call's options and the receiver's say.
func (n *number) complete(a *attempt) {
	n.mark = Mark{
		Source: string(appendKey(nil, a.r.scope, n.source)), Seq: n.seq, Epoch: a.epoch, Window: defaultWindow,
		Strict: a.r.opts.Window == Strict,
	}
	if w := a.r.opts.Window; w > 0 {
		n.mark.Window = uint64(w)
	}
}

// HighWater returns the highest number of a source that was handled. ok is false if the source is not known.
func (r *Receiver) HighWater(ctx context.Context, source string) (seq uint64, ok bool, err error) {
	m, full, err := r.marker(source)
	if err != nil {
		return 0, false, err
	}
	st, ok, err := m.Source(ctx, full)
	return st.Seq, ok, err
}

// Gaps yields the numbers of a source, in ascending order, that are missing: above the lowest it began with, below the
// highest, and not so far behind that they would be refused.
func (r *Receiver) Gaps(ctx context.Context, source string) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		m, full, err := r.marker(source)
		if err != nil {
			yield(0, err)
			return
		}
		st, ok, err := m.Source(ctx, full)
		if err != nil {
			yield(0, err)
			return
		}
		if !ok {
			return
		}
		window := uint64(defaultWindow)
		if w := r.opts.Window; w > 0 {
			window = uint64(w)
		}
		from := max(st.First, st.Seq-min(st.Seq, window))
		for n := from; n < st.Seq; n++ {
			if i := st.Seq - 1 - n; i/8 < uint64(len(st.Window)) && st.Window[i/8]>>(i%8)&1 == 1 {
				continue
			}
			if !yield(n, nil) {
				return
			}
		}
	}
}

// ForgetSource removes the mark of a source, durably: its next number is new whatever it is. Results that are stored
// stay until they expire, and their numbers are not new.
func (r *Receiver) ForgetSource(ctx context.Context, source string) error {
	m, full, err := r.marker(source)
	if err != nil {
		return err
	}
	return m.ForgetSource(ctx, full)
}

func (r *Receiver) marker(source string) (Marker, string, error) {
	if source == "" {
		return nil, "", ErrEmptyKey
	}
	m, ok := r.store.(Marker)
	if !ok {
		return nil, "", r.unsupported("keeps no marks")
	}
	return m, string(appendKey(nil, r.scope, source)), nil
}

// unsupported is the error for what the store can't do.
func (r *Receiver) unsupported(what string) error {
	return fmt.Errorf("receiver: a store of type %T %s: %w", r.store, what, errors.ErrUnsupported)
}
