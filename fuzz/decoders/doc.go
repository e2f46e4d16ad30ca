// Package decoders is what the fuzz targets of all packages share, and runs them. Each decoder has a target beside it,
// in the fuzz_test.go of its package, which sees what the package does not export.
//
// Every target asks the same of any bytes: no panic, an error of the kinds that are documented, and, where the bytes
// are taken, the same meaning once they were encoded and decoded again (writers use the shortest form, readers take
// longer ones, so the bytes themselves may differ). Chance never finds a check that holds, so each is asked twice: with
// the bytes as they come, and with their checks put right, which is where a decoder has to believe what it reads.
//
// No length in the input makes a decoder allocate what the input does not hold: Bounded measures it. Decoders that give
// bytes or numbers allocate at most twice their input and a constant. Those that build a table are given what an entry
// of the table takes for each byte that an entry needs at least; it is as proportional, with a larger factor, which
// stands beside the target.
//
// The seeds in testdata/fuzz are written by the real encoders (Seeds). A target without any seed fails.
//
//	go test ./fuzz/decoders -v                                       # each target has seeds
//	go test ./fuzz/decoders -run Each -v -decoders.each=12s -timeout 1h  # runs all of them, for so long each
//	go test ./wal -run Seeds -decoders.seeds                         # writes the seeds of a package
package decoders
