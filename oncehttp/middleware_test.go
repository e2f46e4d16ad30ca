package oncehttp

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

func TestARequestDeliveredTwiceHasItsEffectOnce(t *testing.T) {
	for name, r := range map[string]*receiver.Receiver{"memory": receiverOver(t, oncetest.Store(t)), "disk": durable(t)} {
		t.Run(name, func(t *testing.T) {
			c := &counted{body: `{"id":1}`}
			h := wrap(t, r, Options{}, c.ServeHTTP)
			first := post(h, quoted, `{"amount":10}`)
			require.Empty(t, first.Header().Get("Idempotent-Replayed"))
			again := post(h, quoted, `{"amount":10}`)
			isReplay(t, again)
			require.Equal(t, 1, c.runs)
			for _, w := range []int{first.Code, again.Code} {
				require.Equal(t, http.StatusCreated, w)
			}
			require.Equal(t, first.Body.String(), again.Body.String())
			require.Equal(t, "/payments/1", again.Header().Get("Location"))
			expires, err := http.ParseTime(again.Header().Get("Idempotency-Expires"))
			require.NoError(t, err)
			require.WithinDuration(t, time.Now().Add(72*time.Hour), expires, time.Hour)
		})
	}
}

// What a key's name is not part of: two requests with one key that have nothing to do with each other.
func TestTheLookUpIsByScopeMethodPathAndKey(t *testing.T) {
	c := &counted{}
	h := guarded(t, Options{
		Scope:   func(r *http.Request) (string, error) { return r.Header.Get("Tenant"), nil },
		Methods: []string{"POST", "PUT"},
	}, c.ServeHTTP)
	long := strings.Repeat("x", 300)
	requests := []func(r *http.Request){
		func(r *http.Request) {},
		func(r *http.Request) { r.Header.Set("Tenant", "b") },
		func(r *http.Request) { r.Header.Set("Tenant", long) },
		func(r *http.Request) { r.Header.Set("Tenant", long+"y") },
		func(r *http.Request) { r.Header.Set("Tenant", digest(long)) },
		func(r *http.Request) { r.Method = "PUT" },
		func(r *http.Request) { r.URL.Path = "/refunds" },
		func(r *http.Request) { r.URL.Path = "/pay ments" },
		func(r *http.Request) { r.URL.Path = "/" + long },
		func(r *http.Request) { r.URL.Path = "/" + long + "y" },
		func(r *http.Request) { r.URL.Path = "/?" + digest("/"+long) },
		func(r *http.Request) { r.URL.Path = "/a/b"; r.URL.RawPath = "/a%2Fb" },
		func(r *http.Request) { r.URL.Path = "/a/b" },
		func(r *http.Request) { r.Header.Set("Idempotency-Key", `"another"`) },
	}
	tenant := func(r *http.Request) { r.Header.Set("Tenant", "a") }
	for i, change := range requests {
		require.Equal(t, http.StatusCreated, post(h, quoted, "", tenant, change).Code)
		require.Equal(t, i+1, c.runs)
	}
	for _, change := range requests {
		isReplay(t, post(h, quoted, "", tenant, change))
	}
	require.Equal(t, len(requests), c.runs)
}

func TestWhatIsNotGuardedPassesAsItIs(t *testing.T) {
	var w http.ResponseWriter
	var r *http.Request
	h := guarded(t, Options{}, func(gotW http.ResponseWriter, gotR *http.Request) { w, r = gotW, gotR })
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Method = "GET" },
		func(r *http.Request) { r.Method = "GET"; r.Header["Idempotency-Key"] = []string{"a", "b"} },
		func(r *http.Request) { r.Method = "PUT" },
		func(r *http.Request) { r.Header.Del("Idempotency-Key") },
	} {
		req := request(quoted, "body", change)
		rec := serve(h, req)
		require.Same(t, req, r)
		require.Same(t, rec, w)
	}
}

type statusError int

func (e statusError) Error() string   { return "secret" }
func (e statusError) StatusCode() int { return int(e) }

