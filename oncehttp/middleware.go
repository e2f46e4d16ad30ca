package oncehttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// Options of New. The zero value of each field but Scope is its default.
type Options struct {
	// Scope says who is asking; required. Keys of one caller never meet another's, so no one is given a response that
	// is not his: take it from what the request has proven (a session, a token, a client certificate), not from what it
	// says. An empty name is an error, and so is an error, which is not shown to the client: its StatusCode() int is
	// the answer, else 403.
	Scope func(*http.Request) (string, error)
	// Required refuses a guarded request without a key. Otherwise such a request is not guarded.
	Required bool
	// AllowRaw takes a key without its quotes too, as many deployed clients send it. The key is the same as with them.
	AllowRaw bool
	// Methods are those that are guarded; default POST and PATCH. Requests with others pass as they are.
	Methods []string
	// Wait is how long a duplicate waits for the request in flight before it is told 409; default 0. It occupies a
	// goroutine and its body meanwhile.
	Wait time.Duration
	// MaxRequest and MaxResponse are the largest bodies in bytes; defaults 1 MiB and 512 KiB. A larger request is
	// refused. A larger response is sent and not kept: its duplicates are told 410.
	MaxRequest, MaxResponse int64
	// Tx runs the handler inside DoTx: it finds the transaction by receiver.TxFrom(r.Context()), and the response, the
	// store's state and outgoing messages are one commit. A response that is not kept rolls them back. One that is
	// flushed, or too large to be kept, commits them as its first byte leaves; then the transaction is over.
	Tx bool
	// Keep keeps more responses than those that are kept anyway (2xx, 3xx, and 4xx without a Retry-After, other than
	// 401, 403, 408, 425 and 429): those for which it returns true. It must not change h.
	Keep func(status int, h http.Header) bool
	// Fingerprint returns what is equal for duplicates of a request, and different for others: the same key with
	// another is 422. Default: all of method, path, query, Content-Type, Content-Encoding and body; CanonicalJSON is
	// another. An error's StatusCode() int is the answer, else 400.
	Fingerprint func(r *http.Request, body []byte) ([]byte, error)
	// TTL is how long responses are kept; 0 = as the store does.
	TTL time.Duration
	// Intent records durably, before the handler runs, that it is about to. When the process dies inside it, or it
	// panics, or says so with InDoubt, the key is in doubt instead of free. It costs a sync a request.
	Intent bool
	// OnDoubt is what to do about a key in doubt: answer 409 (receiver.Block, the default), run the handler again, or
	// ask the receiver's Options.Resolve.
	OnDoubt receiver.DoubtPolicy
	// Logger is told why a request was answered with 500 or 503, or left in doubt; nil = silent. Keys and bodies are never logged.
	Logger *slog.Logger
}

// Defaults of Options.
const (
	maxRequest  = 1 << 20
	maxResponse = 512 << 10
)

// Middleware guards handlers. It is safe for use by any number of goroutines.
type Middleware struct {
	r    *receiver.Receiver
	opts Options
}

