package main

import (
	"fmt"
	"strings"
)

// defence is one thing that the code does so that something can't happen.
type defence struct {
	name     string
	prevents string // in one sentence
	file     string // from the module's root
	old, new string // the text in the file, once, and what stands there without the defence
	rungs    []rung // the cheapest first
}

// rung is some tests of a package.
type rung struct {
	pkg   string
	tests string   // their names, with | between them
	flags []string // of the tests' program
}

func (r rung) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", r.pkg, r.tests, strings.Join(r.flags, " ")))
}

func in(pkg, tests string, flags ...string) rung { return rung{pkg, tests, flags} }

// The states that a power cut can leave, as few as show what is to be shown.
var (
	cuts     = in("./fuzz/crash", "TestPromise2EveryLawfulStateIsRecovered", "-crash.states=2000")
	unsynced = in("./fuzz/crash", "TestPromise2LawfulStatesWithoutSyncs", "-crash.states=4000")
)

// defences are in the order in which a record meets them: written, recovered, shown, found, made small, forgotten.
var defences = []defence{
	{
		name:     "file sync",
		prevents: "An answer before its bytes are on stable storage: a power cut takes what was acknowledged",
		file:     "wal/write.go",
		old: `	if err := fdatasync(s.file); err != nil {
		return l.latch(err)
	}
	return nil`,
		new:   `	return nil`,
		rungs: []rung{in("./wal", "TestTheOrderOfWriting"), cuts},
	},
	{
		name:     "directory sync",
		prevents: "A synced file without a name: a power cut takes the segment whole",
		file:     "wal/dir.go",
		old:      `	err = d.Sync()`,
		new:      `	err = nil`,
		rungs:    []rung{in("./wal", "TestTheOrderOfWriting"), cuts},
	},
	{
		name:     "frame check",
		prevents: "Rotten, torn or misplaced bytes that are taken for a transaction",
		file:     "wal/frame.go",
		old:      `	return f, sum == frameSum(nonce, f.number, body)`,
		new: `	_, _ = sum, body
	return f, true`,
		rungs: []rung{in("./wal", "TestOldAndMisplacedFrames"), cuts},
	},
	{
		name:     "record check",
		prevents: "A record that rotted under an open store and is answered",
		file:     "record/parse.go",
		old:      `	if uint32(xxhash.Sum64(b[:body])) != binary.LittleEndian.Uint32(b[body:]) {`,
		new:      `	if uint32(xxhash.Sum64(b[:body])) == 0 && binary.LittleEndian.Uint32(b[body:]) == 0 {`,
		rungs:    []rung{in("./record", "TestEveryBitFlipIsAnError"), in(".", "TestPromise4DamageUnderAnOpenStore")},
	},
	{
		name:     "syncedThrough",
		prevents: "Damage to what was on stable storage that passes for a torn tail and is cut",
		file:     "wal/recover.go",
		old:      `	if g <= proven {`,
		new:      `	if g <= proven && g == 0 {`,
		rungs:    []rung{in("./wal", "TestDamageWithDurableFramesBehindIt"), in(".", "TestPromise4FlippedBits")},
	},
	{
		name:     "rewrite in recovery",
		prevents: "A frame that a killed process left in the page cache, answered as a duplicate, and lost in a power cut after a sync that had failed",
		file:     "wal/recover.go",
		old: `	if _, err := s.file.WriteAt(data[:n], 0); err != nil {
		return err
	}
	return s.file.Sync()`,
		new:   `	return s.file.Sync()`,
		rungs: []rung{in("./wal", "TestRecoveryWritesAgainWhatItKeeps")},
	},
	{
		name:     "sync in recovery",
		prevents: "A frame that is answered from the page cache after a kill, and lost in a power cut",
		file:     "wal/recover.go",
		old: `	if _, err := s.file.WriteAt(data[:n], 0); err != nil {
		return err
	}
	return s.file.Sync()`,
		new: `	if _, err := s.file.WriteAt(data[:n], 0); err != nil {
		return err
	}
	return nil`,
		rungs: []rung{in("./wal", "TestTheOrderOfRecovery")},
	},
	{
		name:     "latch",
		prevents: "An acknowledgement after a write or a sync that failed, when memory and file differ and the kernel calls lost pages clean",
		file:     "wal/log.go",
		old: `	if l.failure.CompareAndSwap(nil, &err) && l.o.OnError != nil {
		l.o.OnError(err)
	}
	return l.Failed()`,
		new: `	if l.o.OnError != nil {
		l.o.OnError(err)
	}
	return err`,
		rungs: []rung{in("./wal", "TestAFailureIsForGood")},
	},
	{
		name:     "lock",
		prevents: "Two processes that write one log",
		file:     "sys_unix.go",
		old:      `		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)`,
		new:      `		err := error(nil)`,
		rungs:    []rung{in(".", "TestPromise5OneOwner")},
	},
	{
		name:     "wait for durable",
		prevents: "A duplicate's answer that rests on a commit which then fails",
		file:     "write.go",
		old: `			if err := s.log.Await(v.commit); err != nil {
				return nil, false, err
			}
			return append([]byte{}, v.value()...), false, nil`,
		new:   `			return append([]byte{}, v.value()...), false, nil`,
		rungs: []rung{in(".", "TestPromise3EveryAnswerThatSawTheFailedCommit")},
	},
	{
		name:     "visibility after sync",
		prevents: "A record that is seen, and lost because its sync fails or the power is cut before it",
		file:     "wal/write.go",
		old:      `	if l.o.Sync == 0 || next != nil {`,
		new: `	l.visible.Store(last)
	if l.o.Sync == 0 || next != nil {`,
		rungs: []rung{in("./wal", "TestAFailureIsForGood")},
	},
	{
		name:     "answer that saw staged state",
		prevents: "A transaction's answer, an error or \"it exists\" too, that rests on staged changes which never become durable",
		file:     "tx.go",
		old: `	if saw == nil {
		return nil
	}
	return tx.s.log.Await(saw)`,
		new: `	_ = saw
	return nil`,
		rungs: []rung{in(".", "TestPromise3EveryAnswerThatSawTheFailedCommit"), in(".", "TestPromise1AFailedDoTxWaitsForWhatItSaw")},
	},
	{
		name:     "tail cut",
		prevents: "The rest of a torn transaction that stays behind recovery's mark, so that each opening cuts again, and pushes what earlier crashes left out of torn/",
		file:     "wal/recover.go",
		old:      `	if pad := r.junk - int64(len(b)); pad > 0 {`,
		new:      `	if pad := r.junk - int64(len(b)); pad > 1<<40 {`,
		rungs:    []rung{in("./wal", "TestWhatIsCutIsKept"), in("./wal", "TestRecoveryMayBeKilledAnywhere")},
	},
	{
		name:     "fill only before use",
		prevents: "Zeros that are written over frames: each byte of the log changes from zero once",
		file:     "wal/write.go",
		old:      `	l.passBuffer(s, next)`,
		new: `	go func() { _, _ = next.file.WriteAt(make([]byte, next.room.Load()), 0) }()
	l.passBuffer(s, next)`,
		rungs: []rung{in("./wal", "TestTheOrderOfWriting"), in("./wal", "TestFramesAtTheEdgeOfASegment"), cuts},
	},
	{
		name:     "claim before lookup",
		prevents: "A record that is published between a look-up and the claim, missed, and its work run again",
		file:     "write.go",
		old:      `			if ok && s.clock.millis() < r.Expires {`,
		new:      `			if ok && s.clock.millis() < r.Expires && s == nil {`,
		rungs:    []rung{in(".", "TestPublishedBetweenLookUpAndClaim")},
	},
	{
		name:     "look-up under the lease",
		prevents: "Work that is run again, because its result was recorded between the look-up and the lease",
		file:     "backend.go",
		old: `	c, ok, err := s.recorded(n, req.Fingerprint)
	if err != nil || ok && c.State == receiver.StateDone {
		return c, err
	}
	l.doubt = ok`,
		new: `	c, ok, err := receiver.Claim{}, false, error(nil)
	l.doubt = ok`,
		rungs: []rung{in(".", "TestRecordedBetweenLookUpAndLease")},
	},
	{
		name:     "table before index",
		prevents: "A record that is missed because it went from the claim table into the index between the two questions",
		file:     "read.go",
		old: `	if v, ok := s.claims.visible(n, s.log); ok {
		return candidate{version: v}
	}
	loc, _ := s.keys.Lookup(n.hash, byte(n.space), n.key)
	return candidate{loc: loc}`,
		new: `	loc, _ := s.keys.Lookup(n.hash, byte(n.space), n.key)
	if v, ok := s.claims.visible(n, s.log); ok {
		return candidate{version: v}
	}
	return candidate{loc: loc}`,
		rungs: []rung{in(".", "TestWhatWasSeenIsSeenWhileItMoves")},
	},
	{
		name:     "beginning of a strict source",
		prevents: "A number that is refused, or run, because of another's that a crash takes",
		file:     "sequence.go",
		old:      `		if staged != nil {`,
		new:      `		if staged != nil && !ok {`,
		rungs:    []rung{in(".", "TestPromise1AStrictSourceWaitsForItsBeginning")},
	},
	{
		name:     "snapshot after log sync",
		prevents: "A snapshot that knows of transactions which a power cut has taken from the log",
		file:     "snapshot.go",
		old:      `		return m, s.log.Sync() // what the snapshot says must not be lost before it is`,
		new:      `		return m, nil`,
		rungs:    []rung{unsynced},
	},
	{
		name:     "P = applied",
		prevents: "A snapshot that claims what was written while its pages were copied: replay skips it, and it is lost",
		file:     "snapshot.go",
		old:      `		m.Through, err = s.publishAll()`,
		new: `		m.Through, err = s.publishAll()
		m.After = m.Through`,
		rungs: []rung{in(".", "TestASnapshotBesideWriters")},
	},
	{
		name:     "P = applied to the last",
		prevents: "A snapshot that claims what is committed and was not in the index yet when its pages were copied",
		file:     "snapshot.go",
		old:      `	after, err := s.publishAll()`,
		new:      `	after, err := s.log.Visible(), error(nil)`,
		rungs:    []rung{in(".", "TestASnapshotPublishesFirst")},
	},
	{
		name:     "front only",
		prevents: "A live segment dropped for the sake of a dead one behind it, or a record back because its tombstone went first",
		file:     "compaction/plan.go",
		old:      `	for ; i < len(s.Segments) && s.Segments[i].Live == 0; i++ {`,
		new:      `	for ; i < len(s.Segments) && (s.Segments[i].Live == 0 || i+1 < len(s.Segments) && s.Segments[i+1].Live == 0); i++ {`,
		rungs:    []rung{in("./compaction", "TestMake")},
	},
	{
		name:     "drop-through order",
		prevents: "Segments that are gone before the log says so: what is left passes for damage, or a hole",
		file:     "wal/front.go",
		old: `	if before := l.Dropped(); through > before {
		if err := l.writeDrop(through, note); err != nil {`,
		new: `	if before := l.Dropped(); through > before {
		for _, s := range l.all() {
			if s.number > before && s.number <= through {
				_ = removeSegment(l.dir, s.number)
			}
		}
		if err := l.writeDrop(through, note); err != nil {`,
		rungs: []rung{cuts},
	},
	{
		name:     "tombstone keeping",
		prevents: "A deleted record that had expired and comes back when the clock is set back before the next opening",
		file:     "write.go",
		old:      `	if !there {`,
		new:      `	if !there || s.clock.millis() >= expires {`,
		rungs:    []rung{in(".", "TestPromise8WhatWasDeletedStaysAway")},
	},
	{
		name:     "overflow flag",
		prevents: "A key in the overflow map that a look-up misses, so that its work is run again",
		file:     "index/page.go",
		old: `	p.ids[a.id()]++
	p.slots[a.first].setFlagged(true)`,
		new:   `	p.ids[a.id()]++`,
		rungs: []rung{in("./index", "TestEqualHashes"), in("./index", "TestFlagOfTwoIDs")},
	},
	{
		name:     "segment reference",
		prevents: "A segment's slot and file given up while somebody has a location in it and is about to read",
		file:     "wal/front.go",
		old:      `	for f.pins == 0 && len(f.dropped) > 0 && f.dropped[0].unlinked.Load() {`,
		new:      `	for len(f.dropped) > 0 && f.dropped[0].unlinked.Load() {`,
		rungs:    []rung{in("./wal", "TestPin")},
	},
	{
		name:     "clock floor",
		prevents: "Time that runs back over a restart, so that what was gone is back",
		file:     "clock.go",
		old:      `		raise(&c.last, beforeForever(largest))`,
		new:      `		raise(&c.last, 0)`,
		rungs:    []rung{in(".", "TestPromise8TimeNeverRunsBack")},
	},
	// More than the log's own: what the pattern, housekeeping and creation rest on.
	{
		name:     "seal sync",
		prevents: "A next segment with frames behind a seal that a power cut takes, under a policy that syncs later",
		file:     "wal/write.go",
		old:      `	if l.o.Sync == 0 || next != nil {`,
		new:      `	if l.o.Sync == 0 {`,
		rungs:    []rung{in("./wal", "TestTheOrderOfWriting")},
	},
	{
		name:     "manifest last",
		prevents: "A manifest that a power cut leaves without its log: a store that was never used is refused as damaged",
		file:     "open.go",
		old:      `	base := record.Base{At: newClock(&o).millis(), TTL: defaultMillis(o)}`,
		new: `	if err := m.write(dir); err != nil {
		return m, err
	}
	base := record.Base{At: newClock(&o).millis(), TTL: defaultMillis(o)}`,
		rungs: []rung{cuts},
	},
	{
		name:     "copies before drop",
		prevents: "A segment dropped before what is alive in it is somewhere else",
		file:     "compaction/plan.go",
		old: `	for _, n := range p.Copy {
		if err := copied(n); err != nil {`,
		new: `	if p.Through > 0 {
		if err := drop(p.Through); err != nil {
			return err
		}
	}
	for _, n := range p.Copy {
		if err := copied(n); err != nil {`,
		rungs: []rung{in("./compaction", "TestRunStopsWhereItFails")},
	},
	{
		name:     "drop-through sync",
		prevents: "Segments that are gone while the copies of what they held are in the page cache alone, under a policy that syncs later",
		file:     "wal/front.go",
		old: `	return l.Sync()
}`,
		new: `	return nil
}`,
		rungs: []rung{unsynced},
	},
	{
		name:     "drop-through said again",
		prevents: "Dropped segments that pass for lost ones, because the cut has taken the frame that says so",
		file:     "wal/recover.go",
		old:      `	if r.dropped > 0 {`,
		new:      `	if r.dropped > 1<<60 {`,
		rungs:    []rung{in("./wal", "TestATornDropThrough")},
	},
	{
		name:     "no copy over a change",
		prevents: "A record that is copied behind its own tombstone, and so is back",
		file:     "move.go",
		old: `	if v.commit != nil {
		return r, false, nil
	}`,
		new:   ``,
		rungs: []rung{in(".", "TestACopyGivesWayToAChange")},
	},
	{
		name:     "look again",
		prevents: "A record that is missed because its segment was dropped between the index's answer and the read",
		file:     "read.go",
		old: `			return f, nil
		}
		f.loc = loc
	}`,
		new: `			return f, nil
		}
		return f, nil
	}`,
		rungs: []rung{in(".", "TestALookUpWhoseSegmentIsGoneAsksAgain")},
	},
	{
		name:     "snapshot check",
		prevents: "A rotten or half-written snapshot that is taken for the index",
		file:     "snapshot/read.go",
		old:      `	if xxhash.Sum64(stored) != binary.LittleEndian.Uint64(s.table[i*entrySize+12:]) {`,
		new:      `	if xxhash.Sum64(stored) == 0 {`,
		rungs:    []rung{in("./snapshot", "TestDamage")},
	},
	{
		name:     "intent before the work",
		prevents: "Work that a crash interrupts and of which nobody knows",
		file:     "backend.go",
		old:      `	if req.Intent && !l.doubt {`,
		new:      `	if req.Intent && !l.doubt && s == nil {`,
		rungs:    []rung{in(".", "TestPromise14AnIntentOutlivesItsProcess")},
	},
	{
		name:     "room for a claim's key",
		prevents: "Work that was done, cannot be recorded because the disk is full, and is run again",
		file:     "backend.go",
		old:      `	if l.reserved, err = s.log.Reserve(room); err != nil {`,
		new:      `	if err != nil {`,
		rungs:    []rung{in(".", "TestPromise12AClaimKeepsItsRoom")},
	},
}
