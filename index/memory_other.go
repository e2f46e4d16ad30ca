//go:build !linux && !darwin

package index

import "errors"

const canMap = false // pages come from the Go heap: they hold no pointers, so the collector doesn't walk them there either

func mapAnonymous(int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) error { return nil }
