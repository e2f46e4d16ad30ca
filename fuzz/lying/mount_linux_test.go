package lying

import (
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
)

// mounted is a disk behind the kernel.
type mounted struct {
	fuse.RawFileSystem
	*disk
	server *fuse.Server
}

// mount mounts the disk, or skips the test.
func (d *disk) mount(t *testing.T, dir string) *mounted {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs FUSE, to mount a disk that lies: %v", err)
	}
	m := &mounted{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}
	var err error
	m.server, err = fuse.NewServer(m, dir, &fuse.MountOptions{
		DirectMountStrict: true, FsName: "lying", Name: "lying", DisableXAttrs: true, DisableReadDirPlus: true,
		Options: []string{"default_permissions"}, ExtraCapabilities: fuse.CAP_DIRECT_IO_ALLOW_MMAP,
	})
	require.NoError(t, err)
	go m.server.Serve()
	t.Cleanup(func() { // a test that has failed leaves it
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err == nil {
			t.Log("the disk was still mounted")
		}
	})
	require.NoError(t, m.server.WaitMount())
	return m
}

func (m *mounted) unmount(t *testing.T) {
	t.Helper()
	require.NoError(t, m.server.Unmount())
}

// The kernel is the only one to change anything, so it may keep what it knows.
const valid = 3600

func (m *mounted) attr(n *node, out *fuse.Attr) {
	out.Ino, out.Nlink, out.Mode = n.id, 1, syscall.S_IFREG|0o600
	if n.dir {
		out.Mode = syscall.S_IFDIR | 0o700
	}
	out.Size = uint64(len(n.data))
	out.Blocks = (out.Size + 511) / 512
	out.Mtime = uint64(n.at)
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
}

func (m *mounted) entry(n *node, out *fuse.EntryOut) {
	out.NodeId, out.EntryValid, out.AttrValid = n.id, valid, valid
	m.attr(n, &out.Attr)
}

func (m *mounted) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[h.NodeId].names[name]
	switch {
	case m.dark:
		return fuse.EIO
	case n == nil:
		return fuse.ENOENT
	}
	m.entry(n, out)
	return fuse.OK
}

func (m *mounted) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	out.AttrValid = valid
	m.attr(m.nodes[in.NodeId], &out.Attr)
	return fuse.OK
}

func (m *mounted) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[in.NodeId]
	if size, ok := in.GetSize(); ok {
		if errno := m.change(func() syscall.Errno { m.resize(n, int(size)); return 0 }); errno != 0 {
			return fuse.Status(errno)
		}
	}
	out.AttrValid = valid
	m.attr(n, &out.Attr)
	return fuse.OK
}

// add makes a file or directory with a name.
func (m *mounted) add(parent uint64, name string, dir bool, out *fuse.EntryOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.nodes[parent]
	return fuse.Status(m.change(func() syscall.Errno {
		if p.names[name] != nil {
			return syscall.EEXIST
		}
		n := m.newNode(dir)
		m.move(p, move{name: name, to: n})
		m.entry(n, out)
		return 0
	}))
}

func (m *mounted) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return m.add(in.NodeId, name, true, out)
}

func (m *mounted) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return m.add(in.NodeId, name, false, &out.EntryOut)
}

func (m *mounted) remove(parent uint64, name string, dir bool) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.nodes[parent]
	return fuse.Status(m.change(func() syscall.Errno {
		switch n := p.names[name]; {
		case n == nil:
			return syscall.ENOENT
		case n.dir && !dir:
			return syscall.EISDIR
		case dir && !n.dir:
			return syscall.ENOTDIR
		case len(n.names) > 0:
			return syscall.ENOTEMPTY
		}
		m.move(p, move{name: name})
		return 0
	}))
}

func (m *mounted) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return m.remove(h.NodeId, name, false)
}

func (m *mounted) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return m.remove(h.NodeId, name, true)
}

func (m *mounted) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.nodes[in.NodeId]
	return fuse.Status(m.change(func() syscall.Errno {
		switch {
		case in.Newdir != in.NodeId || in.Flags != 0:
			return syscall.EXDEV // the store does no such thing
		case p.names[from] == nil:
			return syscall.ENOENT
		}
		m.move(p, move{name: to, from: from, to: p.names[from]})
		return 0
	}))
}

func (m *mounted) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dark {
		return fuse.EIO
	}
	// The page cache is the disk's own, where it can be evicted. A mapping has its pages in the kernel's.
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (m *mounted) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dark {
		return nil, fuse.EIO
	}
	data := m.nodes[in.NodeId].data
	return fuse.ReadResultData(buf[:copy(buf, data[min(int(in.Offset), len(data)):])]), fuse.OK
}

func (m *mounted) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[in.NodeId]
	errno := m.change(func() syscall.Errno { m.write(n, int64(in.Offset), data); return 0 })
	return uint32(len(data)), fuse.Status(errno)
}

func (m *mounted) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[in.NodeId]
	if in.Mode != 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return fuse.Status(m.change(func() syscall.Errno { m.resize(n, max(len(n.data), int(in.Offset+in.Length))); return 0 }))
}

func (m *mounted) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nodes[in.NodeId]
	return fuse.Status(m.change(func() syscall.Errno { return m.sync(n) }))
}

func (m *mounted) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status { return m.Fsync(c, in) }

func (m *mounted) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (m *mounted) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dark {
		return fuse.EIO
	}
	return fuse.OK
}

func (m *mounted) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dark {
		return fuse.EIO
	}
	// By node number, which is the offset too: what is added or removed in between moves nobody else.
	type named struct {
		name string
		n    *node
	}
	var all []named
	for name, n := range m.nodes[in.NodeId].names {
		if n.id > in.Offset {
			all = append(all, named{name, n})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return int(a.n.id) - int(b.n.id) })
	for _, e := range all {
		mode := uint32(syscall.S_IFREG)
		if e.n.dir {
			mode = syscall.S_IFDIR
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: e.name, Mode: mode, Ino: e.n.id, Off: e.n.id}) {
			break
		}
	}
	return fuse.OK
}

func (m *mounted) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = 1<<20, 1<<19, 1<<19
	return fuse.OK
}
