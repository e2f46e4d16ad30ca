//go:build linux && amd64

package crash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// lint reads recorded calls and says which rule of the store's they break. The states that are made of the calls find
// what a broken rule costs, if the dice fall so; the lint finds the breach itself, always.
//
//	answer      given when the frame with what it answers is synced, and the names that lead there
//	claim       a frame says that others are synced when they are; the first frame of a segment comes behind a synced seal
//	unlink      a segment goes, oldest first, when what says so is synced with all before it; a snapshot when two newer
//	            ones have their names; RESTORING when MANIFEST has its; a file that nothing was written to, any time
//	rename      what gets a name is synced; a snapshot's log is, through its number; a manifest's whole log is; the
//	            directory is before the answer
//	bytes       of the log change once, from zero; recovery may write the same again, and others behind the last frame
//	seal        behind it nothing is written, and nothing is cut off that is a frame
//	lock        LOCK and MANIFEST stay
//	failed      a file whose sync failed is not written again, nor synced, but for the one sync with which tidwall/wal
//	            gives a file up, on which nothing rests; nothing is answered any more, named, or removed
//	rewrite     what recovery keeps and nothing proves to be durable is written again, and synced, before it says so;
//	            what it cuts is zeros then
type lint struct {
	d          *disk
	never      bool // answers don't wait for syncs
	recovering bool // until it has said what it found

	marks    map[string]place // where what a step writes was written first
	failed   map[*node]int    // its sync failed, and how often it was synced since, and once
	fatal    bool             // and it was a segment's
	unproven map[*node]int64  // from where on recovery has found frames that may be in the cache alone
	drops    map[*node]int64  // drop-throughs through here were found, and may be so too
	seen     map[string]int   // what the calls contained, so that a test can ask for it
}

// place is the end of a write into a segment.
type place struct {
	path string
	end  int64
}

func newLint(never bool) *lint {
	return &lint{
		d: newDisk(), never: never, marks: map[string]place{}, failed: map[*node]int{},
		unproven: map[*node]int64{}, drops: map[*node]int64{}, seen: map[string]int{},
	}
}

// recoveryLint is a lint for the calls of a recovery of what is on a disk.
func recoveryLint(d *disk) *lint {
	l := newLint(false)
	l.d, l.recovering = d, true
	wal := "store/wal"
	proven := uint64(0)
	for _, s := range l.snapshots("store", true) {
		proven = max(proven, s)
	}
	for _, n := range l.segments(wal) {
		s := scan(n.content)
		proven = max(proven, s.proven(n.content))
	}
	for _, n := range l.segments(wal) {
		s := scan(n.content)
		for _, f := range s.frames {
			if f.own == 0 && f.number > proven {
				l.unproven[n] = f.at
				break
			}
		}
		for _, f := range s.frames {
			if f.own == dropThrough {
				l.drops[n] = f.end
			}
		}
	}
	return l
}

// check goes through the calls and returns the first breach.
func (l *lint) check(calls []call) error {
	for i, c := range calls {
		if err := l.one(c); err != nil {
			return fmt.Errorf("call %d, %v: %w", i, c, err)
		}
		if err := l.d.do(c); err != nil {
			return fmt.Errorf("call %d, %v: %w", i, c, err)
		}
	}
	return nil
}

var (
	segmentPath  = regexp.MustCompile(`^(.*)/(\d{20})/00000000000000000001$`)
	snapshotPath = regexp.MustCompile(`^(.*)/snapshot/(\d{20})$`)
	markText     = regexp.MustCompile(`#[0-9.]+#`)
)

