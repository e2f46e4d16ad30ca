// Package httpsfv reads Idempotency-Key headers with the middleware and with github.com/dunglas/httpsfv, another
// implementation of structured fields, and compares what they make of them.
package httpsfv
