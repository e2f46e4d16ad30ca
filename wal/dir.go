package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
)

// A log's directory holds one directory a segment, named by its number in 20 digits; in it lies the one file that
// tidwall/wal calls by the index of its first entry, which is always 1.
const segmentFile = "00000000000000000001"

func segmentDir(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d", number))
}

// listSegments returns the numbers of the segments in dir, ascending.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		if len(e.Name()) != 20 || !e.IsDir() {
			continue
		}
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers, nil
}

// SyncDir makes the names in a directory durable. File systems may lose a create, rename or remove that a crash
// follows, however well the file itself was synced.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // it has no such call; the file's own flush covers its entry
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// removeSegment removes the directory of a segment that holds no frame, and makes that durable.
func removeSegment(dir string, number uint64) error {
	sd := segmentDir(dir, number)
	if err := os.Remove(filepath.Join(sd, segmentFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(sd); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return SyncDir(dir)
}