// New returns a middleware over a receiver. It is an error to leave out who is asking; AnyCaller is the explicit choice
// not to tell callers apart.
func New(r *receiver.Receiver, opts *Options) (*Middleware, error) {
	if r == nil {
		return nil, errors.New("oncehttp: New without a receiver")
	}
	m := &Middleware{r: r}
	if opts != nil {
		m.opts = *opts
	}
	o := &m.opts
	switch {
	case o.Scope == nil:
		return nil, errors.New("oncehttp: Options.Scope is nil: say who is asking, or choose AnyCaller")
	case o.Wait < 0 || o.TTL < 0 || o.MaxRequest < 0 || o.MaxResponse < 0:
		return nil, fmt.Errorf("oncehttp: a negative option: Wait %v, TTL %v, MaxRequest %d, MaxResponse %d",
			o.Wait, o.TTL, o.MaxRequest, o.MaxResponse)
	case o.OnDoubt < receiver.Block || o.OnDoubt > receiver.Resolve:
		return nil, fmt.Errorf("oncehttp: Options.OnDoubt is %d; it is Block, Retry or Resolve", o.OnDoubt)
	}
	if o.Methods = slices.Clone(o.Methods); o.Methods == nil {
		o.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	if o.MaxRequest == 0 {
		o.MaxRequest = maxRequest
	}
	if o.MaxResponse == 0 {
		o.MaxResponse = maxResponse
	}
	if o.Fingerprint == nil {
		o.Fingerprint = fingerprint
	}
	return m, nil
}

// AnyCaller is for Options.Scope: all callers share their keys, so whoever knows or guesses a key, and sends the same
// request, is given the response to it. Right where there is one caller, or where keys are secrets and requests too.
func AnyCaller(*http.Request) (string, error) { return "any", nil }

// Wrap guards a handler. Requests without a key, if none is required, and those with methods that are not guarded
// reach next as they are. For others:
//
// The handler's context has no end and no deadline, and carries the receiver's call (receiver.KeyFrom, Derive, Step): it
// goes on when its client has gone, and its response is kept for the client's return. It finds the body again,
// complete. What it writes leaves when it is recorded, at the handler's end. At the first Flush, or past MaxResponse, a
// status that is kept is recorded as result gone, and from then on the response streams; so do responses with trailers,
// and those shorter than their Content-Length. A status that is not kept frees the key.
//
// Its ResponseWriter flushes, passes 1xx, and has the deadlines of http.ResponseController. It can't be hijacked, has no
// full duplex, and does not unwrap. When the handler panics, nothing is kept and the panic goes on up.
//
// Put it inside what authenticates, and outside of what reads the body.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, next) })
}

func (m *Middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !slices.Contains(m.opts.Methods, r.Method) {
		next.ServeHTTP(w, r)
		return
	}
	key, bad := keyOf(r.Header, m.opts.AllowRaw)
	if bad == nil && key == "" {
		if !m.opts.Required {
			next.ServeHTTP(w, r)
			return
		}
		bad = missingKey
	}
	if bad != nil {
		m.answer(w, r, bad)
		return
	}
	scope, bad := m.scope(r)
	if bad != nil {
		m.answer(w, r, bad)
		return
	}
	body, bad := m.read(w, r)
	if bad != nil {
		m.answer(w, r, bad)
		return
	}
	print, err := m.opts.Fingerprint(r, body)
	if err != nil {
		m.answer(w, r, &problem{
			kind: "unreadable-request", status: statusOf(err, http.StatusBadRequest), title: "The request can't be compared with others",
			detail: "Nothing was done.",
		})
		return
	}
	m.do(w, r, next, scope, nameOf(r, key), body, print)
}

// scope says whose keys the request's are among.
func (m *Middleware) scope(r *http.Request) (*receiver.Receiver, *problem) {
	name, err := m.opts.Scope(r)
	if err == nil && name == "" {
		err = errors.New("oncehttp: Options.Scope named nobody")
	}
	if err != nil {
		return nil, &problem{
			kind: "unknown-caller", status: statusOf(err, http.StatusForbidden), title: "Who is asking can't be told",
			detail: "Keys belong to their caller, and this request does not say well enough who that is. Nothing was done.",
		}
	}
	if len(name) > maxName {
		return m.r.Scope("sha256").Scope(digest(name)), nil
	}
	return m.r.Scope(name), nil
}

// maxName is how long a name or a path may be before its hash stands for it, so that scope, path and key are within what
// a store takes for a key, 1 KiB by default.
const maxName = 255

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// nameOf is the receiver's key for a request: the same key for another method or path is another key. Neither has a
// space in it, and no path a question mark.
func nameOf(r *http.Request, key string) string {
	path := r.URL.EscapedPath()
	if len(r.Method)+len(path) > maxName {
		path = "?" + digest(path)
	}
	return r.Method + " " + path + " " + key
}

