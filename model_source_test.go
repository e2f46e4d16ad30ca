package oncelog

import (
	"fmt"

	"github.com/oncelog/oncelog/receiver"
)

// modelMark is what is known of a source of the receiver's. Numbers are small, so bit n of a set is number n.
type modelMark struct {
	awaits        bool // its first number, which is handled strictly in order, was not handled yet
	number, epoch uint64
	first, floor  uint64
	handled, kept uint64
}

// modelWindow is a receiver's Options.Window in numbers.
func modelWindow(window int) uint64 {
	if window > 0 {
		return uint64(window)
	}
	return 1024
}

// judge says what a call gets for a number that has no record: a kind of result, or an error. Both are nothing if the
// number is new.
func (k modelMark) judge(there bool, epoch, seq uint64, window int) (receiver.Kind, error) {
	strict := window == receiver.Strict
	switch {
	case !there || k.epoch < epoch:
		return 0, nil
	case k.epoch > epoch:
		return 0, receiver.ErrFenced
	case k.awaits && strict && seq != k.number:
		return 0, receiver.ErrOutOfOrder
	case k.awaits:
		return 0, nil
	case k.handled>>seq&1 == 1 && k.kept>>seq&1 == 1:
		return receiver.KindGone, nil
	case k.handled>>seq&1 == 1:
		return receiver.KindValue, nil
	case seq < k.floor || seq+modelWindow(window) < k.number:
		return 0, receiver.ErrTooOld
	case strict && seq != k.number+1:
		return 0, receiver.ErrOutOfOrder
	}
	return 0, nil
}

// tells reports whether the mark can tell of a number that was handled.
func (k modelMark) tells(there bool, epoch, seq uint64, window int) bool {
	if !there || k.epoch < epoch {
		return true
	}
	return k.epoch == epoch && (seq >= k.number || seq >= k.floor && seq+modelWindow(window) >= k.number)
}

// handle returns the mark after a number of which it can tell was handled.
func (k modelMark) handle(there bool, epoch, seq uint64, window int, kept bool) modelMark {
	if !there || k.epoch < epoch {
		k = modelMark{number: seq, epoch: epoch, first: seq}
	}
	if k.awaits {
		k = modelMark{number: seq, epoch: epoch, first: seq, floor: k.floor}
	}
	k.number, k.first = max(k.number, seq), min(k.first, seq)
	k.handled |= 1 << seq
	if kept {
		k.kept |= 1 << seq
	}
	low := k.number - min(k.number, modelWindow(window))
	k.floor = max(k.floor, low)
	k.handled, k.kept = k.handled>>low<<low, k.kept>>low<<low
	return k
}

// describe tells what Source and Gaps say.
func (k modelMark) describe(window int) string {
	text := fmt.Sprint(k.epoch, " ", k.number, " from ", k.first, ", missing")
	for n := max(k.first, k.number-min(k.number, modelWindow(window))); n < k.number; n++ {
		if k.handled>>n&1 == 0 {
			text += fmt.Sprint(" ", n)
		}
	}
	return text
}
