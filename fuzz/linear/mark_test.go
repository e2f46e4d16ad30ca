package linear

// mark is what is known of a source of the receiver's.
type mark struct {
	there, awaits bool // it awaits its first number, which is handled strictly in order
	number, epoch uint64
	first         uint64 // the lowest that was handled
	floor         uint64 // what was handled below is forgotten
	handled, kept uint64 // bit n is number n; kept: the result is in a record of its own
}

func windowOf(strict bool) uint64 {
	if strict {
		return 1024
	}
	return window
}

func (m *mark) seq() uint64 {
	if m.awaits {
		return 0
	}
	return m.number
}

func (m *mark) has(i in) bool {
	return m.there && !m.awaits && m.epoch == i.Epoch && m.handled>>i.Seq&1 == 1
}

// judge says what a call gets for a number that has no record; ok is false if it is new.
func (m *mark) judge(i in) (o out, ok bool) {
	switch {
	case !m.there || m.epoch < i.Epoch:
		return o, false
	case m.epoch > i.Epoch:
		return out{Err: "fenced"}, true
	case m.has(i):
		if m.kept>>i.Seq&1 == 1 {
			return out{Err: "result gone"}, true
		}
		return out{}, true
	case m.awaits:
		return out{Err: "out of order"}, i.Strict && i.Seq != m.number
	case i.Seq < m.floor, i.Seq+windowOf(i.Strict) < m.number:
		return out{Err: "too old"}, true
	}
	return out{Err: "out of order"}, i.Strict && i.Seq != m.number+1
}

// handle notes that a number was handled, and reports whether its result is in a record: one with a value is, and so is
// one of which the mark can't tell.
func (m *mark) handle(i in, valued bool) (kept bool) {
	w := windowOf(i.Strict)
	if m.there && (m.epoch > i.Epoch || m.epoch == i.Epoch && i.Seq < m.number && (i.Seq < m.floor || i.Seq+w < m.number)) {
		return true
	}
	if !m.there || m.epoch < i.Epoch {
		*m = mark{there: true, number: i.Seq, epoch: i.Epoch, first: i.Seq}
	}
	if m.awaits {
		m.awaits, m.number, m.first, m.handled, m.kept = false, i.Seq, i.Seq, 0, 0
	}
	m.number, m.first = max(m.number, i.Seq), min(m.first, i.Seq)
	m.handled |= 1 << i.Seq
	if valued {
		m.kept |= 1 << i.Seq
	}
	low := m.number - min(m.number, w)
	m.floor = max(m.floor, low)
	m.handled = m.handled >> low << low
	m.kept = m.kept >> low << low
	return valued
}

// gaps are the numbers that a source still lacks.
func (m *mark) gaps(strict bool) (missing []uint64) {
	if !m.there || m.awaits {
		return nil
	}
	for n := max(m.first, m.number-min(m.number, windowOf(strict))); n < m.number; n++ {
		if m.handled>>n&1 == 0 {
			missing = append(missing, n)
		}
	}
	return missing
}
