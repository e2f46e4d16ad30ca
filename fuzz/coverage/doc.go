// Command coverage says which branches of the scanner, of recovery, of snapshot loading and of compaction no test has
// reached, and fails when one of them is not explained in gaps.txt, or an explanation is not needed any more.
//
//	go test -coverprofile=c.out -coverpkg=.,./wal,./snapshot,./compaction . ./wal ./snapshot ./compaction
//	go run ./fuzz/coverage c.out
//
// A line of gaps.txt is: file, function, the line with which the branch begins, the reason; a tab between. An
// "if err != nil" alone says little, so the line before it belongs to it. Line numbers change with every edit, so there
// are none; two branches of a function that read the same share their explanation.
//
// Reasons say what it would take: a call of the system that fails where nothing short of an imitation of the file
// system makes it fail, or a state that other code rules out, which the branch is there to survive.
package main
