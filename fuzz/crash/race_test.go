//go:build race

package crash

// slower is how much less is done under the race detector, which has nothing to find in one caller's calls.
const slower = 10
