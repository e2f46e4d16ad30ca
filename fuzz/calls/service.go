package calls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// TTL is that of the stores that are called, unless a call has its own.
const TTL = 72 * time.Hour

// window of the numbered messages.
const window = 16

// Begins is the store's time when a life begins, in milliseconds.
const Begins = 1_700_000_000_000

// Options are those of a store whose segments are soon full, and whose time the caller sets.
func Options(now func() int64) *oncelog.Options {
	return &oncelog.Options{
		TTL: TTL, RetryWindow: oncelog.NoRetryWindow, SegmentSize: 8 << 10, Pace: -1,
		Now: func() time.Time { return time.UnixMilli(now()) },
	}
}

// Service makes calls on a store. Its methods may be called from several goroutines, one a caller.
type Service struct {
	st *oncelog.Store
	r  *receiver.Receiver
}

// NewService returns a service on an open store.
func NewService(st *oncelog.Store) (*Service, error) {
	r, err := st.Receiver(&receiver.Options{Window: window})
	return &Service{st, r}, err
}

var errNo = errors.New("no")

// Do makes the call. An error that the call gives by design, as its answer, is part of the answer; any other is err.
func (s *Service) Do(o Op) (answer string, err error) {
	ctx := context.Background()
	key := []byte(recordKey(o.Caller, o.Key))
	switch o.Kind {
	case Put:
		existing, inserted, err := s.st.PutIfAbsent(key, value(o.N, 0), o.TTL)
		if err == nil && !inserted {
			return fmt.Sprintf("exists %x", existing), nil
		}
		return "inserted", err
	case Get:
		return s.get(key)
	case Delete:
		existed, err := s.st.Delete(key)
		return fmt.Sprint("existed ", existed), err
	case Advance:
		fresh, err := s.st.Advance(source(o.Caller), seq(o.N))
		return fmt.Sprint("fresh ", fresh), err
	case Mark:
		n, ok, err := s.st.HighWater(source(o.Caller))
		return fmt.Sprint(n, ok), err
	case ForgetSource:
		return "", s.st.ForgetSource(source(o.Caller))
	case Update, Abort:
		return s.update(o)
	case View:
		err := s.st.View(func(tx *oncelog.Tx) (err error) {
			answer, err = look(tx, o)
			return err
		})
		return answer, err
	case Do, DoFail, DoPermanent, DoUnknown, DoLarge, DoIntent, DoTx, DoTxFail, Emit, DoSeq:
		return s.deliver(ctx, o)
	case DoAll:
		return s.doAll(ctx, o)
	case Settle:
		err := s.r.Settle(ctx, doKey(o.Caller, o.Key), receiver.Happened(value(o.N, 0)))
		if errors.Is(err, receiver.ErrNotInDoubt) {
			return "not in doubt", nil
		}
		return "settled", err
	case Forget:
		return "", s.r.Forget(ctx, doKey(o.Caller, o.Key))
	case Lookup:
		return s.lookup(ctx, doKey(o.Caller, o.Key))
	case HandOn:
		return s.relay(ctx, nil)
	case Park:
		return s.relay(ctx, receiver.Permanent(errNo))
	case Unpark:
		return s.unpark(ctx)
	case Snapshot:
		return "", s.st.Snapshot()
	case Compact:
		return "", s.st.Compact()
	case Verify:
		return "", s.st.Verify()
	}
	panic("unknown call " + string(o.Kind))
}

func (s *Service) get(key []byte) (string, error) {
	v, ok, err := s.st.Get(key)
	if err != nil {
		return "", err
	}
	there, err := s.st.Has(key)
	if err != nil {
		return "", err
	}
	w, ok2, err := s.st.AppendGet(nil, key)
	if err != nil {
		return "", err
	}
	if there != ok || ok2 != ok || !bytes.Equal(v, w) {
		return "Get, Has and AppendGet differ", nil
	}
	return found(v, ok), nil
}

func found(v []byte, ok bool) string {
	if !ok {
		return "nothing"
	}
	return fmt.Sprintf("found %x", v)
}

