// Package trace stops a child process at chosen system calls, so that a test can look at what it does and make calls
// fail. It needs no hooks in the code that is tested, and no privileges. It makes no compatibility promise. Linux on
// amd64 only; elsewhere it is empty.
package trace
