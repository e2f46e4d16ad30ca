package wal

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is cut can't be set aside, and not for want of room: somebody's file is in the way. Recovery says so and has cut
// nothing; with the file gone it goes on.
func TestWhatIsCutCannotBeSetAside(t *testing.T) {
	o := small(never)
	for name, block := range map[string]func(td string) (undo string){
		"a file in the directory's place": func(td string) string {
			require.NoError(t, os.WriteFile(td, nil, 0o600))
			return td
		},
		"a directory among the old ones": func(td string) string {
			old := filepath.Join(td, "0")
			require.NoError(t, os.MkdirAll(filepath.Join(old, "in the way"), 0o700))
			require.NoError(t, os.Chtimes(old, time.Unix(1, 0), time.Unix(1, 0)))
			for _, f := range []string{"1", "2", "3"} {
				require.NoError(t, os.WriteFile(filepath.Join(td, f), nil, 0o600))
			}
			return old
		},
	} {
		killed, tail, ends, numbers := tornLog(t, o, 40)
		patch(t, pathOf(killed, tail.number), ends[1]+3, 0xff)
		before := readAll(t, pathOf(killed, tail.number))
		blocked := block(filepath.Join(killed, tornDir))
		_, _, err := read(killed, o)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, ErrCorrupt, name)
		require.Equal(t, before, readAll(t, pathOf(killed, tail.number)), name)
		require.NoError(t, os.RemoveAll(blocked))
		holds(t, killed, o, payloads(numbers[1]))
	}
}

// A segment that can't be read is not taken for a good one.
func TestVerifyOfWhatCannotBeRead(t *testing.T) {
	_, l := filled(t, 60, small(never))
	s := l.Segments()[1]
	fd := int(s.file.Fd())
	was, err := syscall.Dup(fd)
	require.NoError(t, err)
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	require.NoError(t, err)
	require.NoError(t, syscall.Dup3(int(f.Fd()), fd, syscall.O_CLOEXEC))
	require.NoError(t, f.Close())
	require.ErrorIs(t, l.Verify(func(Frame) error { return nil }), syscall.EBADF)
	require.NoError(t, syscall.Dup3(was, fd, syscall.O_CLOEXEC))
	require.NoError(t, syscall.Close(was))
	require.NoError(t, l.Verify(func(Frame) error { return nil }))
	require.NoError(t, s.file.Close()) // and one of which not even the size can be asked
	require.ErrorIs(t, l.Verify(func(Frame) error { return nil }), os.ErrClosed)
}
