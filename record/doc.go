// Package record is the room for one question: what is a record, and which bytes is it?
//
// A record is the smallest thing the store remembers: a result under its idempotency key, a piece of application
// state, a source's high-water mark, the tombstone of something deleted. All kinds share one shape,
//
//	head | at | [ttl] | key length | value length | [attributes length] | key | value | [attributes] | check
//
// so that one decoder reads them all and a kind that a later version adds costs no new layout. docs/FORMAT.md draws
// every byte; the encoder in encode.go repeats the drawing where the bytes are made.
//
// A record is self-contained: whoever knows where it begins, and the segment's Base, can read it alone. That is
// what a lookup does, one read at the location that the index holds, so the record carries its own time, its own
// expiry and its own 4-byte check, and a hit needs neither its frame nor its neighbours.
//
// Times are milliseconds. They are written as the distance from the Base of the segment the record lies in, which
// keeps a fresh record's time within five bytes for a year of uptime; the TTL is written only where it differs
// from the Base's.
//
// The package knows no files and imports nothing of ours. It makes no compatibility promise: the bytes are stable,
// the Go API is not.
package record
