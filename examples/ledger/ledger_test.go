package ledger_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/examples/ledger"
	"github.com/oncelog/oncelog/receiver"
)

func TestTransfers(t *testing.T) {
	st, err := oncelog.Open(filepath.Join(t.TempDir(), "store"), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	r, err := st.Receiver(nil)
	require.NoError(t, err)
	ctx := t.Context()
	require.NoError(t, ledger.Deposit(ctx, r, "deposit 1", "alice", 100))
	for range 3 { // delivered three times
		left, err := ledger.Apply(ctx, r, "transfer 1", ledger.Transfer{From: "alice", To: "bob", Amount: 70})
		require.NoError(t, err)
		require.EqualValues(t, 30, left)
	}
	_, err = ledger.Apply(ctx, r, "transfer 1", ledger.Transfer{From: "alice", To: "bob", Amount: 71})
	require.ErrorIs(t, err, receiver.ErrKeyReused)
	for turn := range 2 {
		_, err := ledger.Apply(ctx, r, "transfer 2", ledger.Transfer{From: "alice", To: "bob", Amount: 70})
		require.ErrorIs(t, err, ledger.ErrFunds{})
		require.NoError(t, ledger.Deposit(ctx, r, "deposit 2", "alice", 100), turn)
	}
	balances := map[string]string{}
	require.NoError(t, st.View(func(tx *oncelog.Tx) error {
		for _, account := range []string{"alice", "bob"} {
			v, _, err := tx.Get([]byte(account))
			require.NoError(t, err)
			balances[account] = string(v)
		}
		return nil
	}))
	require.Equal(t, map[string]string{"alice": "130", "bob": "70"}, balances)

	told, stop := context.WithCancel(ctx)
	err = r.Relay(told, func(_ context.Context, m receiver.Message) error {
		require.Equal(t, ledger.Topic, m.Topic)
		require.JSONEq(t, `{"From":"alice","To":"bob","Amount":70}`, string(m.Payload))
		require.NotEmpty(t, m.Key)
		stop()
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	for range r.Outgoing(ctx) {
		t.Error("one transfer, one message")
	}
}
