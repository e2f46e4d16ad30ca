package oncehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// tripper is a service that notes which body came with which key.
type tripper struct {
	mu   sync.Mutex
	seen []sent
	last *http.Request
	fail error
}

type sent struct{ key, body string }

func (s *tripper) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
	s.seen = append(s.seen, sent{r.Header.Get("Idempotency-Key"), string(body)})
	return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, s.fail
}

// deliver runs fn as the handling of a message.
func deliver(t testing.TB, r *receiver.Receiver, message string, fn func(ctx context.Context) error) error {
	_, err := r.Do(t.Context(), message, func(ctx context.Context) ([]byte, error) { return nil, fn(ctx) })
	return err
}

func outgoing(ctx context.Context, url, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	return r
}

const pay = "http://bank.example/pay?from=a"

// Keys are made from it, so it stays as it is.
func TestTheStepOfARequestIsPinned(t *testing.T) {
	for _, c := range []struct{ url, host, want string }{
		{"http://Bank.example:8080/a%2Fb/c%20d?x=1&y", "", "http POST bank.example:8080 /a%2Fb/c%20d x=1&y"},
		{"https://10.0.0.1", "bank.example", "http POST bank.example  "},
	} {
		r, err := http.NewRequest("POST", c.url, nil)
		require.NoError(t, err)
		if c.host != "" {
			r.Host = c.host
		}
		require.Equal(t, c.want, stepOf(r))
		r.Host = ""
		if c.host == "" {
			require.Equal(t, c.want, stepOf(r))
		}
	}
}

func TestAnOutgoingRequestIsGivenAKey(t *testing.T) {
	r := receiverOver(t, oncetest.Store(t))
	for i, c := range []struct {
		opts TransportOptions
		step bool
		want func(ctx context.Context) string
	}{
		{TransportOptions{}, false, func(ctx context.Context) string {
			return `"` + receiver.Derive(ctx, "http POST bank.example /pay from=a") + `"`
		}},
		{TransportOptions{}, true, func(ctx context.Context) string { return `"` + receiver.Derive(ctx, "charge") + `"` }},
		{TransportOptions{Raw: true}, true, func(ctx context.Context) string { return receiver.Derive(ctx, "charge") }},
	} {
		service := &tripper{}
		rt := Transport(service, &c.opts)
		require.NoError(t, deliver(t, r, fmt.Sprint("m", i), func(ctx context.Context) error {
			sentCtx := ctx
			if c.step {
				sentCtx = receiver.Step(ctx, "charge")
			}
			req := outgoing(sentCtx, pay, "10")
			before := req.Header.Clone()
			_, err := rt.RoundTrip(req)
			require.Equal(t, before, req.Header, "a RoundTripper does not change its request")
			require.Equal(t, []sent{{c.want(ctx), "10"}}, service.seen)
			return err
		}))
	}
}

func TestWhatIsLeftAlone(t *testing.T) {
	service := &tripper{}
	rt := Transport(service, nil)
	passes := func(req *http.Request) {
		t.Helper()
		_, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.Same(t, req, service.last)
	}
	passes(outgoing(t.Context(), pay, "10"))
	passes(outgoing(receiver.Step(t.Context(), "charge"), pay, "10"))
	require.NoError(t, deliver(t, receiverOver(t, oncetest.Store(t)), "m", func(ctx context.Context) error {
		for _, key := range []string{"mine", ""} {
			req := outgoing(ctx, pay, "10")
			req.Header["Idempotency-Key"] = []string{key}
			passes(req)
		}
		get := outgoing(ctx, pay, "10")
		get.Method = "GET"
		passes(get)
		passes(outgoing(context.Background(), pay, "10"))
		return nil
	}))
}

// noGetBody is a body that can be read once, and says when it is closed.
type noGetBody struct {
	io.Reader
	closed int
}

func (b *noGetBody) Close() error { b.closed++; return nil }

func once(ctx context.Context, url string, body io.Reader) (*http.Request, *noGetBody) {
	b := &noGetBody{Reader: body}
	r := outgoing(ctx, url, "")
	r.Body, r.GetBody, r.ContentLength = b, nil, -1
	return r, b
}

