// Package oncehttp is the room for HTTP, both sides of it, after draft-ietf-httpapi-idempotency-key-header-07.
//
// A Middleware makes a request that is delivered twice have its effect once: the key in its Idempotency-Key header is a
// receiver's key, and the response is the result. A Transport gives the requests that a handler makes downstream keys
// of their own, so that the next service can do the same.
//
//	request ─▶ key ─▶ scope ─▶ Content-Length ─▶ body ─▶ fingerprint ─▶ receiver ── known ──▶ the recorded response
//	            400    403      413               413     400             │  └─ problem ──▶ 409 410 422 429 503
//	                                                                   handler
//	                                                                      │
//	                 status kept ── recorded, durable ──▶ the response ◀──┴── status not kept: the key is free
//
// Whatever is refused is refused in this order, before the handler runs, and as application/problem+json (problem.go).
// docs/HTTP.md says what each answer means; their types link to it.
//
//	key.go          the header: a structured-field string, and what is wrong with it
//	fingerprint.go  what makes two requests the same
//	response.go     the handler's ResponseWriter: it holds everything back until the record is durable
//	recorded.go     a response as bytes in a record
//	transport.go    the other side
//
// A response is the value of a record, in an encoding of its own, so a receiver that serves a middleware should be
// scoped for it: r.Scope("http").
package oncehttp
