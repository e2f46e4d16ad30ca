package oncelog_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// A reader of a store's directory that was written from docs/FORMAT.md and not from the code it checks. It imports
// nothing of this module, and must not: where both would share a function they would share its mistakes.

var (
	errDocDamage  = errors.New("damage")
	errDocTooNew  = errors.New("too new")
	errDocNoStore = errors.New("no store")
)

// Kinds of records, and the first bytes of the log's own frames.
const (
	docResult, docFailure, docGone, docIntent, docDoubt, docState, docMark = 1, 2, 3, 4, 5, 6, 7
	docOutgoing, docSent, docParked, docTombstone                          = 8, 9, 10, 11
	docDropThrough, docSyncMark, docSeal                                   = 28, 29, 30
)

const (
	docNever       = math.MaxInt64 // an expiry, or a TTL for ever
	docHeaderEntry = 81            // the header and its length byte
	docMost        = 16 << 20      // a payload, a key, a value
	docSmallest    = 12            // a frame with its length
)

// docOwnLength is how long the payload of a frame of the log's own is, by its first byte.
var docOwnLength = map[byte]int{docDropThrough: 17, docSyncMark: 1, docSeal: 33}

type docStore struct {
	id       [16]byte
	segments []docSegment           // those through the tail
	records  []docRecord            // in the order of replay
	live     map[docPlace]docRecord // what replay leaves, expired ones included
	clock    int64                  // the largest time in the log
	last     uint64                 // last good transaction, g-1
	synced   uint64                 // W
	clean    bool                   // recovery has nothing to do
	tornAt   int                    // where the tail's last good frame ends
	torn     []byte                 // from there through the last byte that is not zero
	dropped  uint64                 // the highest segment that a drop-through names
	front    uint64                 // the first segment that is there
	leaving  uint64                 // the last one whose directory is there and its file is not
	kinds    map[byte]int           // first bytes of all frames of the log's own, and how often
	topics   map[string]*docTopic
}

type docSegment struct {
	number uint64
	path   string
	data   []byte
	header docHeader
	frames []docFrame
}

type docHeader struct {
	id                [16]byte
	segment, nonce    uint64
	first             uint64
	baseTime, baseTTL int64
}

type docFrame struct {
	offset, end    int // in the segment's file, its length included
	number, synced uint64
	payload        []byte
}

type docRecord struct {
	segment       uint64
	kind          byte
	receiver      bool
	hasTTL        bool // ttl is its own
	ttl           uint64
	time, expires int64
	key, value    []byte
	attributes    map[byte][]byte
	mark          docMarkValue
}

type docMarkValue struct {
	number, epoch uint64
	window        []byte
}

// docPlace is a key in its keyspace.
type docPlace struct {
	keyspace byte
	key      string
}

