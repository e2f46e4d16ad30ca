package oncelog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// smallDisk mounts a file system of a size over dir, until the test ends, and returns dir.
func smallDisk(t *testing.T, dir, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A full disk loses nothing: what was acknowledged stays, the store can be read, closed and opened, and takes
// writes again, without being reopened, once there is room.
func TestPromise9FullDisk(t *testing.T) {
	disk := smallDisk(t, t.TempDir(), "2m")
	ballast := filepath.Join(disk, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 1<<20), 0o600))

	dir := filepath.Join(disk, "store")
	o := Options{TTL: Forever, SegmentSize: 128 << 10}
	s := open(t, dir, o)
	value := make([]byte, 1000)
	acknowledged := 0
	fill := func() {
		for {
			_, inserted, err := s.PutIfAbsent([]byte(fmt.Sprint("key ", acknowledged)), value, 0)
			if err != nil {
				require.ErrorIs(t, err, ErrFull)
				require.NotErrorIs(t, err, ErrFailed)
				return
			}
			require.True(t, inserted)
			acknowledged++
		}
	}
	check := func() {
		t.Helper()
		for i := range acknowledged {
			has(t, s, fmt.Sprint("key ", i), string(value))
		}
		require.EqualValues(t, acknowledged, s.Stats().Keys)
		require.NoError(t, s.Verify())
		_, inserted, err := s.PutIfAbsent([]byte("key 0"), nil, 0)
		require.NoError(t, err)
		require.False(t, inserted)
		_, ok, err := s.Get([]byte(fmt.Sprint("key ", acknowledged)))
		require.NoError(t, err)
		require.False(t, ok) // what was refused is not there
	}
	fill()
	require.Greater(t, acknowledged, 500)
	check()
	require.ErrorIs(t, s.Update(set("state", string(make([]byte, 1<<20)))), ErrFull)
	require.ErrorIs(t, s.View(func(tx *Tx) error { return errors.ErrUnsupported }), errors.ErrUnsupported)

	require.NoError(t, os.Remove(ballast))
	for range 200 {
		put(t, s, fmt.Sprint("key ", acknowledged), string(value))
		acknowledged++
	}
	check()

	require.NoError(t, s.Close())
	s = open(t, dir, o)
	check()
	require.NoError(t, s.Close())

	// No room at all, and killed: it still opens.
	f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	for err == nil {
		_, err = f.Write(value)
	}
	require.NoError(t, f.Close())
	s = open(t, dir, o)
	check()
	require.NoError(t, os.Remove(ballast))
	put(t, s, fmt.Sprint("key ", acknowledged), string(value))
	acknowledged++
	check()

	// A new store where there is no room for one is an error, and leaves nothing that a later try trips over.
	f, err = os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	for err == nil {
		_, err = f.Write(value[:100])
	}
	require.NoError(t, f.Close())
	other := filepath.Join(disk, "other")
	_, err = Open(other, nil)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, os.Remove(ballast))
	put(t, open(t, other, quick), "k", "v")
}

// A disk that is full of what has expired empties itself: the store drops the dead, and takes writes again, without
// anybody's making room, whether it was open all the while or is opened on the full disk.
func TestPromise9AFullDiskOfDeadRecords(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		disk := smallDisk(t, t.TempDir(), "2m")
		clock := clockAt(1_700_000_000_000)
		dir := filepath.Join(disk, "store")
		o := Options{TTL: time.Hour, RetryWindow: NoRetryWindow, SegmentSize: 128 << 10, Now: clock.now, Pace: -1}
		s := open(t, dir, o)
		value := make([]byte, 1000)
		n := 0
		for ; ; n++ {
			if _, _, err := s.PutIfAbsent(fmt.Append(nil, "key ", n), value, 0); err != nil {
				require.ErrorIs(t, err, ErrFull)
				break
			}
		}
		require.Greater(t, n, 500)
		f, err := os.OpenFile(filepath.Join(disk, "ballast"), os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		for err == nil {
			_, err = f.Write(value[:100])
		}
		require.NoError(t, f.Close())
		if reopened {
			require.NoError(t, s.Close())
			s = open(t, dir, o)
		}
		for i := range n {
			has(t, s, fmt.Sprint("key ", i), string(value))
		}
		clock.advance(time.Hour)
		for i := range n / 2 { // what is dead goes in the background, a segment after the other
			putOnceThereIsRoom(t, s, fmt.Append(nil, "key ", i), value)
		}
		requireRecounted(t, s)
		require.NoError(t, s.Close())
	}
}
