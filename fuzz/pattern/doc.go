// Package pattern kills a service in the middle of its messages and asks afterwards whether each had its effect once.
// It exports nothing; all of it is tests, and they use only what users have.
//
//	parent: sender, downstream service, topics            child: the service, with the store
//
//	start ───────────────────────────────────────────────▶ opens; says what is in doubt
//	tells what it knows of it ───────────────────────────▶ settles it
//	counts, by key           ◀── "effect", from inside fn ── DoTx, DoSeq, DoSeqTx, DoAll, intents, on 6 goroutines,
//	notes                    ◀── "message", from the relay     every message again and again, in any order
//	notes                    ◀── "answered"
//	SIGKILL, often right behind an effect ───────────────▶ ✝
//	start ...
//
// What the child says is in the pipe when it dies. At the end a child handles what is left, and the parent compares:
//
//   - state that a transaction changed counts each of its messages once
//   - an effect downstream has the same key each time, so a service that knows its keys has it once
//   - an effect under an intent happened once at most, without any key: where the kill fell behind it, the next child
//     found the message in doubt
//   - the messages of transactions were handed on, each at least once, with one key, none missing, in the order of their
//     topic
//
// A run in which fewer than a tenth of the kills fell between an effect and its record has shown nothing, and fails.
package pattern