func (l *lint) one(c call) error {
	_, _, n := l.d.find(c.Path)
	switch c.Name {
	case "note":
		return l.answer(c.Path)
	case "end":
		if f := l.d.flying[c.ID]; f.c.Name == "sync" && c.Errno != 0 && f.node != nil && !f.node.dir {
			l.failed[f.node] = 1
			l.fatal = l.fatal || segmentPath.MatchString(f.c.Path)
		}
	case "sync", "write":
		if n != nil && l.failed[n] > 0 {
			if l.failed[n]++; c.Name == "write" || l.failed[n] > 2 {
				return fmt.Errorf("failed: a %s after a sync that failed", c.Name)
			}
		}
		if m := segmentPath.FindStringSubmatch(c.Path); m != nil && n != nil && c.Name == "write" {
			return l.write(m[1], n, c)
		}
	case "truncate":
		if segmentPath.MatchString(c.Path) && n != nil && c.At < scan(n.content).end {
			return fmt.Errorf("seal: frames are cut off at %d", c.At)
		}
	case "unlink":
		if n != nil && !n.dir {
			return l.unlink(c, n)
		}
	case "rename":
		if n != nil {
			return l.rename(c, n)
		}
	}
	return nil
}

// segments returns the segments below a log's directory, by their numbers.
func (l *lint) segments(wal string) map[uint64]*node {
	all := map[uint64]*node{}
	if _, _, dir := l.d.find(wal); dir != nil {
		for name, e := range dir.entries {
			if number, err := strconv.ParseUint(name, 10, 64); err == nil && e.dir && e.entries["00000000000000000001"] != nil {
				all[number] = e.entries["00000000000000000001"]
			}
		}
	}
	return all
}

func segmentFile(wal string, number uint64) string {
	return fmt.Sprintf("%s/%020d/00000000000000000001", wal, number)
}

// snapshots returns the numbers of the snapshots of a store, whose files have a header that holds, newest last: what
// they are through, or else the segments that they know to be dropped.
func (l *lint) snapshots(store string, through bool) (all []uint64) {
	_, _, dir := l.d.find(store + "/snapshot")
	if dir == nil {
		return nil
	}
	for name, e := range dir.entries {
		if number, err := strconv.ParseUint(name, 10, 64); err == nil && len(e.content) >= 168 && xxhash.Sum64(e.content[:160]) == binary.LittleEndian.Uint64(e.content[160:]) {
			if !through {
				number = binary.LittleEndian.Uint64(e.content[64:])
			}
			all = append(all, number)
		}
	}
	slices.Sort(all)
	return all
}

// named says which name on the way to a path is not durable, "" = all are.
func (l *lint) named(to string) string {
	at, way := l.d.root, ""
	for part := range strings.SplitSeq(to, "/") {
		way = path.Join(way, part)
		if at == nil || at.kept[part] == nil || at.kept[part] != at.entries[part] {
			return way
		}
		at = at.entries[part]
	}
	return ""
}

// durable returns an error unless the first bytes of a file, and its name, are.
func (l *lint) durable(file string, end int64) error {
	_, _, n := l.d.find(file)
	if n == nil {
		return nil // gone, which unlink judges
	}
	if way := l.named(file); way != "" {
		return fmt.Errorf("the name %s is not synced", way)
	}
	for _, c := range n.pending {
		if c.data != nil && c.at < end && len(bytes.Trim(c.data, "\x00")) > 0 {
			return fmt.Errorf("%s is not synced from %d on", file, c.at)
		}
	}
	if from, ok := l.unproven[n]; ok && from < end {
		return fmt.Errorf("%s was not written again from %d on", file, from)
	}
	return nil
}

// through returns an error unless all transactions through a number, as far as the log has them, are durable.
func (l *lint) through(wal string, number uint64) error {
	for n, file := range l.segments(wal) {
		s := scan(file.content)
		if end := s.through(number); end > 0 {
			if err := l.durable(segmentFile(wal, n), end); err != nil {
				return err
			}
		}
	}
	return nil
}

