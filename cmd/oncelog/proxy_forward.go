package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/oncelog/oncelog/oncehttp"
	"github.com/oncelog/oncelog/receiver"
)

// forwarder sends requests on. A guarded one has one chance to reach the service: if it may have, and no whole answer
// came, nobody knows whether it had its effect.
//
//	no connection ─────────────────────────────▶ 502, the key is free
//	connected, then no whole answer in time ───▶ in doubt (block), or the key is free and the next delivery asks again (retry)
//	an answer ─────────────────────────────────▶ recorded, as its status says; 504 is no answer
type forwarder struct {
	guarded, plain *httputil.ReverseProxy
	timeout        time.Duration
	maxResponse    int64
	onDoubt        receiver.DoubtPolicy
	log            *slog.Logger
}

const (
	dialTimeout  = 10 * time.Second
	plainIdle    = 100 // connections kept for requests that are not guarded
	plainIdleFor = 30 * time.Second
)

func newForwarder(o proxyOptions, log *slog.Logger) *forwarder {
	f := &forwarder{timeout: o.timeout, maxResponse: o.maxResponse, onDoubt: o.onDoubt, log: log}
	rewrite := func(pr *httputil.ProxyRequest) {
		pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"] // appended to, not replaced
		// A client that names the key in its Connection header would have it taken out here: guarded, and then unknown to
		// a service that honours it.
		if key, ok := pr.In.Header["Idempotency-Key"]; ok {
			pr.Out.Header["Idempotency-Key"] = key
		}
		pr.Out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy takes out what Go would not parse; the service may
		pr.SetURL(o.upstream)
		pr.SetXForwarded()
	}
	dial := (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	errors := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	f.plain = &httputil.ReverseProxy{
		Rewrite: rewrite, ErrorLog: errors, ErrorHandler: f.failed,
		Transport: &http.Transport{
			DialContext: dial, MaxIdleConnsPerHost: plainIdle, IdleConnTimeout: plainIdleFor, TLSHandshakeTimeout: dialTimeout,
			DisableCompression: true,
		},
	}
	// net/http sends a request with an Idempotency-Key again by itself when a connection that it had kept fails. It does
	// not when the connection is new, which besides can't be one that the service is just closing: each of those would
	// be a doubt. Nor does it ask for gzip that the client has not asked for, and look into it: an answer that it could
	// not unpack would be one more.
	f.guarded = &httputil.ReverseProxy{
		Rewrite: rewrite, ErrorLog: errors, ErrorHandler: f.lost, ModifyResponse: f.whole,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSHandshakeTimeout: dialTimeout, DisableCompression: true},
	}
	return f
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, ok := receiver.KeyFrom(r.Context()); !ok {
		f.plain.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), f.timeout)
	defer cancel()
	var sent atomic.Bool
	ctx = context.WithValue(ctx, sentKey{}, &sent)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	f.guarded.ServeHTTP(w, r.WithContext(ctx))
}

// sentKey finds the *atomic.Bool that says whether a guarded request may have reached the service.
type sentKey struct{}

// noAnswer is an answer of the service's that says that it has none.
type noAnswer struct{ status int }

func (e *noAnswer) Error() string { return fmt.Sprintf("the service answered %d", e.status) }

// whole reads the answer to its end, so that one that is cut is known before anything of it is recorded. One that is too
// large to be kept streams; the middleware records as much before its first byte leaves.
func (f *forwarder) whole(resp *http.Response) error {
	if resp.StatusCode == http.StatusGatewayTimeout {
		return &noAnswer{resp.StatusCode} // somebody between the service and here has sent it on and heard nothing
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("the service switched protocols, which a request with a key can't")
	}
	if resp.StatusCode == http.StatusConflict && f.onDoubt == receiver.Retry && resp.Header.Get("Retry-After") == "" {
		// The service honours the key, and may be at work on an attempt whose answer was lost: that is what 409 means then.
		// With Retry-After it is not kept, so the next attempt reaches the service.
		resp.Header.Set("Retry-After", "1")
	}
	var b bytes.Buffer
	_, err := b.ReadFrom(io.LimitReader(resp.Body, f.maxResponse+1))
	if err != nil {
		return fmt.Errorf("the answer was cut: %w", err)
	}
	if int64(b.Len()) > f.maxResponse {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&b, resp.Body), resp.Body}
		return nil
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("the answer was cut: %w", err)
	}
	resp.Body = io.NopCloser(&b)
	if resp.Request.Method != http.MethodHead {
		resp.ContentLength = int64(b.Len()) // -1 would have it flushed piece by piece
	}
	return nil
}

// lost answers a guarded request to which no whole answer came.
func (f *forwarder) lost(w http.ResponseWriter, r *http.Request, err error) {
	sent, _ := r.Context().Value(sentKey{}).(*atomic.Bool)
	if sent == nil || !sent.Load() {
		f.failed(w, r, err)
		return
	}
	if f.onDoubt == receiver.Retry {
		// The service honours the key, so asking again is how to find out. The status is one that clients retry.
		f.failed(w, r, err)
		return
	}
	oncehttp.InDoubt(r.Context(), err)
}

// failed answers with a gateway's statuses, which are not kept.
func (f *forwarder) failed(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusBadGateway
	var timeout interface{ Timeout() bool }
	var none *noAnswer
	if errors.As(err, &none) || errors.As(err, &timeout) && timeout.Timeout() {
		status = http.StatusGatewayTimeout
	}
	f.log.LogAttrs(r.Context(), slog.LevelWarn, "the service did not answer", slog.String("method", r.Method), slog.Any("error", err))
	w.Header().Set("Retry-After", "1")
	http.Error(w, http.StatusText(status), status)
}
