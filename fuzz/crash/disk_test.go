//go:build linux && amd64

package crash

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
)

// disk is what the calls have made of a file system, and what of it is on stable storage. A change may be on it from
// the moment at which its call begins; a sync covers the changes whose calls had ended when it began, and has done so
// when it has ended. All between may be either way.
type disk struct {
	root   *node
	flying map[int]flight // calls that have begun and not ended
}

// flight is a call that has not ended.
type flight struct {
	c      call
	node   *node
	works  bool  // as far as the model knows
	covers []int // of a sync: the changes, by their calls
}

// node is a file or a directory.
type node struct {
	dir bool

	content []byte   // of a file, as processes see it
	durable []byte   // as of its last sync
	pending []change // since then, in order

	entries map[string]*node // of a directory, as processes see it
	kept    map[string]*node // as of its last sync
	moves   []move           // since then, in order
}

// change is a write, or else a new size.
type change struct {
	id   int // of the call
	done bool
	at   int64
	data []byte // nil = the file's size is at
}

// move is a change of a directory that happens at once: names and what they stand for now, nil = nothing.
type move struct {
	id   int
	done bool
	all  []entry
}

type entry struct {
	name string
	node *node
}

func newDir() *node { return &node{dir: true, entries: map[string]*node{}, kept: map[string]*node{}} }

func newDisk() *disk { return &disk{root: newDir(), flying: map[int]flight{}} }

// killed returns the disk as the process's death leaves it: its calls are over. It goes its own way from here on.
func (d *disk) killed() *disk {
	known := map[*node]*node{nil: nil}
	var copied func(n *node) *node
	copied = func(n *node) *node {
		if c, ok := known[n]; ok {
			return c
		}
		c := &node{dir: n.dir, content: bytes.Clone(n.content), durable: n.durable, pending: slices.Clone(n.pending), moves: slices.Clone(n.moves)}
		known[n] = c
		for i := range c.pending {
			c.pending[i].id, c.pending[i].done = past, true
		}
		for i := range c.moves {
			m := &c.moves[i]
			m.id, m.done, m.all = past, true, slices.Clone(m.all)
			for j := range m.all {
				m.all[j].node = copied(m.all[j].node)
			}
		}
		if n.dir {
			c.entries, c.kept = map[string]*node{}, map[string]*node{}
			for name, e := range n.entries {
				c.entries[name] = copied(e)
			}
			for name, e := range n.kept {
				c.kept[name] = copied(e)
			}
		}
		return c
	}
	return &disk{root: copied(d.root), flying: map[int]flight{}}
}

// past is the call of all that another process did.
const past = -1

// find returns the directory of a path, the last name, and what it stands for.
func (d *disk) find(path string) (dir *node, name string, n *node) {
	dir = d.root
	if path == "" {
		return nil, "", dir
	}
	parts := strings.Split(path, "/")
	for _, part := range parts[:len(parts)-1] {
		if dir = dir.entries[part]; dir == nil || !dir.dir {
			return nil, "", nil
		}
	}
	name = parts[len(parts)-1]
	return dir, name, dir.entries[name]
}

func (n *node) set(id int, all ...entry) {
	for _, e := range all {
		if e.node == nil {
			delete(n.entries, e.name)
		} else {
			n.entries[e.name] = e.node
		}
	}
	n.moves = append(n.moves, move{id: id, all: all})
}

// do lets a call begin, or end. An error says that the model and the kernel differ, or that the model cannot say.
func (d *disk) do(c call) error {
	switch c.Name {
	case "note":
		return nil
	case "end":
		return d.end(c)
	}
	dir, name, n := d.find(c.Path)
	f := flight{c: c, node: n}
	switch c.Name {
	case "mkdir":
		if f.works = dir != nil && n == nil; f.works {
			f.node = dir
			dir.set(c.ID, entry{name, newDir()})
		}
	case "open": // which makes the file, or cuts it
		f.works = dir != nil && (n == nil || !n.dir)
		switch {
		case !f.works:
		case n == nil:
			f.node = dir
			dir.set(c.ID, entry{name, &node{}})
		case c.Truncates && len(n.content) > 0:
			n.change(change{id: c.ID, at: 0})
		}
	case "unlink", "rmdir":
		if f.works = n != nil && n.dir == (c.Name == "rmdir") && len(n.entries) == 0; f.works {
			f.node = dir
			dir.set(c.ID, entry{name, nil})
		}
	case "rename":
		to, toName, _ := d.find(c.To)
		if f.works = n != nil && to != nil; !f.works {
			break
		}
		if to != dir {
			return fmt.Errorf("a rename from %s to %s, of which a crash may keep a half", c.Path, c.To)
		}
		f.node = dir
		dir.set(c.ID, entry{name, nil}, entry{toName, n})
	case "write":
		if f.works = true; n != nil { // else its name is gone
			n.change(change{id: c.ID, at: c.At, data: c.Data})
		}
	case "truncate":
		if f.works = true; n != nil {
			n.change(change{id: c.ID, at: c.At})
		}
	case "grow":
		if f.works = true; n != nil && c.At > int64(len(n.content)) {
			n.change(change{id: c.ID, at: c.At})
		}
	case "sync":
		if f.works = true; n != nil {
			f.covers = n.ended()
		}
	default:
		return fmt.Errorf("%v: the model has no such call", c)
	}
	d.flying[c.ID] = f
	return nil
}

