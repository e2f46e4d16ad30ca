package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func echo(t testing.TB) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Seen-Query", r.URL.RawQuery)
		w.Header().Set("Seen-Key", r.Header.Get("Idempotency-Key"))
		w.Header().Set("Seen-Encodings", r.Header.Get("Accept-Encoding"))
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func raw(t testing.TB, url, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n"))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	return resp
}

func TestProxyKeyReachesTheServiceWhateverConnectionSays(t *testing.T) {
	p := startProxy(t, echo(t))
	for i, connection := range []string{"Idempotency-Key", "close, idempotency-key", "x"} {
		resp := raw(t, p.url, fmt.Sprintf("POST /pay HTTP/1.1\nHost: x\nConnection: %s\nIdempotency-Key: \"k%d\"\nContent-Length: 0\n\n", connection, i))
		require.Equal(t, fmt.Sprintf(`"k%d"`, i), resp.Header.Get("Seen-Key"), connection)
	}
}
