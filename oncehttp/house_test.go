package oncehttp

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// guarded is a guarded handler over a store in memory.
func guarded(t testing.TB, opts Options, next http.HandlerFunc) http.Handler {
	return wrap(t, receiverOver(t, oncetest.Store(t)), opts, next)
}

func receiverOver(t testing.TB, store receiver.Store) *receiver.Receiver {
	r, err := receiver.New(store, nil)
	require.NoError(t, err)
	return r
}

// durable is a receiver over a store on disk.
func durable(t testing.TB) *receiver.Receiver {
	st, err := oncelog.Open(t.TempDir(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	r, err := st.Receiver(nil)
	require.NoError(t, err)
	return r
}

func wrap(t testing.TB, r *receiver.Receiver, opts Options, next http.HandlerFunc) http.Handler {
	if opts.Scope == nil {
		opts.Scope = AnyCaller
	}
	m, err := New(r, &opts)
	require.NoError(t, err)
	return m.Wrap(next)
}

// counted is a handler that writes what it is told and counts its runs.
type counted struct {
	runs   int
	status int // 0 = 201
	body   string
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.runs++
	w.Header().Set("Location", "/payments/1")
	if c.status == 0 {
		c.status = http.StatusCreated
	}
	w.WriteHeader(c.status)
	_, _ = io.WriteString(w, c.body)
}

const quoted = `"order-4711"`

// request makes a POST to /payments with a key, unless it is empty.
func request(key, body string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest("POST", "/payments", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	for _, c := range change {
		c(r)
	}
	return r
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func post(h http.Handler, key, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	return serve(h, request(key, body, change...))
}

// isProblem makes sure that a response is a problem of this kind.
func isProblem(t testing.TB, w *httptest.ResponseRecorder, status int, kind string) (detail string) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body.String())
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.Contains(t, w.Header().Get("Link"), "docs/HTTP.md")
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
	require.Equal(t, docs+"#"+kind, p.Type)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.Empty(t, w.Header().Get(replayedHeader))
	return p.Detail
}

func isReplay(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	require.Equal(t, "true", w.Header().Get("Idempotent-Replayed"), w.Body.String())
	_, err := http.ParseTime(w.Header().Get("Idempotency-Expires"))
	require.NoError(t, err)
}