var errAbort = errors.New("this transaction was not meant to happen")

// update changes one record to another key, a piece of state and the mark, and answers what it saw.
func (s *Service) update(o Op) (answer string, err error) {
	err = s.st.Update(func(tx *oncelog.Tx) error {
		if answer, err = look(tx, o); err != nil {
			return err
		}
		existed, err := tx.DeleteRecord([]byte(recordKey(o.Caller, o.Key)))
		if err != nil {
			return err
		}
		err = tx.PutRecord([]byte(recordKey(o.Caller, o.Key+1)), value(o.N, 0), o.TTL)
		exists := errors.Is(err, oncelog.ErrExists)
		if err != nil && !exists {
			return err
		}
		if err := tx.Set([]byte(stateKey(o.Caller, o.Key)), value(o.N, 1)); err != nil {
			return err
		}
		if err := tx.Delete([]byte(stateKey(o.Caller, o.Key+1))); err != nil {
			return err
		}
		fresh, err := tx.Advance(source(o.Caller), seq(o.N))
		if err != nil {
			return err
		}
		answer += fmt.Sprintf("; existed %v, exists %v, fresh %v", existed, exists, fresh)
		if o.Kind == Abort {
			return errAbort
		}
		return nil
	})
	if o.Kind == Abort && errors.Is(err, errAbort) {
		return answer, nil
	}
	if o.Kind == Abort && err == nil {
		return "the function's error did not come out of Update", nil
	}
	return answer, err
}

// look is what a transaction sees of a record and a piece of state.
func look(tx *oncelog.Tx, o Op) (string, error) {
	v, ok, err := tx.Record([]byte(recordKey(o.Caller, o.Key)))
	if err != nil {
		return "", err
	}
	w, ok2, err := tx.Get([]byte(stateKey(o.Caller, o.Key)))
	return found(v, ok) + ", state " + found(w, ok2), err
}

// deliver is a message that is handled by one of the Do's.
func (s *Service) deliver(ctx context.Context, o Op) (string, error) {
	key, ran := doKey(o.Caller, o.Key), false
	say := func(v []byte, err error) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { ran = true; return v, err }
	}
	in := func(err error) func(context.Context, receiver.Tx) ([]byte, error) {
		return func(_ context.Context, tx receiver.Tx) ([]byte, error) {
			ran = true
			failed := tx.Set([]byte(stateKey(o.Caller, o.Key)), value(o.N, 1))
			if o.Kind == Emit {
				failed = errors.Join(failed, tx.Emit(topic, value(o.N, 2)), tx.Emit(topic, value(o.N, 3)))
			}
			return value(o.N, 0), errors.Join(failed, err)
		}
	}
	var out receiver.Outcome
	var err error
	switch o.Kind {
	case Do:
		out, err = s.r.Do(ctx, key, say(value(o.N, 0), nil))
	case DoFail:
		out, err = s.r.Do(ctx, key, say(nil, errNo))
	case DoPermanent:
		out, err = s.r.Do(ctx, key, say(nil, receiver.Permanent(errNo)))
	case DoUnknown:
		out, err = s.r.Do(ctx, key, say(nil, receiver.Unknown(errNo)))
	case DoLarge:
		out, err = s.r.Do(ctx, key, say(make([]byte, oncelog.DefaultMaxValueSize+1), nil))
		if len(out.Value) > 0 && ran {
			out.Value = []byte("large")
		}
	case DoIntent:
		out, err = s.r.Do(ctx, key, say(value(o.N, 0), nil), receiver.WithIntent(value(o.N, 4)))
	case DoTx, Emit:
		out, err = s.r.DoTx(ctx, key, in(nil))
	case DoTxFail:
		out, err = s.r.DoTx(ctx, key, in(errNo))
	case DoSeq:
		out, err = s.r.DoSeq(ctx, orders(o.Caller), seq(o.N), say(nil, nil))
	}
	return said(ran, out, err)
}

