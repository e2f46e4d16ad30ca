package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/oncehttp"
	"github.com/oncelog/oncelog/receiver"
)

const proxyHelp = `Stands before an HTTP service in any language and has each request with an
Idempotency-Key take effect once: the service's answer is recorded, and its
duplicates get that answer without reaching the service. Requests without a key, and
methods that are not guarded, pass as they are.

  --listen ADDR       where to listen, as 127.0.0.1:8080
  --upstream URL      the service
  --dir DIR           the store; one proxy at a time

  --on-doubt WHAT     when the proxy died inside a request, or sent it and lost the
                      answer: block (default) answers its duplicates 409 until somebody
                      settles it; retry sends it again, which is right if the service
                      itself honours the key
  --caller HEADER     the request header that tells callers apart, whose keys never
                      meet (default Authorization); any = all callers are one
  --required          refuse guarded requests without a key
  --raw               take keys without quotes too
  --methods LIST      guarded methods (default POST,PATCH)
  --ttl D             how long answers are kept (default 72h)
  --wait D            how long a duplicate waits for the one in flight (default 0: 409)
  --timeout D         how long the service may take for a guarded request (default 60s)
  --max-request N     bytes of a guarded request's body (default 1 MiB)
  --max-response N    bytes of an answer that is kept (default 512 KiB, at most 14 MiB)
  --admin ADDR        where /healthz and /metrics are; default: on --listen, where they
                      hide the service's own
  --grace D           how long requests in progress may take once it is told to stop
                      (default 30s)
  --quiet             no access log on standard error

That an effect happens exactly once needs the service's help: the key in a unique
constraint of its database, or honoured by itself. Without that, a request whose answer
was lost has happened once or not at all, and is in doubt: oncelog doubts lists it,
oncelog settle ends it. SIGTERM finishes the requests in progress.
`

// proxyOptions are what the command line says.
type proxyOptions struct {
	listen, admin, dir, caller string
	upstream                   *url.URL
	onDoubt                    receiver.DoubtPolicy
	required, raw, quiet       bool
	methods                    []string
	ttl, wait, timeout, grace  time.Duration
	maxRequest, maxResponse    int64
}

// A store's value is 15 MiB at most, and an answer's status and headers are a part of it.
const (
	mostResponse = 14 << 20
	aroundBody   = 256 << 10
)

func parseProxy(args []string) (o proxyOptions, err error) {
	flags := newFlags()
	flags.StringVar(&o.listen, "listen", "", "")
	flags.StringVar(&o.admin, "admin", "", "")
	flags.StringVar(&o.dir, "dir", "", "")
	flags.StringVar(&o.caller, "caller", "Authorization", "")
	upstream := flags.String("upstream", "", "")
	onDoubt := flags.String("on-doubt", "block", "")
	methods := flags.String("methods", "POST,PATCH", "")
	flags.BoolVar(&o.required, "required", false, "")
	flags.BoolVar(&o.raw, "raw", false, "")
	flags.BoolVar(&o.quiet, "quiet", false, "")
	flags.DurationVar(&o.ttl, "ttl", oncelog.DefaultTTL, "")
	flags.DurationVar(&o.wait, "wait", 0, "")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "")
	flags.DurationVar(&o.grace, "grace", 30*time.Second, "")
	flags.Int64Var(&o.maxRequest, "max-request", 1<<20, "")
	flags.Int64Var(&o.maxResponse, "max-response", 512<<10, "")
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return o, err
	case len(rest) > 0:
		return o, usagef("unexpected argument %q; proxy takes options only", rest[0])
	case o.listen == "" || *upstream == "" || o.dir == "":
		return o, usagef("--listen ADDR, --upstream URL and --dir DIR are needed")
	case o.caller == "":
		return o, usagef("--caller: name a request header, or any")
	case o.ttl <= 0 || o.timeout <= 0 || o.grace < 0 || o.wait < 0 || o.maxRequest <= 0 || o.maxResponse <= 0:
		return o, usagef("--ttl, --timeout, --max-request and --max-response must be positive, --wait and --grace not negative")
	}
	if o.maxResponse > mostResponse {
		return o, usagef("--max-response %d: the store keeps at most %d", o.maxResponse, mostResponse)
	}
	o.upstream, err = url.Parse(*upstream)
	if err != nil || o.upstream.Scheme != "http" && o.upstream.Scheme != "https" || o.upstream.Host == "" || o.upstream.RawQuery != "" {
		return o, usagef("--upstream %q: give a URL like http://127.0.0.1:3000", *upstream)
	}
	switch *onDoubt {
	case "block":
		o.onDoubt = receiver.Block
	case "retry":
		o.onDoubt = receiver.Retry
	default:
		return o, usagef("--on-doubt %q: block or retry", *onDoubt)
	}
	for m := range strings.SplitSeq(*methods, ",") {
		if m = strings.ToUpper(strings.TrimSpace(m)); m == "" {
			return o, usagef("--methods %q: methods with commas between them", *methods)
		}
		o.methods = append(o.methods, m)
	}
	return o, nil
}

