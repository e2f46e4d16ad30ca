// Package owners has many processes fight for one directory. It exports nothing; all of it is tests, and they use only
// what users have.
//
//	parent: the test                                      50 children, each told what to do line by line
//
//	race      "open" to all ────────────────────────────▶ one "got"; 49 "locked"
//	          "open" again to the 49 ───────────────────▶ 49 "locked", and no byte of the directory is another
//	kill      "write" to the owner, "wait" to five ─────▶ the owner writes; the five are in Open, with LockWait
//	          SIGKILL to the owner, in the middle ──────▶ ✝, and one of the five "got"
//	hand over "close" to the owner, till all five had it ▶ "left", and the next "got"
//
// All children say what they say into one pipe, in one write each, and the parent puts its own remark into it before
// it kills. So the lines have one order, and it is a witness of who owned the directory when: behind a "got" there must
// be a "left" or the kill of that process before the next "got". A child says "left" before it closes the store.
//
// Each owner goes on counting in the store where the one before it ended, and says each number once it is durable; so
// one that gets in sees all that its predecessors were promised, or the round fails.
//
//	go test ./fuzz/owners -v                        # 20 rounds
//	go test ./fuzz/owners -v -owners.rounds=1000
package owners
