// Package ledger is an example: accounts that are kept in the store itself, so that a transfer, its key, its result and
// the message about it are one transaction. There is no moment at which a crash could leave one without the others.
package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/oncelog/oncelog/receiver"
)

// Transfer moves an amount between two accounts.
type Transfer struct {
	From, To string
	Amount   int64
}

// ErrFunds is the answer for good to a transfer that the account does not cover: duplicates get it too, even if the
// account is covered by then.
type ErrFunds struct{ Account string }

func (e ErrFunds) Error() string { return "not enough money in " + e.Account }

// Code makes it recognisable after it was stored: errors.Is compares codes.
func (e ErrFunds) Code() string { return "funds" }

// Topic is where the transfers that were made are told.
const Topic = "transfers"

// Apply makes a transfer once for its key, and returns the balance that is left in the account it came from.
func Apply(ctx context.Context, r *receiver.Receiver, key string, t Transfer) (balance int64, err error) {
	payload, err := json.Marshal(t)
	if err != nil {
		return 0, err
	}
	out, err := r.DoTx(ctx, key, func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		left, err := add(tx, t.From, -t.Amount)
		if err != nil {
			return nil, err
		}
		if left < 0 {
			return nil, receiver.Permanent(ErrFunds{t.From}) // undoes the change
		}
		if _, err := add(tx, t.To, t.Amount); err != nil {
			return nil, err
		}
		return strconv.AppendInt(nil, left, 10), tx.Emit(Topic, payload)
	}, receiver.WithPayload(payload)) // the same key with another amount is a bug of the sender's
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(out.Value), 10, 64)
}

// Deposit puts money into an account, once for its key.
func Deposit(ctx context.Context, r *receiver.Receiver, key, account string, amount int64) error {
	_, err := r.DoTx(ctx, key, func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		_, err := add(tx, account, amount)
		return nil, err
	})
	return err
}

func add(tx receiver.Tx, account string, amount int64) (balance int64, err error) {
	v, ok, err := tx.Get([]byte(account))
	if err != nil {
		return 0, err
	}
	if ok {
		if balance, err = strconv.ParseInt(string(v), 10, 64); err != nil {
			return 0, fmt.Errorf("account %s: %w", account, err)
		}
	}
	balance += amount
	return balance, tx.Set([]byte(account), strconv.AppendInt(nil, balance, 10))
}
