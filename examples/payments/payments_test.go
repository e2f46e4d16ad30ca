package payments_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/examples/payments"
	"github.com/oncelog/oncelog/oncehttp"
	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// bank charges a card once per key, and counts.
type bank struct {
	mu      sync.Mutex
	charged map[string]int // by card
}

func newBank() *bank { return &bank{charged: map[string]int{}} }

func (b *bank) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var p payments.Payment
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if p.Card == "stolen" {
		http.Error(w, "stolen", http.StatusPaymentRequired)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charged[p.Card]++
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]string{"id": fmt.Sprint("charge of ", p.Card)})
}

// handler is the bank's front: it honours keys, as this service does.
func (b *bank) handler(t testing.TB) http.Handler {
	r, err := receiver.New(oncetest.Store(t), nil)
	require.NoError(t, err)
	m, err := oncehttp.New(r, &oncehttp.Options{Scope: oncehttp.AnyCaller, Required: true})
	require.NoError(t, err)
	return m.Wrap(b)
}

var merchants = map[string]string{"secret of a": "a", "secret of b": "b"}

func payment(ctx context.Context, url, secret, key, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, "POST", url+"/payments", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", `"`+key+`"`)
	r.SetBasicAuth("", secret)
	return r
}

// inProcess sends requests to a handler without a network, whose steps are those of oncetest.Check.
type inProcess struct{ h http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := oncetest.Step(r.Context(), "the request to the bank"); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	p.h.ServeHTTP(w, r.WithContext(context.Background()))
	if err := oncetest.Step(r.Context(), "the answer of the bank"); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// Whatever goes wrong at whatever step, the card is charged once and the balance grows once.
func TestAPaymentHappensOnceWhateverGoesWrong(t *testing.T) {
	const body = `{"card":"4711","cents":100}`
	for name, effects := range map[string]func(b *bank, r *receiver.Receiver) int{
		"charges": func(b *bank, _ *receiver.Receiver) int { return b.charged["4711"] },
		"balance": func(_ *bank, r *receiver.Receiver) int { return balance(t, r) / 100 },
	} {
		t.Run(name, func(t *testing.T) {
			oncetest.Check(t, func(t testing.TB) oncetest.Handler {
				b := newBank()
				front := inProcess{b.handler(t)}
				return oncetest.Handler{
					Handle: func(ctx context.Context, r *receiver.Receiver) error {
						h, err := payments.New(r, "http://bank", front, merchants)
						if err != nil {
							return err
						}
						w := httptest.NewRecorder()
						h.ServeHTTP(w, payment(ctx, "", "secret of a", "order-1", body))
						if w.Code != http.StatusCreated && w.Code != http.StatusGone { // done, and its answer lost with the store's
							return fmt.Errorf("%d: %s", w.Code, w.Body)
						}
						return nil
					},
					Effects: func(r *receiver.Receiver) int { return effects(b, r) },
				}
			})
		})
	}
}

// balance reads the balance of merchant a.
func balance(t testing.TB, r *receiver.Receiver) (cents int) {
	onlyRead := errors.New("only read")
	_, err := r.DoTx(t.Context(), "read", func(_ context.Context, tx receiver.Tx) ([]byte, error) {
		v, ok, err := tx.Get(payments.BalanceKey("a"))
		if err == nil && ok {
			cents, err = strconv.Atoi(string(v))
		}
		return nil, errors.Join(err, onlyRead)
	})
	require.ErrorIs(t, err, onlyRead)
	return cents
}

// Real connections, which are cut before and after the work on both legs, many clients that send everything at least
// twice, and a service that is stopped in the middle and started again on its directory.
func TestPaymentsOverANetworkThatDropsAndRepeats(t *testing.T) {
	const clients, each, lives = 4, 8, 3
	b := newBank()
	bankServer := unreliable(t, b.handler(t), 1)
	dir := t.TempDir()
	delivered := func(life, client, i int) string { return fmt.Sprintf("%d-%d-%d", life, client, i) }
	for life := range lives {
		st, err := oncelog.Open(dir, nil)
		require.NoError(t, err)
		r, err := st.Receiver(nil)
		require.NoError(t, err)
		h, err := payments.New(r, bankServer.URL, bankServer.Client().Transport, merchants)
		require.NoError(t, err)
		service := unreliable(t, h, 2)
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				for i := range each {
					answers := map[string]bool{}
					for past := range life + 1 { // those of earlier lives once more
						name := delivered(past, c, i)
						body := fmt.Sprintf(`{"card":%q,"cents":1}`, name)
						clear(answers)
						for n := 0; n < 2; {
							res, err := service.Client().Do(payment(t.Context(), service.URL, "secret of a", name, body))
							if err != nil {
								continue // nobody knows: send it again
							}
							answer, err := io.ReadAll(res.Body)
							_ = res.Body.Close()
							if err != nil || res.StatusCode == http.StatusBadGateway || res.StatusCode == http.StatusConflict {
								continue
							}
							if res.StatusCode != http.StatusCreated {
								t.Errorf("%d: %s", res.StatusCode, answer)
								return
							}
							answers[string(answer)] = true
							n++
						}
						if len(answers) != 1 {
							t.Errorf("one payment, several answers: %v", answers)
						}
					}
				}
			})
		}
		all.Wait()
		service.Close()
		require.Equal(t, (life+1)*clients*each, balance(t, r))
		require.NoError(t, st.Close())
	}
	require.Len(t, b.charged, lives*clients*each)
	for card, n := range b.charged {
		require.Equal(t, 1, n, card)
	}
}

// unreliable is a server that cuts a third of its connections, before the work or after it.
func unreliable(t testing.TB, h http.Handler, seed uint64) *httptest.Server {
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		chance := random.IntN(6)
		mu.Unlock()
		switch chance {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			h.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		h.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func TestWhatThePaymentServiceAnswers(t *testing.T) {
	r, err := receiver.New(oncetest.Store(t), nil)
	require.NoError(t, err)
	b := newBank()
	h, err := payments.New(r, "http://bank", inProcess{b.handler(t)}, merchants)
	require.NoError(t, err)
	pay := func(secret, key, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, payment(t.Context(), "", secret, key, body))
		return w
	}
	require.Equal(t, http.StatusUnauthorized, pay("guess", "k", `{"card":"1","cents":1}`).Code)
	require.Equal(t, http.StatusBadRequest, pay("secret of a", "", `{"card":"1","cents":1}`).Code)
	require.Equal(t, http.StatusBadRequest, pay("secret of a", "bad", `{"card":"1","cents":-1}`).Code)

	refused := pay("secret of a", "stolen", `{"card":"stolen","cents":1}`)
	require.Equal(t, http.StatusPaymentRequired, refused.Code)
	require.Equal(t, "true", pay("secret of a", "stolen", `{"card":"stolen","cents":1}`).Header().Get("Idempotent-Replayed"))

	first := pay("secret of a", "k", `{"card":"1","cents":5}`)
	require.Equal(t, http.StatusCreated, first.Code)
	require.Contains(t, first.Body.String(), `"balance":5}`)
	require.Equal(t, first.Body.String(), pay("secret of a", "k", `{"cents": 5, "card": "1"}`).Body.String(), "the same JSON")
	require.Equal(t, http.StatusUnprocessableEntity, pay("secret of a", "k", `{"card":"1","cents":6}`).Code)
	require.Contains(t, pay("secret of b", "k", `{"card":"1","cents":5}`).Body.String(), `"balance":5}`, "another merchant's key is another")
	require.Equal(t, 2, b.charged["1"])
}
