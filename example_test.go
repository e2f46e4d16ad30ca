package oncelog_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/oncelog/oncelog"
)

// The program of the README.
func Example() {
	defer os.RemoveAll("orders")
	st, err := oncelog.Open("orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	r, err := st.Receiver(nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 { // the message is delivered twice
		out, err := r.Do(context.Background(), "order-4711", func(ctx context.Context) ([]byte, error) {
			return []byte("charged"), nil // runs once
		})
		fmt.Println(string(out.Value), out.Replayed, err)
	}
	// Output:
	// charged false <nil>
	// charged true <nil>
}

// A store of keys and results alone.
func ExampleStore_PutIfAbsent() {
	defer os.RemoveAll("seen")
	st, err := oncelog.Open("seen", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	for _, order := range []string{"order-1", "order-2", "order-1"} {
		_, first, err := st.PutIfAbsent([]byte(order), []byte("accepted"), 0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(order, "is new:", first)
	}
	// Output:
	// order-1 is new: true
	// order-2 is new: true
	// order-1 is new: false
}

// The change and the record of the message that caused it are one transaction: after a crash both are there, or
// neither.
func ExampleStore_Update() {
	defer os.RemoveAll("ledger")
	st, err := oncelog.Open("ledger", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	credit := func(message, account, balance string) error {
		err := st.Update(func(tx *oncelog.Tx) error {
			if err := tx.PutRecord([]byte(message), nil, 0); err != nil {
				return err
			}
			return tx.Set([]byte(account), []byte(balance))
		})
		return err
	}
	fmt.Println(credit("message-7", "alice", "100"))
	fmt.Println(credit("message-7", "alice", "200"))
	// Output:
	// <nil>
	// oncelog: key exists
}

// A source that numbers its messages needs one mark instead of a record for each.
func ExampleStore_Advance() {
	defer os.RemoveAll("marks")
	st, err := oncelog.Open("marks", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	for _, seq := range []uint64{1, 2, 2, 3, 1} {
		fresh, err := st.Advance("sensor-4", seq)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(fresh, " ")
	}
	// Output: true true false true false
}
