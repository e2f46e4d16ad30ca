package fuzz

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A sync fails when the disk cannot take what it promised to have room for. Here the disk's image lies in memory of
// limited size: the parts of it that the log has reserved and filled with zeros are given back, and the memory is
// used up by something else.

const (
	freezeFS = 0xc0045877 // FIFREEZE, _IOWR('X', 119, int)
	thawFS   = 0xc0045878 // FITHAW, _IOWR('X', 120, int)
	whereIs  = 1          // FIBMAP, _IO(0, 1): from a block of a file to one of the disk

	keepSize  = 1 // FALLOC_FL_KEEP_SIZE
	punchHole = 2 // FALLOC_FL_PUNCH_HOLE

	block = 4096
)

// newThinDisk makes a disk in memory that has hardly more room than the disk needs.
func newThinDisk(t *testing.T) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system whose syncs can be made to fail")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=68m"))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	d := makeDisk(t, &disk{t: t, fs: fileSystems[0], image: filepath.Join(dir, "image"), path: filepath.Join(dir, "disk"), thin: true})
	d.reserve()
	return d
}

// pageByPage has the disk written in requests of one page. Of a longer one of which only the beginning finds room the
// loop device says that all went well.
func (d *disk) pageByPage() error {
	return os.WriteFile("/sys/block/"+filepath.Base(d.device)+"/queue/max_sectors_kb", []byte("4"), 0)
}

// reserve takes memory for all of the disk, so that nothing is missing but what starve takes away. A block that it
// took and that was not written since may belong to something else next time, the journal even.
func (d *disk) reserve() {
	f, err := os.OpenFile(d.image, os.O_RDWR, 0)
	require.NoError(d.t, err)
	require.NoError(d.t, syscall.Fallocate(int(f.Fd()), 0, 0, d.fs.size))
	require.NoError(d.t, f.Close())
}

// starve makes writes into what the store in dir has prepared fail: the zeros of its last two segments, the one being
// written and the next. It returns how many blocks of the last one that are; those will be written, unlike what older
// ones have left over. Nothing is written to the disk meanwhile, so no block is taken away that was about to be used.
func (d *disk) starve(dir string) (blocks int) {
	require.NoError(d.t, d.ioctl(d.path, freezeFS, nil))
	defer func() { require.NoError(d.t, d.ioctl(d.path, thawFS, nil)) }()
	image, err := os.OpenFile(d.image, os.O_RDWR, 0)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, image.Close()) }()
	files, err := filepath.Glob(filepath.Join(dir, "wal", "0*", "0*"))
	require.NoError(d.t, err)
	content := make([]byte, block)
	for _, path := range files[max(0, len(files)-2):] {
		blocks = 0
		fi, err := os.Stat(path)
		require.NoError(d.t, err)
		for i := range fi.Size() / block {
			n := int32(i)
			require.NoError(d.t, d.ioctl(path, whereIs, unsafe.Pointer(&n)))
			at := int64(n) * block
			if n == 0 { // not written yet
				continue
			}
			_, err := image.ReadAt(content, at)
			require.NoError(d.t, err)
			if len(bytes.Trim(content, "\x00")) == 0 {
				require.NoError(d.t, syscall.Fallocate(int(image.Fd()), punchHole|keepSize, at, block))
				blocks++
			}
		}
	}
	ballast, err := os.Create(d.ballast())
	require.NoError(d.t, err)
	for err == nil {
		_, err = ballast.Write(make([]byte, 1<<16))
	}
	require.True(d.t, errors.Is(err, syscall.ENOSPC), "%v", err)
	require.NoError(d.t, ballast.Close())
	return blocks
}

func (d *disk) ballast() string { return d.image + ".ballast" }

// feed gives the disk its room back.
func (d *disk) feed() {
	require.NoError(d.t, os.Remove(d.ballast()))
	d.reserve()
}

// After a sync that failed, the kernel takes the pages for clean: whoever reads them finds what was to be written,
// and whoever syncs them succeeds, and the disk has none of it. A killed process leaves such pages, its successor
// says "it exists", the power goes, and it exists.
func TestPromise1PowerCutAfterAFailedSync(t *testing.T) {
	r := newRun(t)
	d := newThinDisk(t)
	blocks := 0
	for i := range cuts() {
		r.lifeOn(d, i)
		j := job{Dir: r.dir, Do: doWrite, Segment: 256 << 10, Still: true, Mix: mix{Put: 40, Delete: 5, Advance: 5}}
		p := r.start(j)
		r.until(p, sayAnswer, 2*groups+50+r.rnd.IntN(200))
		for starved := 0; starved == 0; {
			p.remark(remarkTrouble)
			if starved = d.starve(r.dir); starved == 0 { // nothing is prepared right now
				d.feed()
				r.until(p, sayAnswer, 20)
			}
			blocks += starved
		}
		r.until(p, sayDone, 1) // everybody has met the error
		p.kill()
		r.bury(p)
		d.feed()

		j.Do = doAsk
		p = r.start(j)
		r.until(p, sayDone, 1)
		d.cut(p)
		p.kill()
		r.bury(p)
		d.restore()
		r.check(j)
	}
	r.endLife()
	t.Logf("%d failed syncs, with %d blocks that could not be written: %+v", cuts(), blocks, r.total)
	require.Positive(t, r.total.Errors)
	require.Positive(t, r.total.FoundWhole, "no transaction whose sync had failed was served")
}
