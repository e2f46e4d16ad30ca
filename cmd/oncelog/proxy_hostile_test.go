package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// echo is a service that answers with what it was sent.
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

// raw sends a request byte for byte and returns the answer.
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

// A request that names its key as a matter of the connection would be guarded here and reach the service without one: a
// service that honours the key could not.
func TestProxyKeyReachesTheServiceWhateverConnectionSays(t *testing.T) {
	p := startProxy(t, echo(t))
	for i, connection := range []string{"Idempotency-Key", "close, idempotency-key", "x"} {
		resp := raw(t, p.url, fmt.Sprintf("POST /pay HTTP/1.1\nHost: x\nConnection: %s\nIdempotency-Key: \"k%d\"\nContent-Length: 0\n\n", connection, i))
		require.Equal(t, fmt.Sprintf(`"k%d"`, i), resp.Header.Get("Seen-Key"), connection)
	}
}

// The service is sent what the client sent: also a query that Go's own parser would not take, and no encodings but those
// that the client understands.
func TestProxyPassesRequestsAsTheyAre(t *testing.T) {
	p := startProxy(t, echo(t))
	for _, key := range []string{"", "Idempotency-Key: \"k\"\n"} {
		resp := raw(t, p.url, "POST /pay?a=1;b=2&c=%zz HTTP/1.1\nHost: x\n"+key+"Content-Length: 0\n\n")
		require.Equal(t, "a=1;b=2&c=%zz", resp.Header.Get("Seen-Query"))
		require.Empty(t, resp.Header.Get("Seen-Encodings"))
	}
}

// What the service compresses unasked, or badly, is an answer as any other.
func TestProxyDoesNotLookIntoAnEncoding(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte("done"))
	require.NoError(t, z.Close())
	cut := b.String()[:b.Len()-4]
	url, count := counting(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, cut)
	})
	p := startProxy(t, url)
	for range 2 {
		resp := raw(t, p.url, "POST /pay HTTP/1.1\nHost: x\nIdempotency-Key: \"k\"\nContent-Length: 0\n\n")
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, cut, string(body))
		require.Equal(t, "gzip", resp.Header.Get("Content-Encoding"))
	}
	require.Equal(t, 1, count())
}

// The time that a guarded request's body has is not for bodies that pass through.
func TestProxyCutsNoBodyThatIsNotGuarded(t *testing.T) {
	begun := make(chan struct{})
	url, _ := counting(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		var b [4]byte
		_, _ = io.ReadFull(r.Body, b[:2])
		close(begun)
		_, _ = io.ReadFull(r.Body, b[2:])
		_, _ = w.Write(b[:])
	})
	p := startProxy(t, url, "--timeout", "1ms")
	c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "PUT /file HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"k\"\r\nContent-Length: 4\r\n\r\nbo")
	require.NoError(t, err)
	<-begun
	<-time.After(50 * time.Millisecond)
	_, err = io.WriteString(c, "dy")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "body", string(body))
}

// A guarded body that does not come in time is refused, and claims nothing.
func TestProxySlowBody(t *testing.T) {
	p := startProxy(t, echo(t), "--timeout", "100ms")
	resp := raw(t, p.url, "POST /pay HTTP/1.1\nHost: x\nIdempotency-Key: \"k\"\nContent-Length: 4\n\nbo")
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
	require.False(t, send(t, p.url+"/pay", "k", "body").replayed)
}

// An answer of the size that --max-response names is kept, and a size that can't be is refused.
func TestProxyKeepsAnswersAsLongAsItSays(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	url, count := counting(t, func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = io.WriteString(w, long) })
	p := startProxy(t, url, "--max-response", fmt.Sprint(len(long)))
	require.True(t, send(t, p.url, "k", "") == answered{200, long, false, ""})
	require.True(t, send(t, p.url, "k", "") == answered{200, long, true, ""}, "it is not kept")
	require.Equal(t, 1, count())
	failsWith(t, oncelogRun("", "proxy", "--listen", "127.0.0.1:0", "--upstream", url, "--dir", t.TempDir(), "--max-response", "16000000"), exitUsage, "--max-response")
}

