//go:build race

package memory

// raced: the race detector takes many times the memory that it watches, and no limit would say anything of the store.
const raced = true
