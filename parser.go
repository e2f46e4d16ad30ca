package oncelog

import (
	"encoding/binary"
	"errors"
)

// parser reads the numbers and bytes of a part of a snapshot. After the first that is not there it reads zeros.
type parser struct {
	b   []byte
	bad bool
}

var errParse = errors.New("cut short, or longer than it says")

func (p *parser) number() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}

// signed reads a number in zigzag, as binary.AppendVarint writes it.
func (p *parser) signed() int64 {
	v := p.number()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads how many things follow, of at least a byte each.
func (p *parser) count() int {
	n := p.number()
	if n > uint64(len(p.b)) {
		p.b, p.bad = nil, true
		return 0
	}
	return int(n)
}

// bytes reads a length and so many bytes, which are the parser's.
func (p *parser) bytes() []byte {
	n := p.count()
	b := p.b[:n:n]
	p.b = p.b[n:]
	return b
}

// end returns an error if something was wrong, or is left.
func (p *parser) end() error {
	if p.bad || len(p.b) > 0 {
		return errParse
	}
	return nil
}
