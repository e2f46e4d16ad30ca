// Package rot damages the bytes of stores, one bit or one sector at a time, and asks afterwards for everything. It
// exports nothing; all of it is tests, and they use only what users have, but for the places of frames.
//
//	a store ──▶ its files, in memory ──▶ one bit flipped, a sector zeroed, two swapped, one of an older segment in
//	            place of another ──▶ written out ──▶ Open, all questions, Verify, Close
//
// # What is right
//
// Every answer is the one that the undamaged store gives, or an error that is ErrCorrupt and names the damaged file and
// an offset not behind the damage. Opening may be refused in the same way. If it is not, and what is damaged belongs to
// the log, Verify says so. A damaged snapshot, or LOCK, changes no answer at all.
//
// Behind the last sync mark rot can't be told from a torn tail. There, and there alone, transactions may be missing:
// from the end only, as if the newest had not happened, never one that another frame, which is whole, says was on
// stable storage (docs/FORMAT.md, "The end of the log"). A store that was closed ends with a mark and loses nothing. One
// that was killed loses its newest transaction at most to a flipped bit, since each frame says that the one before it was
// durable. With SyncNever no frame says so.
//
//	go test ./fuzz/rot -v                               # a sample; the seed is printed
//	go test ./fuzz/rot -v -rot.all -timeout 12h         # every bit of 16 KiB of each kind of file
//	go test ./fuzz/rot -v -rot.seed=7 -rot.samples=10000
package rot
