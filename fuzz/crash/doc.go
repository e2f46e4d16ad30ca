// Package crash recovers the states in which a machine that stops can leave a disk. It exports nothing; all of it is
// tests, Linux on amd64 only.
//
//	child: the store and a workload, traced: each system call when it begins and when it ends (calls_test.go) ──▶ calls
//	parent: a model of a disk (disk_test.go) that is told of the calls, and at each of them says which states a power
//	       cut may leave (image_test.go); of these some are made in memory, and each is opened by the real store
//
// # Workloads
//
// solo (workload_test.go) is one caller: every kind of record is written, which is checked; segments are sealed,
// copied and dropped, snapshots made, backups restored into new directories; the store is closed and opened again. It
// notes each answer among the calls. So what must be found is known exactly: the state after the last answer, or that
// after the call that was in flight. Where a backup was being restored there must be all of it, or no store.
//
// crowd (crowd_test.go) is six callers at once, each with keys of its own, so that the same is known of each caller.
// Transactions form a chain over all of them, of which a beginning without holes must be found, and its links with what
// their transactions did: the order of commits.
//
// Both run with syncs, when nothing that was answered may be lost, and without, when it may be from the end, but nothing
// that was there at the last sync. Anything else is a lost record, a phantom, a record back from the dead, or a wrong
// answer; and Open must not fail.
//
// # Lawful states
//
// A state has all that was synced before the cut: what had been written when a sync began that has ended. Of what was
// not, each sector of 512 bytes may be there or not, a file may be as long as any write would make it and hold zeros, or
// as short as it was, and each change of a directory may be there or not, a rename as a whole: all of it, none, a
// beginning, any of it, or one of these for each file and directory. Calls that had begun and not ended count as made, so
// that a cut may keep them, but no sync covers them. No state is recovered twice for the same answers; those that are
// counted differ.
//
// # Cuts during recovery
//
// The recovery of such a state, or of what a killed process left in the kernel's cache, is traced and cut as well, and
// so is the recovery of what that leaves (recovery_test.go). What a recovery has said stays.
//
// # The calls' order
//
// Dice find what a broken rule costs only if they fall so. The lint (lint_test.go) reads the calls themselves, with a
// reader of segments of its own, and says whether they keep the store's rules, each of which lint_rules_test.go and
// lint_recovery_test.go break in a recorded run, to see it object. What it lets pass: when tidwall/wal gives up a file
// whose sync has failed, it syncs it once more; nothing rests on that.
//
// # Repeating
//
// Seeds are printed. A state that is not recovered is kept as it was with the calls that it was made of, if the tests
// run with -artifacts. The threads of a child go their own ways, so a seed alone makes other states; the seed and the
// calls, in a file beside the state, make the same; the failure says with which flags.
//
//	go test ./fuzz/crash -v
//	go test ./fuzz/crash -v -artifacts -outputdir /tmp -crash.states=1000000 -crash.recoveries=50000 -timeout 24h
//	go test ./fuzz/crash -v -run EveryLawful -crash.states=N -crash.seed=N -crash.calls=FILE
package crash
