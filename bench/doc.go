// Package bench measures what a commit costs against what it could cost at best. It makes no compatibility promise
// and exports nothing.
//
// The limit (package limit) is a group commit of frames of the same size into preallocated, zero-filled files on the
// same file system, and nothing else. A contender is anything that commits; its
// operation on behalf of one goroutine is a func() error (harness_test.go). Both run in turn, slice by slice, in one
// run of one benchmark, because the disk of a shared machine changes its speed by the minute: a ratio is that of
// two slices of the same round, and what is reported is the median over the rounds.
//
// A round is one iteration (b.N), so -benchtime says how many:
//
//	go test ./bench -run '^$' -bench .                                               # one round: does it run
//	go test ./bench -run '^$' -bench Commit -benchtime 20x -slice 1s -timeout 30m    # figures to quote
//	go test ./bench -run '^$' -bench Lone -benchtime 20x
//
// Besides: Do and Batch (do_test.go), Open after a kill and a close (open_test.go), and what three TTLs of steady load
// write, what housekeeping costs its neighbours, and the collector (steady_test.go). -large is for 10 million keys.
//
// What does not depend on the machine's neighbours, allocations and bytes a key, is compared by tests (stable_test.go).
// Other stores are measured beside this one by a command in a module of its own: bench/peers.
//
// -slice is how long a slice takes at the limit. ONCELOG_BENCH_DIR says where the files go, by default to the
// system's directory for temporary files; it must not lie in memory. The long form writes up to 5 GB, and deletes
// them.
//
// The goals, contender over limit: 0.95, 0.90, 0.85 and 0.75 of its throughput at 1, 8, 64 and 256 writers, with
// at most 3 times its 99.9th percentile; and a lone writer beside 8 busy goroutines takes at most twice what it
// takes in quiet, by the median. A run reports and judges nothing: times are not asserted.
package bench
