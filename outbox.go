package oncelog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/compaction"
	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/receiver"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// outbox knows where the messages are that transactions have emitted, until they are handed on: their places in the
// log, topic by topic. It is not in the index, since messages are asked for in their order and not by a key, and are
// few: those that wait, and those that were parked.
//
//	stage (letters get their ordinals, in the order of the log) ──▶ Enqueue ──▶ visible ──▶ apply, in that order
//
// Staging is one step with Enqueue, under the mutex, so the log has a topic's records in the order in which they were
// decided; that is what makes replaying them lead to the same. The mutex guards memory and is never held across I/O.
type outbox struct {
	mu      sync.Mutex
	topics  map[string]*topic
	posted  []posted     // staged and not applied, in the order of the log
	pending atomic.Int64 // how many of these there are
	changed chan struct{}
}

// topic is an ordered line of messages. What is said of staged records holds for what is applied too.
type topic struct {
	next     uint64           // ordinal of the next message, staged ones counted
	ended    uint64           // messages through this one are handed on, or staged as such
	last     uint64           // ordinal of the newest message
	sent     uint64           // messages through this one are handed on
	mark     place            // of the record that says so; loc 0 = there is none
	messages map[uint64]place // those above sent, all of them
	parked   map[uint64]*parked
}

// place is where a record is, and as what it is counted.
type place struct {
	loc   index.Location
	entry compaction.Entry
}

type parked struct {
	place
	leaving bool // its tombstone is staged
}

// letter is a record of the outbox that is to be staged.
type letter struct {
	record record.Record // without attributes
	attrs  record.Attributes
	moved  index.Location // it is a copy of what is there; 0 = it is not
}

// posted is a letter in a transaction that is not applied yet.
type posted struct {
	commit    *wal.Commit
	at, whole int
	kind      record.Kind
	topic     string
	ordinal   uint64
}

// letterAttrs bounds the attributes of a letter without its message key and reason: three tags with their lengths, and
// an ordinal.
const letterAttrs = 3*(1+binary.MaxVarintLen32) + binary.MaxVarintLen64

// size is an upper bound of the record's.
func (l *letter) size() int {
	key := max(len(l.attrs.MessageKey), 2*32) // what Emit makes one from is known when it is staged
	return record.MaxSize(len(l.record.Key), len(l.record.Value), letterAttrs+key+len(l.attrs.Code))
}

// Emit leaves a message that receiver.Relay hands on once the transaction is durable: at least once, and in order
// within its topic. It travels with a key made from its place in the topic and its content.
func (tx *Tx) Emit(topic string, payload []byte) error { return tx.emit(topic, payload, "") }

func (tx *Tx) emit(topic string, payload []byte, key string) error {
	o := &tx.s.opts
	if err := o.checkKey([]byte(topic)); err != nil {
		return err
	}
	if err := o.checkValue(payload); err != nil {
		return err
	}
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case tx.over:
		return ErrTxDone
	case tx.view:
		return ErrReadOnly
	case tx.err != nil:
		return tx.err
	}
	l := outgoing(topic, slices.Clone(payload), []byte(key))
	if err := tx.grow(l.size()); err != nil {
		return err
	}
	tx.letters = append(tx.letters, l)
	return nil
}

func outgoing(topic string, payload, key []byte) letter {
	return letter{
		record: record.Record{Kind: record.Outgoing, Expires: record.Forever, Key: []byte(topic), Value: payload},
		attrs:  record.Attributes{MessageKey: key},
	}
}

