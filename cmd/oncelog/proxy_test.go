package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// runningProxy is a proxy in this process.
type runningProxy struct {
	t          testing.TB
	url, admin string
	dir        string
	log        *lockedBuffer
	stop       func()
	ended      chan int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func startProxy(t testing.TB, upstream string, args ...string) *runningProxy {
	t.Helper()
	return startProxyIn(t, filepath.Join(t.TempDir(), "store"), upstream, args...)
}

func startProxyIn(t testing.TB, dir, upstream string, args ...string) *runningProxy {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &runningProxy{t: t, dir: dir, log: &lockedBuffer{}, stop: cancel, ended: make(chan int, 1)}
	out, in := io.Pipe()
	go func() {
		all := append([]string{"proxy", "--listen", "127.0.0.1:0", "--upstream", upstream, "--dir", dir}, args...)
		p.ended <- run(ctx, all, strings.NewReader(""), in, p.log)
		_ = in.Close()
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			p.url = "http://" + addr
		}
		if addr, ok := strings.CutPrefix(lines.Text(), "admin on "); ok {
			p.admin = "http://" + addr
		}
		if p.url != "" && (p.admin != "" || !strings.Contains(strings.Join(args, " "), "--admin")) {
			break
		}
	}
	require.NotEmpty(t, p.url, "the proxy does not start: %s", p.log)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	t.Cleanup(p.close)
	return p
}

func (p *runningProxy) close() {
	p.stop()
	if code, ok := <-p.ended; ok {
		close(p.ended)
		require.Equal(p.t, exitDone, code, p.log)
	}
}

// answered is what a request got.
type answered struct {
	status   int
	body     string
	replayed bool
	kind     string // of a problem
}

// send sends a POST with a key, "" = none.
func send(t testing.TB, url, key, body string, header ...string) answered {
	t.Helper()
	a, err := trySend(url, key, body, header...)
	require.NoError(t, err)
	return a
}

func trySend(url, key, body string, header ...string) (a answered, err error) {
	r, err := http.NewRequest(http.MethodPost, url, struct{ io.Reader }{strings.NewReader(body)})
	if err != nil {
		return a, err
	}
	r.ContentLength = int64(len(body))
	if key != "" {
		r.Header.Set("Idempotency-Key", `"`+key+`"`)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	a = answered{resp.StatusCode, string(b), resp.Header.Get("Idempotent-Replayed") == "true", ""}
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		var p struct{ Type string }
		if err := json.Unmarshal(b, &p); err != nil {
			return a, err
		}
		_, a.kind, _ = strings.Cut(p.Type, "#")
	}
	return a, err
}

// counting is a service that counts what reaches it.
func counting(t testing.TB, then func(w http.ResponseWriter, r *http.Request, n int)) (url string, count func() int) {
	var mu sync.Mutex
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		now := n
		mu.Unlock()
		then(w, r, now)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestProxyRepeatsAnswers(t *testing.T) {
	url, count := counting(t, func(w http.ResponseWriter, r *http.Request, n int) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("X-Order", fmt.Sprint(n))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, b, r.Header.Get("Idempotency-Key"))
	})
	p := startProxy(t, url)
	first := send(t, p.url+"/orders?x=1", "a", "body")
	require.Equal(t, answered{201, `POST /orders?x=1 body "a"`, false, ""}, first)
	again := send(t, p.url+"/orders?x=1", "a", "body")
	first.replayed = true
	require.Equal(t, first, again)
	require.Equal(t, 1, count())
	require.Equal(t, "key-reused", send(t, p.url+"/orders?x=1", "a", "other").kind)
	require.Equal(t, "malformed-key", send(t, p.url, "", "body", "Idempotency-Key", "raw").kind)

	// Callers are told apart by their credentials.
	require.False(t, send(t, p.url+"/orders?x=1", "a", "body", "Authorization", "Bearer somebody").replayed)
	require.True(t, send(t, p.url+"/orders?x=1", "a", "body", "Authorization", "Bearer somebody").replayed)
	require.Equal(t, 2, count())

	// Without a key nothing is kept.
	for range 2 {
		require.Equal(t, 201, send(t, p.url, "", "body").status)
	}
	require.Equal(t, 4, count())

	// The answers outlast the proxy.
	p.close()
	p = startProxyIn(t, p.dir, url)
	require.Equal(t, again, send(t, p.url+"/orders?x=1", "a", "body"))
	require.Equal(t, 4, count())
}

