package record_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/record"
)

// The numbers, names and keyspaces are on disk or decide what meets what; a change here is a change of the format.
func TestKindsArePinned(t *testing.T) {
	rows := []struct {
		kind    record.Kind
		number  byte
		name    string
		expires bool
		space   record.Space
	}{
		{record.Result, 1, "result", true, record.Records},
		{record.Failure, 2, "failure", true, record.Records},
		{record.Gone, 3, "gone", true, record.Records},
		{record.Intent, 4, "intent", false, record.Records},
		{record.Doubt, 5, "doubt", false, record.Records},
		{record.State, 6, "state", false, record.States},
		{record.Mark, 7, "mark", false, record.Marks},
		{record.Outgoing, 8, "outgoing", false, record.Outbox},
		{record.Sent, 9, "sent", false, record.Outbox},
		{record.Parked, 10, "parked", false, record.Outbox},
		{record.Tombstone, 11, "tombstone", false, record.Records},
	}
	for _, r := range rows {
		require.Equal(t, r.number, byte(r.kind), r.name)
		require.Equal(t, r.name, r.kind.String())
		require.Equal(t, r.expires, r.kind.Expires(), r.name)
		require.Equal(t, r.space, record.SpaceOf(r.kind, false), r.name)
		require.Equal(t, r.space+1, record.SpaceOf(r.kind, true), r.name)
	}
	require.Equal(t, "kind(0)", record.Kind(0).String())
	require.Equal(t, "kind(12)", record.Kind(12).String())
	require.Equal(t, "kind(255)", record.Kind(255).String())
}

func TestSpacesArePinned(t *testing.T) {
	require.Equal(t, []record.Space{0, 1, 2, 3, 4, 5, 6, 7}, []record.Space{
		record.Records, record.ReceiverRecords, record.States, record.ReceiverStates,
		record.Marks, record.ReceiverMarks, record.Outbox, record.ReceiverOutbox,
	})
}

// A tombstone must reach the keyspace of what it clears, and no other: the same key may live in each of them.
func TestTombstoneLiesInTheSpaceItClears(t *testing.T) {
	for k := record.Result; k < record.Tombstone; k++ {
		for _, receiver := range []bool{false, true} {
			r := record.Record{Kind: record.Tombstone, Receiver: receiver, Key: []byte("k"), Value: []byte{byte(k)}}
			require.Equal(t, record.SpaceOf(k, receiver), r.Space(), "%v receiver=%v", k, receiver)
		}
	}
}
