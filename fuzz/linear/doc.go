// Package linear records what concurrent callers of a store and its receiver saw, and has porcupine look for an order
// of the calls, one at a time, that explains all of it. There is none if fn ran twice for a key, if somebody got a
// result that nobody had stored, if something was seen and was gone later, or if one half of a transaction was seen
// without the other.
//
//	parent (linear_test.go, history_test.go)            child (child_test.go, run_test.go)
//	  starts a child, reads "call" and "return" ◀──pipe── 8 clients, Compact and Snapshot beside them
//	  kills it in the middle, starts the next one         one line before each call, one after it
//
// The place of a line in the pipe is its time. A call without a return was in flight when its process was killed: it
// has happened or not, and which of the two is decided before the next process serves (model_test.go). Calls that
// promise less than to happen at one moment are taken apart, or are looked at only when nothing ran beside them
// (expand, in history_test.go).
//
// It is a module of its own, so that those who use oncelog never see its dependency.
package linear
