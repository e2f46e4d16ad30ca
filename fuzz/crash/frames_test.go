//go:build linux && amd64

package crash

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// A reader of segments for the lint, written from docs/FORMAT.md and not from the store's own, so that what the two
// agree on is the page.

// segment is what a segment file holds.
type segment struct {
	whole  bool // its header
	number uint64
	nonce  uint64
	first  uint64
	frames []frame
	end    int64 // behind the last good frame
	sealed bool
}

type frame struct {
	at, end        int64
	number, synced uint64
	own            byte // the kind of a frame of the log's own; 0 = a transaction
	through        uint64
}

const (
	headerEnd = 81

	dropThrough = 28
	syncMark    = 29
	seal        = 30
)

func scan(b []byte) (s segment) {
	if len(b) < headerEnd || b[0] != headerEnd-1 || string(b[1:9]) != "oncewal\x00" || xxhash.Sum64(b[1:73]) != binary.LittleEndian.Uint64(b[73:]) {
		return s
	}
	h := b[1:]
	s.whole, s.end = true, headerEnd
	s.number, s.nonce, s.first = binary.LittleEndian.Uint64(h[32:]), binary.LittleEndian.Uint64(h[40:]), binary.LittleEndian.Uint64(h[48:])
	last := s.first - 1
	for !s.sealed {
		f, ok := s.frame(b, s.end)
		if !ok || f.own == 0 && f.number != last+1 || f.own != 0 && f.number != last {
			break
		}
		last = f.number
		s.frames = append(s.frames, f)
		s.end, s.sealed = f.end, f.own == seal
	}
	return s
}

// frame reads the frame at an offset.
func (s *segment) frame(b []byte, at int64) (f frame, ok bool) {
	n, used := binary.Uvarint(b[at:])
	if used <= 0 || n < 11 || n > uint64(len(b))-uint64(at)-uint64(used) {
		return f, false
	}
	f.at, f.end = at, at+int64(used)+int64(n)
	body := b[at+int64(used)+8 : f.end]
	rel, a := binary.Uvarint(body)
	if a <= 0 {
		return f, false
	}
	back, c := binary.Uvarint(body[a:])
	if c <= 0 || a+c >= len(body) {
		return f, false
	}
	f.number = s.first + rel - 1
	f.synced = f.number - back
	var d xxhash.Digest
	d.ResetWithSeed(s.nonce ^ f.number*0x9E3779B97F4A7C15)
	_, _ = d.Write(body)
	if back > f.number || d.Sum64() != binary.LittleEndian.Uint64(b[at+int64(used):]) {
		return f, false
	}
	switch p := body[a+c:]; p[0] {
	case dropThrough:
		f.through = binary.LittleEndian.Uint64(p[1:])
		fallthrough
	case syncMark, seal:
		f.own = p[0]
	}
	return f, true
}

// last is the number of the segment's last transaction, or of the one before it.
func (s *segment) last() uint64 {
	if n := len(s.frames); n > 0 {
		return s.frames[n-1].number
	}
	return s.first - 1
}

// through is the end of the last transaction up to a number; 0 = the segment has none of these.
func (s *segment) through(number uint64) (end int64) {
	for _, f := range s.frames {
		if f.own == 0 && f.number <= number {
			end = f.end
		}
	}
	return end
}

// proven is the largest number that the segment's bytes prove to have been synced: by its frames, by frames behind what
// is missing, and by its header, before which the seal was synced.
func (s *segment) proven(b []byte) (synced uint64) {
	if !s.whole {
		return 0
	}
	synced = s.first - 1
	for _, f := range s.frames {
		synced = max(synced, f.synced)
	}
	for at := s.end; at < int64(len(b)); at++ {
		if b[at] != 0 {
			if f, ok := s.frame(b, at); ok && f.synced <= s.last() {
				synced = max(synced, f.synced)
			}
		}
	}
	return synced
}
