package linear

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

// service is the store as the clients see it.
type service struct {
	st     *oncelog.Store
	r      *receiver.Receiver // with a window
	strict *receiver.Receiver
}

// The errors that a call may return here. Any other ends the test.
var known = map[string]error{
	"in flight":    receiver.ErrInFlight,
	"reused":       receiver.ErrKeyReused,
	"in doubt":     receiver.ErrInDoubt,
	"not in doubt": receiver.ErrNotInDoubt,
	"result gone":  receiver.ErrResultGone,
	"too old":      receiver.ErrTooOld,
	"fenced":       receiver.ErrFenced,
	"out of order": receiver.ErrOutOfOrder,
	"relayed":      receiver.ErrRelayed,
	fails:          errFails,
}

var errFails = errors.New("fn fails")

// coded is a permanent failure.
type coded string

func (e coded) Error() string { return "failed for good: " + string(e) }
func (e coded) Code() string  { return string(e) }

// explain puts an error into the answer.
func (o *out) explain(err error) error {
	if err == nil {
		return nil
	}
	var stored *receiver.StoredError
	if errors.As(err, &stored) {
		if o.Err, o.Value = permanent, stored.Code; stored.Message != coded(stored.Code).Error() || stored.Replayed == o.Ran {
			return fmt.Errorf("a stored failure is not what was stored: %+v, fn ran: %v", stored, o.Ran)
		}
		return nil
	}
	for name, target := range known {
		if errors.Is(err, target) {
			o.Err = name
			return nil
		}
	}
	return err
}

func name(i in) string   { return fmt.Sprintf("group %d key %d", i.Group, i.Key) }
func source(i in) string { return fmt.Sprintf("group %d strict %v", i.Group, i.Strict) }
func topic(i in) string  { return fmt.Sprint("group ", i.Group) }

// do makes a call. An error is one that no call may return.
func (s *service) do(i in) (o out, err error) {
	ctx, key := context.Background(), []byte(name(i))
	var b []byte
	switch i.Op {
	case "put":
		b, o.OK, err = s.st.PutIfAbsent(key, pack(i.Value), 0)
		o.Value = unpack(b)
	case "get":
		b, o.OK, err = s.st.Get(key)
		o.Value = unpack(b)
	case "append get":
		b, o.OK, err = s.st.AppendGet([]byte("before "), key)
		if !strings.HasPrefix(string(b), "before ") {
			return o, fmt.Errorf("AppendGet lost what was before: %q", b)
		}
		o.Value = unpack(b[len("before "):])
	case "has":
		o.OK, err = s.st.Has(key)
	case "delete":
		o.OK, err = s.st.Delete(key)
	case "records":
		o.Found = map[string]string{}
		for r, err := range s.st.Records() {
			if err != nil {
				return o, err
			}
			if _, twice := o.Found[string(r.Key)]; twice {
				// A record that was deleted and inserted again meanwhile may be seen twice; expand does not look then.
				o.Found[string(r.Key)] = "twice"
				continue
			}
			o.Found[string(r.Key)] = unpack(r.Value)
		}
	case "advance":
		o.OK, err = s.st.Advance(topic(i), i.Seq)
	case "high water":
		o.Number, o.OK, err = s.st.HighWater(topic(i))
	case "forget source":
		err = s.st.ForgetSource(topic(i))
	case "update":
		err = s.st.Update(func(tx *oncelog.Tx) error {
			if o.Text, err = steps(i, tx, tx); err == nil && i.Fails != "" {
				err = errFails
			}
			return err
		})
	case "view":
		err = s.st.View(func(tx *oncelog.Tx) error {
			all := in{Group: i.Group}
			for k := range each {
				all.Steps = append(all.Steps, in{Op: "state", Key: k}, in{Op: "record", Key: k})
			}
			o.Text, err = steps(all, tx, tx)
			return err
		})
	case "lookup":
		var st receiver.Status
		st, err = s.r.Lookup(ctx, name(i))
		o.Value = status(st)
	case "forget":
		err = s.r.Forget(ctx, name(i))
	case "settle":
		err = s.r.Settle(ctx, name(i), resolution(i))
	case "doubts":
		o.Found = map[string]string{}
		for d, err := range s.r.Doubts(ctx) {
			if err != nil {
				return o, err
			}
			if d.Source == "" {
				o.Found[d.Key] = "in doubt"
			}
		}
	case "survey":
		o.Text, err = s.survey(i.Group)
	case "do all":
		return s.doAll(i)
	case "source high water":
		o.Number, o.OK, err = s.receiver(i).HighWater(ctx, source(i))
	case "forget receiver source":
		err = s.receiver(i).ForgetSource(ctx, source(i))
	case "outgoing":
		for m, err := range s.r.Outgoing(ctx) {
			if err != nil {
				return o, err
			}
			if m.Topic == topic(i) {
				o.Text += unpack(m.Payload) + ","
			}
		}
	case "relay":
		return s.relay(i)
	default:
		return s.run(i)
	}
	return o, o.explain(err)
}