// admit gives letters their ordinals, and drops copies of what is gone meanwhile. undo takes that back. Called with
// the mutex held, which is kept until the letters are in the log's queue.
func (o *outbox) admit(id [16]byte, letters []letter) (admitted []letter, undo func(), err error) {
	var undos []func()
	undo = func() {
		for _, f := range slices.Backward(undos) {
			f()
		}
	}
	for _, l := range letters {
		name := string(l.record.Key)
		t := o.topic(name)
		n := &l.attrs.Ordinal
		switch {
		case l.moved != 0:
			if at, ok := t.find(l.record.Kind, *n); !ok || at.loc != l.moved {
				continue
			}
		case l.record.Kind == record.Outgoing:
			if t.next == noOrdinal {
				err = fmt.Errorf("%w: the ordinals of a topic are used up; emit to another", ErrFull)
				break
			}
			*n = t.next
			t.next++
			undos = append(undos, func() { t.next-- })
			if len(l.attrs.MessageKey) == 0 {
				// With time and payload: where commits may be lost, another message may have this ordinal one day.
				place := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, *n), uint64(l.record.At))
				l.attrs.MessageKey = []byte(receiver.KeyOf(id[:], l.record.Key, place, l.record.Value))
			}
		case l.record.Kind == record.Sent:
			if *n <= t.ended || *n >= t.next {
				err = fmt.Errorf("oncelog: message %d of a topic is not one that waits", *n)
				break
			}
			was := t.ended
			t.ended = *n
			undos = append(undos, func() { t.ended = was })
		case l.record.Kind == record.Parked:
			if *n != t.ended+1 || *n >= t.next {
				err = fmt.Errorf("oncelog: message %d of a topic is not the first that waits", *n)
			}
		case l.record.Kind == record.Tombstone:
			p := t.parked[*n]
			if p == nil || p.leaving {
				err = receiver.ErrNotParked
				break
			}
			p.leaving = true
			undos = append(undos, func() { p.leaving = false })
		}
		if err != nil {
			undo()
			return nil, nil, err
		}
		admitted = append(admitted, l)
	}
	return admitted, undo, nil
}

func (o *outbox) topic(name string) *topic {
	t := o.topics[name]
	if t == nil {
		t = &topic{next: 1, messages: make(map[uint64]place), parked: make(map[uint64]*parked)}
		if o.topics == nil {
			o.topics = make(map[string]*topic)
		}
		o.topics[name] = t
	}
	return t
}

// find returns where a record of the topic is that is alive, staged changes considered.
func (t *topic) find(kind record.Kind, ordinal uint64) (place, bool) {
	switch kind {
	case record.Outgoing:
		at, ok := t.messages[ordinal]
		return at, ok && ordinal > t.ended
	case record.Sent:
		return t.mark, t.mark.loc != 0 && ordinal == t.ended
	case record.Parked:
		if p := t.parked[ordinal]; p != nil && !p.leaving {
			return p.place, true
		}
	}
	return place{}, false
}

// publishOutbox applies the letters of visible transactions.
func (s *Store) publishOutbox() {
	if s.outbox.pending.Load() == 0 {
		return
	}
	s.cut.RLock()
	defer s.cut.RUnlock()
	s.publishOutboxThrough(s.log.Visible())
}

// publishOutboxThrough is publishOutbox for transactions through a number. The caller has the cut.
func (s *Store) publishOutboxThrough(through uint64) {
	o := &s.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for ; n < len(o.posted) && o.posted[n].commit.Number() <= through; n++ {
		p := &o.posted[n]
		seg, off := p.commit.Position()
		at := place{
			loc:   index.At(seg.Slot(), off+int64(p.at)),
			entry: compaction.EntryOf(seg.Number(), record.Outbox, record.Forever, p.whole),
		}
		o.apply(s.ledger, p.kind, p.topic, p.ordinal, at)
	}
	o.posted = slices.Delete(o.posted, 0, n)
	o.pending.Add(int64(-n))
}

