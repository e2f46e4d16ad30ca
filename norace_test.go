//go:build !race

package oncelog

const raced = false