// end lets a call end.
func (d *disk) end(c call) error {
	f, ok := d.flying[c.ID]
	delete(d.flying, c.ID)
	failed := c.Errno != 0
	switch {
	case !ok:
		return fmt.Errorf("%v, which has not begun", c)
	case failed && (f.c.Name == "sync" || c.Errno == syscall.EEXIST && f.c.Name == "open" || c.Errno == syscall.EOPNOTSUPP && f.c.Name == "grow"):
		return nil // what it was to do may have been done
	case failed == f.works:
		return fmt.Errorf("%v: the model says that it works: %v, the kernel: %w", f.c, f.works, c.Errno)
	case failed, f.node == nil:
	case f.c.Name == "sync":
		f.node.sync(f.covers)
	default:
		f.node.finish(c.ID)
	}
	return nil
}

func (n *node) change(c change) {
	n.content = c.applied(n.content)
	n.pending = append(n.pending, c)
}

// finish says that a call has ended. A file that was made by it is its directory's change.
func (n *node) finish(id int) {
	for i := range n.pending {
		n.pending[i].done = n.pending[i].done || n.pending[i].id == id
	}
	for i := range n.moves {
		n.moves[i].done = n.moves[i].done || n.moves[i].id == id
	}
}

// ended are the changes that a sync which begins now covers.
func (n *node) ended() (ids []int) {
	for _, c := range n.pending {
		if c.done {
			ids = append(ids, c.id)
		}
	}
	for _, m := range n.moves {
		if m.done {
			ids = append(ids, m.id)
		}
	}
	return ids
}

func (n *node) sync(covers []int) {
	covered := func(id int) bool { return slices.Contains(covers, id) }
	for i := range n.pending {
		if c := &n.pending[i]; covered(c.id) {
			n.durable = c.applied(n.durable)
		}
	}
	n.pending = slices.DeleteFunc(n.pending, func(c change) bool { return covered(c.id) })
	if !n.dir || len(covers) == 0 {
		return
	}
	n.kept = maps.Clone(n.kept)
	for _, m := range n.moves {
		if !covered(m.id) {
			continue
		}
		for _, e := range m.all {
			if e.node == nil {
				delete(n.kept, e.name)
			} else {
				n.kept[e.name] = e.node
			}
		}
	}
	n.moves = slices.DeleteFunc(n.moves, func(m move) bool { return covered(m.id) })
}

// applied returns what a change makes of some bytes, which stay as they are.
func (c *change) applied(to []byte) []byte {
	if c.data == nil {
		return resized(to, c.at)
	}
	b := make([]byte, max(int64(len(to)), c.at+int64(len(c.data))))
	copy(b, to)
	copy(b[c.at:], c.data)
	return b
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b[:len(b):len(b)], make([]byte, size-int64(len(b)))...)
}

// unsynced is how many sectors and names a cut may take.
func (d *disk) unsynced() (n int) {
	var count func(at *node)
	count = func(at *node) {
		n += len(at.moves)
		for _, c := range at.pending {
			n += 1 + len(c.data)/sector
		}
		for _, e := range at.entries {
			count(e)
		}
	}
	count(d.root)
	return n
}

// diskOf returns a disk on which all of an image is durable.
func diskOf(im image) *disk {
	d := newDisk()
	nodes := map[string]*node{"": d.root}
	for _, f := range im[1:] {
		n := &node{content: f.data, durable: f.data}
		if f.dir {
			n = newDir()
		}
		nodes[f.path] = n
		in, name := "", f.path
		if i := strings.LastIndexByte(f.path, '/'); i >= 0 {
			in, name = f.path[:i], f.path[i+1:]
		}
		nodes[in].entries[name], nodes[in].kept[name] = n, n
	}
	return d
}