// apply makes a record of the outbox known that is visible. Records come in the order of the log, first when they are
// committed and again when the log is replayed. Called with the mutex held.
func (o *outbox) apply(ledger *compaction.Ledger, kind record.Kind, name string, ordinal uint64, at place) {
	t := o.topic(name)
	dead := func() { ledger.Buried(nil, at.entry.Segment, at.entry.Size) }
	switch kind {
	case record.Outgoing:
		if ordinal <= t.sent {
			dead()
			return
		}
		if old, ok := t.messages[ordinal]; ok {
			ledger.Change(&old.entry, &at.entry) // moved
		} else {
			ledger.Change(nil, &at.entry)
			o.wake()
		}
		t.messages[ordinal] = at
		t.last = max(t.last, ordinal)
	case record.Sent:
		if ordinal < t.sent {
			dead()
			return
		}
		for n, m := range t.waitingThrough(ordinal) {
			ledger.Change(&m.entry, nil)
			delete(t.messages, n)
		}
		if t.mark.loc != 0 {
			ledger.Change(&t.mark.entry, nil)
		}
		ledger.Change(nil, &at.entry)
		t.sent, t.mark = ordinal, at
		t.last, t.ended = max(t.last, ordinal), max(t.ended, ordinal)
	case record.Parked:
		if old := t.parked[ordinal]; old != nil {
			ledger.Change(&old.entry, &at.entry)
			old.place = at
			return
		}
		ledger.Change(nil, &at.entry)
		t.parked[ordinal] = &parked{place: at}
	case record.Tombstone:
		var was *compaction.Entry
		if p := t.parked[ordinal]; p != nil {
			was = &p.entry
			delete(t.parked, ordinal)
		}
		ledger.Buried(was, at.entry.Segment, at.entry.Size)
	}
	t.next = max(t.next, nextOrdinal(t.last))
}

// noOrdinal is no message's: what comes after it would start anew from 0.
const noOrdinal = math.MaxUint64

// nextOrdinal returns the one that follows.
func nextOrdinal(ordinal uint64) uint64 { return ordinal + min(1, noOrdinal-ordinal) }

// complete returns an error if a message is missing between those that were handed on and the newest.
func (o *outbox) complete() error {
	for name, t := range o.topics {
		if uint64(len(t.messages)) != t.last-t.sent {
			return fmt.Errorf("topic %q has %d messages where there must be %d", name, len(t.messages), t.last-t.sent)
		}
	}
	return nil
}

// waitingThrough returns the messages that wait with ordinals through one.
func (t *topic) waitingThrough(ordinal uint64) map[uint64]place {
	through := make(map[uint64]place)
	if ordinal-t.sent <= uint64(len(t.messages)) {
		for n := ordinal; n > t.sent; n-- {
			if m, ok := t.messages[n]; ok {
				through[n] = m
			}
		}
		return through
	}
	for n, m := range t.messages {
		if n <= ordinal {
			through[n] = m
		}
	}
	return through
}

// wake tells who waits for messages. Called with the mutex held.
func (o *outbox) wake() {
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// end tells who waits for messages that the store is closing.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake()
}

// holds reports whether a record of the outbox that lies at loc is alive.
func (o *outbox) holds(kind record.Kind, topic string, ordinal uint64, loc index.Location) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.topics[topic]
	if t == nil {
		return false
	}
	at, ok := t.find(kind, ordinal)
	return ok && at.loc == loc
}

// counts returns how many messages wait, and how many are parked.
func (o *outbox) counts() (waiting, parked int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.topics {
		waiting += len(t.messages)
		parked += len(t.parked)
	}
	return waiting, parked
}

// Topics implements receiver.Outbox.
func (b backend) Topics(ctx context.Context) (topics []string, changed <-chan struct{}, err error) {
	o := &b.s.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.s.gate.shut.Load() { // looked at with the mutex held, or else end could come before the channel is made
		return nil, nil, ErrClosed
	}
	for name, t := range o.topics {
		if len(t.messages) > 0 {
			topics = append(topics, name)
		}
	}
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return topics, o.changed, nil
}

// Next implements receiver.Outbox.
func (b backend) Next(ctx context.Context, topic string, after uint64) (m receiver.Message, ok bool, err error) {
	s := b.s
	if !s.gate.enter(after) {
		return m, false, ErrClosed
	}
	defer s.gate.leave(after)
	return s.message(func() (place, record.Kind, uint64, bool) {
		t := s.outbox.topics[topic]
		if t == nil {
			return place{}, 0, 0, false
		}
		// What is staged as handed on may lie in a segment that is dropped before that is applied. When the log has
		// failed nothing is dropped any more, and what was staged did not happen for all that may be seen.
		n := max(after, t.ended)
		if s.log.Failed() != nil {
			n = max(after, t.sent)
		}
		if n >= t.last {
			return place{}, 0, 0, false
		}
		n++
		return t.messages[n], record.Outgoing, n, true
	}, topic)
}

