// Package crash recovers the states in which a machine that stops can leave a disk. It exports nothing; all of it is
// tests, Linux on amd64 only.
//
//	child: the store, a workload in which every kind of record is written, segments are sealed, snapshots made, ──▶ calls
//	       segments dropped, the store closed and opened again; traced, call by call
//	parent: a model of a disk (disk_test.go) that is told of the calls, and at each of them says which states a power
//	       cut may leave; of these some are made, and each is opened by the real store
//
// A lawful state has all that was synced before the cut. Of what was not, each sector of 512 bytes may be there or not,
// a file may be as long as any write would make it and hold zeros, and each change of a directory may be there or not,
// all since the last sync of that file or directory.
//
// The workload is one caller, who notes each answer among the calls. So what must be found is known exactly: the state
// after the last answer, or that after the call that was in flight (workload_test.go). Anything else is a lost record, a
// phantom, a record back from the dead, or a wrong answer; and Open must not fail. Of the calls themselves it is
// checked that no byte of the log is written twice with different content, once it is not zero.
//
//	go test ./fuzz/crash -v
//	go test ./fuzz/crash -v -crash.states=1000000 -timeout 10h
package crash
