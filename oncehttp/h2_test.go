package oncehttp

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// HTTP/2 is another server behind the same interfaces: held, streamed, with trailers, cut.
func TestOverHTTP2(t *testing.T) {
	long := strings.Repeat("x", 5000)
	runs := 0
	h := guarded(t, Options{MaxResponse: 4000}, func(w http.ResponseWriter, r *http.Request) {
		runs++
		require.Equal(t, 2, r.ProtoMajor)
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, "body", string(b))
		switch r.URL.Path {
		case "/held":
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Set-Cookie", "secret")
			_, _ = io.WriteString(w, "done")
		case "/large":
			_, _ = io.WriteString(w, long)
		case "/trailers":
			w.Header().Set("Trailer", "Sum")
			_, _ = io.WriteString(w, "done")
			w.Header().Set("Sum", "3")
		case "/short":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "done")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/cut":
			_, _ = io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		case "/cut-stream":
			_, _ = io.WriteString(w, "half")
			require.NoError(t, http.NewResponseController(w).Flush())
			panic(http.ErrAbortHandler)
		}
	})
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	hints := 0
	ask := func(path string) (status int, body string, res *http.Response) {
		t.Helper()
		r, err := http.NewRequest("POST", s.URL+path, io.NopCloser(strings.NewReader("body"))) // no length is said
		require.NoError(t, err)
		r.Header.Set("Idempotency-Key", quoted)
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil },
		}))
		res, err = s.Client().Do(r)
		if err != nil {
			return 0, "", nil
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return -1, string(b), res
		}
		return res.StatusCode, string(b), res
	}
	for _, c := range []struct {
		path         string
		first, again int
		body         string
		runs         int
	}{
		{"/held", 200, 200, "done", 1}, {"/large", 200, 410, long, 1}, {"/trailers", 200, 410, "done", 1},
		{"/short", -1, 410, "done", 1}, {"/none", 204, 204, "", 1}, {"/cut", 0, 0, "", 2}, {"/cut-stream", -1, 410, "half", 1},
	} {
		runs = 0
		status, body, res := ask(c.path)
		require.Equal(t, c.first, status, c.path)
		require.Equal(t, c.body, body, c.path)
		if c.path == "/trailers" {
			require.Equal(t, "3", res.Trailer.Get("Sum"))
		}
		status, body, res = ask(c.path)
		require.Equal(t, c.again, status, c.path)
		if c.again == c.first && c.again > 0 {
			require.Equal(t, c.body, body, c.path)
			require.Equal(t, "true", res.Header.Get(replayedHeader))
			require.Empty(t, res.Header.Get("Set-Cookie"))
		}
		require.Equal(t, c.runs, runs, c.path)
	}
	require.Equal(t, 1, hints)
}