func TestAStepWithoutANameIsForOneBody(t *testing.T) {
	service := &tripper{}
	rt := Transport(service, &TransportOptions{MaxRequest: 100})
	r := receiverOver(t, oncetest.Store(t))
	require.NoError(t, deliver(t, r, "m", func(ctx context.Context) error {
		for range 3 { // three retries above it
			_, err := rt.RoundTrip(outgoing(ctx, pay, "10"))
			require.NoError(t, err)
			req, body := once(ctx, pay, strings.NewReader("10"))
			_, err = rt.RoundTrip(req)
			require.NoError(t, err)
			require.Equal(t, 1, body.closed)
			again, err := service.last.GetBody() // net/http may send it again by itself
			require.NoError(t, err)
			b, err := io.ReadAll(again)
			require.NoError(t, err)
			require.Equal(t, "10", string(b))
		}
		for _, s := range service.seen {
			require.Equal(t, service.seen[0], s)
		}
		require.Len(t, service.seen, 6)

		_, err := rt.RoundTrip(outgoing(ctx, pay, "20"))
		require.ErrorIs(t, err, ErrNoStep)
		_, err = (&http.Client{Transport: rt}).Do(outgoing(ctx, pay, "20"))
		require.ErrorIs(t, err, ErrNoStep)
		req, body := once(ctx, pay, strings.NewReader("20"))
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, ErrNoStep)
		require.Equal(t, 1, body.closed)
		_, err = rt.RoundTrip(outgoing(ctx, pay, ""))
		require.ErrorIs(t, err, ErrNoStep)
		req, body = once(ctx, pay, strings.NewReader(strings.Repeat("x", 101)))
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, ErrBodyTooLarge)
		require.Equal(t, 1, body.closed)
		broken := errors.New("broken")
		req, body = once(ctx, pay, iotest.ErrReader(broken))
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, broken)
		require.Equal(t, 1, body.closed)
		req = outgoing(ctx, pay, "10")
		req.GetBody = func() (io.ReadCloser, error) { return nil, broken }
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, broken)
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(broken)), nil }
		_, err = rt.RoundTrip(req)
		require.ErrorIs(t, err, broken)
		require.Len(t, service.seen, 6, "nothing was sent")

		// Elsewhere it is another request, and so it is with a name.
		for i, req := range []*http.Request{
			outgoing(ctx, "http://bank.example/pay?from=b", "20"), outgoing(ctx, "http://bank.example/pays?from=a", "20"),
			outgoing(ctx, "http://other.example/pay?from=a", "20"), outgoing(receiver.Step(ctx, "one"), pay, "20"),
			outgoing(receiver.Step(ctx, "two"), pay, "20"),
		} {
			_, err = rt.RoundTrip(req)
			require.NoError(t, err)
			for _, s := range service.seen[:6+i] {
				require.NotEqual(t, s.key, service.seen[6+i].key)
			}
		}
		// A large one needs no memory when it has a name.
		req, _ = once(receiver.Step(ctx, "large"), pay, strings.NewReader(strings.Repeat("x", 101)))
		_, err = rt.RoundTrip(req)
		return err
	}))
}

// Two different bodies to one URL at once, in many deliveries that each run twice: a key never goes with another body.
func TestConcurrentBodiesDoNotSwapTheirKeys(t *testing.T) {
	const deliveries = 1000
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprint("named=", named), func(t *testing.T) {
			service := &tripper{}
			rt := Transport(service, nil)
			r := receiverOver(t, oncetest.Store(t))
			failed := errors.New("the process dies here")
			for i := range deliveries {
				for run := range 2 {
					if !named && run > 0 {
						break // without names the first run has failed, and nobody would run it again
					}
					refused := 0
					_ = deliver(t, r, fmt.Sprint("m", i), func(ctx context.Context) error {
						var wg sync.WaitGroup
						var mu sync.Mutex
						for _, body := range []string{"debit", "credit"} {
							wg.Go(func() {
								ctx := ctx
								if named {
									ctx = receiver.Step(ctx, body)
								}
								if _, err := rt.RoundTrip(outgoing(ctx, pay, fmt.Sprint(body, i))); err != nil {
									mu.Lock()
									defer mu.Unlock()
									require.ErrorIs(t, err, ErrNoStep)
									refused++
								}
							})
						}
						wg.Wait()
						if run == 0 {
							return failed
						}
						return nil
					})
					if named {
						require.Zero(t, refused)
					} else {
						require.Equal(t, 1, refused)
					}
				}
			}
			bodies, keys := map[string]string{}, map[string]string{}
			for _, s := range service.seen {
				require.NotEmpty(t, s.key)
				if was, ok := bodies[s.key]; ok {
					require.Equal(t, was, s.body)
				}
				if was, ok := keys[s.body]; ok {
					require.Equal(t, was, s.key)
				}
				bodies[s.key], keys[s.body] = s.body, s.key
			}
			if named {
				require.Len(t, bodies, 2*deliveries)
				require.Len(t, service.seen, 4*deliveries)
			} else {
				require.Len(t, service.seen, deliveries)
			}
		})
	}
}

