// Package calls is a caller of the store who makes every kind of call, and a model that says what each call must answer
// and what must be found after it. It is the oracle of the rungs that break the system under the store: this one's own
// tests make one system call after the other fail, and fuzz/lying cuts the power of a disk that lies. It makes no
// compatibility promise.
//
//	op.go        what is called, chosen at random
//	service.go   the call on the real store
//	state.go     the same call on plain maps: each state that its commits lead through, and its answer
//	contents.go  all that a store answers, in words, to be compared with a state's
//	ledger.go    what was asked and answered, and so what must be found
//
// A caller has names of its own, so several can work at a time and each still knows exactly what must be there. An answer
// of any kind is a promise. A call without an answer, or with ErrFailed, has left one of the states that it leads
// through; one that was refused has left nothing.
//
// # The n-th call fails
//
// The tests run a short life of a store in a child that is traced: opening, every kind of call, segments that are
// sealed, snapshots, compaction, backup and restore, closing and opening again. One system call in it fails: each that
// the workload makes in its directory, the anonymous mappings of the index too, with each errno that fits, once, or
// from then on. After a failure on the way of a commit nothing more is acknowledged; an error reaches the caller, or the
// logger, or is one of those that harm nothing, of which the test has the list; nothing panics; and whoever opens the
// store afterwards, without failures, finds all that was acknowledged and nothing that is not explained.
//
//	go test ./fuzz/calls -v                           # some, chosen by a seed that is printed
//	go test ./fuzz/calls -v -calls.all -timeout 3h    # all of them
package calls
