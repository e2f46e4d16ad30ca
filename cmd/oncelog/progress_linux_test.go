package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// terminal opens a pseudo terminal: what is written to user is read from screen.
func terminal(t *testing.T) (screen, user *os.File) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no pseudo terminals here: ", err)
	}
	ioctl := func(req uintptr, arg *int32) {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), req, uintptr(unsafe.Pointer(arg)))
		require.Zero(t, errno)
	}
	var unlock, n int32
	ioctl(syscall.TIOCSPTLCK, &unlock)
	ioctl(syscall.TIOCGPTN, &n)
	user, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(n)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no pseudo terminals here: ", err)
	}
	return screen, user
}

func TestRunBeforeATerminal(t *testing.T) {
	master, user := terminal(t)
	defer master.Close()
	cmd := process(t, "dedup", "--dir", filepath.Join(t.TempDir(), "d"), "--column", "1")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	cmd.Stderr = user
	require.NoError(t, cmd.Start())
	require.NoError(t, user.Close())
	_, err = io.WriteString(in, "a\na\n\nb\n")
	require.NoError(t, err)
	var shown strings.Builder
	buf := make([]byte, 1<<10)
	for ended := false; ; {
		n, err := master.Read(buf)
		shown.Write(buf[:n])
		if err != nil { // EIO, once nobody has it open
			break
		}
		if !ended && strings.Contains(shown.String(), "4 lines, 1 duplicates") {
			ended = true
			require.NoError(t, in.Close())
		}
	}
	require.Error(t, cmd.Wait())
	rows := screen(strings.ReplaceAll(shown.String(), "\r\n", "\n"))
	require.Len(t, rows, 4)
	require.Equal(t, "oncelog dedup: line 3: column 1 is empty; passed as it is", rows[0])
	require.Regexp(t, `^4 lines: 3 passed, 1 duplicates, in `, rows[1])
	require.Contains(t, rows[2], "1 of 4 lines had no key")
	require.Empty(t, rows[3])
}