func docDecode(dir string) (*docStore, error) {
	id, err := docManifest(dir)
	if err != nil {
		return nil, err
	}
	numbers, err := docSegmentNumbers(filepath.Join(dir, "wal"))
	if err != nil {
		return nil, fmt.Errorf("%w: wal: %v", errDocDamage, err)
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%w: no segment", errDocDamage)
	}
	s := &docStore{id: id, live: map[docPlace]docRecord{}, clock: math.MinInt64, kinds: map[byte]int{}}
	for len(numbers) > 1 {
		if _, err := os.Lstat(docSegmentPath(dir, numbers[0])); err == nil {
			break
		}
		s.leaving, numbers = numbers[0], numbers[1:]
	}
	s.front = numbers[0]
	announced := docHeader{segment: numbers[0], first: 1} // what the seal before said; none announces the first's nonce
	for i, number := range numbers {
		if number != announced.segment {
			return nil, fmt.Errorf("%w: segment %d follows where %d was announced", errDocDamage, number, announced.segment)
		}
		seg := docSegment{number: number, path: docSegmentPath(dir, number)}
		if seg.data, err = os.ReadFile(seg.path); err != nil {
			return nil, fmt.Errorf("%w: %v", errDocDamage, err)
		}
		header, whole, err := docReadHeader(seg.data)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", seg.path, err)
		case !whole && i == 0:
			return nil, fmt.Errorf("%w: %s: header", errDocDamage, seg.path)
		case !whole:
			seg.header = announced
			s.segments = append(s.segments, seg)
			return s, cmp.Or(s.judgeEnd(dir, 0, false, numbers[i+1:]), s.judgeTopics())
		case header.id != id, header.segment != number, (i > 0 || number == 1) && header.first != announced.first,
			i > 0 && header.nonce != announced.nonce:
			return nil, fmt.Errorf("%w: %s: header says otherwise", errDocDamage, seg.path)
		}
		seg.header = header
		if i == 0 {
			s.last = header.first - 1
		}
		end := docHeaderEntry
		var seal *docFrame
		for seal == nil {
			f, ok := header.frameAt(seg.data, end)
			if ok && f.own() && f.number == s.last && len(f.payload) != docOwnLength[f.payload[0]] {
				return nil, fmt.Errorf("%w: %s: frame at %d: length %d", errDocTooNew, seg.path, f.offset, len(f.payload))
			}
			if !ok || !f.follows(s.last) {
				break
			}
			if err := s.take(&seg, f); err != nil {
				return nil, fmt.Errorf("%s: frame at %d: %w", seg.path, f.offset, err)
			}
			if end = f.end; f.payload[0] == docSeal {
				seal = &f
			}
		}
		s.segments = append(s.segments, seg)
		if seal == nil {
			return s, cmp.Or(s.judgeEnd(dir, end, true, numbers[i+1:]), s.judgeTopics())
		}
		announced = docHeader{
			id:      id,
			segment: binary.LittleEndian.Uint64(seal.payload[17:]),
			nonce:   binary.LittleEndian.Uint64(seal.payload[25:]),
			first:   s.last + 1,
		}
	}
	return nil, fmt.Errorf("%w: segment %d was announced and is missing", errDocDamage, announced.segment)
}

// docManifest returns the store's id.
func docManifest(dir string) (id [16]byte, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "MANIFEST"))
	if errors.Is(err, fs.ErrNotExist) {
		numbers, _ := docSegmentNumbers(filepath.Join(dir, "wal"))
		if len(numbers) == 0 {
			return id, errDocNoStore
		}
		info, err := os.Stat(docSegmentPath(dir, 1))
		if len(numbers) == 1 && numbers[0] == 1 && (err != nil || info.Size() <= docHeaderEntry) {
			return id, errDocNoStore
		}
		return id, fmt.Errorf("%w: no MANIFEST", errDocDamage)
	}
	if err != nil {
		return id, err
	}
	switch {
	case len(b) < 9 || string(b[:8]) != "onceman\x00":
		return id, fmt.Errorf("%w: MANIFEST: magic", errDocDamage)
	case len(b) != 48 && b[8] > 1:
		return id, fmt.Errorf("%w: MANIFEST: version %d", errDocTooNew, b[8])
	case len(b) != 48 || xxhash.Sum64(b[:40]) != binary.LittleEndian.Uint64(b[40:]):
		return id, fmt.Errorf("%w: MANIFEST: length or check", errDocDamage)
	case b[8] == 0:
		return id, fmt.Errorf("%w: MANIFEST: version 0", errDocDamage)
	case b[8] > 1 || !docZero(b[9:16]):
		return id, fmt.Errorf("%w: MANIFEST: version %d, or what it reserves", errDocTooNew, b[8])
	}
	return [16]byte(b[16:32]), nil
}

func docSegmentPath(dir string, number uint64) string {
	return filepath.Join(dir, "wal", fmt.Sprintf("%020d", number), fmt.Sprintf("%020d", 1))
}

// docSegmentNumbers lists the segments in ascending order.
func docSegmentNumbers(wal string) (numbers []uint64, err error) {
	entries, err := os.ReadDir(wal) // sorted by name, which for 20 digits is by number
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err == nil && n > 0 && e.IsDir() && fmt.Sprintf("%020d", n) == e.Name() {
			numbers = append(numbers, n)
		}
	}
	return numbers, err
}

