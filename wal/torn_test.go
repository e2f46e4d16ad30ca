package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tornLog makes a log of several segments that was never closed, and returns a copy of it as a kill leaves it, with
// the ends of the frames in its tail and the numbers of the transactions that end there.
func tornLog(t testing.TB, o Options, n int) (dir string, tail *Segment, ends []int64, numbers []int) {
	t.Helper()
	live := create(t, o)
	l := reopen(t, live, o, []string{})
	fill(t, l, n)
	tail = l.active.Load()
	dir = copyLog(t, live)
	require.NoError(t, l.Close())
	require.Greater(t, tail.number, uint64(3), "too few segments to mean anything")
	_, all := entries(t, pathOf(dir, tail.number))
	require.Greater(t, len(all), 2, "too few transactions in the tail")
	for _, e := range all[1:] {
		ends, numbers = append(ends, e.end), append(numbers, int(e.frame.number))
	}
	require.Equal(t, n, numbers[len(numbers)-1])
	return dir, tail, ends, numbers
}

func junk(random *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// goesOn opens a log that must hold want, writes to it, and opens it twice more.
func goesOn(t testing.TB, dir string, o Options, want []string, what string) {
	for round := range 3 {
		l, got, err := read(dir, o)
		require.NoError(t, err, "%s, round %d", what, round)
		require.Equal(t, want, got, "%s, round %d", what, round)
		if round < 2 {
			p := fmt.Sprintf("after %s, round %d", what, round)
			_, err = commit(l, p)
			require.NoError(t, err)
			want = append(want[:len(want):len(want)], p)
		}
		require.NoError(t, l.Close())
	}
}

// Whatever a crash leaves of what was not synced, cut short, zeros, or anything else, the log opens, holds the
// transactions that are whole and nothing else, in order, and goes on from there.
func TestTornTails(t *testing.T) {
	for name, policy := range map[string]time.Duration{"never": never, "always": 0} {
		t.Run(name, func(t *testing.T) {
			o := small(policy)
			o.SegmentSize = 400
			dir, tail, ends, numbers := tornLog(t, o, 33)
			end := ends[len(ends)-1]
			whole, err := os.ReadFile(pathOf(dir, tail.number))
			require.NoError(t, err)
			require.EqualValues(t, o.SegmentSize, len(whole), "the rest of the prepared space")
			random := rand.New(rand.NewPCG(1, uint64(policy)))
			work := filepath.Join(memoryDir(t), "wal")
			step := int64(1)
			if testing.Short() || policy == 0 {
				step = 7 // what lies between differs in no way that the end of a crash could tell
			}
			for cut := int64(0); cut <= end; cut += step {
				kept := numbers[0] - 1
				for i := range ends {
					if ends[i] <= cut {
						kept = numbers[i]
					}
				}
				for variant, rest := range map[string][]byte{
					"cut short": nil, "zeros": make([]byte, end-cut), "junk": junk(random, end-cut),
					"junk that is longer": junk(random, end-cut+200), "zeros, then junk": append(make([]byte, (end-cut)/2), junk(random, 100)...),
				} {
					copyTo(t, dir, work)
					b := append(whole[:cut:cut], rest...)
					require.NoError(t, os.WriteFile(pathOf(work, tail.number), b, 0o600))
					want := payloads(kept)
					if variant != "cut short" && kept < len(payloads(33)) && bytes.HasPrefix(b, whole[:endOf(ends, numbers, kept+1)]) {
						want = payloads(kept + 1) // what was cut and what took its place are the same
					}
					goesOn(t, work, o, want, fmt.Sprintf("%s at %d of %d", variant, cut, end))
				}
			}
		})
	}
}

func endOf(ends []int64, numbers []int, number int) int64 {
	for i := range ends {
		if numbers[i] == number {
			return ends[i]
		}
	}
	return ends[len(ends)-1]
}

// Blocks of the file system reach the disk in any order: what is missing may lie before what is there. Not even
// then is a transaction returned that lies behind a missing one.
func TestTornTailsWithHoles(t *testing.T) {
	o := small(never)
	dir, tail, ends, numbers := tornLog(t, o, 40)
	whole, err := os.ReadFile(pathOf(dir, tail.number))
	require.NoError(t, err)
	work := filepath.Join(memoryDir(t), "wal")
	begin := int64(headerEntry)
	for i, end := range ends {
		for _, hole := range [][2]int64{{begin, end}, {begin, begin + 1}, {end - 1, end}, {(begin + end) / 2, (begin+end)/2 + 1}} {
			copyTo(t, dir, work)
			b := bytes.Clone(whole)
			for at := hole[0]; at < hole[1]; at++ {
				b[at] ^= 0x55
			}
			require.NoError(t, os.WriteFile(pathOf(work, tail.number), b, 0o600))
			goesOn(t, work, o, payloads(numbers[i]-1), fmt.Sprintf("hole in frame %d", numbers[i]))
		}
		begin = end
	}
}

// A tail of which not even the header arrived begins with the header that the seal before it announced.
func TestATailWithoutAHeader(t *testing.T) {
	for name, content := range map[string][]byte{
		"empty": nil, "zeros": make([]byte, 5000), "half a header": append([]byte{headerSize}, magic...), "a frame's length": {0x2b, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := small(never)
			dir, tail, _, numbers := tornLog(t, o, 40)
			want := payloads(numbers[0] - 1)
			require.NoError(t, os.WriteFile(pathOf(dir, tail.number), content, 0o600))
			_, all := entries(t, pathOf(dir, tail.number-1))
			announced := parseSeal(all[len(all)-1].frame.payload)
			holds(t, dir, o, want)
			h, all := entries(t, pathOf(dir, tail.number))
			require.Equal(t, header{id: testID, number: tail.number, nonce: announced.nextNonce, first: uint64(numbers[0]), meta: o.Meta()}, h)
			require.Len(t, all, 2)
			require.Equal(t, []byte{kindSyncMark}, all[1].frame.payload)
			require.EqualValues(t, numbers[0]-1, all[1].frame.number)
			goesOn(t, dir, o, want, name)
		})
	}
}