// What the service did not answer, by what is known of it.
func TestProxyWithoutAnAnswer(t *testing.T) {
	hijack := func(w http.ResponseWriter, say string) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, say)
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	release := make(chan struct{})
	defer close(release)
	cases := map[string]func(w http.ResponseWriter, r *http.Request){
		"a connection lost after sending": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "") },
		"a cut body": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
		},
		"a cut chunk": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		},
		"no answer in time": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
		"a gateway's time-out": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGatewayTimeout) },
	}
	for name, fails := range cases {
		t.Run(name, func(t *testing.T) {
			url, count := counting(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n == 1 {
					fails(w, r)
					return
				}
				_, _ = io.WriteString(w, "done")
			})
			p := startProxy(t, url, "--timeout", "300ms")
			for range 2 {
				require.Equal(t, answered{409, send(t, p.url, "k", "").body, false, "in-doubt"}, send(t, p.url, "k", ""))
			}
			require.Equal(t, 1, count(), "what may have happened was done again")
			p.close()
			require.Contains(t, done(t, "", "doubts", p.dir, "--json"), ` k"`)
		})
		t.Run(name+", retry", func(t *testing.T) {
			url, count := counting(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n == 1 {
					fails(w, r)
					return
				}
				_, _ = io.WriteString(w, "done")
			})
			p := startProxy(t, url, "--timeout", "300ms", "--on-doubt", "retry")
			require.Contains(t, []int{502, 504}, send(t, p.url, "k", "").status, "clients retry these")
			require.Equal(t, answered{200, "done", false, ""}, send(t, p.url, "k", ""))
			require.Equal(t, answered{200, "done", true, ""}, send(t, p.url, "k", ""))
			require.Equal(t, 2, count())
		})
	}
	t.Run("nothing was sent", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := l.Addr().String()
		require.NoError(t, l.Close())
		p := startProxy(t, "http://"+addr)
		require.Equal(t, 502, send(t, p.url, "k", "").status)
		// The service comes, and the key is free.
		l, err = net.Listen("tcp", addr)
		require.NoError(t, err)
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") })}}
		s.Start()
		defer s.Close()
		require.Equal(t, answered{200, "done", false, ""}, send(t, p.url, "k", ""))
	})
}

// net/http would send a request with a key again when a connection that it kept turns out to be closed.
func TestProxySendsAGuardedRequestOnce(t *testing.T) {
	url, count := counting(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n%2 == 1 { // answers, so that the connection is kept, and closes it on the next request
			_, _ = io.WriteString(w, "done")
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_ = conn.Close()
	})
	p := startProxy(t, url)
	for i := range 10 {
		a := send(t, p.url, fmt.Sprint("key ", i), "")
		require.Equal(t, i%2 == 0, a.status == 200, "%d: %v", i, a)
		require.Equal(t, i+1, count())
	}
}

func TestProxyAnswersTooLargeToKeep(t *testing.T) {
	long := strings.Repeat("x", 5000)
	url, count := counting(t, func(w http.ResponseWriter, _ *http.Request, _ int) { _, _ = io.WriteString(w, long) })
	p := startProxy(t, url, "--max-response", "4000", "--max-request", "100")
	require.Equal(t, answered{200, long, false, ""}, send(t, p.url, "k", ""))
	require.Equal(t, "result-gone", send(t, p.url, "k", "").kind)
	require.Equal(t, "request-too-large", send(t, p.url, "l", long).kind)
	require.Equal(t, 1, count())
}

