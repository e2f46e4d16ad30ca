package wal

import "os"

// freeStep is how much of a file's space is given back at a time. ext4 holds up the syncs of other files for as long as it
// takes to free a file that is gone: of 4 MiB, as long as ten commits take, for each such file. Cut off by 256 KiB, with
// half a millisecond between two cuts, one file in ten is felt; by 1 MiB, one in four.
const freeStep = 256 << 10

// free gives the space of a file back that has no name any more and that nobody reads, piece by piece, and closes it. It
// leaves the rest to closing when pause, which is asked between two pieces, returns false. It is only space, so nobody
// is told of errors.
func free(f *os.File, size int64, pause func() bool) {
	defer f.Close()
	for size -= freeStep; size > 0 && pause(); size -= freeStep {
		if f.Truncate(size) != nil {
			return
		}
	}
}
