//go:build !race

package crash

const slower = 1
