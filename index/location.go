package index

import "fmt"

// Location is where a record starts: the slot of its segment, 1 to 65535, and its byte offset in that segment.
// Zero is no location.
type Location uint64

const (
	offsetBits   = 25
	locationBits = offsetBits + 16

	// MaxOffset is the largest offset that a Location holds: a segment has to be shorter than 32 MiB.
	MaxOffset = 1<<offsetBits - 1
)

// At returns the location of a record. It panics if slot is 0 or offset lies outside of 0 to MaxOffset: a location
// cut to fit would point at another record, whose key is another, and the caller would take its own key for absent.
func At(slot uint16, offset int64) Location {
	if slot == 0 || offset < 0 || offset > MaxOffset {
		panic(fmt.Sprintf("index: no location has segment slot %d and offset %d", slot, offset))
	}
	return Location(slot)<<offsetBits | Location(offset)
}

// Slot returns the segment's slot, or 0 for no location.
func (l Location) Slot() uint16 { return uint16(l >> offsetBits) }

// Offset returns the record's offset in its segment, in bytes.
func (l Location) Offset() int64 { return int64(l & MaxOffset) }

// check panics unless l came from At. Zero stored in a slot would be a free slot, and the key lost.
func (l Location) check() {
	if l.Slot() == 0 || l>>locationBits != 0 {
		panic(fmt.Sprintf("index: %#x is not a location", uint64(l)))
	}
}
