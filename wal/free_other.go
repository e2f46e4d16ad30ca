//go:build !linux

package wal

import "os"

// RemoveGently removes a file. What it is good for was measured on Linux only.
func RemoveGently(path string, _ func() bool) error { return os.Remove(path) }

func (s *Segment) closeGently(func() bool) { s.close() }