// The first attempt's answer was lost, and the service, which honours the key, is still at work when it is asked again: it
// says 409. That is not the result.
func TestProxyAsksAgainWhileTheServiceIsAtWork(t *testing.T) {
	for _, after := range []string{"", "3"} {
		url, count := counting(t, func(w http.ResponseWriter, _ *http.Request, n int) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusGatewayTimeout)
			case 2:
				if after != "" {
					w.Header().Set("Retry-After", after)
				}
				w.WriteHeader(http.StatusConflict)
			default:
				_, _ = io.WriteString(w, "charged")
			}
		})
		p := startProxy(t, url, "--on-doubt", "retry")
		require.Equal(t, 504, send(t, p.url, "k", "").status)
		require.Equal(t, 409, send(t, p.url, "k", "").status)
		require.Equal(t, answered{200, "charged", false, ""}, send(t, p.url, "k", ""))
		require.Equal(t, answered{200, "charged", true, ""}, send(t, p.url, "k", ""))
		require.Equal(t, 3, count())
	}
}

// A request that outlives the grace is cut while the service is at work on it: its key is in doubt, and not free.
func TestProxyGraceExceeded(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	url, count := counting(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 {
			close(inside)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})
	defer close(release)
	dir := filepath.Join(t.TempDir(), "store")
	cmd := process(t, "proxy", "--listen", "127.0.0.1:0", "--upstream", url, "--dir", dir, "--grace", "10ms", "--quiet")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	at := "http://" + strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	cut := make(chan error, 1)
	go func() {
		_, err := trySend(at, "k", "")
		cut <- err
	}()
	<-inside
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, <-cut)
	require.Error(t, cmd.Wait())
	require.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), errs.String())
	require.Contains(t, errs.String(), "cut after 10ms")
	require.Equal(t, 1, strings.Count(errs.String(), "\n"), errs.String())
	require.Contains(t, done(t, "", "doubts", dir, "--json"), ` k"`)
	p := startProxyIn(t, dir, url)
	require.Equal(t, "in-doubt", send(t, p.url, "k", "").kind)
	require.Equal(t, 1, count())
}

// A service that answers before it has read the request, and leaves, has answered.
func TestProxyServiceThatDoesNotRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c)) // its header
			_, _ = io.WriteString(c, "HTTP/1.1 422 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	p := startProxy(t, "http://"+l.Addr().String())
	long := strings.Repeat("x", 1<<20)
	require.Equal(t, answered{422, "no", false, ""}, send(t, p.url, "k", long))
	require.Equal(t, answered{422, "no", true, ""}, send(t, p.url, "k", long))
}

// A guarded request can't switch protocols; one that is not guarded can.
func TestProxyUpgrade(t *testing.T) {
	url, count := counting(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(conn, line)
	})
	p := startProxy(t, url)
	const head = "HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: x\n"
	c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, strings.ReplaceAll("GET / "+head+"\n", "\n", "\r\n"))
	require.NoError(t, err)
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	_, err = io.WriteString(c, "hello\n")
	require.NoError(t, err)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "hello\n", line)
	for range 2 {
		resp := raw(t, p.url, "POST / "+head+"Idempotency-Key: \"k\"\nContent-Length: 0\n\n")
		require.Equal(t, 409, resp.StatusCode)
	}
	require.Equal(t, 2, count())
}

// Folded and doubled fields, and lengths that contradict each other, reach no service.
func TestProxySmuggling(t *testing.T) {
	url, count := counting(t, func(w http.ResponseWriter, _ *http.Request, _ int) {})
	p := startProxy(t, url)
	for _, h := range []string{
		"Idempotency-Key: \"k\"\nidempotency-key: \"k\"\nContent-Length: 0\n", "Idempotency-Key: \"k\", \"l\"\nContent-Length: 0\n",
		"Idempotency-Key : \"k\"\nContent-Length: 0\n", "Idempotency-Key:\nContent-Length: 0\n", "IDEMPOTENCY-KEY: \"k\nContent-Length: 0\n",
		"Idempotency-Key: \"k\"\nContent-Length: 4\nContent-Length: 5\n", "Idempotency-Key: \"k\"\nTransfer-Encoding: gzip, chunked\n",
		"Idempotency-Key: \"\x80\"\nContent-Length: 0\n", "Idempotency-Key: \"a\x00b\"\nContent-Length: 0\n",
	} {
		resp := raw(t, p.url, "POST / HTTP/1.1\nHost: x\n"+h+"\n")
		require.GreaterOrEqual(t, resp.StatusCode, 400, h)
		require.Less(t, resp.StatusCode, 502, h)
	}
	require.Zero(t, count())
	// Of a length and chunks, the chunks are the body, and the service is told one length.
	resp := raw(t, p.url, "POST / HTTP/1.1\nHost: x\nIdempotency-Key: \"k\"\nTransfer-Encoding: chunked\n\n4\nbody\n0\n\n")
	require.Equal(t, 200, resp.StatusCode)
	require.True(t, send(t, p.url+"/", "k", "body").replayed)
	require.Equal(t, 1, count())
}
