// Package oncetest is for the tests of those who use package receiver: a store in memory, so that a handler can be
// tested without a directory, and in a bubble of testing/synctest where time is the test's own.
package oncetest
