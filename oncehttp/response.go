package oncehttp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oncelog/oncelog/receiver"
)

// response is the ResponseWriter of a guarded handler. It holds the response back until it is recorded:
//
//	holding ── the handler's end ──▶ recorded by the receiver ──▶ sent
//	   └────── Flush, or too large ─▶ recorded as gone, if its status is kept ──▶ streaming
//
// It has no Unwrap: bytes that go around it would leave before the record.
type response struct {
	m    *Middleware
	w    http.ResponseWriter
	ctx  context.Context // the handler's
	base http.Header     // what stood there before the handler; not changed
	head bool            // the request was HEAD: a Content-Length is not that of what is written

	mu       sync.Mutex
	header   http.Header // the handler's to change
	sent     http.Header // as it was when the handler wrote its status
	status   int         // 0 = not written
	declared int64       // Content-Length, -1 = none
	length   int64       // of what the handler wrote
	body     []byte
	keep     bool  // Keep was called
	doubt    error // InDoubt was called
	stage    stage
	recorded bool  // as result gone, by the handler's Flush or length
	lost     error // why the response can't be sent: that it is done could not be recorded
	panicked any   // by the handler after InDoubt, to go on up when the doubt is recorded
}

type stage int

const (
	holding stage = iota
	streaming
	over // the handler has returned, or panicked
)

func newResponse(w http.ResponseWriter, m *Middleware, method string) *response {
	h := w.Header()
	return &response{m: m, w: w, base: h.Clone(), head: method == http.MethodHead, header: h.Clone(), declared: -1}
}

type responseKey struct{}

// responseFrom returns the response of the guarded request that ctx belongs to, or nil.
func responseFrom(ctx context.Context) *response {
	p, _ := ctx.Value(responseKey{}).(*response)
	return p
}

// Keep says, in a handler, that the effect has happened: the response is kept whatever its status, and in the store's
// eyes the work is done even if the handler panics after this (unless its transaction is undone by that). Call it before
// anything is flushed. Outside a guarded request there is nothing to keep, and it does nothing.
func Keep(ctx context.Context) {
	if p := responseFrom(ctx); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.keep = true
	}
}

// InDoubt says, in a handler, that the effect may have happened or not: sent downstream, and no answer. The key goes in
// doubt, with Options.Intent or without, and the client is told 409 in place of what the handler writes, unless that has
// begun to leave: then the connection is cut. It changes nothing about a response that was recorded already, and does
// nothing outside a guarded request. err says why, for the log.
func InDoubt(ctx context.Context, err error) {
	if p := responseFrom(ctx); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.doubt = err; err == nil {
			p.doubt = errors.New("oncehttp: the handler says so")
		}
	}
}

// handle runs the handler, and returns what the receiver is to record.
func (p *response) handle(ctx context.Context, next http.Handler, r *http.Request, body []byte) (value []byte, err error) {
	p.ctx = context.WithValue(context.WithoutCancel(ctx), responseKey{}, p)
	returned := false
	defer func() {
		if returned {
			return
		}
		// A panic frees the key unless there is an intent, and what is in doubt must not be done again. So this one takes
		// a turn: it is an error to the receiver, and panics again behind it.
		if doubt := p.abandon(); doubt != nil {
			p.panicked = recover()
			err = receiver.Unknown(doubt)
		}
	}()
	next.ServeHTTP(p, again(r, p.ctx, body))
	returned = true
	return p.end()
}

// abandon is the end of a handler that panics, or exits. It returns the doubt that it had.
func (p *response) abandon() (doubt error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keep && p.doubt == nil && !p.m.opts.Tx {
		_ = receiver.Gone(p.ctx) // it has happened, and must not again
	}
	p.stage = over
	return p.doubt
}

// end is the end of a handler that returns.
func (p *response) end() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status == 0 {
		p.writeHeader(http.StatusOK)
	}
	streamed := p.stage == streaming
	if !streamed {
		p.stage = over
	}
	switch {
	case p.lost != nil:
		return nil, p.lost // the receiver's own, which knows it
	case p.recorded:
		return nil, nil
	case p.doubt != nil:
		return nil, receiver.Unknown(p.doubt)
	case !p.kept():
		return nil, receiver.NotDone(errNotKept)
	case streamed || p.short() || p.trailers():
		return nil, receiver.Gone(p.ctx)
	}
	rec := recorded{status: p.status, header: changed(p.base, p.sent), body: p.body}
	return rec.encode(), nil
}

// kept reports whether the response is the result.
func (p *response) kept() bool {
	if p.keep {
		return true
	}
	switch s := p.status; {
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusRequestTimeout, s == http.StatusTooEarly,
		s == http.StatusTooManyRequests:
	case s >= 400 && s <= 499 && len(p.sent["Retry-After"]) > 0:
		// It says itself that it will be another answer then. A service behind the handler that guards itself, and is
		// still at work, answers 409 so: kept, that would be all that the client is ever told.
	case s >= 200 && s <= 499:
		return true
	}
	return p.m.opts.Keep != nil && p.m.opts.Keep(p.status, p.sent)
}

