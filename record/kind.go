package record

import "fmt"

// Kind says what a record means. The numbers are on disk and never change their meaning.
type Kind byte

// 0 is no kind, so that zeroed bytes never read as a record. Kinds from 28 up belong to the log itself (package
// wal: drop-through, sync mark, seal) and stand in a frame alone; this package refuses them.
const (
	Result    Kind = 1  // the stored answer of a message that was handled
	Failure   Kind = 2  // a permanent failure that is the answer; value = message, attribute Code
	Gone      Kind = 3  // handled, but the answer is not kept
	Intent    Kind = 4  // the work is about to begin; value = the caller's note
	Doubt     Kind = 5  // it is not known whether the work happened; value = the caller's note
	State     Kind = 6  // application state
	Mark      Kind = 7  // a source's high-water mark; value as in MarkValue
	Outgoing  Kind = 8  // a message to hand on; key = topic, attribute Ordinal its place in it
	Sent      Kind = 9  // outgoing messages of a topic are handed on through attribute Ordinal
	Parked    Kind = 10 // an outgoing message that was refused for good; attribute Code = the reason
	Tombstone Kind = 11 // the key is deleted; value = one byte, the kind whose keyspace it clears; of Parked: key = topic, with attribute Ordinal

	lastKind = Tombstone
)

var kindNames = [...]string{
	Result: "result", Failure: "failure", Gone: "gone", Intent: "intent", Doubt: "doubt", State: "state",
	Mark: "mark", Outgoing: "outgoing", Sent: "sent", Parked: "parked", Tombstone: "tombstone",
}

// String returns the kind's name as docs/FORMAT.md spells it.
func (k Kind) String() string {
	if k >= Result && k <= lastKind {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", byte(k))
}

// Expires reports whether records of this kind end with their TTL. State, marks, doubts, messages and tombstones
// stay until something else ends them.
func (k Kind) Expires() bool { return k == Result || k == Failure || k == Gone }

// Space is a keyspace: the same key in two spaces is two things that never meet. It is hashed together with the key.
type Space byte

// Spaces come in pairs, the caller's own and the receiver's.
const (
	Records         Space = 0 // results of PutIfAbsent
	ReceiverRecords Space = 1 // results of package receiver
	States          Space = 2 // application state
	ReceiverStates  Space = 3 // the receiver's own bookkeeping
	Marks           Space = 4 // sources of Advance
	ReceiverMarks   Space = 5 // scoped sources
	Outbox          Space = 6 // outgoing messages
	ReceiverOutbox  Space = 7 // the receiver's outgoing messages
)

// SpaceOf returns the keyspace of a kind, given whether the record is the receiver's. A tombstone's space is that
// of the kind it clears; ask Record.Space for it.
func SpaceOf(k Kind, receiver bool) Space {
	var s Space
	switch k {
	case State:
		s = States
	case Mark:
		s = Marks
	case Outgoing, Sent, Parked:
		s = Outbox
	default:
		s = Records
	}
	if receiver {
		s++
	}
	return s
}