// said is the answer of a Do in words; its err is one that says nothing about the message.
func said(ran bool, out receiver.Outcome, err error) (string, error) {
	var stored *receiver.StoredError
	switch {
	case err == nil && ran == out.Replayed:
		return "ran and was replayed, or neither", nil
	case err == nil:
		return fmt.Sprintf("ran %v: %x", ran, out.Value), nil
	case errors.Is(err, oncelog.ErrFailed), errors.Is(err, receiver.ErrUnrecorded): // whatever else they are
	case errors.As(err, &stored):
		return fmt.Sprintf("ran %v: failed for good, %s", ran, stored.Message), nil
	case errors.Is(err, receiver.ErrInDoubt):
		return fmt.Sprintf("ran %v: in doubt", ran), nil
	case errors.Is(err, receiver.ErrResultGone):
		return fmt.Sprintf("ran %v: gone", ran), nil
	case errors.Is(err, receiver.ErrTooOld):
		return fmt.Sprintf("ran %v: too old", ran), nil
	case errors.Is(err, errNo) && err.Error() == errNo.Error():
		return fmt.Sprintf("ran %v: no", ran), nil
	}
	return "", err
}

func (s *Service) doAll(ctx context.Context, o Op) (string, error) {
	var batch []receiver.Call
	ran := make([]bool, o.Batch)
	for i := range o.Batch {
		batch = append(batch, receiver.Call{Key: doKey(o.Caller, o.Key+i), Fn: func(context.Context) ([]byte, error) {
			ran[i] = true
			return value(o.N, i), nil
		}})
	}
	outs, err := s.r.DoAll(ctx, batch)
	var all []string
	for i, out := range outs {
		one, _ := said(ran[i], out, nil)
		all = append(all, one)
	}
	if err != nil && len(outs) < o.Batch && !errors.Is(err, receiver.ErrUnrecorded) {
		one, other := said(ran[len(outs)], receiver.Outcome{}, err)
		if other == nil {
			all, err = append(all, one), nil
		}
	}
	return strings.Join(all, "; "), err
}

func (s *Service) lookup(ctx context.Context, key string) (string, error) {
	l, err := s.r.Lookup(ctx, key)
	if err != nil {
		return "", err
	}
	switch l.State {
	case receiver.StateAbsent:
		return "absent", nil
	case receiver.StateInFlight:
		return "in flight", nil
	case receiver.StateInDoubt:
		return fmt.Sprintf("in doubt %x", l.Note), nil
	case receiver.StateDone:
		return fmt.Sprintf("done %d %x %q until %d", l.Result.Kind, l.Result.Value, l.Result.Message, l.Until.UnixMilli()), nil
	}
	return fmt.Sprint("in state ", l.State), nil
}

// relay hands the first message on, or parks it.
func (s *Service) relay(ctx context.Context, publish error) (string, error) {
	waiting := 0
	for _, err := range s.r.Outgoing(ctx) {
		if err != nil {
			return "", err
		}
		waiting++
	}
	if waiting < 2 { // a message is parked when its publish has returned, and the one behind it says that it has
		return "too few wait", nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	got, parked := "", s.st.Stats().Parked
	err := s.r.Relay(ctx, func(_ context.Context, m receiver.Message) error {
		if got != "" { // the one behind it
			stop()
			return errNo
		}
		got = fmt.Sprintf("%s %d %x", m.Topic, m.Ordinal, m.Payload)
		if publish == nil {
			stop()
		}
		return publish
	})
	switch {
	case err == context.Canceled: // and no more than that
		err = nil
	case s.st.Stats().Parked == parked: // else it is done, and the error is about the one behind it
		got = ""
	}
	return got, err
}

func (s *Service) unpark(ctx context.Context) (string, error) {
	first := receiver.Message{}
	for m, err := range s.r.Parked(ctx) {
		if err != nil {
			return "", err
		}
		if first.Ordinal == 0 || m.Ordinal < first.Ordinal {
			first = m
		}
	}
	if first.Ordinal == 0 {
		return "nothing is parked", nil
	}
	return fmt.Sprint("unparked ", first.Ordinal), s.r.Unpark(ctx, first.Topic, first.Ordinal)
}
