// Command defences tests the tests: it takes one defence at a time out of the product's code, and runs the tests that
// are to turn red without it. A defence whose loss nothing notices is a promise that nobody checks.
//
//	list.go: the defence, where it stands, what takes it out, its rungs
//	   │
//	   ├─ the file with the old text replaced by the new, in a temporary place ─▶ overlay
//	   │
//	   ├─ go test -c -overlay ─▶ the tests of a rung's package, built without the defence; that must succeed
//	   │
//	   └─ rung after rung, the cheapest first, until one is red
//
// Each rung is run on the unchanged code first and must be green there: what is red anyway catches nothing. One that
// skips itself, because the machine lacks something, is left out, and said so.
//
// The old text must be in its file exactly once. So an entry that the code has outgrown fails at once (also in
// defences_test.go, with every go test), and does not pass for a defence that is tested.
//
//	go run ./fuzz/defences                    # all, ten minutes; exits 1 and names what no rung has caught
//	go run ./fuzz/defences -list
//	go run ./fuzz/defences -only 'tail cut'
//	go run ./fuzz/defences -pick 3            # three at random; prints the seed, which -seed takes
//	go run ./fuzz/defences -all               # every rung, not only until the first is red
package main
