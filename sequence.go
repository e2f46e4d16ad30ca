package oncelog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// mark is how far a receiver's source has come: the value and the attributes of its record.
//
// Ordinal is the lowest number that was handled. Above the mark itself, at number+1, it says that number is awaited: a
// source handled strictly in order has begun with it, and nothing was handled yet. Code is a bitmap of the numbers that
// were handled with a result that is kept in a record: if there is none, the result is gone. A number without that bit
// had an empty result. Token is the floor: with a smaller window than today's, what is below it was forgotten.
type mark struct {
	record.MarkValue
	first uint64
	floor uint64 // what was handled below it is forgotten, whatever the window is now
	kept  bitmap // bit i is number-i
}

// bitmap has the least significant bit of a byte first, and as many bytes as it needs.
type bitmap []byte

func (b bitmap) has(bit uint64) bool { return bit/8 < uint64(len(b)) && b[bit/8]>>(bit%8)&1 == 1 }

func (b *bitmap) set(bit uint64) {
	if need := int(bit/8 + 1); len(*b) < need {
		*b = append(*b, make([]byte, need-len(*b))...)
	}
	(*b)[bit/8] |= 1 << (bit % 8)
}

// shifted returns the bitmap with each bit moved up, and those that reach the limit left out.
func (b bitmap) shifted(by, limit uint64) (moved bitmap) {
	for i := uint64(0); i < uint64(len(b))*8 && by < limit && i < limit-by; i++ {
		if b.has(i) {
			moved.set(i + by)
		}
	}
	return moved
}

func (m *mark) awaits() bool { return m.first > m.Number }

// has reports whether a number was handled, as far as the mark knows.
func (m *mark) has(seq uint64) bool {
	if m.awaits() || seq >= m.Number {
		return seq == m.Number && !m.awaits()
	}
	return bitmap(m.Window).has(m.Number - 1 - seq)
}

// handle notes that a number was handled, and whether its result is kept; of the numbers behind the mark it knows as
// many as window.
func (m *mark) handle(seq, window uint64, kept bool) {
	switch {
	case m.awaits():
		m.Number, m.first, m.Window, m.kept = seq, seq, nil, nil
	case seq > m.Number:
		by := seq - m.Number
		moved := bitmap(m.Window).shifted(by, window)
		if by <= window {
			moved.set(by - 1) // the old mark is one of those that were handled
		}
		m.Number, m.Window, m.kept = seq, moved, m.kept.shifted(by, window+1)
	default:
		m.Window, m.kept = bitmap(m.Window).shifted(0, window), m.kept.shifted(0, window+1)
		if i := m.Number - 1 - seq; seq < m.Number && i < window {
			moved := bitmap(m.Window)
			moved.set(i)
			m.Window = moved
		}
	}
	m.first = min(m.first, seq)
	m.floor = max(m.floor, m.Number-min(m.Number, window))
	if i := m.Number - seq; kept && i <= window {
		m.kept.set(i)
	}
}

// markRoom bounds the size of a mark's record.
func markRoom(m *receiver.Mark) int {
	bits := int(m.Window/8) + 2
	return record.MaxSize(len(m.Source), 2*binary.MaxVarintLen64+bits, markAttrs+bits)
}

// markAttrs bounds a mark's attributes without the bitmap: three tags with their lengths, and two numbers.
const markAttrs = 3 + 5*binary.MaxVarintLen64