// The bytes that are cut are kept aside, under the name of the place that they come from.
func TestWhatIsCutIsKept(t *testing.T) {
	o := small(never)
	dir, tail, ends, numbers := tornLog(t, o, 40)
	whole, err := os.ReadFile(pathOf(dir, tail.number))
	require.NoError(t, err)
	at, end := ends[1], ends[len(ends)-1]
	patch(t, pathOf(dir, tail.number), at, whole[at]^1)
	holds(t, dir, o, payloads(numbers[1]))
	torn := fmt.Sprintf("torn/%020d-%d", tail.number, at)
	want := append([]byte{whole[at] ^ 1}, whole[at+1:end]...)
	require.Equal(t, string(want), tree(t, dir)[torn], "all of it, and none of the zeros behind it")
	for path, mode := range map[string]os.FileMode{tornDir: 0o700, torn: 0o600} {
		fi, err := os.Stat(filepath.Join(dir, path))
		require.NoError(t, err)
		require.Equal(t, mode, fi.Mode().Perm())
	}
	require.False(t, bytes.Contains([]byte(tree(t, dir)[fmt.Sprintf("%020d/%s", tail.number, segmentFile)]), whole[end-40:end]), "and not where it was")
	goesOn(t, dir, o, payloads(numbers[1]), "a cut")
}

// Three torn tails are kept, the last three, and of each no more than a bound.
func TestTheLastThreeCutsAreKept(t *testing.T) {
	o := small(never)
	dir := create(t, o)
	want := []string{}
	var cuts []string
	long := time.Now().Add(-time.Hour)
	for round := range 6 {
		l := reopen(t, dir, o, want)
		_, err := commit(l, payload(round+1))
		require.NoError(t, err)
		want = append(want, payload(round+1))
		require.NoError(t, l.Close())
		numbers, err := listSegments(dir)
		require.NoError(t, err)
		last := pathOf(dir, numbers[len(numbers)-1])
		fi, err := os.Stat(last)
		require.NoError(t, err)
		content := bytes.Repeat([]byte{byte(round + 1)}, tornMax+round-2) // around the bound
		require.NoError(t, os.WriteFile(last, append(readAll(t, last), content...), 0o600))
		holds(t, dir, o, want)
		name := fmt.Sprintf("%020d-%d", numbers[len(numbers)-1], fi.Size())
		cuts = append(cuts, name)
		require.Equal(t, string(content[:min(len(content), 1<<20)]), string(readAll(t, filepath.Join(dir, tornDir, name))), "round %d", round)
		for i, name := range cuts { // apart by more than the coarsest clock that a file system goes by
			at := long.Add(time.Duration(i) * time.Minute)
			if err := os.Chtimes(filepath.Join(dir, tornDir, name), at, at); !errors.Is(err, os.ErrNotExist) {
				require.NoError(t, err)
			}
		}
	}
	kept, err := os.ReadDir(filepath.Join(dir, tornDir))
	require.NoError(t, err)
	var names []string
	for _, e := range kept {
		names = append(names, e.Name())
	}
	require.Equal(t, cuts[len(cuts)-3:], names)
	require.Equal(t, 3, tornKeep)
}

func readAll(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}