func proxy(ctx context.Context, std streams, args []string) (err error) {
	o, err := parseProxy(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(std.err, nil))
	st, err := oncelog.Open(o.dir, &oncelog.Options{
		TTL: o.ttl, Logger: log, MaxValueSize: int(max(oncelog.DefaultMaxValueSize, o.maxResponse+aroundBody)),
	})
	if err != nil {
		return err
	}
	// Whatever else fails, the store is closed; a request that outlives its grace is cut by the process's end, which
	// leaves its key in doubt as a crash would.
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = errors.Join(err, st.Shutdown(closing))
	}()
	p := &proxyServer{o: o, st: st, log: log, tally: newTally()}
	if err := p.build(); err != nil {
		return err
	}
	return p.serve(ctx, std)
}

// proxyServer is a running proxy.
type proxyServer struct {
	o       proxyOptions
	st      *oncelog.Store
	log     *slog.Logger
	tally   *tally
	handler http.Handler // of --listen
	own     http.Handler // /healthz and /metrics
}

func (p *proxyServer) build() error {
	r, err := p.st.Receiver(&receiver.Options{Observe: p.tally.observe})
	if err != nil {
		return err
	}
	m, err := oncehttp.New(r.Scope("http"), &oncehttp.Options{
		Scope: p.caller, Required: p.o.required, AllowRaw: p.o.raw, Methods: p.o.methods, Wait: p.o.wait,
		MaxRequest: p.o.maxRequest, MaxResponse: p.o.maxResponse, Intent: true, OnDoubt: p.o.onDoubt, Logger: p.log,
	})
	if err != nil {
		return err
	}
	own := http.NewServeMux()
	own.HandleFunc("GET /healthz", p.health)
	own.HandleFunc("GET /metrics", p.metrics)
	p.own = own
	guarded := p.tally.wrap(p.inTime(m.Wrap(newForwarder(p.o, p.log))), p.accessLog())
	if p.o.admin != "" {
		p.handler = guarded
		return nil
	}
	// Not a mux: it would answer in the service's place for paths that it would clean.
	p.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && (r.URL.Path == "/healthz" || r.URL.Path == "/metrics") {
			own.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
	})
	return nil
}

// inTime gives the body of a guarded request as long to arrive as the service has to answer: it is held in memory. Others
// stream through, and may take their time.
func (p *proxyServer) inTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(p.o.methods, r.Method) && len(r.Header.Values("Idempotency-Key")) > 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(p.o.timeout)) // the next request has none again
		}
		next.ServeHTTP(w, r)
	})
}

// caller is whose keys a request's are among: what stands in a header, hashed, because a scope is a part of the keys on
// disk, and credentials don't belong there.
func (p *proxyServer) caller(r *http.Request) (string, error) {
	if p.o.caller == "any" {
		return oncehttp.AnyCaller(r)
	}
	return "caller " + receiver.KeyOf([]byte(strings.Join(r.Header.Values(p.o.caller), "\n"))), nil
}

const (
	headerTimeout = 10 * time.Second // for a client to say what it wants
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

func (p *proxyServer) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
}

// serve listens until ctx ends, and then until the requests in progress are answered.
func (p *proxyServer) serve(ctx context.Context, std streams) error {
	l, err := net.Listen("tcp", p.o.listen)
	if err != nil {
		return err
	}
	servers := []*http.Server{p.server(p.handler)}
	listeners := []net.Listener{l}
	if p.o.admin != "" {
		admin, err := net.Listen("tcp", p.o.admin)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		servers, listeners = append(servers, p.server(p.own)), append(listeners, admin)
	}
	if _, err := fmt.Fprintf(std.out, "listening on %s\n", l.Addr()); err != nil {
		return err
	}
	if p.o.admin != "" {
		if _, err := fmt.Fprintf(std.out, "admin on %s\n", listeners[1].Addr()); err != nil {
			return err
		}
	}
	failed := make(chan error, len(servers))
	for i, s := range servers {
		go func() { failed <- s.Serve(listeners[i]) }()
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		p.tally.stopping.Store(true)
	}
	grace, cancel := context.WithTimeout(context.Background(), p.o.grace)
	defer cancel()
	for _, s := range servers {
		if e := s.Shutdown(grace); e != nil {
			err = errors.Join(err, fmt.Errorf("requests in progress were cut after %v: %w", p.o.grace, e), s.Close())
		}
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// health is 200 while requests with a key can be taken.
func (p *proxyServer) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch err := p.st.Failed(); {
	case p.tally.stopping.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "stopping\n")
	case err != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "the store takes no more writes until it is opened again: %s\n", oneLine(err.Error()))
	default:
		_, _ = io.WriteString(w, "ok\n")
	}
}