// Everything that can be refused before the handler, each with what comes after it in order wrong too.
func TestWhatIsRefusedIsRefusedInOrder(t *testing.T) {
	var scopeErr, printErr error
	h := guarded(t, Options{
		MaxRequest: 10,
		Required:   true,
		Scope:      func(*http.Request) (string, error) { return "a", scopeErr },
		Fingerprint: func(*http.Request, []byte) ([]byte, error) {
			return nil, printErr
		},
	}, func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	unread := func(r *http.Request) {
		r.Body = io.NopCloser(iotest.ErrReader(errors.New("the body was read too early")))
	}

	scopeErr = errors.New("secret")
	w := post(h, `order`, "much too large", unread)
	isProblem(t, w, http.StatusBadRequest, "malformed-key")
	w = post(h, ``, "much too large", unread)
	isProblem(t, w, http.StatusBadRequest, "missing-key")

	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("secret"), 403}, {statusError(401), 401}, {errors.Join(statusError(429)), 429}, {statusError(503), 503},
		{statusError(200), 403}, {statusError(0), 403}, {statusError(600), 403},
	} {
		scopeErr = c.err
		w = post(h, quoted, "much too large", unread)
		require.NotContains(t, isProblem(t, w, c.want, "unknown-caller"), "secret")
	}
	scopeErr = nil

	w = post(h, quoted, "much too large", unread)
	isProblem(t, w, http.StatusRequestEntityTooLarge, "request-too-large")

	printErr = errors.New("secret")
	w = post(h, quoted, "much too large", func(r *http.Request) { r.ContentLength = -1 })
	isProblem(t, w, http.StatusRequestEntityTooLarge, "request-too-large")
	w = post(h, quoted, "short", unread)
	isProblem(t, w, http.StatusBadRequest, "unreadable-request")
	w = post(h, quoted, "exactly 10")
	require.NotContains(t, isProblem(t, w, http.StatusBadRequest, "unreadable-request"), "secret")
	printErr = statusError(415)
	isProblem(t, post(h, quoted, "short"), 415, "unreadable-request")
}

func TestAnEmptyScopeIsNobody(t *testing.T) {
	h := guarded(t, Options{Scope: func(r *http.Request) (string, error) { return r.Header.Get("Missing"), nil }}, (&counted{}).ServeHTTP)
	isProblem(t, post(h, quoted, ""), http.StatusForbidden, "unknown-caller")
}

func TestNewRefusesWhatCanNotWork(t *testing.T) {
	r := receiverOver(t, oncetest.Store(t))
	for _, opts := range []*Options{
		nil, {}, {Scope: AnyCaller, Wait: -1}, {Scope: AnyCaller, TTL: -1}, {Scope: AnyCaller, MaxRequest: -1},
		{Scope: AnyCaller, MaxResponse: -1}, {Scope: AnyCaller, OnDoubt: 3}, {Scope: AnyCaller, OnDoubt: -1},
	} {
		_, err := New(r, opts)
		require.Error(t, err)
	}
	_, err := New(nil, &Options{Scope: AnyCaller})
	require.Error(t, err)
}

// The same key with anything else about the request that a handler would look at.
func TestAnotherPayloadIsRefusedAlsoInFlight(t *testing.T) {
	running, end := make(chan struct{}, 1), make(chan struct{})
	h := guarded(t, Options{Wait: time.Hour}, func(http.ResponseWriter, *http.Request) { running <- struct{}{}; <-end })
	others := []func(*http.Request){
		func(r *http.Request) { *r = *request(quoted, "other") },
		func(r *http.Request) { r.URL.RawQuery = "a=1" },
		func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
	}
	done := make(chan struct{})
	go func() { defer close(done); post(h, quoted, "body") }()
	<-running
	for _, change := range others {
		isProblem(t, post(h, quoted, "body", change), http.StatusUnprocessableEntity, "key-reused")
	}
	close(end)
	<-done
	for _, change := range others {
		isProblem(t, post(h, quoted, "body", change), http.StatusUnprocessableEntity, "key-reused")
	}
	isReplay(t, post(h, quoted, "body", func(r *http.Request) { r.Header.Set("User-Agent", "other") }))
}
