package oncehttp

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/oncelog/oncelog/receiver"
)

// docs is the page that says what each problem means and what to do about it; a problem's type is a heading there.
const docs = "https://github.com/oncelog/oncelog/blob/main/docs/HTTP.md"

// problem is an answer of the middleware's own, application/problem+json (RFC 9457).
type problem struct {
	kind   string // the heading
	status int
	title  string
	detail string
	retry  int   // seconds, for Retry-After; 0 = none
	cause  error // for the log, nil = nothing to tell
}

func malformed(detail string) *problem {
	return &problem{kind: "malformed-key", status: http.StatusBadRequest, title: keyHeader + " is malformed", detail: detail}
}

var (
	missingKey = &problem{
		kind: "missing-key", status: http.StatusBadRequest, title: keyHeader + " is missing",
		detail: `This request changes something, so it has to say which one it is: send a header like ` + keyHeader +
			`: "8e03978e-40d5-43dd-bc93-6894a57f9324", the same one with each retry.`,
	}
	tooLarge = &problem{
		kind: "request-too-large", status: http.StatusRequestEntityTooLarge, title: "The request is too large",
		detail: "Its body is longer than what is accepted with an " + keyHeader + ".",
	}
	keyReused = &problem{
		kind: "key-reused", status: http.StatusUnprocessableEntity, title: keyHeader + " is already used",
		detail: "The key was sent before, with another request. A new request needs a new key; a retry has to be equal to what it repeats.",
	}
	inFlight = &problem{
		kind: "in-flight", status: http.StatusConflict, title: "A request is outstanding for this " + keyHeader,
		detail: "The first request with this key is still being handled. Ask again with the same key.", retry: 1,
	}
	inDoubt = &problem{
		kind: "in-doubt", status: http.StatusConflict, title: "It is not known whether the request had its effect",
		detail: "It was begun, and how it ended is not known, so it is not repeated. Somebody has to find out and settle it. Don't send it with another key.",
	}
	resultGone = &problem{
		kind: "result-gone", status: http.StatusGone, title: "The request was handled, its response is not kept",
		detail: "The request had its effect and will not have it again. The response was too large to be kept, or was sent as a stream.",
	}
	failedForGood = &problem{
		kind: "failed", status: http.StatusGone, title: "The request has failed for good",
		detail: "It was in doubt whether the request had its effect, and it was settled: it had not, and will not. No response was kept.",
	}
	quota = &problem{
		kind: "quota", status: http.StatusTooManyRequests, title: "Too many keys",
		detail: "The caller's keys take up all the room there is for them. The request was not handled. Room comes back as keys expire.",
	}
)

// refusal is the answer for an error of the receiver's. ran says that this request's handler has run.
func refusal(err error, ran bool) *problem {
	var failed *receiver.StoredError
	switch {
	// A doubt that could not be recorded is not one that waits to be settled.
	case errors.Is(err, receiver.ErrUnrecorded), errors.Is(err, receiver.ErrLeaseLost):
		return &problem{
			kind: "unrecorded", status: http.StatusInternalServerError, title: "The request was handled, but that could not be recorded",
			detail: "It had its effect, its response is lost, and whether a repetition would be recognised is not certain.", cause: err,
		}
	case errors.Is(err, receiver.ErrInDoubt):
		p := *inDoubt
		if ran {
			p.cause = err // said once, and not for each duplicate
		}
		return &p
	case errors.Is(err, receiver.ErrKeyReused):
		return keyReused
	case errors.Is(err, receiver.ErrInFlight):
		return inFlight
	case errors.Is(err, receiver.ErrResultGone):
		return resultGone
	case errors.Is(err, receiver.ErrQuota):
		return quota
	case errors.As(err, &failed):
		return failedForGood
	}
	p := &problem{
		kind: "refused", status: http.StatusServiceUnavailable, title: "The request was not handled",
		detail: "Whether it is a duplicate could not be told, so nothing was done. Ask again with the same key.", retry: 1, cause: err,
	}
	if ran {
		p.kind, p.title = "undone", "The request was undone"
		p.detail = "What it did could not be committed, so nothing was done. Ask again with the same key."
	}
	return p
}

// statusOf is the status that an error of the user's asks for, or else another.
func statusOf(err error, otherwise int) int {
	var with interface{ StatusCode() int }
	if errors.As(err, &with) {
		if status := with.StatusCode(); status >= 400 && status <= 599 {
			return status
		}
	}
	return otherwise
}

// tell logs why a request was not answered as its handler would have it.
func (m *Middleware) tell(r *http.Request, what string, why error) {
	if m.opts.Logger != nil {
		m.opts.Logger.LogAttrs(r.Context(), slog.LevelError, "oncehttp: "+what, slog.String("method", r.Method), slog.Any("error", why))
	}
}

// answer sends the problem.
func (m *Middleware) answer(w http.ResponseWriter, r *http.Request, p *problem) {
	if p.cause != nil {
		m.tell(r, p.title, p.cause)
	}
	body, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{docs + "#" + p.kind, p.title, p.status, p.detail})
	if err != nil {
		panic(err) // strings and a number
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Link", "<"+docs+`>; rel="describedby"; type="text/html"`)
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retry))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body) // the client is gone, or not
}