// survey reads all that a group holds, as state.survey tells it.
func (s *service) survey(group int) (text string, err error) {
	ctx := context.Background()
	err = s.st.View(func(tx *oncelog.Tx) error {
		all := in{Group: group}
		for k := range each {
			all.Steps = append(all.Steps, in{Op: "state", Key: k}, in{Op: "record", Key: k})
		}
		text, err = steps(all, tx, tx)
		return err
	})
	if err != nil {
		return "", err
	}
	mark, _, err := s.st.HighWater(topic(in{Group: group}))
	if err != nil {
		return "", err
	}
	text += fmt.Sprint("mark ", mark, ";")
	for k := range each {
		st, err := s.r.Lookup(ctx, name(in{Group: group, Key: k}))
		if err != nil {
			return "", err
		}
		text += status(st) + " of " + payloadOf(st.Fingerprint) + ";"
	}
	for _, strict := range []bool{false, true} {
		i := in{Group: group, Strict: strict}
		seq, ok, err := s.receiver(i).HighWater(ctx, source(i))
		if err != nil {
			return "", err
		}
		text += fmt.Sprint("source ", seq, " ", ok)
		for gap, err := range s.receiver(i).Gaps(ctx, source(i)) {
			if err != nil {
				return "", err
			}
			text += fmt.Sprint(" -", gap)
		}
		var doubts []numbered
		for d, err := range s.r.Doubts(ctx) {
			if err != nil {
				return "", err
			}
			if d.Source == source(i) {
				doubts = append(doubts, numbered{strict, number{d.Epoch, d.Seq}})
			}
		}
		text += doubtful(doubts)
	}
	box, err := s.do(in{Op: "outgoing", Group: group})
	return text + box.Text, err
}

// doubtful tells which numbers of a source are in doubt.
func doubtful(numbers []numbered) string {
	slices.SortFunc(numbers, func(a, b numbered) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq))
	})
	text := ", in doubt"
	for _, n := range numbers {
		text += fmt.Sprint(" ", n.epoch, "#", n.seq)
	}
	return text + ";"
}

// payloads are those of all calls that have one.
var payloads = []string{"payload 0", "payload 1"}

// payloadOf finds the payload of a fingerprint, whose algorithm docs/FORMAT.md tells.
func payloadOf(fingerprint []byte) string {
	if len(fingerprint) == 0 {
		return ""
	}
	for _, p := range payloads {
		sum := sha256.Sum256([]byte(p))
		if string(fingerprint) == "\x01"+string(sum[:16]) {
			return p
		}
	}
	return fmt.Sprintf("unknown %x", fingerprint)
}

func (s *service) receiver(i in) *receiver.Receiver {
	if i.Strict {
		return s.strict
	}
	return s.r
}

// run is the calls that run an fn.
func (s *service) run(i in) (o out, err error) {
	ctx, opts := context.Background(), options(i)
	fn, fnTx := function(i, &o), functionTx(i, &o)
	var got receiver.Outcome
	switch i.Op {
	case "do":
		got, err = s.r.Do(ctx, name(i), fn, opts...)
	case "do tx":
		got, err = s.r.DoTx(ctx, name(i), fnTx, opts...)
	case "do seq":
		got, err = s.receiver(i).DoSeq(ctx, source(i), i.Seq, fn, opts...)
	case "do seq tx":
		got, err = s.receiver(i).DoSeqTx(ctx, source(i), i.Seq, fnTx, opts...)
	default:
		return o, fmt.Errorf("no such operation: %q", i.Op)
	}
	o.Value = unpack(got.Value)
	if err == nil && got.Replayed == o.Ran {
		return o, fmt.Errorf("replayed is %v for a call whose fn ran: %v", got.Replayed, o.Ran)
	}
	return o, o.explain(err)
}

func options(i in) (opts []receiver.CallOption) {
	if i.Payload != "" {
		opts = append(opts, receiver.WithPayload([]byte(i.Payload)))
	}
	if i.Intent {
		opts = append(opts, receiver.WithIntent([]byte("a note")))
	}
	if i.Retry {
		opts = append(opts, receiver.OnDoubt(receiver.Retry))
	}
	if i.Reject {
		opts = append(opts, receiver.WithWait(time.Duration(i.Pause)*time.Microsecond))
	}
	if i.Epoch > 0 {
		opts = append(opts, receiver.WithEpoch(i.Epoch))
	}
	return opts
}

