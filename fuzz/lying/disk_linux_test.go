package lying

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

const sectorSize = 512

// disk is what a machine's disk and its cache hold. Its methods are the calls of a file system.
type disk struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	nodes map[uint64]*node
	root  *node
	calls int // that change something, or sync
	seq   int // of changes

	cutAt  int           // the power goes at this call; 0 = it stays
	dark   bool          // it is gone
	wentAt chan struct{} // closed when it goes, or when the process is to be killed
	killAt int           // the process is to be killed at this call

	failAt  int  // this sync, of those to come, fails; 0 = none
	atOnce  bool // and the pages are dropped at once, not when they are evicted
	failed  bool // it has
	evictAt int  // the call at which they are evicted
}

// node is a file or a directory.
type node struct {
	id  uint64
	dir bool
	at  int // when it was changed

	// Of a file.
	data   []byte            // as a process reads it
	kept   []byte            // as it is on the disk
	dirty  map[int64][]image // what its sectors were since the last sync, in order
	sizes  []resized         // how long it was since then
	unkept map[int64]bool    // sectors whose sync failed: they look clean, and data and kept differ

	// Of a directory.
	names     map[string]*node
	keptNames map[string]*node
	moves     []move // since the last sync
}

type image struct {
	seq     int
	content []byte
}

type resized struct {
	seq, size int
	shrunk    bool
}

// move is a change of a directory: name is to's from now on, nobody's if to is nil, and from is nobody's.
type move struct {
	seq        int
	name, from string
	to         *node
}

func newDisk(rnd *rand.Rand) *disk {
	d := &disk{rnd: rnd, nodes: map[uint64]*node{}}
	d.root = d.newNode(true)
	return d
}

// newNode makes one. Numbers are never used again, so that the kernel takes none for another.
func (d *disk) newNode(dir bool) *node {
	n := &node{id: uint64(len(d.nodes) + 1), dir: dir, at: d.seq}
	if dir {
		n.names, n.keptNames = map[string]*node{}, map[string]*node{}
	} else {
		n.dirty, n.unkept = map[int64][]image{}, map[int64]bool{}
	}
	d.nodes[n.id] = n
	return n
}

// change has do happen, unless the power is gone. It may go before, or behind: then it has happened, and the caller is
// not told.
func (d *disk) change(do func() syscall.Errno) syscall.Errno {
	if d.dark {
		return syscall.EIO
	}
	d.calls++
	d.seq++
	if d.calls == d.evictAt {
		d.evict()
	}
	goes := d.calls == d.cutAt
	if goes && d.rnd.IntN(2) == 0 {
		d.goDark()
		return syscall.EIO
	}
	errno := do()
	if goes {
		d.goDark()
		return syscall.EIO
	}
	if d.calls == d.killAt {
		close(d.wentAt)
	}
	return errno
}

func (d *disk) goDark() {
	d.dark = true
	close(d.wentAt)
}

func (d *disk) write(n *node, at int64, b []byte) {
	if end := int(at) + len(b); end > len(n.data) {
		n.data = append(n.data, make([]byte, end-len(n.data))...)
		n.sizes = append(n.sizes, resized{d.seq, end, false})
	}
	copy(n.data[at:], b)
	for s := at / sectorSize; s*sectorSize < at+int64(len(b)); s++ {
		n.dirty[s] = append(n.dirty[s], image{d.seq, bytes.Clone(sector(n.data, s))})
		delete(n.unkept, s)
	}
	n.at = d.seq
}

// sector returns what b has in a sector, which may be cut short by its end.
func sector(b []byte, s int64) []byte {
	from := min(s*sectorSize, int64(len(b)))
	return b[from:min(from+sectorSize, int64(len(b)))]
}

func (d *disk) resize(n *node, size int) {
	if size == len(n.data) {
		return
	}
	shrunk := size < len(n.data)
	if shrunk {
		n.data = slices.Clone(n.data[:size])
		for s := range n.unkept {
			if s*sectorSize >= int64(size) {
				delete(n.unkept, s)
			}
		}
	} else {
		n.data = append(n.data, make([]byte, size-len(n.data))...)
	}
	n.sizes = append(n.sizes, resized{d.seq, size, shrunk})
	n.at = d.seq
}

