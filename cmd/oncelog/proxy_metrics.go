package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// tally is what the proxy counts, for /metrics.
type tally struct {
	stopping atomic.Bool
	inFlight atomic.Int64
	ends     [receiver.EventInDoubt + 1]atomic.Uint64 // of calls with a key, by how they ended

	mu       sync.Mutex
	statuses map[int]uint64
	buckets  [len(bounds) + 1]uint64 // answers by their time, each in one
	seconds  float64
}

// bounds of the histogram, in seconds: a replay's tens of microseconds, a sync, a service's answer, a slow one's.
var bounds = [...]float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60}

func newTally() *tally { return &tally{statuses: map[int]uint64{}} }

func (c *tally) observe(e receiver.Event) {
	if i := int(e.Kind); i < len(c.ends) {
		c.ends[i].Add(1)
	}
}

// wrap counts what a handler answers, and tells log of it.
func (c *tally) wrap(next http.Handler, log func(r *http.Request, w *watched, took time.Duration)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.inFlight.Add(1)
		began, seen := time.Now(), &watched{ResponseWriter: w}
		defer func() { // also when the answer is cut by a panic
			took := time.Since(began)
			c.inFlight.Add(-1)
			c.mu.Lock()
			c.statuses[seen.status]++
			c.buckets[bucketOf(took.Seconds())]++
			c.seconds += took.Seconds()
			c.mu.Unlock()
			log(r, seen, took)
		}()
		next.ServeHTTP(seen, r)
	})
}

func bucketOf(seconds float64) int {
	i, _ := slices.BinarySearch(bounds[:], seconds)
	return i
}

// watched sees the status and the length of an answer. It unwraps, for whoever needs what it does not have.
type watched struct {
	http.ResponseWriter
	status int // 0 = the answer was cut before it had one
	bytes  int64
}

func (w *watched) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// accessLog tells of each answer, and never of keys, bodies, queries or credentials.
func (p *proxyServer) accessLog() func(r *http.Request, w *watched, took time.Duration) {
	if p.o.quiet {
		return func(*http.Request, *watched, time.Duration) {}
	}
	return func(r *http.Request, w *watched, took time.Duration) {
		p.log.LogAttrs(r.Context(), slog.LevelInfo, "request",
			slog.String("remote", r.RemoteAddr), slog.String("method", r.Method), slog.String("path", r.URL.Path),
			slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Duration("took", took),
			slog.Bool("replayed", w.Header().Get("Idempotent-Replayed") == "true"))
	}
}

var endNames = map[receiver.EventKind]string{
	receiver.EventExecuted: "executed", receiver.EventReplayed: "replayed", receiver.EventFailed: "not_kept",
	receiver.EventUnrecorded: "unrecorded", receiver.EventInFlight: "in_flight", receiver.EventRefused: "refused",
	receiver.EventInDoubt: "in_doubt",
}

// metrics writes the numbers in the text format of Prometheus.
func (p *proxyServer) metrics(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	one := func(name, kind, help string, v any) {
		family(name, kind, help)
		fmt.Fprintf(&b, "%s %v\n", name, v)
	}
	c := p.tally
	one("oncelog_proxy_in_flight", "gauge", "Requests that are being answered.", c.inFlight.Load())
	family("oncelog_proxy_keyed_total", "counter", "Requests with a key, by how they ended.")
	for kind := receiver.EventExecuted; kind <= receiver.EventInDoubt; kind++ {
		if name := endNames[kind]; name != "" {
			fmt.Fprintf(&b, "oncelog_proxy_keyed_total{end=%q} %d\n", name, c.ends[kind].Load())
		}
	}
	c.mu.Lock()
	family("oncelog_proxy_responses_total", "counter", "Answers by status; 0 = cut before there was one.")
	statuses := make([]int, 0, len(c.statuses))
	for status := range c.statuses {
		statuses = append(statuses, status)
	}
	slices.Sort(statuses)
	for _, status := range statuses {
		fmt.Fprintf(&b, "oncelog_proxy_responses_total{status=\"%d\"} %d\n", status, c.statuses[status])
	}
	family("oncelog_proxy_response_seconds", "histogram", "From a request's header to its answer's end.")
	sum := uint64(0)
	for i, n := range c.buckets {
		sum += n
		le := "+Inf"
		if i < len(bounds) {
			le = fmt.Sprint(bounds[i])
		}
		fmt.Fprintf(&b, "oncelog_proxy_response_seconds_bucket{le=%q} %d\n", le, sum)
	}
	fmt.Fprintf(&b, "oncelog_proxy_response_seconds_sum %g\noncelog_proxy_response_seconds_count %d\n", c.seconds, sum)
	c.mu.Unlock()

	s := p.st.Stats()
	one("oncelog_store_keys", "gauge", "Live records.", s.Keys)
	one("oncelog_store_disk_bytes", "gauge", "Of log and snapshot.", s.DiskBytes)
	one("oncelog_store_live_bytes", "gauge", "Of the log, in live records.", s.LiveBytes)
	one("oncelog_store_index_bytes", "gauge", "Memory of the index.", s.IndexBytes)
	one("oncelog_store_segments", "gauge", "Of the log.", s.Segments)
	one("oncelog_store_doubts", "gauge", "Keys in doubt, running requests included.", s.Doubts)
	one("oncelog_store_commits_total", "counter", "Transactions since the start.", s.Commits)
	one("oncelog_store_syncs_total", "counter", "Syncs since the start.", s.Syncs)
	failed := 0
	if p.st.Failed() != nil {
		failed = 1
	}
	one("oncelog_store_failed", "gauge", "1 = it takes no more writes until it is opened again.", failed)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write([]byte(b.String()))
}