func function(i in, o *out) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		o.Ran = true
		for range i.Pause {
			time.Sleep(time.Microsecond)
		}
		return pack(i.Value), end(i)
	}
}

func functionTx(i in, o *out) func(context.Context, receiver.Tx) ([]byte, error) {
	return func(_ context.Context, tx receiver.Tx) (_ []byte, err error) {
		o.Ran = true
		if o.Text, err = steps(i, tx, nil); err != nil {
			return nil, err
		}
		return pack(i.Value), end(i)
	}
}

func end(i in) error {
	switch i.Fails {
	case fails:
		return errFails
	case permanent:
		return receiver.Permanent(coded(i.Value))
	case unknown:
		return receiver.Unknown(errors.New("no answer"))
	}
	return nil
}

func resolution(i in) receiver.Resolution {
	switch i.Fails {
	case fails:
		return receiver.HappenedNot()
	case permanent:
		return receiver.Failed(coded(i.Value))
	}
	return receiver.Happened(pack(i.Value))
}

func status(st receiver.Status) string {
	switch {
	case st.State == receiver.StateAbsent:
		return "absent"
	case st.State == receiver.StateInFlight:
		return "in flight"
	case st.State == receiver.StateInDoubt:
		return "in doubt"
	case st.Result.Kind == receiver.KindValue:
		return "done " + unpack(st.Result.Value)
	case st.Result.Kind == receiver.KindFailure:
		return "failed " + st.Result.Code
	}
	return fmt.Sprintf("%+v", st)
}

// steps are those of a transaction. records is nil where there are no raw records.
func steps(i in, tx receiver.Tx, records *oncelog.Tx) (text string, err error) {
	for _, step := range i.Steps {
		step.Group = i.Group
		key := []byte(name(step))
		var b []byte
		var ok bool
		switch step.Op {
		case "set":
			err = tx.Set(key, pack(step.Value))
		case "unset":
			err = tx.Delete(key)
		case "state":
			b, _, err = tx.Get(key)
			text += unpack(b) + ";"
		case "put":
			if err = records.PutRecord(key, pack(step.Value), 0); errors.Is(err, oncelog.ErrExists) {
				err = nil
				text += "exists;"
			}
		case "delete":
			ok, err = records.DeleteRecord(key)
			text += fmt.Sprint(ok, ";")
		case "record":
			b, _, err = records.Record(key)
			text += unpack(b) + ";"
		case "advance":
			ok, err = tx.Advance(topic(step), step.Seq)
			text += fmt.Sprint(ok, ";")
		case "emit":
			err = tx.Emit(topic(step), pack(step.Value))
		}
		if err != nil {
			return "", err
		}
	}
	return text, nil
}

// doAll answers with what came of each call, up to the first that returned an error.
func (s *service) doAll(i in) (o out, err error) {
	outs := make([]out, len(i.Calls))
	var calls []receiver.Call
	for k, c := range i.Calls {
		call := receiver.Call{Fn: function(c, &outs[k]), Options: options(c)}
		if c.Op == "do" {
			call.Key = name(c)
		} else {
			call.Source, call.Seq = source(c), c.Seq
		}
		calls = append(calls, call)
	}
	got, err := s.r.DoAll(context.Background(), calls)
	for k := range got {
		outs[k].Value = unpack(got[k].Value)
		if got[k].Replayed == outs[k].Ran {
			return o, fmt.Errorf("replayed is %v for call %d, whose fn ran: %v", got[k].Replayed, k, outs[k].Ran)
		}
	}
	if err != nil {
		failed := &outs[len(got)]
		o.Outs = outs[:len(got)+1]
		return o, failed.explain(err)
	}
	if o.Outs = outs[:len(got)]; len(got) != len(calls) {
		return o, fmt.Errorf("%d outcomes of %d calls", len(got), len(calls))
	}
	return o, nil
}

// relay hands on some messages, and answers with those of each group.
func (s *service) relay(i in) (o out, err error) {
	ctx, stop := context.WithTimeout(context.Background(), time.Millisecond)
	defer stop()
	type message struct{ topic, payload string }
	handed := make(chan message, 1<<16)
	err = s.r.Relay(ctx, func(_ context.Context, m receiver.Message) error {
		handed <- message{m.Topic, unpack(m.Payload)}
		return nil
	})
	close(handed)
	o.Found = map[string]string{}
	for m := range handed {
		o.Found[m.topic] += m.payload + ","
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return o, nil
	}
	return o, o.explain(err)
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