// all returns an error unless all frames of a log are durable.
func (l *lint) all(wal string) error {
	for n, file := range l.segments(wal) {
		if s := scan(file.content); s.whole {
			if err := l.durable(segmentFile(wal, n), s.end); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lint) write(wal string, n *node, c call) error {
	before := scan(n.content)
	change := change{at: c.At, data: c.Data}
	after := change.applied(n.content)
	for i, b := range c.Data {
		at := c.At + int64(i)
		if at >= int64(len(n.content)) || n.content[at] == 0 || n.content[at] == b {
			continue
		}
		if !l.recovering || at < before.end {
			return fmt.Errorf("bytes: %s is changed at %d", c.Path, at)
		}
		l.seen["cut bytes written over"]++
	}
	if before.sealed && (!l.recovering || c.At+int64(len(c.Data)) > before.end) {
		return fmt.Errorf("seal: %s was sealed", c.Path)
	}
	if from, ok := l.unproven[n]; ok && c.At <= from && c.At+int64(len(c.Data)) >= before.end {
		delete(l.unproven, n)
		l.seen["kept frames rewritten"]++
	}
	if end, ok := l.drops[n]; ok && c.At+int64(len(c.Data)) >= end {
		delete(l.drops, n)
	}
	s := scan(after)
	_, _, store := l.d.find(path.Dir(wal))
	born := store.entries["MANIFEST"] != nil // what is being restored is no store yet
	if earlier := l.segments(wal)[s.number-1]; born && !before.whole && s.whole && earlier != nil {
		b := scan(earlier.content)
		if !b.sealed {
			return fmt.Errorf("claim: segment %d begins before the one before it is sealed", s.number)
		}
		if err := l.durable(segmentFile(wal, s.number-1), b.end); err != nil {
			return fmt.Errorf("claim: segment %d begins, and %w", s.number, err)
		}
	}
	for _, f := range s.frames {
		if f.end <= before.end {
			continue
		}
		if err := l.through(wal, f.synced); err != nil && born {
			return fmt.Errorf("claim: frame %d says that frames through %d were synced, and %w", f.number, f.synced, err)
		}
		switch f.own {
		case dropThrough:
			l.seen["drop-through"]++
		case syncMark:
			l.seen["sync mark"]++
		case seal:
			l.seen["seal"]++
		}
	}
	for _, m := range markText.FindAllString(string(c.Data), -1) {
		if _, ok := l.marks[m]; !ok && strings.HasPrefix(wal, "store/") {
			l.marks[m] = place{c.Path, c.At + int64(len(c.Data))}
		}
	}
	return nil
}

func (l *lint) unlink(c call, n *node) error {
	dir, name := path.Dir(c.Path), path.Base(c.Path)
	switch m := segmentPath.FindStringSubmatch(c.Path); {
	case m != nil:
		number, _ := strconv.ParseUint(m[2], 10, 64)
		return l.unlinkSegment(m[1], number, n)
	case snapshotPath.MatchString(c.Path):
		newer := 0
		_, _, sd := l.d.find(dir)
		for other, e := range sd.kept {
			if e == sd.entries[other] && other > name && len(other) == 20 {
				newer++
			}
		}
		if newer < 2 {
			return fmt.Errorf("unlink: %d newer snapshots have durable names", newer)
		}
		l.seen["snapshot removed"]++
	case name == "RESTORING":
		if way := l.named(dir + "/MANIFEST"); way != "" {
			return fmt.Errorf("unlink: RESTORING goes, and the name %s is not synced", way)
		}
		l.seen["restored"]++
	case name == "LOCK", name == "MANIFEST":
		return fmt.Errorf("lock: %s is unlinked", name)
	}
	return nil
}

func (l *lint) unlinkSegment(wal string, number uint64, n *node) error {
	s := scan(n.content)
	if l.recovering {
		// First the log is whole and durable, then what it does not need goes.
		for other, file := range l.segments(wal) {
			if _, ok := l.unproven[file]; ok && other != number {
				return fmt.Errorf("unlink: segment %d goes before segment %d was written again", number, other)
			}
			for _, c := range file.pending {
				if c.id != past && other != number {
					return fmt.Errorf("unlink: segment %d goes before what recovery has written to segment %d is synced", number, other)
				}
			}
		}
	}
	if len(s.frames) == 0 {
		l.seen["empty segment removed"]++
		return nil
	}
	if l.fatal {
		return fmt.Errorf("failed: segment %d goes after the sync of another failed", number)
	}
	why := fmt.Errorf("unlink: segment %d goes, and no drop-through that is synced says so", number)
	for _, through := range l.snapshots(path.Dir(wal), false) {
		if through >= number && l.recovering {
			why = nil
		}
	}
	for in, file := range l.segments(wal) {
		_, found := l.drops[file]
		for _, f := range scan(file.content).frames {
			if f.own != dropThrough || f.through < number || found && f.end <= l.drops[file] {
				continue
			}
			err := l.durable(segmentFile(wal, in), f.end)
			for between, b := range l.segments(wal) {
				if between > number && between < in {
					err = errors.Join(err, l.durable(segmentFile(wal, between), scan(b.content).end))
				}
			}
			if err == nil {
				why = nil
			} else if why != nil {
				why = fmt.Errorf("unlink: segment %d goes by a drop-through, and %w", number, err)
			}
		}
	}
	if why != nil {
		return why
	}
	_, _, dir := l.d.find(wal)
	for name, e := range dir.kept {
		if other, err := strconv.ParseUint(name, 10, 64); err == nil && other < number && e.dir {
			return fmt.Errorf("unlink: segment %d goes before segment %d, which is older, has durably gone", number, other)
		}
	}
	l.seen["segment removed"]++
	return nil
}

func (l *lint) rename(c call, n *node) error {
	if name := path.Base(c.Path); name == "LOCK" || name == "MANIFEST" {
		return fmt.Errorf("lock: %s is renamed", name)
	}
	if l.fatal {
		return fmt.Errorf("failed: %s gets its name after the sync of a segment failed", c.To)
	}
	if len(n.pending) > 0 {
		return fmt.Errorf("rename: %s gets a name before it is synced", c.To)
	}
	if m := snapshotPath.FindStringSubmatch(c.To); m != nil {
		number, _ := strconv.ParseUint(m[2], 10, 64)
		if err := l.through(m[1]+"/wal", number); err != nil {
			return fmt.Errorf("rename: a snapshot through %d, and %w", number, err)
		}
		l.seen["snapshot"]++
	}
	if path.Base(c.To) == "MANIFEST" {
		wal := path.Dir(c.To) + "/wal"
		if err := l.all(wal); err != nil {
			return fmt.Errorf("rename: a manifest, and %w", err)
		}
		if len(l.segments(wal)) == 0 {
			return errors.New("rename: a manifest without a log")
		}
		l.seen["manifest"]++
	}
	return nil
}

// renamed returns an error if a directory has a rename that is not synced.
func (l *lint) renamed(n *node, way string) error {
	for _, m := range n.moves {
		if len(m.all) > 1 {
			return fmt.Errorf("%s is not synced after a rename", way)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		if err := l.renamed(n.entries[name], path.Join(way, name)); err != nil {
			return err
		}
	}
	return nil
}

// answer judges what the child has noted: "answered <mark> <step>", or what its recovery has found.
func (l *lint) answer(what string) error {
	if err := l.durable("store/MANIFEST", 1); err != nil {
		return fmt.Errorf("answer: it is given, and %w", err)
	}
	if strings.HasPrefix(what, "found ") {
		l.recovering = false
		l.seen["found"]++
		if err := l.through("store/wal", math.MaxUint64); err != nil {
			return fmt.Errorf("rewrite: recovery says what it found, and %w", err)
		}
		for number, n := range l.segments("store/wal") {
			if s := scan(n.content); s.whole && !s.sealed && len(bytes.Trim(n.content[s.end:], "\x00")) > 0 {
				return fmt.Errorf("rewrite: recovery says what it found, and behind the last frame of segment %d something is left", number)
			}
		}
		return nil
	}
	rest, ok := strings.CutPrefix(what, "answered ")
	if !ok {
		return nil
	}
	number, step, _ := strings.Cut(rest, " ")
	if l.fatal && step != "close" {
		return errors.New("failed: an answer after the sync of a segment failed")
	}
	switch step {
	case "open", "reopen", "close", "snapshot", restoring:
		if err := l.renamed(l.d.root, ""); err != nil {
			return fmt.Errorf("rename: an answer, and %w", err)
		}
		if err := l.all("store/wal"); err != nil {
			return fmt.Errorf("answer: it is given, and %w", err)
		}
	}
	if at, ok := l.marks["#"+number+"#"]; ok && !l.never {
		l.seen["answer that was looked up"]++
		if err := l.durable(at.path, at.end); err != nil {
			return fmt.Errorf("answer: it is given, and %w", err)
		}
	}
	return nil
}