// docReadHeader reads a segment's first entry; whole says whether there is one.
func docReadHeader(b []byte) (h docHeader, whole bool, err error) {
	if len(b) < docHeaderEntry || b[0] != 80 {
		return h, false, nil
	}
	b = b[1:docHeaderEntry]
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	if string(b[:8]) != "oncewal\x00" || number(72) != xxhash.Sum64(b[:72]) {
		return h, false, nil
	}
	if b[8] != 1 || !docZero(b[9:16]) {
		return h, true, fmt.Errorf("%w: header: version %d, or what it reserves", errDocTooNew, b[8])
	}
	return docHeader{
		id: [16]byte(b[16:32]), segment: number(32), nonce: number(40), first: number(48),
		baseTime: int64(number(56)), baseTTL: int64(number(64)),
	}, true, nil
}

// frameAt reads the frame at an offset, if its check holds. Whether it belongs there says follows.
func (h docHeader) frameAt(b []byte, offset int) (f docFrame, ok bool) {
	length, n := binary.Uvarint(b[offset:])
	if n <= 0 || length < 11 || length > docMost+33 || length > uint64(len(b)-offset-n) {
		return f, false
	}
	f.offset, f.end = offset, offset+n+int(length)
	body := b[offset+n : f.end]
	distance, n1 := binary.Uvarint(body[8:])
	if n1 <= 0 {
		return f, false
	}
	unsynced, n2 := binary.Uvarint(body[8+n1:])
	if n2 <= 0 {
		return f, false
	}
	f.number = h.first - 1 + distance
	f.synced = f.number - unsynced
	f.payload = body[8+n1+n2:]
	if f.number < distance || unsynced > f.number || len(f.payload) == 0 {
		return f, false
	}
	if docFrameCheck(h.nonce, f.number, body[8:]) != binary.LittleEndian.Uint64(body) {
		return f, false
	}
	return f, true
}

// follows says whether the frame, whose check holds, is good behind the transaction last.
func (f docFrame) follows(last uint64) bool {
	if !f.own() {
		return f.number == last+1
	}
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(f.payload[at:]) }
	if f.payload[0] == docSeal && (number(1) != f.number || number(9) != uint64(f.end)) {
		return false
	}
	return f.number == last
}

func docFrameCheck(nonce, number uint64, b []byte) uint64 {
	d := xxhash.NewWithSeed(nonce ^ number*0x9E3779B97F4A7C15)
	_, _ = d.Write(b) // never fails
	return d.Sum64()
}

// own says that the frame is the log's own and does not count.
func (f docFrame) own() bool { return f.payload[0] >= docDropThrough && f.payload[0] <= docSeal }

// take replays one good frame.
func (s *docStore) take(seg *docSegment, f docFrame) error {
	s.synced = max(s.synced, f.synced)
	seg.frames = append(seg.frames, f)
	if f.own() {
		s.kinds[f.payload[0]]++
		if f.payload[0] == docDropThrough {
			through := binary.LittleEndian.Uint64(f.payload[1:])
			if through >= seg.number {
				return fmt.Errorf("%w: segments through %d are said to be dropped", errDocDamage, through)
			}
			s.dropped = max(s.dropped, through)
			s.clock = max(s.clock, int64(binary.LittleEndian.Uint64(f.payload[9:])))
		}
		return nil
	}
	s.last = f.number
	for rest := f.payload; len(rest) > 0; {
		r, n, err := seg.header.record(rest)
		if err != nil {
			return fmt.Errorf("record at %d: %w", len(f.payload)-len(rest), err)
		}
		rest = rest[n:]
		r.segment = seg.number
		s.records = append(s.records, r)
		s.clock = max(s.clock, r.time)
		kind := r.kind
		if kind == docTombstone {
			kind = r.value[0]
		}
		if kind >= docOutgoing && kind <= docParked {
			if err := s.takeMessage(r, kind); err != nil {
				return err
			}
			continue
		}
		place := docPlace{docKeyspace(kind, r.receiver), string(r.key)}
		if r.kind == docTombstone {
			delete(s.live, place)
		} else {
			s.live[place] = r
		}
	}
	return nil
}

// docTopic is a topic of the outbox.
type docTopic struct {
	sent             uint64
	outgoing, parked map[uint64]docRecord
}

func (s *docStore) judgeTopics() error {
	for name, t := range s.topics {
		if !t.complete() {
			return fmt.Errorf("%w: a message of topic %q is missing", errDocDamage, name)
		}
	}
	return nil
}

