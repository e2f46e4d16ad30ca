package lying

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog/wal"
)

// on runs do with a fresh disk mounted, cuts its power, and mounts it again for then.
func on(t *testing.T, seed uint64, do, then func(dir string)) {
	d := newDisk(rand.New(rand.NewPCG(seed, 0)))
	dir := t.TempDir()
	m := d.mount(t, dir)
	do(dir)
	m.unmount(t)
	d.cut()
	m = d.mount(t, dir)
	then(dir)
	m.unmount(t)
}

// The instrument itself: a cut leaves all that was synced; of what was not, each sector and each name may be there or
// not, and every case comes.
func TestTheCutTakesWhatWasNotSyncedAndNothingElse(t *testing.T) {
	torn, whole, none, named, unnamed := 0, 0, 0, 0, 0
	for seed := range uint64(60) {
		on(t, seed, func(dir string) {
			f, err := os.Create(filepath.Join(dir, "file"))
			require.NoError(t, err)
			_, err = f.Write(bytes.Repeat([]byte("old "), 512))
			require.NoError(t, err)
			require.NoError(t, f.Sync())
			require.NoError(t, wal.SyncDir(dir))
			_, err = f.WriteAt(bytes.Repeat([]byte("new "), 256), 512)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.NoError(t, os.WriteFile(filepath.Join(dir, "name"), nil, 0o600))
			b, err := os.ReadFile(filepath.Join(dir, "file"))
			require.NoError(t, err)
			require.Equal(t, 256, bytes.Count(b, []byte("new ")))
		}, func(dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "file"))
			require.NoError(t, err)
			require.Len(t, b, 2048)
			require.Equal(t, bytes.Repeat([]byte("old "), 128), b[:512])
			require.Equal(t, bytes.Repeat([]byte("old "), 128), b[1536:])
			switch n := bytes.Count(b, []byte("new ")); n {
			case 0:
				none++
			case 128:
				torn++
			case 256:
				whole++
			default:
				require.Fail(t, "a sector is torn", "%d", n)
			}
			if _, err := os.Stat(filepath.Join(dir, "name")); err == nil {
				named++
			} else {
				require.ErrorIs(t, err, os.ErrNotExist)
				unnamed++
			}
		})
	}
	t.Logf("of two sectors both %d times, one %d, none %d; the name %d times, not %d", whole, torn, none, named, unnamed)
	for _, n := range []int{torn, whole, none, named, unnamed} {
		require.Positive(t, n)
	}
}

// A sync that fails takes the pages, at once or later; the next one succeeds and writes nothing.
func TestAFailedSyncTakesThePages(t *testing.T) {
	for _, atOnce := range []bool{true, false} {
		d := newDisk(rand.New(rand.NewPCG(1, 0)))
		d.atOnce = atOnce
		dir := t.TempDir()
		m := d.mount(t, dir)
		path := filepath.Join(dir, "file")
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.NoError(t, wal.SyncDir(dir))
		d.mu.Lock()
		d.failAt = 1
		d.mu.Unlock()
		_, err = f.WriteString("content")
		require.NoError(t, err)
		require.ErrorIs(t, f.Sync(), syscall.EIO)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, !atOnce, string(b) == "content")
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
		m.unmount(t)
		d.cut()
		require.Equal(t, make([]byte, len(d.root.names["file"].data)), d.root.names["file"].data)
	}
}

// A mapping shows what the file holds, and what is written through it reaches the file, or there is none. In a process of
// its own: a page that is waited for holds up the thread, and the disk's answer may need it.
func TestMappingsWorkOrAreRefused(t *testing.T) {
	d := newDisk(rand.New(rand.NewPCG(1, 0)))
	dir := t.TempDir()
	m := d.mount(t, dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), mapEnv+"="+filepath.Join(dir, "file"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
	m.unmount(t)
}

// mapEnv makes this binary the process that maps a file.
const mapEnv = "ONCELOG_LYING_MAP"

func mapFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err = f.Write(bytes.Repeat([]byte{1}, 4096)); err != nil {
		return err
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	switch {
	case errors.Is(err, syscall.ENODEV):
		fmt.Println("this kernel refuses shared mappings of the disk's files")
	case err != nil:
		return err
	default:
		if b[100] != 1 {
			return fmt.Errorf("a mapping shows %d", b[100])
		}
		if _, err := f.WriteAt([]byte{2}, 100); err != nil {
			return err
		}
		b[200] = 3
		if b[100] != 2 {
			return fmt.Errorf("behind a write a mapping shows %d", b[100])
		}
		if err := errors.Join(f.Sync(), syscall.Munmap(b)); err != nil {
			return err
		}
		read := make([]byte, 4096)
		if _, err := f.ReadAt(read, 0); err != nil || read[100] != 2 || read[200] != 3 {
			return fmt.Errorf("the file has %d and %d, %w", read[100], read[200], err)
		}
		fmt.Println("shared mappings work")
	}
	b, err = syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if b[0] != 1 {
		return fmt.Errorf("a private mapping shows %d", b[0])
	}
	return errors.Join(syscall.Munmap(b), f.Close())
}
