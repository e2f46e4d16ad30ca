// Package memory has a store work with less memory than its log is large. It exports nothing; all of it is tests, and
// they use only what users have.
//
// A store reads its records from the log, and what it has read or written stays in the kernel's page cache, which counts
// as the process's memory where a control group limits that. So a child is put into a group of its own, whose limit is a
// fraction of the log: the kernel takes the cache away again and again, and kills the child if what the store holds for
// itself does not fit. The child stores, asks for keys that it has and others, stores again, compacts, makes a snapshot,
// verifies, closes and opens, with the snapshot and without it; every answer is compared with what it must be.
//
// That the limit was reached, and nobody was killed, is asked of the kernel; otherwise the run has shown nothing. What
// remains in memory for each key is the index alone, and is bounded.
//
// Needs root, to make a group; the test says so and skips.
//
//	go test ./fuzz/memory -v                  # 64 MiB of log in 40 MiB
//	go test ./fuzz/memory -v -memory.large    # 512 MiB in 64 MiB
package memory
