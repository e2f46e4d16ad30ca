package fuzz

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// fileSystem is one of the ways to keep what is synced, and to lose what is not.
type fileSystem struct {
	name, kind, options string
	size                int64
	make                []string // the command that makes one in an image
}

// What ext4 makes leaves nothing to be initialised later by a kernel thread, whose writes no test controls. Its journal
// is written when somebody syncs, not every five seconds.
var makeExt4 = []string{"mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}

// ordered, the first, is what ext4 does unless told otherwise. In the others data and journal go their own ways: the
// journal may know of a size whose data never came, or have the data in itself.
var fileSystems = []fileSystem{
	{"ordered", "ext4", "commit=300,data=ordered", 64 << 20, makeExt4},
	{"writeback", "ext4", "commit=300,data=writeback", 64 << 20, makeExt4},
	{"nodelalloc", "ext4", "commit=300,nodelalloc", 64 << 20, makeExt4},
	{"journal", "ext4", "commit=300,data=journal", 64 << 20, makeExt4},
	{"xfs", "xfs", "", 300 << 20, []string{"mkfs.xfs", "-q", "-f", "-K"}}, // smaller ones it does not make
}

// disk is a file system in a file, whose power can be cut.
type disk struct {
	t      *testing.T
	fs     fileSystem
	image  string
	device string // the loop device; "" while detached
	path   string // where it is mounted
	dark   bool   // the power is cut
	thin   bool   // writes can fail (badsync_linux_test.go)
	held   []held // what the cache held of the log when the power was cut
	left   remains
	matrix *matrix // that it is part of; nil = none
}

// newDisk makes one with its image in dir, or skips the test.
func newDisk(t *testing.T, fs fileSystem, dir string) *disk {
	t.Helper()
	return makeDisk(t, &disk{t: t, fs: fs, image: filepath.Join(dir, "image"), path: filepath.Join(dir, "disk")})
}

func makeDisk(t *testing.T, d *disk) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system whose power can be cut")
	}
	for _, tool := range []string{d.fs.make[0], "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, to make a file system whose power can be cut: %v", tool, err)
		}
	}
	require.NoError(t, os.Mkdir(d.path, 0o700))
	require.NoError(t, os.WriteFile(d.image, nil, 0o600))
	require.NoError(t, os.Truncate(d.image, d.fs.size))
	out, err := exec.Command(d.fs.make[0], append(d.fs.make[1:len(d.fs.make):len(d.fs.make)], d.image)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(d.remove)
	if err := d.attach(); err != nil {
		t.Skipf("needs loop devices and a kernel with %s, to cut the power of: %v", d.fs.kind, err)
	}
	return d
}

func (d *disk) attach() error {
	out, err := exec.Command("losetup", "--find", "--show", d.image).CombinedOutput()
	if err != nil {
		return &os.PathError{Op: "losetup: " + strings.TrimSpace(string(out)), Path: d.image, Err: err}
	}
	d.device = strings.TrimSpace(string(out))
	d.dark = false
	if d.thin {
		if err := d.pageByPage(); err != nil {
			return err
		}
	}
	if err := syscall.Mount(d.device, d.path, d.fs.kind, 0, d.fs.options); err != nil {
		return &os.PathError{Op: "mount", Path: d.device, Err: err}
	}
	return nil
}

func (d *disk) detach() {
	// A process that another test is starting at this moment has copies of this one's descriptors until it runs its
	// program, and nothing tells when that is.
	err := syscall.Unmount(d.path, 0)
	for try := 0; errors.Is(err, syscall.EBUSY) && try < 30_000; try++ {
		time.Sleep(time.Millisecond)
		err = syscall.Unmount(d.path, 0)
	}
	require.NoError(d.t, err)
	out, err := exec.Command("losetup", "--detach", d.device).CombinedOutput()
	require.NoError(d.t, err, "%s", out)
	d.device = ""
}

// remove cleans up, whatever state a test that failed has left.
func (d *disk) remove() {
	if d.device != "" {
		_ = syscall.Unmount(d.path, syscall.MNT_DETACH)
		_ = exec.Command("losetup", "--detach", d.device).Run()
	}
}

// The emergency stop: from now on nothing is written any more, neither what lies in the cache nor the journal.
const (
	shutdownFS     = 0x8004587d // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, _IOR('X', 125, __u32)
	withoutJournal = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH and XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
)

// cut cuts the power, of p too if there is one.
func (d *disk) cut(p *process) {
	d.t.Helper()
	d.hold() // takes its time, and what is answered behind the remark nobody believes
	if p != nil {
		p.remark(remarkCutting)
		defer p.remark(remarkDark)
	}
	how := uint32(withoutJournal)
	require.NoError(d.t, d.ioctl(d.path, shutdownFS, unsafe.Pointer(&how)))
	d.dark = true
}

// restore brings the power back: what is there now comes from the image alone, the caches are gone with the mount.
func (d *disk) restore() {
	d.t.Helper()
	require.True(d.t, d.dark)
	d.copyHeld()
	d.detach()
	require.NoError(d.t, d.attach())
	d.compareHeld()
}

func (d *disk) ioctl(path string, request uintptr, arg unsafe.Pointer) error {
	f, err := os.Open(path)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, f.Close()) }()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return &os.PathError{Op: "ioctl", Path: path, Err: errno}
	}
	return nil
}

// The instrument itself: a cut takes what was not synced and leaves what was, so a test that loses nothing has not
// only been lucky. And it sees the zeros that lie where a frame was not synced.
func TestTheCutTakesWhatWasNotSynced(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			d := newDisk(t, fs, t.TempDir())
			path := filepath.Join(d.path, "file")
			f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			require.NoError(t, err)
			_, err = f.WriteString("synced, not synced")
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("SYNCED"), 0)
			require.NoError(t, err)
			require.NoError(t, f.Sync())
			segment := filepath.Join(d.path, "store", "wal", "01", "01")
			require.NoError(t, os.MkdirAll(filepath.Dir(segment), 0o700))
			log, err := os.Create(segment)
			require.NoError(t, err)
			_, err = log.Write(make([]byte, 3*block))
			require.NoError(t, err)
			_, err = log.WriteAt([]byte("synced"), 0)
			require.NoError(t, err)
			require.NoError(t, log.Sync())
			for _, dir := range []string{filepath.Dir(segment), filepath.Join(d.path, "store", "wal"), filepath.Join(d.path, "store"), d.path} {
				require.NoError(t, syncDir(dir))
			}
			_, err = f.WriteAt([]byte("NOT"), 8)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			_, err = log.WriteAt([]byte("not synced"), block)
			require.NoError(t, err)
			require.NoError(t, log.Close())
			require.NoError(t, os.WriteFile(path+" too", nil, 0o600))
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "SYNCED, NOT synced", string(b))

			d.cut(nil)
			d.restore()
			b, err = os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "SYNCED, not synced", string(b))
			require.NoFileExists(t, path+" too")
			require.Equal(t, remains{Cuts: 1, Differ: 1, ZeroTails: 1, ZeroBytes: len("not synced") + block - len("synced")}, d.left)
		})
	}
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