// read reads the body. Until it is there nothing is claimed, so that a slow client holds up nobody but itself.
func (m *Middleware) read(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	if r.ContentLength > m.opts.MaxRequest {
		return nil, tooLarge
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	const atOnce = 64 << 10 // a claim of more is no reason to set it aside
	var b bytes.Buffer
	b.Grow(bytes.MinRead + int(min(max(r.ContentLength, 0), atOnce)))
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, m.opts.MaxRequest))
	var larger *http.MaxBytesError
	switch {
	case err == nil:
		return b.Bytes(), nil
	case errors.As(err, &larger):
		return nil, tooLarge
	}
	p := &problem{
		kind: "unreadable-request", status: http.StatusBadRequest, title: "The request did not arrive whole",
		detail: "Its body ended early, or could not be read. Nothing was done.",
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.status = http.StatusRequestTimeout
	}
	return nil, p
}

// errNotKept is what the receiver is told of a response that is not kept: the key is free, under an intent too.
var errNotKept = errors.New("oncehttp: the response is not kept")

func (m *Middleware) do(w http.ResponseWriter, r *http.Request, next http.Handler, scope *receiver.Receiver, name string, body, print []byte) {
	opts := []receiver.CallOption{
		receiver.WithPayload(print), receiver.WithWait(m.opts.Wait), receiver.WithTTL(m.opts.TTL), receiver.OnDoubt(m.opts.OnDoubt),
	}
	if m.opts.Intent {
		opts = append(opts, receiver.WithIntent(nil))
	}
	var own *response // nil = the handler did not run
	fn := func(ctx context.Context) ([]byte, error) {
		own = newResponse(w, m, r.Method)
		return own.handle(ctx, next, r, body)
	}
	var out receiver.Outcome
	var err error
	if m.opts.Tx {
		out, err = scope.DoTx(r.Context(), name, func(ctx context.Context, _ receiver.Tx) ([]byte, error) { return fn(ctx) }, opts...)
	} else {
		out, err = scope.Do(r.Context(), name, fn, opts...)
	}
	switch {
	case own != nil && own.panicked != nil:
		m.tell(r, inDoubt.title, err)
		panic(own.panicked)
	case own != nil && (err == nil || errors.Is(err, errNotKept)):
		own.send()
	case own != nil && own.streams():
		// Half an answer must not look like a whole one.
		m.tell(r, "a response that had begun to leave was cut", err)
		panic(http.ErrAbortHandler)
	case err != nil:
		m.answer(w, r, refusal(err, own != nil))
	default:
		m.replay(w, r, out)
	}
}

// The header fields of a replay.
const (
	replayedHeader = "Idempotent-Replayed"
	expiresHeader  = "Idempotency-Expires"
)

// replay sends a recorded response.
func (m *Middleware) replay(w http.ResponseWriter, r *http.Request, out receiver.Outcome) {
	if len(out.Value) == 0 {
		m.answer(w, r, resultGone)
		return
	}
	rec, err := decode(out.Value)
	if err != nil {
		m.answer(w, r, &problem{
			kind: "unreadable-response", status: http.StatusInternalServerError, title: "The recorded response can't be read",
			detail: "The request was handled and will not be again.", cause: err,
		})
		return
	}
	h := w.Header()
	for name, values := range rec.header {
		h[name] = values // without a value it is not sent
	}
	h[replayedHeader] = []string{"true"}
	if !out.Until.IsZero() {
		h[expiresHeader] = []string{out.Until.UTC().Format(http.TimeFormat)} // rounded down
	}
	w.WriteHeader(rec.status)
	if len(rec.body) > 0 {
		_, _ = w.Write(rec.body) // the client is gone, or not
	}
}

// again is the request for the handler: the body once more, complete, and of known length.
func again(r *http.Request, ctx context.Context, body []byte) *http.Request {
	r = r.WithContext(ctx)
	r.Body = http.NoBody
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	r.ContentLength, r.TransferEncoding = int64(len(body)), nil
	return r
}
