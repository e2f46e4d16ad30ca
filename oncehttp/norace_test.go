//go:build !race

package oncehttp

const raced = false
