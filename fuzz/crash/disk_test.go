//go:build linux && amd64

package crash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// disk is what the calls have made of a file system, and what of it is on stable storage.
type disk struct {
	root    *node
	cutting bool // a torn tail may be written over: recovery cuts it
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
	at   int64
	data []byte // nil = the file's size is at
}

// move is a change of a directory that happens at once: names and what they stand for now, nil = nothing.
type move []entry

type entry struct {
	name string
	node *node
}

func newDir() *node { return &node{dir: true, entries: map[string]*node{}, kept: map[string]*node{}} }

func newDisk() *disk { return &disk{root: newDir()} }

// clone returns a disk that goes its own way from here on.
func (d *disk) clone() *disk {
	known := map[*node]*node{nil: nil}
	var copied func(n *node) *node
	copied = func(n *node) *node {
		if c, ok := known[n]; ok {
			return c
		}
		c := &node{dir: n.dir, content: n.content[:len(n.content):len(n.content)], durable: n.durable}
		c.content = bytes.Clone(c.content)
		known[n] = c
		c.pending = append(c.pending, n.pending...)
		if n.dir {
			c.entries, c.kept = map[string]*node{}, map[string]*node{}
			for name, e := range n.entries {
				c.entries[name] = copied(e)
			}
			for name, e := range n.kept {
				c.kept[name] = copied(e)
			}
			for _, m := range n.moves {
				var moved move
				for _, e := range m {
					moved = append(moved, entry{e.name, copied(e.node)})
				}
				c.moves = append(c.moves, moved)
			}
		}
		return c
	}
	return &disk{root: copied(d.root)}
}

// load returns a disk on which all that is below dir is durable.
func load(dir string) (*disk, error) {
	var read func(path string) (*node, error)
	read = func(path string) (*node, error) {
		all, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		n := newDir()
		for _, e := range all {
			var c *node
			if at := filepath.Join(path, e.Name()); e.IsDir() {
				c, err = read(at)
			} else {
				c = &node{}
				c.content, err = os.ReadFile(at)
				c.durable = bytes.Clone(c.content)
			}
			if err != nil {
				return nil, err
			}
			n.entries[e.Name()], n.kept[e.Name()] = c, c
		}
		return n, nil
	}
	root, err := read(dir)
	return &disk{root: root}, err
}

// view makes what processes see, below dir: what a killed one leaves.
func (d *disk) view(dir string) error { return d.root.show(dir) }

