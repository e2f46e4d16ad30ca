// Package snapshot keeps the index of a store in a file, so that opening need not read the whole log. A snapshot is
// never needed: the log alone says everything, and a snapshot that is missing, damaged or older than the log's
// beginning costs time and nothing else.
//
//	┌────────┬──────┬──────┬── … ──┬──────┬──────┬────────┬───────┐
//	│ header │ page │ page │       │ page │ keys │ ledger │ table │
//	└────────┴──────┴──────┴── … ──┴──────┴──────┴────────┴───────┘
//	  4 KiB    up to 32 KiB each                            20 bytes a page
//
// # Two positions
//
// The pages are copied one after the other while writers go on, so the file shows no single moment. It has two
// positions: After, through which everything was in the index when the copying began, and Through, the last
// transaction that anything in the file may come from. Replaying the transactions behind After repeats what was
// decided, and leads to the same whether a page shows it already or not. What is counted in the ledger is exact at
// Through, so what is replayed from there on is counted, and what comes before is not.
//
// The log is on stable storage through Through before the file gets its name, so a log that ends before it has lost
// something.
//
// # On disk
//
// A snapshot is written under a temporary name, synced, and renamed; two are kept. Everything in it has a check. This
// package knows neither the index's words nor the ledger's bytes; docs/FORMAT.md draws all of them.
//
// This package makes no compatibility promise.
package snapshot