// message reads a message. It may be moved, and its segment dropped, before it is read: then where has another answer.
func (s *Store) message(where func() (at place, kind record.Kind, ordinal uint64, ok bool), topic string) (m receiver.Message, ok bool, err error) {
	b := buffers.Get().(*buffer)
	defer buffers.Put(b)
	var tried index.Location
	for {
		s.outbox.mu.Lock()
		at, kind, ordinal, ok := where()
		s.outbox.mu.Unlock()
		switch {
		case !ok:
			return m, false, nil
		case at.loc == 0 || at.loc == tried:
			reason := fmt.Sprintf("message %d of topic %q is missing from the log", ordinal, topic)
			if seg := s.log.Segment(at.loc.Slot()); seg != nil {
				return m, false, seg.Corrupt(at.loc.Offset(), reason)
			}
			return m, false, &CorruptError{File: s.house.snapshot.dir, Reason: reason}
		}
		r, _, err := s.readAt(at.loc, b)
		if err != nil && !errors.Is(err, errGone) {
			return m, false, err
		}
		if err == nil && r.Kind == kind && string(r.Key) == topic {
			a, err := r.Attributes()
			if err != nil {
				return m, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			if a.Ordinal == ordinal {
				return receiver.Message{
					Topic: topic, Ordinal: ordinal, Key: string(a.MessageKey), Payload: append([]byte{}, r.Value...),
					Emitted: time.UnixMilli(r.At), Reason: string(a.Code),
				}, true, nil
			}
		}
		tried = at.loc
	}
}

// Sent implements receiver.Outbox.
func (b backend) Sent(_ context.Context, topic string, through uint64) error {
	return b.post([]letter{sent(topic, through)}, true)
}

func sent(topic string, through uint64) letter {
	return letter{
		record: record.Record{Kind: record.Sent, Expires: record.Forever, Key: []byte(topic)},
		attrs:  record.Attributes{Ordinal: through},
	}
}

// Park implements receiver.Outbox.
func (b backend) Park(ctx context.Context, topic string, ordinal uint64, reason string) error {
	m, ok, err := b.Next(ctx, topic, ordinal-1)
	if err != nil {
		return err
	}
	if !ok || m.Ordinal != ordinal {
		return fmt.Errorf("oncelog: message %d of a topic is not the first that waits", ordinal)
	}
	p := letter{
		record: record.Record{Kind: record.Parked, Expires: record.Forever, Key: []byte(topic), Value: m.Payload},
		attrs:  record.Attributes{Ordinal: ordinal, MessageKey: []byte(m.Key), Code: []byte(reason)},
	}
	return b.post([]letter{p, sent(topic, ordinal)}, true)
}

// Unpark implements receiver.Outbox.
func (b backend) Unpark(_ context.Context, topic string, ordinal uint64) error {
	s := b.s
	m, ok, err := s.parkedMessage(topic, ordinal)
	if err != nil {
		return err
	}
	if !ok {
		return s.notParked(topic, ordinal)
	}
	gone := letter{
		record: tombstone(record.Parked, 0, []byte(topic)),
		attrs:  record.Attributes{Ordinal: ordinal},
	}
	err = b.post([]letter{gone, outgoing(topic, m.Payload, []byte(m.Key))}, false)
	if errors.Is(err, receiver.ErrNotParked) {
		return s.notParked(topic, ordinal)
	}
	return err
}

// notParked is the answer about a message that is not parked. If that is because somebody has just put it back, it is an
// answer once that is durable.
func (s *Store) notParked(topic string, ordinal uint64) error {
	o := &s.outbox
	o.mu.Lock()
	i := slices.IndexFunc(o.posted, func(p posted) bool {
		return p.kind == record.Tombstone && p.topic == topic && p.ordinal == ordinal
	})
	var c *wal.Commit
	if i >= 0 {
		c = o.posted[i].commit
	}
	o.mu.Unlock()
	if c != nil {
		if err := s.log.Await(c); err != nil {
			return err
		}
	}
	return receiver.ErrNotParked
}

// parkedMessage returns a parked message. One whose tombstone is staged is not there any more, as in Next, unless the log
// has failed.
func (s *Store) parkedMessage(topic string, ordinal uint64) (receiver.Message, bool, error) {
	if !s.gate.enter(ordinal) {
		return receiver.Message{}, false, ErrClosed
	}
	defer s.gate.leave(ordinal)
	return s.message(func() (place, record.Kind, uint64, bool) {
		t := s.outbox.topics[topic]
		if t == nil || t.parked[ordinal] == nil || t.parked[ordinal].leaving && s.log.Failed() == nil {
			return place{}, 0, 0, false
		}
		return t.parked[ordinal].place, record.Parked, ordinal, true
	}, topic)
}

// Parked implements receiver.Outbox.
func (b backend) Parked(_ context.Context) iter.Seq2[receiver.Message, error] {
	return func(yield func(receiver.Message, error) bool) {
		type name struct {
			topic   string
			ordinal uint64
		}
		var all []name
		o := &b.s.outbox
		o.mu.Lock()
		for topic, t := range o.topics {
			for n := range t.parked {
				all = append(all, name{topic, n})
			}
		}
		o.mu.Unlock()
		for _, n := range all {
			m, ok, err := b.s.parkedMessage(n.topic, n.ordinal)
			if err != nil {
				yield(m, err)
				return
			}
			if ok && !yield(m, nil) {
				return
			}
		}
	}
}

// post commits letters on their own.
func (b backend) post(letters []letter, makesRoom bool) error {
	s := b.s
	if s.opts.ReadOnly {
		return ErrReadOnly
	}
	if !s.gate.enter(0) {
		return ErrClosed
	}
	defer s.gate.leave(0)
	size := 0
	for i := range letters {
		size += letters[i].size()
	}
	ready := s.ready
	if makesRoom {
		ready = s.readyToDelete
	}
	if err := ready(size); err != nil {
		return err
	}
	at := s.clock.millis()
	for i := range letters {
		letters[i].record.At = at
	}
	commit, err := s.stage(size, 0, nil, letters)
	if err != nil {
		return err
	}
	return s.settle(commit, nil)
}

// Snapshots hold the outbox as of their Through:
//
//	v  number of topics, and for each
//	     v  length of its name
//	     n  name
//	     v  ordinal of the newest message
//	     v  messages through this ordinal are handed on
//	     p  place of the record that says so; location 0 = there is none
//	     v  number of messages that wait, and for each its ordinal and place
//	     v  number of parked messages, and for each its ordinal and place
//
// A place is the location, the segment's number, and the record's size in bytes, each a varint.
func (o *outbox) append(dst []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	put := func(vs ...uint64) {
		for _, v := range vs {
			dst = binary.AppendUvarint(dst, v)
		}
	}
	at := func(p place) { put(uint64(p.loc), p.entry.Segment, uint64(p.entry.Size)) }
	put(uint64(len(o.topics)))
	for name, t := range o.topics {
		put(uint64(len(name)))
		dst = append(dst, name...)
		put(t.last, t.sent)
		at(t.mark)
		put(uint64(len(t.messages)))
		for n, m := range t.messages {
			put(n)
			at(m)
		}
		put(uint64(len(t.parked)))
		for n, p := range t.parked {
			put(n)
			at(p.place)
		}
	}
	return dst
}

// parse is the inverse of append, into an empty outbox.
func (o *outbox) parse(b []byte) error {
	p := parser{b: b}
	at := func() place {
		loc, segment, size := p.number(), p.number(), p.number()
		return place{index.Location(loc), compaction.EntryOf(segment, record.Outbox, record.Forever, int(size))}
	}
	for range p.count() {
		t := o.topic(string(p.bytes()))
		t.last, t.sent, t.mark = p.number(), p.number(), at()
		for range p.count() {
			n := p.number()
			t.messages[n] = at()
		}
		for range p.count() {
			n := p.number()
			t.parked[n] = &parked{place: at()}
		}
		t.next, t.ended = nextOrdinal(t.last), t.sent
	}
	return p.end()
}
