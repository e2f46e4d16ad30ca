// Package bench measures what a commit costs against what it could cost at best. It makes no compatibility promise
// and exports nothing.
//
// The limit (package limit) is a group commit of frames of the same size into preallocated, zero-filled files on the
// same file system, and nothing else. A contender is anything that commits; its operation on behalf of one goroutine
// is a func() error (harness_test.go). All run in turn, slice by slice, in one run of one benchmark, because the disk
// of a shared machine changes its speed by the minute: a ratio is that of two slices of the same round, and what is
// reported is the median over the rounds.
//
// A round is one iteration (b.N), so -benchtime says how many:
//
//	go test ./bench -run '^$' -bench .                                               # one round: does it run
//	go test ./bench -run '^$' -bench Commit -benchtime 20x -slice 1s -timeout 30m    # figures to quote
//	go test ./bench -run '^$' -bench Lone -benchtime 20x
//
// Besides, each with p50, p99 and p99.9 of its calls, and bytes of log for each byte of keys and values (log/byte),
// where there are enough calls and where anything is written:
//
//   - Lookup (lookup_test.go): a key that is there, one that is not, and the bytes of memory that a key takes
//   - Do, Batch (do_test.go): the receiver beside the store's own call, and a consumer's batch
//   - Cold (cold_test.go): look-ups of what is not in memory, and how long others wait beside them
//   - Open (open_test.go): recovery after a kill, opening after a close
//   - Snapshot (house_test.go): its time, bytes a key, MB a second, at the default pace and without one
//   - Compact (house_test.go): MB a second moved and dropped, what the log takes for each live byte before and after
//     (log/live), and commits of 8 writers before it and beside it
//   - Steady (steady_test.go): what three TTLs of load write for each byte asked for, and the most that the log takes
//   - Beside (steady_test.go): commits and look-ups while compactions and snapshots never stop
//   - Collector (steady_test.go): a garbage collection with a full index
//
// Sizes are small, so that one iteration of everything takes half a minute: figures of the index at 10,000 keys are
// those of tables that are almost empty. -large takes a million keys and more.
//
// What does not depend on the machine's neighbours, allocations and bytes a key, is compared by tests (stable_test.go).
// Other stores are measured beside this one by a command in a module of its own: bench/peers.
//
// -slice is how long a slice takes at the limit. ONCELOG_BENCH_DIR says where the files go, by default to the
// system's directory for temporary files; it must not lie in memory. The long form writes up to 5 GB, and deletes
// them.
//
// The goals, contender over limit: 0.95, 0.92, 0.90 and 0.80 of its throughput at 1, 8, 64 and 256 writers, with
// at most 3 times its 99.9th percentile (docs/PERFORMANCE.md says what was reached); and a lone writer beside 8 busy goroutines takes at most twice what it
// takes in quiet, by the median. A run reports and judges nothing: times are not asserted.
package bench
