// Package fuzz kills processes and cuts power, and asks the store afterwards what became of its promises. It exports
// nothing; all of it is tests, and they use only what users have.
//
// # The ladder
//
// Every rung asks the same of the store, on the real code with the real library under it, and takes an answer of any kind
// for an acknowledgement: was anything lost (L), is there anything that nobody did, or the half of something (P), is
// there a directory that a crash left and Open refuses (O), is anything back that was deleted or had expired (R), is an
// answer wrong (W)? What differs is who brings the trouble, and so what a rung can see that the others can't:
//
//	crash     every state that a power cut may leave, made from the recorded calls of a run, and recovered; the same of
//	          recoveries, and of the recovery of what those leave. Sees orders that a real disk shows once in a year.
//	          Beside it the lint: rules about the calls' order, for what no state happens to show
//	fuzz      this package: processes killed, and real file systems stopped, under load. Sees what the model of a disk in
//	          crash leaves out, and many callers at once; also stores whose numbers come to their end
//	lying     a disk that keeps only what was synced, in sectors of 512 bytes, or whose sync fails once: a file system
//	          in user space (a module of its own)
//	calls     each system call under a whole store fails, one after the other, once and for good
//	rot       bits and sectors of each kind of file are damaged: an answer is right, or an error that says where
//	pattern   a service with transactions, sequences, intents and a relay, killed in the middle of its messages
//	linear    histories of many callers, over processes that are killed: is there an order of the calls, one at a time,
//	          that explains what they saw? (a module of its own)
//	decoders  runs the native fuzz targets of all packages; each decoder has one
//	owners    fifty processes fight for a directory
//	memory    less memory than the log is large
//
// The model of the store against plain maps (TestModel) lies in the root. trace lets crash, calls and the log's own tests
// see and fail system calls, without a hook in the product.
//
// The tests are tested: defences takes one defence at a time out of the product, and fails if no rung notices; coverage
// says which branches of scanner, recovery, snapshot loading and compaction no test reaches, and why. docs/TESTING.md has
// the figures, docs/DURABILITY.md what is promised and what each rung proves of it.
//
// # A ledger outside
//
// A process that dies cannot testify about itself, so each round has two of them:
//
//	parent: the test, with the ledger                     child: the same binary, with the store
//
//	start ───────────────────────────────────────────────▶ opens; says all that it finds
//	writes down              ◀── "I am about to do this" ── 8 goroutines, each one call at a time:
//	writes down              ◀── "this was the answer" ──── PutIfAbsent Delete Get Advance Update View
//	SIGKILL, at random ──────────────────────────────────▶ ✝  with calls in flight
//	start ───────────────────────────────────────────────▶ opens; says all that it finds ...
//
// An announcement is one write into a pipe, before the call and after it, and what is in the pipe outlives the
// child. So when an answer stands before an announcement, the one call was over before the other began.
//
// # What a contradiction is
//
// The keys form groups: a few records, a piece of state and a mark, which transactions change together. Of each
// group the ledger keeps every state in which it can possibly be (states_test.go). An announced call may or may not
// have happened. Its answer leaves only the states in which it happened, at once and whole, between announcement and
// answer, and saw what the answer says: the exact value, "it exists", "that number is old". A crash leaves both: a
// call that was not answered happened before it, whole, or never will. When no state is left, no order of the calls
// explains what the store said, and that is a contradiction. So what was acknowledged or once seen must stay, what
// was deleted must stay away, what nobody wrote must not appear, and no transaction may be found in parts.
//
// All transactions also form one chain over all groups: each takes the next number and stores its name under it, in
// the same commit. What is found after a crash must be a beginning of that chain without holes, with everything
// acknowledged in it, and each of its transactions must have its effect in its group; of the others none. That is
// the order of commits, stronger than what one goroutine knows of its own calls.
//
// Records that expire are looked at with a clock that the parent hands from child to child, and are given the
// benefit of the few milliseconds that lie between an announcement and its answer.
//
// # Cutting the power
//
// A killed process leaves its writes in the kernel's cache, where the next one finds them; a power cut does not. The
// store lies on a file system in a file, and the file system's own emergency stop, which drops all that is not on
// stable storage, stands for the cut (disk_linux_test.go). ext4 in four ways, and XFS: they differ in when they let a
// file have its new size, and in what a place holds whose data never came. Needs root and mkfs.xfs; the tests say so
// and skip.
//
// The cut that matters most leaves a file as long as it should be and zeros where the frames were. So what the cache
// held is compared with what the disk has (zeros_linux_test.go), and cuts none of which left such a tail prove nothing
// and fail.
//
// In two stages: a killed process has left frames in the cache, its successor answers "it exists", then the power is
// cut. The answer was a promise, so the record must be there. In one stage: the power is cut while answers are being
// given. And after a failed sync: the kernel takes the pages that it could not write for clean, so that syncing them
// once more writes nothing; only writing them again does.
//
// Without syncs (SyncNever) a power cut may take the newest transactions; that what stays is a beginning of the
// chain holds all the same.
//
// # The end of the numbers
//
// A store whose numbers are about to end is written by a test, from docs/FORMAT.md (wrap_test.go): transactions,
// segments, time; and what it counts for others, numbers of sources, ordinals, tokens (count_test.go). Killed and
// reopened all the way, it takes what there are numbers for, and then refuses, in this process and in each after it.
//
// lies_test.go lies to the ledger in each of these ways and sees it object.
//
//	go test ./fuzz -v                       # a minute or so: 200 cuts, more kills; seeds are printed
//	go test ./fuzz -v -crash.rounds=10000   # 20,000 cuts
package fuzz