// complete reports whether no message is missing between those handed on and the newest.
func (t *docTopic) complete() bool {
	last := t.sent
	for n := range t.outgoing {
		last = max(last, n)
	}
	return uint64(len(t.outgoing)) == last-t.sent
}

// takeMessage replays a record of the outbox, or the tombstone of one.
func (s *docStore) takeMessage(r docRecord, kind byte) error {
	ordinal, _ := binary.Uvarint(r.attributes[5])
	if ordinal == 0 || r.receiver || r.kind == docTombstone && kind != docParked {
		return fmt.Errorf("%w: message", errDocTooNew)
	}
	t := s.topics[string(r.key)]
	if t == nil {
		t = &docTopic{outgoing: map[uint64]docRecord{}, parked: map[uint64]docRecord{}}
		if s.topics == nil {
			s.topics = map[string]*docTopic{}
		}
		s.topics[string(r.key)] = t
	}
	switch r.kind {
	case docTombstone:
		delete(t.parked, ordinal)
	case docParked:
		delete(t.outgoing, ordinal)
		t.parked[ordinal] = r
	case docSent:
		t.sent = max(t.sent, ordinal)
		for n := range t.outgoing {
			if n <= t.sent {
				delete(t.outgoing, n)
			}
		}
	case docOutgoing:
		if ordinal > t.sent {
			t.outgoing[ordinal] = r
		}
	}
	return nil
}

func docKeyspace(kind byte, receiver bool) (keyspace byte) {
	switch kind {
	case docState:
		keyspace = 2
	case docMark:
		keyspace = 4
	}
	if receiver {
		keyspace++
	}
	return keyspace
}

// record reads the record that b begins with, and says how long it is.
func (h docHeader) record(b []byte) (r docRecord, n int, err error) {
	n = 1
	cut := false
	varint := func() uint64 {
		x, size := binary.Uvarint(b[n:])
		if size <= 0 {
			cut = true
			return 0
		}
		n += size
		return x
	}
	take := func(length uint64) []byte {
		if cut || length > docMost || length > uint64(len(b)-n) {
			cut = true
			return nil
		}
		n += int(length)
		return b[n-int(length) : n]
	}
	hasAttributes, receiver, hasTTL := b[0]&0x80 != 0, b[0]&0x40 != 0, b[0]&0x20 != 0
	r = docRecord{kind: b[0] & 0x1f, receiver: receiver, time: docSum(h.baseTime, varint()), expires: docNever}
	r.hasTTL = hasTTL
	if hasTTL {
		r.ttl = varint()
	}
	keyLength, valueLength, attributesLength := varint(), varint(), uint64(0)
	if hasAttributes {
		attributesLength = varint()
	}
	r.key, r.value = take(keyLength), take(valueLength)
	attributes := take(attributesLength)
	covered := n
	check := take(4)
	if cut {
		return r, 0, fmt.Errorf("%w: it does not end, or is too long", errDocDamage)
	}
	if uint32(xxhash.Sum64(b[:covered])) != binary.LittleEndian.Uint32(check) {
		return r, 0, fmt.Errorf("%w: check", errDocDamage)
	}
	expires := r.kind >= docResult && r.kind <= docGone
	switch {
	case r.kind == 0 || r.kind > docTombstone:
		return r, 0, fmt.Errorf("%w: kind %d", errDocTooNew, r.kind)
	case hasTTL && !expires:
		return r, 0, fmt.Errorf("%w: TTL on kind %d", errDocTooNew, r.kind)
	case r.kind == docTombstone && (len(r.value) != 1 || r.value[0] < docResult || r.value[0] > docParked):
		return r, 0, fmt.Errorf("%w: tombstone of %x", errDocTooNew, r.value)
	}
	if expires && hasTTL && r.ttl != 0 {
		r.expires = docSum(r.time, r.ttl)
	} else if expires && !hasTTL && h.baseTTL > 0 && h.baseTTL != docNever {
		r.expires = docSum(r.time, uint64(h.baseTTL))
	}
	if r.kind == docMark {
		if r.mark, err = docReadMark(r.value); err != nil {
			return r, 0, err
		}
	}
	r.attributes, err = docAttributes(attributes)
	return r, n, err
}