func (m *mark) record(key []byte, at int64) record.Record {
	return record.Record{
		Kind: record.Mark, Receiver: true, At: at, Expires: record.Forever, Key: key,
		Value: record.AppendMark(nil, m.MarkValue),
		Attrs: record.AppendAttributes(nil, &record.Attributes{Token: m.floor, Ordinal: m.first, Code: m.kept}),
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
	m.floor, m.first, m.kept = a.Token, a.Ordinal, bytes.Clone(a.Code)
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

// holdMark holds the mark of a source and returns it as of the newest change, which is durable unless it is of a commit
// that is returned too.
func (s *Store) holdMark(n name) (c *claim, m mark, ok bool, staged *wal.Commit, err error) {
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
		return nil, m, false, nil, err
	}
	return c, m, ok, v.commit, nil
}

// handled says what the source's mark knows of a number that has no record: ok is false if it may be claimed.
func (s *Store) handled(req *receiver.Mark) (c receiver.Claim, ok bool, err error) {
	n, err := s.name(record.ReceiverMarks, []byte(req.Source))
	if err != nil {
		return c, false, err
	}
	m, ok, err := s.visibleMark(n)
	if err != nil || !ok {
		return c, false, err
	}
	return m.judge(req)
}

// judge is handled, of a mark that is there.
func (m *mark) judge(req *receiver.Mark) (c receiver.Claim, ok bool, err error) {
	switch {
	case m.Epoch < req.Epoch:
		return c, false, nil
	case m.Epoch > req.Epoch:
		return c, false, fmt.Errorf("%w: epoch %d, not %d", receiver.ErrFenced, m.Epoch, req.Epoch)
	case m.has(req.Seq):
		c = receiver.Claim{State: receiver.StateDone, Result: receiver.Result{Kind: receiver.KindValue}}
		if m.kept.has(m.Number - req.Seq) {
			c.Result.Kind = receiver.KindGone
		}
		return c, true, nil
	case m.awaits():
		if req.Strict && req.Seq != m.Number {
			return c, false, outOfOrder(req.Seq, m.Number)
		}
		return c, false, nil
	case req.Seq < m.floor, req.Seq < m.Number && m.Number-req.Seq > req.Window:
		return receiver.Claim{State: receiver.StateTooOld}, true, nil
	case req.Strict && req.Seq-1 != m.Number:
		return c, false, outOfOrder(req.Seq, m.Number+1)
	}
	return c, false, nil
}

func outOfOrder(seq, next uint64) error {
	if next == 0 {
		return fmt.Errorf("%w: %d, and the last there is was handled", receiver.ErrOutOfOrder, seq)
	}
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
	c, m, ok, staged, err := s.holdMark(n)
	if err != nil {
		return err
	}
	if ok && m.Epoch >= req.Epoch { // another number may have begun the source since it was asked, and be done
		s.claims.release(c, false)
		// Its beginning is not durable perhaps, and both a refusal and running because of it rest on that.
		if staged != nil {
			if err := s.log.Await(staged); err != nil {
				return err
			}
		}
		if _, done, err := m.judge(req); err != nil || !done {
			return err
		}
		return outOfOrder(req.Seq, m.Number+1)
	}
	if req.Seq == math.MaxUint64 {
		s.claims.release(c, false)
		return fmt.Errorf("%w: a source can't begin with %d, behind which there is none", receiver.ErrOutOfOrder, req.Seq)
	}
	m = mark{MarkValue: record.MarkValue{Number: req.Seq, Epoch: req.Epoch}, first: req.Seq + 1}
	return s.commit(size, change{c, m.record(n.key, s.clock.millis())})
}

// heldMarks are the marks of sources that a transaction is about to move, by the source's encoded name.
type heldMarks map[string]*heldMark

type heldMark struct {
	claim   *claim
	mark    mark
	there   bool
	changed bool
}

// holdMarks holds the marks that the results of claims move: all of them before any other key, in one order for all, so
// that two who hold several never wait for each other.
func (s *Store) holdMarks(all []completing) (heldMarks, error) {
	var sources []string
	for i := range all {
		l := all[i].l
		if l.mark != nil && all[i].res.Kind != receiver.KindDoubt && all[i].res.Kind != receiver.KindNot {
			sources = append(sources, l.mark.Source)
		}
	}
	if len(sources) == 0 {
		return nil, nil
	}
	slices.Sort(sources)
	marks := heldMarks{}
	for _, source := range slices.Compact(sources) {
		n, err := s.name(record.ReceiverMarks, []byte(source))
		h := &heldMark{}
		if err == nil {
			h.claim, h.mark, h.there, _, err = s.holdMark(n)
		}
		if err != nil {
			marks.letGo(s, false)
			return nil, err
		}
		marks[source] = h
	}
	return marks, nil
}

// tells reports whether the mark can tell of a number that was handled: not when a later epoch has begun meanwhile, or
// the number has fallen behind the window.
func (m heldMarks) tells(req *receiver.Mark) bool {
	h := m[req.Source]
	k := &h.mark
	if !h.there || k.Epoch < req.Epoch {
		return true
	}
	return k.Epoch == req.Epoch && (req.Seq >= k.Number || req.Seq >= k.floor && k.Number-req.Seq <= req.Window)
}

// advance moves the mark of a number that was handled, with a result that is kept or is empty.
func (m heldMarks) advance(req *receiver.Mark, kept bool) {
	if !m.tells(req) {
		return
	}
	h := m[req.Source]
	if !h.there || h.mark.Epoch < req.Epoch {
		h.mark = mark{MarkValue: record.MarkValue{Number: req.Seq, Epoch: req.Epoch}, first: req.Seq}
	}
	h.mark.handle(req.Seq, req.Window, kept)
	h.there, h.changed = true, true
}

// changes adds those of the marks that have moved.
func (m heldMarks) changes(s *Store, all []change, size int) ([]change, int) {
	for _, h := range m {
		if h.changed {
			r := h.mark.record(h.claim.key, s.clock.millis())
			all = append(all, change{h.claim, r})
			size += record.MaxSize(len(r.Key), len(r.Value), len(r.Attrs))
		}
	}
	return all, size
}

// letGo releases the marks, whose changes are staged or not.
func (m heldMarks) letGo(s *Store, staged bool) {
	for _, h := range m {
		s.claims.release(h.claim, staged && h.changed)
	}
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
