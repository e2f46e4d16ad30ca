// Package lying runs the store on a disk that does no more than it must. It exports nothing; all of it is tests, which
// need Linux, root and /dev/fuse. It is a module of its own, for github.com/hanwen/go-fuse.
//
//	child: the store, several callers at a time ──▶ kernel ──▶ FUSE ──▶ parent: the disk (disk_linux_test.go)
//
// The disk is in the memory of the test. It keeps what was written apart from what was synced, in sectors of 512 bytes,
// and the names in each directory likewise, sync by sync. When the power goes, at whatever call, the store's process is
// killed, and of all that was not synced the disk keeps what chance says: each sector in any state that it went through,
// any of the sizes that a file had, each change of a directory or not. What survived is mounted again, and the next child
// opens it; it may be cut while it does.
//
// A second disk has a sync fail once. It gives up what was to be written and calls it clean, so that the next sync
// succeeds and writes nothing: in one kind of it the pages show the new content until they are evicted, at any time, in
// the other they are dropped at once.
//
// The oracle is package fuzz/calls: each caller knows to the byte what must be there. What an answer rests on was synced
// before it, so all answers that the parent has read are promises, those given behind the cut too, when the disk fails
// every call.
//
//	go -C fuzz/lying test -v .
//	go -C fuzz/lying test -v . -lying.cuts=50000 -timeout 12h
package lying
