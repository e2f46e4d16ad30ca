package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// nameless returns the sizes of the files below dir that this process has open and that have no name any more.
func nameless(t *testing.T, dir string) (sizes []int64) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range all {
		link := filepath.Join("/proc/self/fd", fd.Name())
		path, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(path, dir) && strings.HasSuffix(path, " (deleted)") {
			fi, err := os.Stat(link)
			require.NoError(t, err)
			sizes = append(sizes, fi.Size())
		}
	}
	return sizes
}

// needLeases skips the test where the file system can't say whether somebody else has a file.
func needLeases(t *testing.T) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "leased"))
	require.NoError(t, err)
	defer f.Close()
	if _, err := control(f, syscall.F_SETLEASE, syscall.F_WRLCK); err != nil {
		t.Skip("no leases here: ", err)
	}
}

// The space of a dropped segment goes piece by piece, and while it does, who still has the segment finds it closed. A
// segment that was cut would read as damaged. When there is to be no pause any more, all of the rest goes at once.
func TestADroppedSegmentIsFreedInPieces(t *testing.T) {
	needLeases(t)
	for _, most := range []int{0, 1, 1000} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "wal")
			var l *Log
			var s *Segment
			var sizes []int64
			o := small(never)
			o.SegmentSize = 1 << 20
			watched := false
			o.Pause = func() bool {
				if !watched {
					return false
				}
				_, err := s.ReadAt(make([]byte, 1), 0)
				require.ErrorIs(t, err, os.ErrClosed)
				require.NoDirExists(t, segmentDir(dir, s.number))
				left := nameless(t, dir)
				require.Len(t, left, 1)
				sizes = append(sizes, left[0])
				return len(sizes) <= most
			}
			require.NoError(t, Create(dir, o))
			l, err := Open(dir, o, Start{}, func(Frame) error { return nil })
			require.NoError(t, err)
			for s == nil { // the first one has no frame, and the next one no more than was prepared while the call waited
				_, err := commit(l, strings.Repeat("x", 100_000))
				require.NoError(t, err)
				for _, r := range l.Retired() {
					if r.End() > 2*freeStep {
						s = r
						break
					}
				}
			}
			whole := s.End()
			require.NoError(t, l.Drop(s.number-1, 0))
			watched = true
			require.NoError(t, l.Drop(s.number, 0))
			require.Empty(t, nameless(t, dir))
			require.Equal(t, whole, sizes[0])
			require.Len(t, sizes, min(most+1, int((whole-1)/freeStep)))
			for i := 1; i < len(sizes); i++ {
				require.Equal(t, whole-int64(i)*freeStep, sizes[i])
			}
			require.NoError(t, l.Close())
		})
	}
}

func TestRemoveGently(t *testing.T) {
	needLeases(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, make([]byte, 3*freeStep), 0o600))
	var sizes []int64
	require.NoError(t, RemoveGently(path, func() bool {
		require.NoFileExists(t, path)
		sizes = append(sizes, nameless(t, dir)...)
		return true
	}))
	require.Equal(t, []int64{3 * freeStep, 2 * freeStep}, sizes)
	require.Empty(t, nameless(t, dir))
	require.ErrorIs(t, RemoveGently(path, nil), os.ErrNotExist)
}

// What somebody else has is not cut: who has it open or mapped would find it damaged, and a hard link is a copy that
// somebody made.
func TestWhatOthersHaveIsNotCut(t *testing.T) {
	b := []byte(strings.Repeat("x", 3*freeStep))
	for what, take := range map[string]func(path, other string){
		"open": func(path, _ string) {
			f, err := os.Open(path)
			require.NoError(t, err)
			t.Cleanup(func() {
				fi, err := f.Stat()
				require.NoError(t, err)
				require.Equal(t, int64(len(b)), fi.Size())
				require.NoError(t, f.Close())
			})
		},
		"mapped": func(path, _ string) {
			f, err := os.Open(path)
			require.NoError(t, err)
			m, err := syscall.Mmap(int(f.Fd()), 0, len(b), syscall.PROT_READ, syscall.MAP_SHARED)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			t.Cleanup(func() {
				require.Equal(t, b, m)
				require.NoError(t, syscall.Munmap(m))
			})
		},
		"a hard link": func(path, other string) { require.NoError(t, os.Link(path, other)) },
		"a symbolic link": func(path, other string) {
			require.NoError(t, os.Rename(path, other))
			require.NoError(t, os.Symlink(other, path))
		},
	} {
		for how, remove := range map[string]func(path string, pause func() bool) error{
			"RemoveGently": RemoveGently,
			"closeGently": func(path string, pause func() bool) error {
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				require.NoError(t, err)
				require.NoError(t, os.Remove(path))
				(&Segment{path: path, file: f}).closeGently(pause)
				return nil
			},
		} {
			dir := t.TempDir()
			path, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
			require.NoError(t, os.WriteFile(path, b, 0o600))
			take(path, other)
			require.NoError(t, remove(path, func() bool {
				t.Errorf("%s: %s: it is cut", how, what)
				return true
			}))
			require.NoFileExists(t, path)
			if kept, err := os.ReadFile(other); err == nil {
				require.Equal(t, b, kept, "%s: %s", how, what)
			} else {
				require.NotContains(t, what, "link")
			}
		}
	}
}

// A file that can't be opened can be removed all the same.
func TestRemoveGentlyWhatCannotBeOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.Symlink("nowhere", path))
	require.NoError(t, RemoveGently(path, nil))
	_, err := os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
}
