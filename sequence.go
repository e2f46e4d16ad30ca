package oncelog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
)

// mark is how far a receiver's source has come: the value and the attributes of its record.
//
// Ordinal is the lowest number that was handled. Above the mark itself, at number+1, it says that number is awaited: a
// source handled strictly in order has begun with it, and nothing was handled yet. ResultTTL is the longest time for
// which results of the source were ever kept, 0 = none was: then a number that the mark knows, and that has no record,
// had an empty result, and not one that is gone.
type mark struct {
	record.MarkValue
	first     uint64
	resultTTL int64
}

func (m *mark) awaits() bool { return m.first > m.Number }

// has reports whether a number was handled, as far as the mark knows.
func (m *mark) has(seq uint64) bool {
	if m.awaits() || seq >= m.Number {
		return seq == m.Number && !m.awaits()
	}
	i := m.Number - 1 - seq
	return i/8 < uint64(len(m.Window)) && m.Window[i/8]>>(i%8)&1 == 1
}

// handle notes that a number was handled, and what it knows of numbers behind it, as many as window.
func (m *mark) handle(seq, window uint64) {
	if m.awaits() {
		m.Number, m.first, m.Window = seq, seq, nil
		return
	}
	m.first = min(m.first, seq)
	if seq > m.Number {
		m.shift(seq-m.Number, window)
		m.Number = seq
		return
	}
	if i := m.Number - 1 - seq; seq < m.Number && i < window {
		m.grow(i)
		m.Window[i/8] |= 1 << (i % 8)
	}
}

func (m *mark) grow(bit uint64) {
	if need := int(bit/8 + 1); len(m.Window) < need {
		m.Window = append(m.Window, make([]byte, need-len(m.Window))...)
	}
}

// shift moves the window by as many numbers as the mark rises; the old mark is one of those that were handled.
func (m *mark) shift(by, window uint64) {
	old := m.Window
	m.Window = nil
	if by > window {
		return
	}
	m.grow(by - 1)
	m.Window[(by-1)/8] |= 1 << ((by - 1) % 8)
	for i := uint64(0); i < uint64(len(old))*8 && i+by < window; i++ {
		if old[i/8]>>(i%8)&1 == 1 {
			m.grow(i + by)
			m.Window[(i+by)/8] |= 1 << ((i + by) % 8)
		}
	}
}

// markRoom bounds the size of a mark's record.
func markRoom(m *receiver.Mark) int {
	return record.MaxSize(len(m.Source), 2*binary.MaxVarintLen64+int(m.Window/8)+1, markAttrs)
}

// markAttrs bounds a mark's attributes: two tags with their lengths, and two numbers.
const markAttrs = 4 + 2*binary.MaxVarintLen64

func (m *mark) record(key []byte, at int64) record.Record {
	return record.Record{
		Kind: record.Mark, Receiver: true, At: at, Expires: record.Forever, Key: key,
		Value: record.AppendMark(nil, m.MarkValue),
		Attrs: record.AppendAttributes(nil, &record.Attributes{Ordinal: m.first, ResultTTL: m.resultTTL}),
	}
}

// parseReceiverMark decodes the record of a mark.
func parseReceiverMark(r *record.Record) (m mark, err error) {
	if m.MarkValue, err = record.ParseMark(r.Value); err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	a, err := r.Attributes()
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	m.Window = bytes.Clone(m.Window)
	m.first, m.resultTTL = a.Ordinal, a.ResultTTL
	return m, nil
}

// visibleMark returns the mark of a source as it is durable.
func (s *Store) visibleMark(n name) (m mark, ok bool, err error) {
	cand := s.candidate(n)
	if cand.none() {
		return m, false, nil
	}
	if v := &cand.version; v.commit != nil {
		if v.deleted() {
			return m, false, nil
		}
		m, err = parseReceiverMark(&record.Record{Value: v.value(), Attrs: v.attrs()})
		return m, err == nil, err
	}
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	f, err := s.fetch(n, cand.loc, b)
	if err != nil || !f.ok {
		return m, false, err
	}
	m, err = parseReceiverMark(&f.record)
	return m, err == nil, err
}

// holdMark holds the mark of a source and returns it as of the newest change, durable or not.
func (s *Store) holdMark(n name) (c *claim, m mark, ok bool, err error) {
	c, v := s.claims.hold(n, nil)
	var r record.Record
	switch {
	case v.commit == nil:
		r, ok, err = s.current(c)
	case !v.deleted():
		r, ok = record.Record{Value: v.value(), Attrs: v.attrs()}, true
	}
	if err == nil && ok {
		m, err = parseReceiverMark(&r)
	}
	if err != nil {
		s.claims.release(c, false)
		return nil, m, false, err
	}
	return c, m, ok, nil
}

