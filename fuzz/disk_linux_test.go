package fuzz

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// disk is an ext4 file system in a file, whose power can be cut.
type disk struct {
	t      *testing.T
	image  string
	device string // the loop device; "" while detached
	path   string // where it is mounted
	dark   bool   // the power is cut
	thin   bool   // writes can fail (badsync_linux_test.go)
}

const diskSize = 64 << 20

// newDisk makes one with its image in dir, or skips the test.
func newDisk(t *testing.T, dir string) *disk {
	t.Helper()
	return makeDisk(t, &disk{t: t, image: filepath.Join(dir, "image"), path: filepath.Join(dir, "disk")})
}

func makeDisk(t *testing.T, d *disk) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system whose power can be cut")
	}
	for _, tool := range []string{"mkfs.ext4", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, to make a file system whose power can be cut: %v", tool, err)
		}
	}
	require.NoError(t, os.Mkdir(d.path, 0o700))
	require.NoError(t, os.WriteFile(d.image, nil, 0o600))
	require.NoError(t, os.Truncate(d.image, diskSize))
	// Nothing is left to be initialised later by a kernel thread, whose writes no test controls.
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", d.image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(d.remove)
	if err := d.attach(); err != nil {
		t.Skipf("needs loop devices and ext4, to cut the power of: %v", err)
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
	// The journal is written when somebody syncs, not every five seconds.
	if err := syscall.Mount(d.device, d.path, "ext4", 0, "commit=300"); err != nil {
		return &os.PathError{Op: "mount", Path: d.device, Err: err}
	}
	return nil
}

func (d *disk) detach() {
	require.NoError(d.t, syscall.Unmount(d.path, 0))
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

// ext4's emergency stop: from now on nothing is written any more, neither what lies in the cache nor the journal.
const (
	ext4Shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
	withoutJournal = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
)

// cut cuts the power, of p too if there is one.
func (d *disk) cut(p *process) {
	d.t.Helper()
	if p != nil {
		p.remark(remarkCutting)
		defer p.remark(remarkDark)
	}
	how := uint32(withoutJournal)
	require.NoError(d.t, d.ioctl(d.path, ext4Shutdown, unsafe.Pointer(&how)))
	d.dark = true
}

// restore brings the power back: what is there now comes from the image alone, the caches are gone with the mount.
func (d *disk) restore() {
	d.t.Helper()
	require.True(d.t, d.dark)
	d.detach()
	require.NoError(d.t, d.attach())
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
// only been lucky.
func TestTheCutTakesWhatWasNotSynced(t *testing.T) {
	d := newDisk(t, t.TempDir())
	path := filepath.Join(d.path, "file")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString("synced, not synced")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("SYNCED"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	dir, err := os.Open(d.path)
	require.NoError(t, err)
	require.NoError(t, dir.Sync())
	require.NoError(t, dir.Close())
	_, err = f.WriteAt([]byte("NOT"), 8)
	require.NoError(t, err)
	require.NoError(t, f.Close())
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
}