// sync makes the file, or the directory's names, durable.
func (d *disk) sync(n *node) syscall.Errno {
	if d.failAt > 0 {
		if d.failAt--; d.failAt == 0 {
			d.failed = true
			if !n.dir {
				for s := range n.dirty {
					n.unkept[s] = true
				}
				clear(n.dirty)
				if d.atOnce {
					d.evict()
				}
			}
			return syscall.EIO
		}
	}
	if n.dir {
		n.keptNames, n.moves = maps.Clone(n.names), nil
		return 0
	}
	n.kept = n.survive(func(int) bool { return true })
	n.settle()
	return 0
}

// evict drops the pages that look clean, and the next to read them finds what is on the disk.
func (d *disk) evict() {
	for _, n := range d.nodes {
		for s := range n.unkept {
			if d.atOnce || d.rnd.IntN(4) > 0 {
				page := sector(n.data, s)
				clear(page)
				copy(page, sector(n.kept, s))
				delete(n.unkept, s)
			}
		}
	}
}

// survive returns what is on the disk when those of the changes since the last sync are that keep says, asked with a
// change's number. Later changes of a sector take the place of earlier ones.
func (n *node) survive(keep func(seq int) bool) []byte {
	b, since := slices.Clone(n.kept), map[int64]int{}
	kept := 0 // sizes up to this one
	for i, r := range n.sizes {
		if keep(r.seq) {
			kept = i + 1
		}
	}
	size, until := len(n.kept), 1<<62
	for i, r := range n.sizes {
		if i >= kept {
			if r.shrunk {
				until = min(until, r.seq) // what was written behind the new end went elsewhere
			}
			continue
		}
		size = r.size
		if r.shrunk && r.size < len(b) {
			for s := int64(r.size / sectorSize); s*sectorSize < int64(len(b)); s++ {
				since[s] = r.seq
			}
			clear(b[r.size:])
		}
	}
	longest := size
	for s := range n.dirty {
		longest = max(longest, int(s+1)*sectorSize)
	}
	b = append(b, make([]byte, max(0, longest-len(b)))...)
	for s, images := range n.dirty {
		for _, i := range images {
			if i.seq > since[s] && i.seq < until && keep(i.seq) {
				page := sector(b, s)
				copy(page, i.content)
			}
		}
	}
	return slices.Clip(b[:size])
}

// settle forgets what was not synced.
func (n *node) settle() {
	n.dirty, n.sizes = map[int64][]image{}, nil
}

// cut leaves what survives when the power goes.
func (d *disk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	how := d.rnd.IntN(5)
	moment := d.rnd.IntN(d.seq + 1)
	keep := func(seq int) bool {
		switch how {
		case 0:
			return false
		case 1:
			return true
		case 2: // in the order of the calls, but for the last, of which some sectors
			return seq < moment || seq == moment && d.rnd.IntN(2) == 0
		case 3:
			return d.rnd.IntN(8) > 0
		}
		return d.rnd.IntN(2) == 0
	}
	for _, n := range d.nodes {
		if !n.dir {
			n.kept = n.survive(keep)
			n.data = slices.Clone(n.kept)
			n.settle()
			clear(n.unkept)
			continue
		}
		for _, m := range n.moves {
			if keep(m.seq) {
				m.apply(n.keptNames)
			}
		}
		n.names, n.moves = maps.Clone(n.keptNames), nil
	}
	d.dark = false
}

func (m move) apply(names map[string]*node) {
	if m.from != "" {
		delete(names, m.from)
	}
	if m.to == nil {
		delete(names, m.name)
	} else {
		names[m.name] = m.to
	}
}

func (d *disk) move(dir *node, m move) {
	m.seq = d.seq
	m.apply(dir.names)
	dir.moves = append(dir.moves, m)
	dir.at = d.seq
}

// forget lets go what no directory names. Nothing is mounted.
func (d *disk) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	named := map[*node]bool{}
	var visit func(n *node)
	visit = func(n *node) {
		if n == nil || named[n] {
			return
		}
		named[n] = true
		for _, c := range n.names {
			visit(c)
		}
		for _, c := range n.keptNames {
			visit(c)
		}
		for _, m := range n.moves {
			visit(m.to)
		}
	}
	visit(d.root)
	for id, n := range d.nodes {
		if !named[n] {
			d.nodes[id] = &node{id: id, names: map[string]*node{}, keptNames: map[string]*node{}, dir: true} // the number stays taken
		}
	}
}
