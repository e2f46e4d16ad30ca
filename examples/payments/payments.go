// Package payments is an example: a payment service over HTTP. A merchant asks it to charge a card; it asks the bank to,
// and adds the amount to the merchant's balance. Any of it may be sent again, by the merchant, by this service, by
// net/http itself, and any process may die in between: the card is charged once, and the balance grows once.
//
// Two lines do that. The middleware makes balance and response one commit of the store (Options.Tx), under the key that
// the merchant has sent. The transport gives the call to the bank a key that follows from the merchant's, so when a
// payment has to be handled again, the bank recognises its charge and answers as before.
package payments

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/oncelog/oncelog/oncehttp"
	"github.com/oncelog/oncelog/receiver"
)

// Payment is the body of POST /payments.
type Payment struct {
	Card  string `json:"card"`
	Cents int64  `json:"cents"`
}

// Receipt is the answer to it.
type Receipt struct {
	ID      string `json:"id"`
	Charge  string `json:"charge"`  // the bank's name for it
	Balance int64  `json:"balance"` // the merchant's, in cents, with this payment
}

// Service takes payments.
type Service struct {
	bank      *http.Client
	chargeURL string
	merchants map[string]string // by their secret
}

// New returns the service's handler. Its balances are the state of the receiver's store. base is for calls to the bank;
// nil = http.DefaultTransport.
func New(r *receiver.Receiver, bankURL string, base http.RoundTripper, merchants map[string]string) (http.Handler, error) {
	s := &Service{
		bank:      &http.Client{Transport: oncehttp.Transport(base, nil), Timeout: 30 * time.Second},
		chargeURL: bankURL + "/charges",
		merchants: merchants,
	}
	once, err := oncehttp.New(r, &oncehttp.Options{
		Scope:       func(r *http.Request) (string, error) { return s.merchant(r) },
		Required:    true,
		Tx:          true,
		Wait:        10 * time.Second,
		Fingerprint: oncehttp.CanonicalJSON,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /payments", s.pay)
	return once.Wrap(mux), nil
}

// errUnknown is the answer to somebody who is no merchant.
type errUnknown struct{}

func (errUnknown) Error() string   { return "unknown merchant" }
func (errUnknown) StatusCode() int { return http.StatusUnauthorized }

// merchant says who is asking, by what only he knows.
func (s *Service) merchant(r *http.Request) (string, error) {
	_, secret, _ := r.BasicAuth()
	if name, ok := s.merchants[secret]; ok {
		return name, nil
	}
	return "", errUnknown{}
}

func (s *Service) pay(w http.ResponseWriter, r *http.Request) {
	var p Payment
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil || p.Card == "" || p.Cents <= 0 {
		http.Error(w, "a card and a positive number of cents", http.StatusBadRequest)
		return
	}
	// The bank comes before the first use of the transaction, which would hold up everybody else's.
	charge, err := s.charge(r.Context(), &p)
	if errors.Is(err, errRefused) {
		http.Error(w, "the bank refuses the card", http.StatusPaymentRequired) // kept: that is the answer
		return
	}
	if err != nil {
		http.Error(w, "the bank does not answer", http.StatusBadGateway) // not kept: the next delivery asks again
		return
	}
	merchant, err := s.merchant(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	balance, err := add(r.Context(), merchant, p.Cents)
	if err != nil {
		http.Error(w, "the balance can't be changed", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(Receipt{ID: receiver.Derive(r.Context(), "payment"), Charge: charge, Balance: balance})
}

var errRefused = errors.New("refused")

// charge asks the bank. The transport adds the key.
func (s *Service) charge(ctx context.Context, p *Payment) (id string, err error) {
	body, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(receiver.Step(ctx, "charge"), http.MethodPost, s.chargeURL, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.bank.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct{ ID string }
	switch {
	case res.StatusCode == http.StatusPaymentRequired:
		return "", errRefused
	case res.StatusCode != http.StatusCreated:
		return "", fmt.Errorf("the bank says %s", res.Status)
	}
	err = json.NewDecoder(res.Body).Decode(&answer)
	return answer.ID, err
}

// BalanceKey is where a merchant's balance is kept in the store's state.
func BalanceKey(merchant string) []byte { return []byte("balance of " + merchant) }

// add changes a balance in the request's transaction.
func add(ctx context.Context, merchant string, cents int64) (balance int64, err error) {
	tx, ok := receiver.TxFrom(ctx)
	if !ok {
		return 0, errors.New("not inside a transaction")
	}
	v, ok, err := tx.Get(BalanceKey(merchant))
	if err != nil {
		return 0, err
	}
	if ok {
		if balance, err = strconv.ParseInt(string(v), 10, 64); err != nil {
			return 0, err
		}
	}
	balance += cents
	return balance, tx.Set(BalanceKey(merchant), strconv.AppendInt(nil, balance, 10))
}