func TestProxyHealthMetricsAndLog(t *testing.T) {
	url, _ := counting(t, func(w http.ResponseWriter, r *http.Request, _ int) { _, _ = io.WriteString(w, r.URL.Path) })
	get := func(url string) (int, string) {
		resp, err := http.Get(url)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	p := startProxy(t, url)
	send(t, p.url+"/path?query=secret1", "secret2", "secret3", "Authorization", "secret4")
	send(t, p.url+"/path?query=secret1", "secret2", "secret3", "Authorization", "secret4")
	status, body := get(p.url + "/healthz")
	require.Equal(t, 200, status)
	require.Equal(t, "ok\n", body)
	_, body = get(p.url + "/metrics")
	for _, line := range []string{
		`oncelog_proxy_keyed_total{end="executed"} 1`, `oncelog_proxy_keyed_total{end="replayed"} 1`,
		`oncelog_proxy_responses_total{status="200"} 2`, `oncelog_proxy_response_seconds_count 2`, `oncelog_store_keys 1`,
		`oncelog_store_failed 0`, `oncelog_store_doubts 0`,
	} {
		require.Contains(t, body, line+"\n")
	}
	require.Equal(t, 2, strings.Count(p.log.String(), "msg=request"))
	require.Contains(t, p.log.String(), "path=/path status=200")
	require.Contains(t, p.log.String(), "replayed=true")
	require.NotContains(t, p.log.String(), "secret")

	// With a place of their own they hide nothing of the service's.
	p = startProxy(t, url, "--admin", "127.0.0.1:0", "--quiet")
	_, body = get(p.url + "/healthz")
	require.Equal(t, "/healthz", body)
	_, body = get(p.admin + "/healthz")
	require.Equal(t, "ok\n", body)
	require.Empty(t, p.log.String())
}

// Told to stop, it answers what is in progress and then ends.
func TestProxyStopsInOrder(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	url, _ := counting(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		close(inside)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	p := startProxy(t, url)
	got := make(chan answered, 1)
	go func() {
		a, err := trySend(p.url, "k", "")
		if err != nil {
			a.body = err.Error()
		}
		got <- a
	}()
	<-inside
	p.stop()
	require.Eventually(t, func() bool { // the listener is gone
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, time.Minute, time.Millisecond)
	close(release)
	require.Equal(t, answered{200, "done", false, ""}, <-got)
	p.close()
	require.Empty(t, done(t, "", "doubts", p.dir))
	// SIGTERM is such a word.
	cmd := process(t, "proxy", "--listen", "127.0.0.1:0", "--upstream", url, "--dir", p.dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
}

func TestProxyUsage(t *testing.T) {
	good := []string{"proxy", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:1", "--dir", t.TempDir()}
	for name, args := range map[string][]string{
		"--listen ADDR, --upstream URL and --dir DIR": {"proxy"},
		"unexpected argument":                         append(good[:len(good):len(good)], "x"),
		"block or retry":                              append(good[:len(good):len(good)], "--on-doubt", "hope"),
		"give a URL like":                             {"proxy", "--listen", ":0", "--upstream", "localhost:3000", "--dir", "x"},
		"must be positive":                            append(good[:len(good):len(good)], "--timeout", "0"),
		"methods with commas":                         append(good[:len(good):len(good)], "--methods", "POST,,PUT"),
		"--caller":                                    append(good[:len(good):len(good)], "--caller", ""),
	} {
		failsWith(t, oncelogRun("", args...), exitUsage, name)
	}
}

// curl's, Go's, Node's and Python's own clients retry through the proxy; the service fails before its effect, behind it,
// and answers at last.
func TestProxyUnderClientsOfOtherLanguages(t *testing.T) {
	clients := map[string][]string{
		"curl": {"curl", "-sS", "--retry", "5", "--retry-delay", "1", "--retry-all-errors", "--fail", "-d", "amount=10", "-H", `Idempotency-Key: "curl-1"`, "URL"},
		"node": {"node", "-e", `
			const send = async n => {
				const r = await fetch(process.argv[1], {method: 'POST', body: 'amount=10', headers: {'Idempotency-Key': '"node-1"'}}).catch(() => null);
				if (r && r.status == 200) return r.text();
				if (n == 0) throw new Error('no answer: ' + (r && r.status));
				return send(n - 1);
			};
			send(5).then(t => process.stdout.write(t), e => { console.error(e); process.exit(1) })`, "URL"},
		"python": {"python3", "-c", `
import sys, urllib.request, urllib.error
for n in range(6):
    try:
        r = urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=b'amount=10', headers={'Idempotency-Key': '"python-1"'}))
        sys.stdout.write(r.read().decode()); sys.exit(0)
    except (urllib.error.HTTPError, OSError) as e:
        last = e
sys.exit(str(last))`, "URL"},
	}
	for name, args := range clients {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("no %s on this machine", args[0])
			}
			var mu sync.Mutex
			effects, done := 0, map[string]bool{}
			url, count := counting(t, func(w http.ResponseWriter, r *http.Request, n int) {
				if n == 1 {
					w.WriteHeader(http.StatusServiceUnavailable) // nothing was done
					return
				}
				mu.Lock()
				if key := r.Header.Get("Idempotency-Key"); !done[key] {
					done[key] = true
					effects++
				}
				mu.Unlock()
				if n == 2 { // done, and the answer is lost
					conn, _, err := w.(http.Hijacker).Hijack()
					if err == nil {
						_ = conn.Close()
					}
					return
				}
				_, _ = io.WriteString(w, "charged")
			})
			p := startProxy(t, url, "--on-doubt", "retry")
			for range 2 {
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Args[len(cmd.Args)-1] = p.url + "/charge"
				out, err := cmd.Output()
				require.NoError(t, err, "%s", p.log)
				require.Equal(t, "charged", string(out))
			}
			require.Equal(t, 1, effects)
			require.Equal(t, 3, count(), "the second run was answered from the store")
		})
	}
	t.Run("Go", func(t *testing.T) {
		url, count := counting(t, func(w http.ResponseWriter, r *http.Request, n int) { _, _ = io.WriteString(w, "charged") })
		p := startProxy(t, url)
		for range 3 {
			r, err := http.NewRequest(http.MethodPost, p.url+"/charge", strings.NewReader("amount=10"))
			require.NoError(t, err)
			r.Header.Set("Idempotency-Key", `"go-1"`)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, "charged", string(b))
		}
		require.Equal(t, 1, count())
	})
}
