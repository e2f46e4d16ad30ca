package oncelog

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/oncelog/oncelog/index"
	"github.com/oncelog/oncelog/record"
	"github.com/oncelog/oncelog/wal"
)

// Copying a record to the end of the log is a change of its key like any other: it is made while the key is held, so
// it has its place in the order of the key's versions, and it goes through the claim table into the index. Nobody
// waits for it but who changes the same key; look-ups and duplicates find the record where it was until it is
// elsewhere.

// moveBytes is about how much is copied in one transaction.
const moveBytes = 64 << 10

// copySegment copies what is alive in a segment, and returns when that is committed.
func (s *Store) copySegment(number uint64) error {
	seg := s.log.Segment(wal.SlotOf(number))
	if seg == nil || seg.Number() != number {
		return fmt.Errorf("oncelog: segment %d, which is to be copied, is not there", number)
	}
	m := mover{s: s}
	err := seg.Transactions(func(f wal.Frame) error {
		return eachRecord(f, func(r record.Record, size int, off int64) error {
			if r.Kind == record.Tombstone || s.clock.millis() >= r.Expires {
				return nil
			}
			loc := index.At(seg.Slot(), off)
			if r.Space() == record.Outbox {
				return m.addLetter(r, loc, size)
			}
			n := name{space: r.Space(), hash: s.keys.Hash(byte(r.Space()), r.Key), key: r.Key}
			if at, _ := s.keys.Lookup(n.hash, byte(n.space), n.key); at != loc {
				return nil
			}
			n.key = bytes.Clone(r.Key)
			return m.add(moving{n, loc, size})
		})
	})
	if err == nil {
		err = m.flush()
	}
	for _, one := range m.busy {
		if err == nil {
			err = m.move([]moving{one}, nil, one.size+record.MaxHead, true)
		}
	}
	if err == nil && m.ahead != nil {
		err = s.entered(m.ahead)
	}
	return err
}

// entered returns when the changes of a transaction that was staged are in the index, and all before it. What they
// replace was not copied, and is what everybody sees until then: were its segment dropped earlier, the key would be
// missing meanwhile, or for good if the transaction fails.
func (s *Store) entered(commit *wal.Commit) error {
	if err := s.log.Await(commit); err != nil {
		return err
	}
	s.cut.Lock()
	defer s.cut.Unlock()
	_, err := s.publishAll()
	return err
}

// moving is a record that is to be copied.
type moving struct {
	name
	at   index.Location
	size int
}

// mover copies records in transactions of some size.
type mover struct {
	s       *Store
	batch   []moving
	letters []letter
	size    int
	busy    []moving    // somebody held their keys
	ahead   *wal.Commit // the newest that a record was not copied for, since it is about to replace it
}

func (m *mover) add(one moving) error {
	if err := m.grow(one.size + record.MaxHead); err != nil {
		return err
	}
	m.batch = append(m.batch, one)
	return nil
}

// addLetter adds a record of the outbox, if it is alive. Nobody holds it: that it is alive still is made sure of when
// its copy is staged.
func (m *mover) addLetter(r record.Record, loc index.Location, size int) error {
	a, err := r.Attributes()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !m.s.outbox.holds(r.Kind, string(r.Key), a.Ordinal, loc) {
		return nil
	}
	if err := m.grow(size + record.MaxHead); err != nil {
		return err
	}
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	a.MessageKey, a.Code = bytes.Clone(a.MessageKey), bytes.Clone(a.Code)
	m.letters = append(m.letters, letter{record: r, attrs: a, moved: loc})
	return nil
}

// grow makes room for so many bytes.
func (m *mover) grow(size int) error {
	if m.size > 0 && m.size+size > moveBytes {
		if err := m.flush(); err != nil {
			return err
		}
	}
	m.size += size
	return nil
}

func (m *mover) flush() error {
	err := m.move(m.batch, m.letters, m.size, false)
	m.batch, m.letters, m.size = m.batch[:0], m.letters[:0], 0
	return err
}

// move copies records in one transaction. It holds several keys at a time, as a transaction does; so that the two can't
// wait for each other, it does not wait for a key, unless it is the only one.
func (m *mover) move(batch []moving, letters []letter, size int, wait bool) error {
	s := m.s
	if size == 0 {
		return nil
	}
	if err := s.house.pace.wait(2 * size); err != nil { // read and written
		return err
	}
	if err := s.log.Ready(size); err != nil {
		return err
	}
	var changes []change
	release := func(changed bool) {
		for _, ch := range changes {
			s.claims.release(ch.claim, changed)
		}
	}
	for _, one := range batch {
		var c *claim
		var v version
		if wait {
			c, v = s.claims.hold(one.name, nil)
		} else if c, v = s.claims.tryHold(one.name); c == nil {
			m.busy = append(m.busy, one)
			continue
		}
		if v.commit != nil && (m.ahead == nil || m.ahead.Number() < v.commit.Number()) {
			m.ahead = v.commit
		}
		r, ok, err := s.moved(one, c, v)
		if err != nil || !ok {
			s.claims.release(c, false)
			if err != nil {
				release(false)
				return err
			}
			continue
		}
		changes = append(changes, change{c, r})
	}
	if len(changes) == 0 && len(letters) == 0 {
		return nil
	}
	commit, err := s.stage(size, 0, changes, letters)
	release(err == nil)
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.settle(commit, changes); err != nil {
		return err
	}
	s.house.moves.Add(1)
	s.house.copied.Add(int64(size))
	return nil
}

// moved returns the record that is to be written for a key that is held, unless it is dead meanwhile: replaced, or
// about to be by a version that is on its way.
func (s *Store) moved(one moving, c *claim, v version) (r record.Record, ok bool, err error) {
	if v.commit != nil {
		return r, false, nil
	}
	if at, _ := s.keys.Lookup(c.hash, byte(c.space), c.key); at != one.at {
		return r, false, nil
	}
	r, ok, err = s.current(c)
	if err != nil || !ok || s.clock.millis() >= r.Expires {
		return r, false, err
	}
	if r.Kind != record.Result || len(r.Attrs) == 0 {
		return r, true, nil
	}
	// A record's time is not before its segment's base. One that is older is written as of then, with its expiry
	// kept; what counts from its time is made shorter by as much.
	a, err := r.Attributes()
	if err != nil {
		return r, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if a.ResultTTL > 0 {
		if a.ResultTTL -= max(0, s.base.At-r.At); a.ResultTTL <= 0 || s.clock.millis() >= addMillis(max(r.At, s.base.At), a.ResultTTL) {
			a.ResultTTL, r.Kind, r.Value = 0, record.Gone, nil // the result's time is over
		}
		r.Attrs = record.AppendAttributes(nil, &a)
	}
	return r, true, nil
}
