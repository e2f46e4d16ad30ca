// Command coverage says which branches of the scanner, of recovery, of snapshot loading and of compaction no test has
// reached, and fails when one of them is not explained in gaps.txt, or an explanation is not needed any more.
//
//	go run ./fuzz/coverage -measure DIR             # all that counts; a quarter of an hour on two cores
//	go run ./fuzz/coverage -measure DIR . ./wal     # these again, the rest as DIR has it; after a change of the code, all
//	go run ./fuzz/coverage PROFILE...               # of go test -coverprofile
//
// Processes that tests start are counted, but those that are killed: they have no time to say what they reached.
//
// A line of gaps.txt is: file, function, the line with which the branch begins, the reason; a tab between. An
// "if err != nil" alone says little, so the line before it belongs to it. Line numbers change with every edit, so there
// are none; two branches of a function that read the same share their explanation. A reason that begins with
// "sometimes: " may stay when a run reaches the branch, because the next one may not.
//
// Reasons say what it would take: a call of the system that fails where nothing short of an imitation of the file
// system makes it fail, or a state that other code rules out, which the branch is there to survive.
package main
