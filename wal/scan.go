package wal

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// The scanner reads a segment as it lies on disk and believes nothing that a check does not confirm. It writes
// nothing; recovery, verification and read-only opening all stand on it.

// Frame is a transaction as the scanner found it.
type Frame struct {
	Segment *Segment
	Number  uint64
	Offset  int64  // of the payload's first byte in the segment's file
	Payload []byte // valid until the callback returns

	// Note is what Drop was given. A frame of the log's own says so, which has no payload and the number of the
	// transaction before it.
	Note int64

	log *Log // while it is being opened
}

// InSlot returns the segment in a slot, or nil, of the log that is being opened: Log.Segment for who replays it.
func (f *Frame) InSlot(slot uint16) *Segment { return f.log.Segment(slot) }

// found is what the scan of one segment says.
type found struct {
	header   header
	headerOK bool
	end      int64  // behind the last good frame (or the header, or 0)
	ownFrom  int64  // behind the last transaction; from here to end are frames of the log's own, and the header if there is none
	last     uint64 // number of the last transaction, or of the one before the segment
	synced   uint64 // the largest syncedThrough in a good frame
	sealed   bool
	sealAt   int64 // where the seal begins
	seal     seal
	dropped  uint64 // segments through this number are dropped
	note     int64  // of the last frame that says so
	reason   string // why the frame at end is not good, where something is there at all
}

// read returns the whole file. Segments are a few MiB; the buffer is used again for the next.
func (s *Segment) read(buf []byte) ([]byte, error) {
	fi, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	n := fi.Size()
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	got, err := s.file.ReadAt(buf, 0)
	if err != nil && err != io.EOF { // a file that shrank meanwhile reads short, and scans as what is left
		return nil, err
	}
	return buf[:got], nil
}

// scanFrames reads the header and then frame after frame until one is missing, bad, or the seal. prevLast is the
// number of the last transaction before the segment; emit is called for each one in it. s is not changed, so that
// verifying can go on beside readers and the writer.
func (s *Segment) scanFrames(data []byte, prevLast uint64, emit func(Frame) error) (r found, err error) {
	r.last = prevLast
	h, ok, tooNew := parseHeader(data)
	if tooNew {
		return r, fmt.Errorf("%w: %s: unknown segment format", ErrTooNew, s.path)
	}
	if !ok {
		r.reason = "the segment's header is not whole"
		return r, nil
	}
	r.header, r.headerOK = h, true
	r.end = headerEntry
	r.last = h.first - 1
	for {
		b := data[r.end:]
		if len(b) == 0 || b[0] == 0 {
			r.reason = "a frame is missing"
			return r, nil
		}
		f, ok := parseFrame(b, h.nonce, h.first)
		if !ok {
			r.reason = "a frame fails its check or is cut short"
			return r, nil
		}
		if f.own() {
			if f.number != r.last {
				r.reason = fmt.Sprintf("a frame of the log's own follows frame %d but names %d", r.last, f.number)
				return r, nil
			}
			if len(f.payload) != ownPayload(f.payload[0]) {
				return r, fmt.Errorf("%w: %s at offset %d: a frame of the log's own of another length", ErrTooNew, s.path, r.end)
			}
			switch f.payload[0] {
			case kindSeal:
				sl := parseSeal(f.payload)
				if sl.last != r.last || sl.end != uint64(r.end)+uint64(f.size) {
					r.reason = "the seal contradicts what it seals"
					return r, nil
				}
				r.seal, r.sealed, r.sealAt = sl, true, r.end
			case kindDropThrough:
				through := binary.LittleEndian.Uint64(f.payload[1:])
				if through >= s.number {
					return r, s.Corrupt(r.end, fmt.Sprintf("segments through %d are said to be dropped", through))
				}
				r.dropped = max(r.dropped, through)
				note := int64(binary.LittleEndian.Uint64(f.payload[9:]))
				if err := emit(Frame{Segment: s, Number: f.number, Note: note}); err != nil {
					return r, err
				}
				r.note = note
			}
		} else {
			if f.number != r.last+1 {
				r.reason = fmt.Sprintf("frame %d follows frame %d", f.number, r.last)
				return r, nil
			}
			fr := Frame{Segment: s, Number: f.number, Offset: r.end + int64(f.at), Payload: f.payload}
			if err := emit(fr); err != nil {
				return r, err
			}
			r.last = f.number
		}
		r.synced = max(r.synced, f.synced)
		r.end += int64(f.size)
		if !f.own() {
			r.ownFrom = r.end
		}
		if r.sealed {
			return r, nil
		}
	}
}

// searchFrames looks for good frames anywhere behind a bad one, at every byte, and returns the largest
// syncedThrough that they prove and how many there are. Only frames that prove something about floor or later
// are verified: a chance resemblance costs a hash of what may be megabytes.
func searchFrames(data []byte, nonce, first, floor uint64) (synced uint64) {
	most := saturated(floor, uint64(len(data)/minFrame)+1)
	for i := 0; i < len(data); {
		if data[i] == 0 {
			i += zeros(data[i:])
			continue
		}
		f, _, ok := looksLike(data[i:], first)
		if !ok || f.number > most || f.synced < floor || f.synced <= synced {
			i++
			continue
		}
		if f, ok = parseFrame(data[i:], nonce, first); !ok {
			i++
			continue
		}
		synced = f.synced
		i += f.size
	}
	return synced
}

// anyFrame reports whether a good frame lies anywhere in data.
func anyFrame(data []byte, nonce, first uint64) bool {
	most := saturated(first, uint64(len(data)/minFrame)+1)
	for i := 0; i < len(data); i++ {
		if data[i] == 0 {
			i += zeros(data[i:]) - 1
			continue
		}
		if f, _, ok := looksLike(data[i:], first); ok && f.number <= most && f.number+1 >= first {
			if _, ok = parseFrame(data[i:], nonce, first); ok {
				return true
			}
		}
	}
	return false
}

// saturated is a+b, or the largest number. A bound that starts anew from 0 would hide every frame.
func saturated(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// zeros counts the zero bytes that b begins with, eight at a time: an unused tail is megabytes of them.
func zeros(b []byte) int {
	n := 0
	for len(b)-n >= 8 && binary.LittleEndian.Uint64(b[n:]) == 0 {
		n += 8
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}
