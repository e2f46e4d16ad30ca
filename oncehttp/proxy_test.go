package oncehttp

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// steady hides that a ResponseWriter flushes.
type steady struct{ http.ResponseWriter }

// A reverse proxy as the handler: what it has sent and got no whole answer to is in doubt, what it could not send is not.
func TestAReverseProxyAsTheHandler(t *testing.T) {
	var requests atomic.Int32
	upstream := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		b, _ := io.ReadAll(r.Body)
		switch string(b) {
		case "dropped":
			panic(http.ErrAbortHandler)
		case "cut":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "cut chunk":
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "chunks":
			for range 3 {
				_, _ = io.WriteString(w, "chunk")
				_ = http.NewResponseController(w).Flush()
			}
		default:
			_, _ = io.WriteString(w, "done")
		}
	}))
	to, err := url.Parse(upstream.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ErrorLog: log.New(io.Discard, "", 0),
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if ctx.Value(unreachable{}) != nil {
				return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var dial *net.OpError
			if !errors.As(err, &dial) || dial.Op != "dial" {
				InDoubt(r.Context(), err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	down := false
	guarded := wrap(t, durable(t), Options{Intent: true}, func(w http.ResponseWriter, r *http.Request) {
		if down {
			r = r.WithContext(context.WithValue(r.Context(), unreachable{}, true))
		}
		proxy.ServeHTTP(steady{w}, r)
	})
	front := server(t, guarded)
	front.Client().Transport.(*http.Transport).DisableKeepAlives = true
	send := func(body string) (status int, kind, got string) {
		res, err := send(t, front, body, "Idempotency-Key", `"`+body+`"`)
		if err != nil {
			return 0, "", ""
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if _, rest, ok := strings.Cut(string(b), docs+"#"); ok {
			kind, _, _ = strings.Cut(rest, `"`)
		} else if res.Header.Get("Idempotent-Replayed") != "" {
			kind = "replayed"
		}
		return res.StatusCode, kind, string(b)
	}
	for _, c := range []struct {
		body          string
		first, second int
		kind          string
		requests      int
	}{
		{"order", 200, 200, "replayed", 1},
		{"chunks", 200, 200, "replayed", 1},
		{"dropped", 409, 409, "in-doubt", 1},
		{"cut", 0, 409, "in-doubt", 1},
		{"cut chunk", 0, 409, "in-doubt", 1},
		{"broken", 500, 500, "", 2},
	} {
		requests.Store(0)
		status, _, first := send(c.body)
		require.Equal(t, c.first, status, c.body)
		status, kind, second := send(c.body)
		require.Equal(t, c.second, status, c.body)
		require.Equal(t, c.kind, kind, c.body)
		require.EqualValues(t, c.requests, requests.Load(), c.body)
		if c.kind == "replayed" {
			require.Equal(t, first, second)
		}
	}
	down = true
	status, _, _ := send("order 2")
	require.Equal(t, http.StatusBadGateway, status)
	down = false
	status, kind, _ := send("order 2")
	require.Equal(t, 200, status)
	require.Empty(t, kind)
}

type unreachable struct{}
