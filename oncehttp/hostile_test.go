package oncehttp

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/oncetest"
	"github.com/oncelog/oncelog/receiver"
)

// server is a real one, whose log nobody reads.
func server(t testing.TB, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// dial sends the beginning of a request, byte for byte.
func dial(t testing.TB, s *httptest.Server, beginning string) *net.TCPConn {
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, beginning)
	require.NoError(t, err)
	return c.(*net.TCPConn)
}

func answerOn(t testing.TB, c net.Conn) *http.Response {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	return res
}

func send(t testing.TB, s *httptest.Server, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequest("POST", s.URL+"/payments", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Idempotency-Key", quoted)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return s.Client().Do(r)
}

// read returns the status and the body.
func read(t testing.TB, res *http.Response, err error) (int, string) {
	t.Helper()
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

func TestAMegabyteOfHeaders(t *testing.T) {
	c := &counted{}
	s := server(t, guarded(t, Options{}, c.ServeHTTP))
	large := strings.Repeat("x", 1<<20-1000)
	for range 2 {
		res, err := send(t, s, "", "Padding", large)
		status, _ := read(t, res, err)
		require.Equal(t, 201, status)
	}
	require.Equal(t, 1, c.runs)
	res, err := send(t, s, "", "Idempotency-Key", `"`+large+`"`)
	status, _ := read(t, res, err)
	require.Equal(t, 400, status)
	// Twice that, and net/http refuses it before anybody looks.
	res, err = send(t, s, "", "Padding", strings.Repeat("x", 2<<20))
	if err == nil {
		status, _ = read(t, res, nil)
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, status)
	}
	require.Equal(t, 1, c.runs)
}

// A client that sends its body slowly, or never, holds up nobody: its key is not claimed.
func TestASlowBody(t *testing.T) {
	c := &counted{body: "done"}
	s := server(t, guarded(t, Options{}, c.ServeHTTP))
	const head = "POST /payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"order-4711\"\r\nContent-Length: 4\r\n\r\n"
	slow, never, cut := dial(t, s, head+"bo"), dial(t, s, head+"bo"), dial(t, s, head+"bo")
	res, err := send(t, s, "body")
	status, _ := read(t, res, err)
	require.Equal(t, 201, status)
	require.NoError(t, cut.CloseWrite())
	require.Equal(t, 400, answerOn(t, cut).StatusCode)
	_, err = io.WriteString(slow, "dy")
	require.NoError(t, err)
	require.Equal(t, "true", answerOn(t, slow).Header.Get("Idempotent-Replayed"))
	require.NoError(t, never.Close())
	require.Equal(t, 1, c.runs)

	h := guarded(t, Options{}, c.ServeHTTP)
	limited := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NoError(t, http.NewResponseController(w).SetReadDeadline(time.Now())) // as Server.ReadTimeout does
		h.ServeHTTP(w, r)
	}))
	require.Equal(t, 408, answerOn(t, dial(t, limited, head+"bo")).StatusCode)
	require.Equal(t, 1, c.runs)
}

// The client resets its connection in the middle of the work: the work goes on, and its result is there when the client
// comes back.
func TestAClientThatIsGoneInTheMiddle(t *testing.T) {
	for _, opts := range []Options{{}, {Tx: true}, {Intent: true}} {
		running, gone := make(chan struct{}), make(chan struct{})
		runs := 0
		h := wrap(t, durable(t), opts, func(w http.ResponseWriter, r *http.Request) {
			runs++
			close(running)
			<-gone
			if r.Context().Err() != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = io.WriteString(w, "done")
		})
		over := make(chan struct{}, 2)
		s := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { over <- struct{}{} }()
			go func() { // the server has noticed
				<-r.Context().Done()
				select {
				case <-gone:
				default:
					close(gone)
				}
			}()
			h.ServeHTTP(w, r)
		}))
		c := dial(t, s, "POST /payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"order-4711\"\r\nContent-Length: 4\r\n\r\nbody")
		<-running
		require.NoError(t, c.SetLinger(0)) // a reset, not an end
		require.NoError(t, c.Close())
		<-over
		res, err := send(t, s, "body")
		require.NoError(t, err)
		require.Equal(t, "true", res.Header.Get("Idempotent-Replayed"))
		status, body := read(t, res, nil)
		require.Equal(t, 200, status)
		require.Equal(t, "done", body)
		require.Equal(t, 1, runs)
	}
}

func TestAPanicOnARealServer(t *testing.T) {
	n := 0
	s := server(t, guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		if n++; n < 3 {
			panic("boom")
		}
	}))
	s.Client().Transport.(*http.Transport).DisableKeepAlives = true // which would let net/http send it again by itself
	for range 2 {
		_, err := send(t, s, "")
		require.Error(t, err)
	}
	res, err := send(t, s, "")
	status, body := read(t, res, err)
	require.Equal(t, 200, status)
	require.Equal(t, "half", body)
}

// On the wire: a stream, its trailers, 1xx, an expectation, deadlines.
func TestOnTheWire(t *testing.T) {
	s := server(t, guarded(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Hour)))
		w.Header().Set("Trailer", "Sum")
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "1")
		require.NoError(t, c.Flush())
		_, _ = io.WriteString(w, "2")
		w.Header().Set("Sum", "3")
		w.Header().Set(http.TrailerPrefix+"Late", "4")
	}))
	c := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"order-4711\"\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	in := bufio.NewReader(c)
	for _, status := range []int{100, 103} {
		if status == 103 {
			_, err := io.WriteString(c, "body")
			require.NoError(t, err)
		}
		res, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, status, res.StatusCode)
	}
	res, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "12", string(b))
	require.Equal(t, http.Header{"Sum": {"3"}, "Late": {"4"}}, res.Trailer)
	c = dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"order-4711\"\r\nContent-Length: 4\r\n\r\nbody")
	require.Equal(t, http.StatusGone, answerOn(t, c).StatusCode)
}

// An expectation is not answered with 100 when the request is refused anyway.
func TestARefusedBodyIsNotAskedFor(t *testing.T) {
	s := server(t, guarded(t, Options{}, (&counted{}).ServeHTTP))
	c := dial(t, s, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"k\"\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
	require.Equal(t, 413, answerOn(t, c).StatusCode)
}

func TestTenThousandDuplicatesAtOnce(t *testing.T) {
	n := 10_000
	if raced {
		n = 5_000 // the race detector takes 8,128 goroutines
	}
	before := runtime.NumGoroutine()
	waiting := make(chan struct{}, n)
	r, err := receiver.New(oncetest.Store(t), &receiver.Options{Observe: func(e receiver.Event) {
		if e.Kind == receiver.EventWaiting {
			waiting <- struct{}{}
		}
	}})
	require.NoError(t, err)
	running, end := make(chan struct{}), make(chan struct{})
	runs := 0
	h := wrap(t, r, Options{Wait: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
		runs++
		close(running)
		<-end
		_, _ = io.WriteString(w, "done")
	})
	codes := make(chan string, n)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			w := post(h, quoted, "body")
			codes <- fmt.Sprint(w.Code, " ", w.Body, " ", w.Header().Get("Idempotent-Replayed"))
		})
	}
	<-running
	for range n - 1 {
		<-waiting
	}
	close(end)
	all.Wait()
	close(codes)
	count := map[string]int{}
	for c := range codes {
		count[c]++
	}
	require.Equal(t, map[string]int{"200 done ": 1, "200 done true": n - 1}, count)
	require.Equal(t, 1, runs)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+5 }, time.Minute, time.Millisecond)
}
