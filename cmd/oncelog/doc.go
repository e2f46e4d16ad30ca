// Command oncelog puts the dedup store behind a command line.
//
//	oncelog dedup --dir DIR [--field NAME | --column N [--delimiter C]] [--ttl D] [--out FILE] [--max-line N] < in > out
//	oncelog demo [--requests N] [--crashes N]
//	oncelog proxy --listen ADDR --upstream URL --dir DIR [--on-doubt block|retry]
//	oncelog stat | verify | dump | doubts DIR [--json]
//	oncelog settle DIR KEY happened|not [--scope NAME]... [--source NAME [--epoch N]] [--value TEXT]
//	oncelog help [COMMAND]
//	oncelog version
//
// # dedup
//
// dedup passes the first line of each key and drops the later ones, across
// runs: the keys live in the store in DIR. It works in batches. A batch ends at
// 4096 lines or 4 MiB, or as soon as the input pauses, so that a line typed or
// followed with tail -f comes out at once while a file goes through at one sync
// for thousands of lines. Each batch is decided, then written, then recorded;
// only the order of the last two differs between the two kinds of output.
//
// To standard output, lines are written before their keys are recorded. A crash
// between the two repeats the batch in the next run; the other order would lose
// it, and a repeated line can be dropped later while a lost one is gone.
//
// With --out FILE a line comes out exactly once. FILE and the store can't be
// written in one step, so the store has the last word: the transaction that
// records a batch's keys also records how long FILE is with that batch and what
// its bytes and the bytes of the input so far hash to. FILE is synced before. A
// killed run leaves at most some bytes behind the recorded length; the next start
// reads the input again up to the recorded byte, makes sure that it is the same
// input, cuts FILE, and goes on. out.go has the states and the crash walk.
//
// The store's lock keeps a second dedup off the same DIR, and with it off the
// FILEs recorded there. It does not keep anybody else off FILE: another program,
// or a dedup with another DIR. Each batch therefore checks that FILE is still the
// file that was opened and as long as it was left, and stops if it is not; what
// comes between that check and the next is not seen. No lock on FILE is taken,
// because only a writer that asks for it would heed one.
//
// With --ttl a key may expire between a crash and the restart; its next line is
// then a first line again, as it would be in any later run.
//
// Lines are bytes, and come out as they were: with their carriage return, and the
// input's last one without a newline if it has none. If a later run appends to a
// FILE that ends so, it writes the newline first. A line without a key is passed,
// reported and makes the exit code 1: dropping it could lose data, and calling it
// a success would hide that it was not deduplicated.
//
// # demo
//
// demo is a sender that delivers at least once, and starts this program again as the service that it delivers to: the
// real store in a process of its own, which really is killed. The sender reads what the service says through a pipe,
// which outlives it, so it knows which effects had been made and not acknowledged when the kill came. In the end it
// opens the store itself and adds the ledger up.
//
// # proxy
//
// proxy is package oncehttp before a service in any language. The handler that it guards sends the request on
// (proxy_forward.go), under an intent, so that a proxy that dies inside it leaves the key in doubt. The answer is read to
// its end before it is recorded, and is recorded before a byte of it leaves. A guarded request travels on a connection of
// its own: net/http sends a request with an Idempotency-Key again by itself when a connection that it had kept fails, and
// a service that is just closing such a connection would leave a doubt each time.
//
// What is not known is never guessed. When the connection was there and no whole answer came (lost, cut, not in time, or
// 504, by which a gateway further on says the same), the request may have had its effect: with block its key is in doubt,
// with retry the client is told to come again, and the service, which honours the key, says what became of it. When there
// was no connection, nothing was sent, and the key is free.
//
// # Exit codes
//
// 0 done, 1 failed, 2 usage. An error is one line on standard error.
package main
