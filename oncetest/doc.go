// Package oncetest is for the tests of those who use package receiver.
//
// Store is a store in memory, so that a handler can be tested without a directory, and in a bubble of testing/synctest
// where time is the test's own. It has transactions and intents; sequences, quotas and messages need a real store.
//
// Check asks whether a handler's effect is once: it delivers a message under duplicates, errors, panics and deaths of
// the process, and reports the way and the step where it is not.
package oncetest