func (n *node) show(path string) error {
	if !n.dir {
		return os.WriteFile(path, n.content, 0o600)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	for name, e := range n.entries {
		if err := e.show(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// find returns the directory of a path, the last name, and what it stands for.
func (d *disk) find(path string) (dir *node, name string, n *node) {
	dir = d.root
	parts := strings.Split(path, "/")
	for _, part := range parts[:len(parts)-1] {
		if dir = dir.entries[part]; dir == nil || !dir.dir {
			return nil, "", nil
		}
	}
	name = parts[len(parts)-1]
	return dir, name, dir.entries[name]
}

func (n *node) set(all ...entry) {
	for _, e := range all {
		if e.node == nil {
			delete(n.entries, e.name)
		} else {
			n.entries[e.name] = e.node
		}
	}
	n.moves = append(n.moves, all)
}

// do lets a call happen. The answer is a rule that the store's own calls must keep and this one breaks.
func (d *disk) do(c call) error {
	dir, name, n := d.find(c.path)
	if c.path == "" {
		n = d.root
	} else if dir == nil {
		return nil // it fails
	}
	switch c.name {
	case "mkdir":
		if n == nil {
			dir.set(entry{name, newDir()})
		}
	case "open": // which makes the file, or cuts it
		if n == nil {
			dir.set(entry{name, &node{}})
		} else if c.truncates {
			n.change(change{at: 0})
		}
	case "unlink":
		if n != nil && (!n.dir || len(n.entries) == 0) {
			dir.set(entry{name, nil})
		}
	case "rename":
		to, toName, _ := d.find(c.to)
		if n == nil || to == nil {
			return nil
		}
		if to != dir {
			return fmt.Errorf("a rename from %s to %s, of which a crash may keep a half", c.path, c.to)
		}
		dir.set(entry{name, nil}, entry{toName, n})
	case "write":
		if n == nil {
			return nil // its name is gone
		}
		if err := n.once(c); err != nil && !d.cutting {
			return err
		}
		n.change(change{c.at, c.data})
	case "truncate":
		if n != nil {
			n.change(change{at: c.at})
		}
	case "grow":
		if n != nil && c.at > int64(len(n.content)) {
			n.change(change{at: c.at})
		}
	case "sync":
		if n != nil {
			n.sync()
		}
	}
	return nil
}

// once checks that a byte of the log that is not zero is not written again as another.
func (n *node) once(c call) error {
	if !strings.Contains(c.path, "/wal/0") {
		return nil
	}
	for i, b := range c.data {
		at := c.at + int64(i)
		if at < int64(len(n.content)) && n.content[at] != 0 && n.content[at] != b {
			return fmt.Errorf("%s: byte %d is written twice", c.path, at)
		}
	}
	return nil
}

func (n *node) change(c change) {
	n.content = c.applied(n.content)
	n.pending = append(n.pending, c)
}

func (c *change) applied(to []byte) []byte {
	if c.data == nil {
		return resized(to, c.at)
	}
	to = resized(to, max(int64(len(to)), c.at+int64(len(c.data))))
	copy(to[c.at:], c.data)
	return to
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b[:len(b):len(b)], make([]byte, size-int64(len(b)))...)
}

func (n *node) sync() {
	if n.dir {
		n.kept, n.moves = map[string]*node{}, nil
		for name, e := range n.entries {
			n.kept[name] = e
		}
		return
	}
	n.durable, n.pending = bytes.Clone(n.content), nil
}

// keep says how much of what was not synced a state has.
type keep int

const (
	nothing keep = iota
	everything
	aBeginning // of what was done, the last torn
	anything
	keeps
)

// state makes a state that a cut at this moment may leave, below dir.
func (d *disk) state(dir string, rnd *rand.Rand, data, names keep) error {
	return d.root.put(dir, rnd, data, names)
}

func (n *node) put(path string, rnd *rand.Rand, data, names keep) error {
	if !n.dir {
		return os.WriteFile(path, n.left(rnd, data), 0o600)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	entries := map[string]*node{}
	for name, e := range n.kept {
		entries[name] = e
	}
	for i, m := range n.moves {
		if !chosen(rnd, names, i, len(n.moves)) {
			continue
		}
		for _, e := range m {
			entries[e.name] = e.node
		}
	}
	for name, e := range entries {
		if e == nil {
			continue
		}
		if err := e.put(filepath.Join(path, name), rnd, data, names); err != nil {
			return err
		}
	}
	return nil
}

// chosen says whether the i-th of n changes is there.
func chosen(rnd *rand.Rand, k keep, i, n int) bool {
	switch k {
	case everything:
		return true
	case aBeginning:
		return rnd.IntN(n+1) > i // not the same beginning for each, and none is whole for long
	case anything:
		return rnd.IntN(2) == 0
	}
	return false
}

// left is what a file holds after the cut.
func (n *node) left(rnd *rand.Rand, k keep) []byte {
	b := bytes.Clone(n.durable)
	beginning := rnd.IntN(len(n.pending) + 1)
	for i := range n.pending {
		c := &n.pending[i]
		switch {
		case k == nothing, k == aBeginning && i > beginning:
			return b
		case k == everything, k == aBeginning && i < beginning:
			b = c.applied(b)
		default:
			b = c.torn(b, rnd)
		}
	}
	return b
}

// torn applies some sectors of a change, and perhaps its size.
func (c *change) torn(to []byte, rnd *rand.Rand) []byte {
	if c.data == nil {
		if rnd.IntN(2) == 0 {
			return c.applied(to)
		}
		return to
	}
	end := c.at + int64(len(c.data))
	if rnd.IntN(2) == 0 && end > int64(len(to)) {
		to = resized(to, end) // zeros, unless they are written below
	}
	for at := c.at; at < end; {
		next := min((at/sector+1)*sector, end)
		if rnd.IntN(2) == 0 {
			part := change{at, c.data[at-c.at : next-c.at]}
			to = part.applied(to)
		}
		at = next
	}
	return to
}