// docSum saturates, which as an expiry is never.
func docSum(t int64, distance uint64) int64 {
	if distance > math.MaxInt64 || t > 0 && int64(distance) > math.MaxInt64-t {
		return math.MaxInt64
	}
	return t + int64(distance)
}

func docReadMark(b []byte) (m docMarkValue, err error) {
	var n1, n2 int
	if m.number, n1 = binary.Uvarint(b); n1 > 0 {
		m.epoch, n2 = binary.Uvarint(b[n1:])
	}
	if n1 <= 0 || n2 <= 0 {
		return m, fmt.Errorf("%w: a mark without its two numbers", errDocDamage)
	}
	m.window = b[n1+n2:]
	return m, nil
}

func docAttributes(b []byte) (map[byte][]byte, error) {
	attributes := map[byte][]byte{}
	for before := byte(0); len(b) > 0; {
		tag := b[0]
		length, n := binary.Uvarint(b[1:])
		switch {
		case tag <= before, n <= 0, length > uint64(len(b)-1-n):
			return nil, fmt.Errorf("%w: attribute %d", errDocDamage, tag)
		case tag > 6:
			return nil, fmt.Errorf("%w: attribute %d", errDocTooNew, tag)
		case length == 0:
			return nil, fmt.Errorf("%w: attribute %d is empty", errDocDamage, tag)
		}
		content := b[1+n : 1+n+int(length)]
		switch x, size := binary.Uvarint(content); tag {
		case 1:
			if length < 2 {
				return nil, fmt.Errorf("%w: fingerprint without a digest", errDocDamage)
			}
		case 2, 3, 5:
			if size != len(content) || tag == 3 && x > math.MaxInt64 {
				return nil, fmt.Errorf("%w: attribute %d: number", errDocDamage, tag)
			}
		}
		attributes[tag] = content
		b, before = b[1+n+int(length):], tag
	}
	return attributes, nil
}

// judgeEnd tells a torn tail from damage. The tail is the last of s.segments, good through end; behind are the
// numbers of the segments after it.
func (s *docStore) judgeEnd(dir string, end int, whole bool, behind []uint64) error {
	tail := s.segments[len(s.segments)-1]
	s.tornAt, s.torn = end, bytes.TrimRight(tail.data[end:], "\x00")
	s.clean = whole && s.synced == s.last && len(s.torn) == 0 && len(behind) == 0
	proven := s.synced // what is found behind g proves that g was durable, and is not itself there
	for offset := end; offset < end+len(s.torn); offset++ {
		if f, ok := tail.header.frameAt(tail.data, offset); ok && f.number <= docRoom(s.last+1, len(tail.data)-end) {
			proven = max(proven, f.synced)
		}
	}
	for _, number := range behind {
		data, err := os.ReadFile(docSegmentPath(dir, number))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		header, whole, err := docReadHeader(data)
		if err != nil {
			return err
		}
		if !whole {
			continue
		}
		proven = max(proven, header.first-1)
		for offset := range data {
			if f, ok := header.frameAt(data, offset); ok && f.number <= docRoom(header.first, len(data)-docHeaderEntry) {
				return fmt.Errorf("%w: segment %d at %d: a frame behind the tail", errDocDamage, number, offset)
			}
		}
	}
	if max(s.front-1, s.leaving) > s.dropped {
		return fmt.Errorf("%w: segments before %d are missing and not dropped", errDocDamage, s.front)
	}
	maps.DeleteFunc(s.live, func(_ docPlace, r docRecord) bool { return r.segment <= s.dropped })
	if s.last+1 <= proven {
		return fmt.Errorf("%w: %s: %d: frame %d is missing and was durable, as all through %d",
			errDocDamage, tail.path, end, s.last+1, proven)
	}
	return nil
}

// docRoom is the highest number that a frame can have in so many bytes from where next belongs.
func docRoom(next uint64, size int) uint64 { return next + uint64(size)/docSmallest + 1 }

// visible is what has not expired at now, of one keyspace.
func (s *docStore) visible(keyspace byte, now int64) map[string]docRecord {
	now = max(now, s.clock)
	found := map[string]docRecord{}
	for place, r := range maps.All(s.live) {
		if place.keyspace == keyspace && (r.expires == docNever || r.expires > now) {
			found[place.key] = r
		}
	}
	return found
}

func docZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
