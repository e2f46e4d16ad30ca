// Command peers measures oncelog beside the stores that people would use instead, on the machine it runs on.
//
//	go run ./bench/peers              # everything, about half an hour; results into bench/results
//	go run ./bench/peers -short       # at most 4 minutes
//	go run ./bench/peers -only W1,W3 -peers oncelog,pebble,limit
//
// # How
//
// Each peer is a file, peer_NAME.go, that opens it as its own authors advise for durable writes, and says why each
// setting is what it is. All stand behind one small interface (peer.go). Each runs in a process of its own (child.go), so
// that memory and garbage are its own, and the parent lets one process run at a time: it stops all others with SIGSTOP.
// So the peers take turns, slice by slice, several rounds long, and a ratio is that of two slices of the same round: the
// disk of a shared machine changes its speed by the minute.
//
// The limit is what a durable commit costs at least: package bench/limit. It stores nothing that could be read back.
//
// # What
//
//	W1  durable put-if-absent of fresh keys by 1, 8, 64 and 256 callers
//	W2  look-ups of absent and of present keys, by one caller
//	W3  64 callers, nine of ten calls for keys that are there: the traffic of a receiver
//	W4  memory a key, disk a record, bytes written to the device for each byte asked for
//	W5  from opening to the first answer: after a close, with a cold page cache, after SIGKILL
//	W6  what a full index costs the garbage collector, and look-ups beside it
//	W7  half a day in half a minute: a TTL of 5 s turns over under load
//	W8  data four times as large as the memory that a cgroup allows
//
// Before each turn of W2 and W6 the peer's files are read once, untimed: while others had their turns the system may have
// taken their pages back, and what a look-up waits for a disk is W8's subject.
//
// Keys have 36 bytes and values 256. What is reported is the median over the rounds with the least and the most
// (report.go), as text that benchstat reads, as a table and as pictures. Nothing is judged.
package main
