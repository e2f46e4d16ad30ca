package oncehttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/oncelog/oncelog/receiver"
)

// TransportOptions are those of Transport. The zero value of each field is its default.
type TransportOptions struct {
	// Methods are those of the requests that are given a key; default POST and PATCH.
	Methods []string
	// Raw sends the key without its quotes, to services that do not read structured fields.
	Raw bool
	// MaxRequest is how long a body may be, in bytes, that has to be held in memory to be told from another: one
	// without GetBody, outside a step; default 1 MiB.
	MaxRequest int64
}

// Errors, for errors.Is. A request that fails with them was not sent.
var (
	// ErrNoStep: two requests of one delivery with the same method, host, path and query, and different bodies. Which is
	// which can't be told when the delivery runs again, so each needs a name: receiver.Step.
	ErrNoStep = errors.New("oncehttp: another body was sent there in this delivery: name each request with receiver.Step")
	// ErrBodyTooLarge: a body outside a step that is too large to be held in memory.
	ErrBodyTooLarge = errors.New("oncehttp: the body is too large to be compared: name the request with receiver.Step, or set its GetBody")
)

// Transport returns a RoundTripper that gives each request which is made inside a receiver's fn, or a guarded handler, an
// Idempotency-Key of its own, the same whenever the delivery runs again: receiver.Derive of the delivery and a step. So
// the service downstream recognises a request that it has had, after a retry, a lost connection, or a crash here.
//
// The step is what receiver.Step names. Without one it is method, host, path and query. That is right for one request, and
// so it is usable for one body in a delivery: the same body again is a retry, and has the same key; another is ErrNoStep.
// Bodies must then be the same when the delivery runs again: don't put the time into them.
//
// A request that has an Idempotency-Key is left alone, and so is one outside fn: use its context, or one made from it.
// base nil = http.DefaultTransport.
func Transport(base http.RoundTripper, opts *TransportOptions) http.RoundTripper {
	t := &transport{base: base}
	if opts != nil {
		t.opts = *opts
	}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	if t.opts.Methods = slices.Clone(t.opts.Methods); t.opts.Methods == nil {
		t.opts.Methods = []string{http.MethodPost, http.MethodPatch}
	}
	if t.opts.MaxRequest <= 0 {
		t.opts.MaxRequest = maxRequest
	}
	return t
}

type transport struct {
	base http.RoundTripper
	opts TransportOptions
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	_, inside := receiver.KeyFrom(req.Context())
	if !inside || !slices.Contains(t.opts.Methods, req.Method) || hasKey(req.Header) {
		return t.base.RoundTrip(req)
	}
	own := *req // a RoundTripper does not change its request
	step, ok := receiver.StepFrom(req.Context())
	if !ok {
		step = stepOf(req)
		if err := t.pin(&own, step); err != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, err
		}
	}
	key := receiver.Derive(req.Context(), step)
	if !t.opts.Raw {
		key = `"` + key + `"` // a UUID has nothing to escape
	}
	if own.Header = req.Header.Clone(); own.Header == nil {
		own.Header = make(http.Header)
	}
	own.Header.Set(keyHeader, key)
	return t.base.RoundTrip(&own)
}

// hasKey finds a key also under a name that was not written as net/http does: on the wire they are the same, and two
// would be malformed.
func hasKey(h http.Header) bool {
	if len(h[keyHeader]) > 0 {
		return true
	}
	for name, values := range h {
		if len(values) > 0 && strings.EqualFold(name, keyHeader) {
			return true
		}
	}
	return false
}

// stepOf is the step of a request that nobody has named. Keys are made from it, so it is pinned by a test. None of its
// parts has a space in it.
func stepOf(req *http.Request) string {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	return "http " + req.Method + " " + strings.ToLower(host) + " " + req.URL.EscapedPath() + " " + req.URL.RawQuery
}

// pin ties a step to the request's body, which it sees to be there again to be sent.
func (t *transport) pin(req *http.Request, step string) error {
	h := sha256.New()
	switch {
	case req.Body == nil || req.Body == http.NoBody:
	case req.GetBody != nil:
		body, err := req.GetBody()
		if err != nil {
			return fmt.Errorf("oncehttp: the body can't be read again: %w", err)
		}
		_, err = io.Copy(h, body)
		if err = errors.Join(err, body.Close()); err != nil {
			return fmt.Errorf("oncehttp: the body could not be read: %w", err)
		}
	default:
		// Nobody else looks at the context before the body is here, and a body that stalls ends by being closed.
		stop := context.AfterFunc(req.Context(), func() { _ = req.Body.Close() })
		b, err := io.ReadAll(io.LimitReader(req.Body, t.opts.MaxRequest+1))
		if !stop() {
			return fmt.Errorf("oncehttp: the body was given up: %w", req.Context().Err())
		}
		if err != nil {
			return fmt.Errorf("oncehttp: the body could not be read: %w", err)
		}
		if int64(len(b)) > t.opts.MaxRequest {
			return fmt.Errorf("%w (more than %d bytes)", ErrBodyTooLarge, t.opts.MaxRequest)
		}
		h.Write(b)
		req.Body = &held{Reader: bytes.NewReader(b), Closer: req.Body}
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	}
	if !receiver.Pin(req.Context(), step, [sha256.Size]byte(h.Sum(nil))) {
		return fmt.Errorf("%w (%s %s%s)", ErrNoStep, req.Method, req.URL.Host, req.URL.EscapedPath())
	}
	return nil
}

// held is a body in memory, and the one it was read from, to be closed.
type held struct {
	io.Reader
	io.Closer
}
