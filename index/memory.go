package index

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	pageSize = int(unsafe.Sizeof(slots{}))

	// The first mapping has room for two pages of each shard, half a million keys, and is used in small pieces so that
	// a store of ten keys takes little, and no larger one much more than its pages.
	firstMapping = 2 * shardCount * pageSize
	firstPiece   = 256 << 10

	// Those after it are used in pieces that are huge pages. A mapping is mostly address space, not memory: it is
	// larger than a piece because a mapping need not begin where a huge page can, and only whole ones count.
	laterMapping = 64 << 20
	laterPiece   = 2 << 20
)

// memory hands out pages from outside of the Go heap. There the collector doesn't walk them, and, what costs more,
// doesn't count them either: in the heap 150 MB of table would let 150 MB of garbage pile up. Pages are never handed
// back one by one, since tables only grow.
type memory struct {
	heap bool                      // take pages from the Go heap: the race detector does not see others
	more func(int) ([]byte, error) // a new mapping; a variable for tests
	many bool                      // it is known that the first mapping would be too small

	mu       sync.Mutex
	piece    []byte   // to be cut into pages
	left     [][]byte // pieces that a loader left over
	rest     []byte   // of the last mapping, to be cut into pieces
	mappings [][]byte

	bytes  atomic.Int64 // in pieces taken
	pages  atomic.Int64
	failed atomic.Bool // the last attempt to get a piece
}

func newMemory() *memory { return &memory{heap: !canMap, more: mapAnonymous} }

// page returns a page of zeros.
func (m *memory) page() (*slots, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heap {
		m.pages.Add(1)
		m.bytes.Add(int64(pageSize))
		return new(slots), nil
	}
	if err := m.refill(); err != nil {
		return nil, err
	}
	s, rest := m.cut(m.piece)
	m.piece = rest
	return s, nil
}

// cut cuts a page off a piece.
func (m *memory) cut(piece []byte) (s *slots, rest []byte) {
	m.pages.Add(1)
	return (*slots)(unsafe.Pointer(unsafe.SliceData(piece))), piece[pageSize:]
}

// take returns a piece that nobody else cuts pages from.
func (m *memory) take() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refill(); err != nil {
		return nil, err
	}
	piece := m.piece
	m.piece = nil
	return piece, nil
}

// giveBack takes what is left of pieces that were taken.
func (m *memory) giveBack(pieces [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = append(m.left, pieces...)
}

// refill sees to it that a page can be cut. Under mu.
func (m *memory) refill() error {
	if len(m.piece) > 0 {
		return nil
	}
	if n := len(m.left); n > 0 {
		m.piece, m.left = m.left[n-1], m.left[:n-1]
		return nil
	}
	size := m.pieceSize()
	if len(m.rest) < size {
		if err := m.extend(); err != nil {
			m.failed.Store(true)
			return fmt.Errorf("%w: %d bytes are mapped and the system gives no more: %w", ErrFull, m.bytes.Load(), err)
		}
		size = m.pieceSize()
	}
	m.piece, m.rest = m.rest[:size:size], m.rest[size:]
	if size == laterPiece {
		adviseHuge(m.piece)
	}
	m.bytes.Add(int64(size))
	m.failed.Store(false)
	return nil
}

func (m *memory) pieceSize() int {
	if len(m.mappings) <= 1 && !m.many {
		return firstPiece
	}
	return laterPiece
}

// extend takes another mapping. Where 64 MiB of address space are not to be had, 4 MiB are asked for: they hold one
// huge page wherever they begin.
func (m *memory) extend() error {
	first := len(m.mappings) == 0 && !m.many
	size := laterMapping
	if first {
		size = firstMapping
	}
	b, err := m.more(size)
	if err != nil && size > 2*laterPiece {
		b, err = m.more(2 * laterPiece)
	}
	if err != nil {
		return err
	}
	if len(m.mappings) == 1 && !m.many {
		// The first one is full, and most of a million keys' table lies in it: the system may put it together in the
		// background.
		adviseHuge(m.mappings[0])
	}
	m.mappings = append(m.mappings, b)
	m.rest = b
	if !first {
		skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % laterPiece
		m.rest = b[skip:]
		m.rest = m.rest[:len(m.rest)/laterPiece*laterPiece]
	}
	return nil
}

// full reports whether a page can be had, and tries if the last attempt failed: the system may have memory again,
// and no insertion would find out while the index calls itself full.
func (m *memory) full() error {
	if !m.failed.Load() {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refill()
}

// release gives all back. Nobody may look at a page any more.
func (m *memory) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.mappings {
		if unmap(b) != nil {
			return // it stays mapped and counted: there is nobody left to tell
		}
	}
	m.mappings, m.piece, m.left, m.rest = nil, nil, nil, nil
	m.bytes.Store(0)
}
