//go:build linux && amd64

package crash

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// keep says how much of what was not synced a state has.
type keep int

const (
	nothing keep = iota
	everything
	aBeginning // of what was done, the last torn
	anything
	keeps
	// each file and directory in its own way: one has lost all, and its neighbour nothing
	mixed = keeps
)

func aKeep(rnd *rand.Rand) keep { return keep(rnd.IntN(int(keeps) + 1)) }

func (k keep) here(rnd *rand.Rand) keep {
	if k == mixed {
		return keep(rnd.IntN(int(keeps)))
	}
	return k
}

// image is a state of a disk, in memory: directories before what is in them.
type image []file

type file struct {
	path string
	dir  bool
	data []byte
}

// state makes a state that a cut at this moment may leave, of what is below those names at the top. The same random
// numbers make the same state.
func (d *disk) state(rnd *rand.Rand, data, names keep, tops ...string) image {
	m := maker{rnd: rnd, data: data, names: names, tops: tops}
	m.put("", d.root)
	return m.made
}

// view is what processes see: what a killed one leaves.
func (d *disk) view() image {
	var made image
	var show func(path string, n *node)
	show = func(path string, n *node) {
		made = append(made, file{path, n.dir, n.content})
		for _, name := range slices.Sorted(maps.Keys(n.entries)) {
			show(filepath.Join(path, name), n.entries[name])
		}
	}
	show("", d.root)
	return made
}

type maker struct {
	rnd         *rand.Rand
	data, names keep
	tops        []string
	made        image
}

func (m *maker) put(path string, n *node) {
	if !n.dir {
		m.made = append(m.made, file{path: path, data: n.left(m.rnd, m.data.here(m.rnd))})
		return
	}
	m.made = append(m.made, file{path: path, dir: true})
	entries := n.kept
	if len(n.moves) > 0 {
		entries = maps.Clone(n.kept)
		names := m.names.here(m.rnd)
		beginning := m.rnd.IntN(len(n.moves) + 1)
		for i, move := range n.moves {
			if !chosen(m.rnd, names, i, beginning) {
				continue
			}
			for _, e := range move.all {
				entries[e.name] = e.node
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if e := entries[name]; e != nil && (path != "" || slices.Contains(m.tops, name)) {
			m.put(filepath.Join(path, name), e)
		}
	}
}

// chosen says whether the i-th change of a directory is there.
func chosen(rnd *rand.Rand, k keep, i, beginning int) bool {
	switch k {
	case everything:
		return true
	case aBeginning:
		return i < beginning
	case anything:
		return rnd.IntN(2) == 0
	}
	return false
}

// left is what a file holds after the cut.
func (n *node) left(rnd *rand.Rand, k keep) []byte {
	b := n.durable
	if len(n.pending) == 0 {
		return b
	}
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
			part := change{at: at, data: c.data[at-c.at : next-c.at]}
			to = part.applied(to)
		}
		at = next
	}
	return to
}

// sum tells images apart.
func (im image) sum() uint64 {
	var h xxhash.Digest
	h.Reset()
	var b []byte
	for _, f := range im {
		b = binary.AppendUvarint(b[:0], uint64(len(f.path)))
		b = append(b, f.path...)
		b = binary.AppendUvarint(b, uint64(len(f.data)))
		_, _ = h.Write(b)
		_, _ = h.Write(f.data)
	}
	return h.Sum64()
}

// write puts the image into a directory, which is made.
func (im image) write(dir string) error {
	for _, f := range im {
		path := filepath.Join(dir, f.path)
		if f.dir {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
		} else if err := os.WriteFile(path, f.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
