//go:build race

package oncehttp

// raced says that tests which have nothing to show the race detector may do less.
const raced = true
