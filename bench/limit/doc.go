// Package limit is what a durable commit is measured against: the least that it can cost. It makes no compatibility
// promise.
//
// It is a group commit of frames into preallocated, zero-filled files: one pwrite of what gathered, one fdatasync, wake the
// waiters. There are neither checksums nor segments nor an index, nothing can be read back, and the files are filled
// before the measured time. Linux only; elsewhere it is empty.
package limit