// The service does what it is asked, and its answer is lost with the connection. Whoever asks again, net/http by itself,
// the caller above, or the message's next delivery, has the same key.
func TestAConnectionDroppedAfterTheEffect(t *testing.T) {
	effects := &counted{body: "paid"}
	guarded := wrap(t, durable(t), Options{Required: true}, effects.ServeHTTP)
	var mu sync.Mutex
	drops, requests := 3, 0
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests++
		if drops > 0 {
			drops--
			guarded.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		guarded.ServeHTTP(w, r)
	}))
	defer service.Close()
	client := &http.Client{Transport: Transport(service.Client().Transport, nil)}
	r := receiverOver(t, oncetest.Store(t))
	for deliveries := 1; ; deliveries++ {
		err := deliver(t, r, "order-4711", func(ctx context.Context) error {
			res, err := client.Do(outgoing(ctx, service.URL+"/pay", "10"))
			if err != nil {
				return err
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			require.Equal(t, "paid", string(b))
			require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
			return err
		})
		if err == nil {
			break
		}
		require.LessOrEqual(t, deliveries, 4)
	}
	require.Equal(t, 1, effects.runs)
	require.Equal(t, 4, requests)
}

// A guarded handler that calls another guarded service: the keys go on downstream by themselves.
func TestKeysGoOnDownstream(t *testing.T) {
	charges := &counted{body: "charged"}
	bank := httptest.NewServer(wrap(t, receiverOver(t, oncetest.Store(t)), Options{Required: true}, charges.ServeHTTP))
	defer bank.Close()
	client := &http.Client{Transport: Transport(bank.Client().Transport, nil)}
	n := 0
	shop := guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		n++
		res, err := client.Do(outgoing(r.Context(), bank.URL+"/charge", "10"))
		require.NoError(t, err)
		defer res.Body.Close()
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
		_, err = io.Copy(w, res.Body)
		require.NoError(t, err)
	})
	require.Panics(t, func() { post(shop, quoted, "") })
	require.Equal(t, "charged", post(shop, quoted, "").Body.String())
	require.Equal(t, 2, n)
	require.Equal(t, 1, charges.runs)
	require.Equal(t, "charged", post(shop, `"another order"`, "").Body.String())
	require.Equal(t, 2, charges.runs)
}

// A field name that somebody has written in another way is the same field on the wire, where a second one is malformed.
func TestAnExistingKeyIsLeftAloneHoweverItIsWritten(t *testing.T) {
	service := &tripper{}
	require.NoError(t, deliver(t, receiverOver(t, oncetest.Store(t)), "m", func(ctx context.Context) error {
		req := outgoing(ctx, pay, "10")
		req.Header["idempotency-key"] = []string{"mine"}
		_, err := Transport(service, nil).RoundTrip(req)
		require.Same(t, req, service.last)
		return err
	}))
}

// A body that comes too slowly to be compared does not hold up a request that has been given up.
func TestABodyThatNeverEndsIsLeftWhenTheContextEnds(t *testing.T) {
	service := &tripper{}
	require.NoError(t, deliver(t, receiverOver(t, oncetest.Store(t)), "m", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		body, in := io.Pipe()
		req := outgoing(ctx, pay, "")
		req.Body, req.GetBody, req.ContentLength = body, nil, -1
		go func() {
			_, _ = io.WriteString(in, "the beginning") // it is being read
			cancel()
		}()
		_, err := Transport(service, nil).RoundTrip(req)
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, service.seen)
		return nil
	}))
}