// handled says what the source's mark knows of a number that has no record: ok is false if it may be claimed.
func (s *Store) handled(req *receiver.Mark) (c receiver.Claim, ok bool, err error) {
	n, err := s.name(record.ReceiverMarks, []byte(req.Source))
	if err != nil {
		return c, false, err
	}
	m, ok, err := s.visibleMark(n)
	if err != nil || !ok || m.Epoch < req.Epoch {
		return c, false, err
	}
	switch {
	case m.Epoch > req.Epoch:
		return c, false, fmt.Errorf("%w: epoch %d, not %d", receiver.ErrFenced, m.Epoch, req.Epoch)
	case m.has(req.Seq):
		c = receiver.Claim{State: receiver.StateDone, Result: receiver.Result{Kind: receiver.KindValue}}
		if m.resultTTL > 0 {
			c.Result.Kind = receiver.KindGone
		}
		return c, true, nil
	case m.awaits():
		if req.Strict && req.Seq != m.Number {
			return c, false, outOfOrder(req.Seq, m.Number)
		}
		return c, false, nil
	case req.Seq < m.Number && m.Number-req.Seq > req.Window:
		return receiver.Claim{State: receiver.StateTooOld}, true, nil
	case req.Strict && req.Seq-1 != m.Number:
		return c, false, outOfOrder(req.Seq, m.Number+1)
	}
	return c, false, nil
}

func outOfOrder(seq, next uint64) error {
	return fmt.Errorf("%w: %d, and the next is %d", receiver.ErrOutOfOrder, seq, next)
}

// await records the number with which a source begins that is handled strictly in order: should its work fail, no
// later one may pass it, not even after a restart.
func (s *Store) await(req *receiver.Mark) error {
	n, err := s.name(record.ReceiverMarks, []byte(req.Source))
	if err != nil {
		return err
	}
	size := markRoom(req)
	if err := s.ready(size); err != nil {
		return err
	}
	c, m, ok, err := s.holdMark(n)
	if err != nil {
		return err
	}
	if ok && m.Epoch >= req.Epoch {
		s.claims.release(c, false)
		if m.Epoch == req.Epoch && m.awaits() && m.Number != req.Seq { // another began meanwhile
			return outOfOrder(req.Seq, m.Number)
		}
		return nil
	}
	m = mark{MarkValue: record.MarkValue{Number: req.Seq, Epoch: req.Epoch}, first: req.Seq + 1}
	return s.commit(size, change{c, m.record(n.key, s.clock.millis())})
}

// advance adds the change of the source's mark to those of a number that was handled. kept says whether its result is
// to be recorded: not if it is empty, as all results of the source have been.
func (s *Store) advance(o *completing, empty bool, ttl int64) (kept bool, err error) {
	req := o.l.mark
	n, err := s.name(record.ReceiverMarks, []byte(req.Source))
	if err != nil {
		return false, err
	}
	c, m, ok, err := s.holdMark(n)
	if err != nil {
		return false, err
	}
	if ok && m.Epoch > req.Epoch { // a later epoch has begun meanwhile, and the mark is its own
		s.claims.release(c, false)
		return true, nil
	}
	if !ok || m.Epoch < req.Epoch {
		m = mark{MarkValue: record.MarkValue{Number: req.Seq, Epoch: req.Epoch}, first: req.Seq}
	} else {
		// One that has fallen behind the window while it was handled leaves no trace in the mark.
		kept = req.Seq < m.Number && m.Number-req.Seq > req.Window
		m.handle(req.Seq, req.Window)
	}
	if kept = kept || !empty || m.resultTTL > 0; kept {
		m.resultTTL = max(m.resultTTL, ttl)
	}
	r := m.record(n.key, s.clock.millis())
	o.changes = append(o.changes, change{c, r})
	o.size += record.MaxSize(len(r.Key), len(r.Value), len(r.Attrs))
	return kept, nil
}

// Source implements receiver.Marker.
func (b backend) Source(_ context.Context, source string) (st receiver.SourceState, ok bool, err error) {
	s := b.s
	n, err := s.name(record.ReceiverMarks, []byte(source))
	if err != nil {
		return st, false, err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return st, false, ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	m, ok, err := s.visibleMark(n)
	if err != nil || !ok || m.awaits() {
		return st, false, err
	}
	return receiver.SourceState{Seq: m.Number, Epoch: m.Epoch, First: m.first, Window: m.Window}, true, nil
}

// ForgetSource implements receiver.Marker.
func (b backend) ForgetSource(_ context.Context, source string) error {
	s := b.s
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	n, err := s.name(record.ReceiverMarks, []byte(source))
	if err != nil {
		return err
	}
	if !s.gate.enter(uint64(n.hash)) {
		return ErrClosed
	}
	defer s.gate.leave(uint64(n.hash))
	_, err = s.remove(n)
	return err
}
