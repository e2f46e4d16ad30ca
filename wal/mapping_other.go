//go:build !linux

package wal

import (
	"errors"
	"os"
)

const canMap = false

func mapShared(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) error { return nil }