// short reports whether there is less of a body than the handler has declared: net/http will cut the connection, and a
// replay that looks whole would be another answer.
func (p *response) short() bool {
	return p.length < p.declared && bodyAllowed(p.status) && !p.head
}

// trailers reports whether the handler sends any, which are not recorded.
func (p *response) trailers() bool {
	if len(p.sent["Trailer"]) > 0 {
		return true
	}
	for name := range p.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// streams reports whether anything of the response has left.
func (p *response) streams() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stage == streaming
}

// send sends what has not left yet, when the receiver is done.
func (p *response) send() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage != streaming {
		p.sendHeld()
	}
	p.stage = over
	h := p.w.Header()
	for name, values := range p.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			h[name] = values
		}
	}
	for _, line := range p.sent["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values, ok := p.header[name]; ok {
				h[name] = values
			}
		}
	}
}

// sendHeld sends status, header, and the body as far as it was held back.
func (p *response) sendHeld() {
	replace(p.w.Header(), p.sent)
	p.w.WriteHeader(p.status)
	if len(p.body) > 0 {
		_, _ = p.w.Write(p.body) // the client is gone, or not
	}
	p.body = nil
}

func replace(h, by http.Header) {
	clear(h)
	maps.Copy(h, by)
}

// stream lets the response leave from here on. What can't be repeated is recorded first.
func (p *response) stream() error {
	if p.stage != holding || p.doubt != nil {
		return p.lost
	}
	if p.kept() {
		if p.lost = receiver.Gone(p.ctx); p.lost != nil {
			p.body = nil
			return p.lost
		}
		p.recorded = true
	}
	p.stage = streaming
	p.sendHeld()
	return nil
}

// Header implements http.ResponseWriter.
func (p *response) Header() http.Header { return p.header }

// WriteHeader implements http.ResponseWriter. 1xx leave at once: they say nothing about the result.
func (p *response) WriteHeader(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols {
		if p.status != 0 || p.stage != holding || p.doubt != nil {
			return
		}
		before := p.w.Header().Clone()
		replace(p.w.Header(), p.header)
		p.w.WriteHeader(status)
		replace(p.w.Header(), before)
		return
	}
	p.writeHeader(status)
}

func (p *response) writeHeader(status int) {
	if p.status != 0 || p.stage == over {
		return // the first counts, as in net/http
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("oncehttp: invalid status %d", status)) // here, and not when it is recorded
	}
	p.status, p.sent = status, p.header.Clone()
	if v := p.sent.Get("Content-Length"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			p.sent.Del("Content-Length")
			return
		}
		p.declared = n
	}
}

var errOver = errors.New("oncehttp: a write after the handler had returned")

// Write implements http.ResponseWriter.
func (p *response) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage == over {
		return 0, errOver
	}
	if p.status == 0 {
		p.writeHeader(http.StatusOK)
	}
	switch {
	case p.lost != nil:
		return 0, p.lost
	case len(b) == 0:
		return 0, nil
	case !bodyAllowed(p.status):
		return 0, http.ErrBodyNotAllowed
	case p.declared >= 0 && p.length+int64(len(b)) > p.declared:
		return 0, http.ErrContentLength
	}
	p.length += int64(len(b))
	switch {
	case p.stage == streaming:
		return p.w.Write(b)
	case p.doubt != nil:
		return len(b), nil // it will not be sent
	case p.length > p.m.opts.MaxResponse:
		if err := p.stream(); err != nil {
			return 0, err
		}
		return p.w.Write(b)
	}
	if p.body == nil && p.declared > int64(len(b)) {
		p.body = make([]byte, 0, min(p.declared, p.m.opts.MaxResponse))
	}
	p.body = append(p.body, b...)
	return len(b), nil
}

// Flush implements http.Flusher.
func (p *response) Flush() { _ = p.FlushError() }

// FlushError is for http.ResponseController.
func (p *response) FlushError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage == over {
		return errOver
	}
	if p.status == 0 {
		p.writeHeader(http.StatusOK)
	}
	if err := p.stream(); err != nil || p.stage != streaming {
		return err
	}
	return http.NewResponseController(p.w).Flush()
}

// SetReadDeadline is for http.ResponseController.
func (p *response) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(p.w).SetReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController.
func (p *response) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(p.w).SetWriteDeadline(t)
}

// bodyAllowed is net/http's rule.
func bodyAllowed(status int) bool {
	return status >= 200 && !slices.Contains([]int{http.StatusNoContent, http.StatusNotModified}, status)
}
