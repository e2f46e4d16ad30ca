package oncehttp

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

const (
	keyHeader = "Idempotency-Key"
	maxKey    = 255 // bytes of a key, its quotes and escapes not counted
)

// keyOf returns the key of a request, and nothing if it has none. raw says that one without quotes is taken too.
func keyOf(h http.Header, raw bool) (key string, bad *problem) {
	lines := h[keyHeader]
	switch {
	case len(lines) == 0:
		return "", nil
	case len(lines) > 1:
		return "", malformed("The request has more than one " + keyHeader + " header field. Send one.")
	}
	key, ok := parseString(lines[0])
	if !ok && isRaw(lines[0]) {
		if !raw {
			return "", malformed(fmt.Sprintf(`The key is a string, so it is written in double quotes: %s: "%s"`, keyHeader, strings.ReplaceAll(lines[0], `\`, `\\`)))
		}
		key, ok = lines[0], true
	}
	switch {
	case !ok:
		return "", malformed(`The key is a string of structured fields (RFC 9651): printable ASCII in double quotes, in which a quote is \" and a backslash \\.`)
	case key == "":
		return "", malformed("The key is empty. Make a new one for each new request, a UUID for instance.")
	case len(key) > maxKey:
		return "", malformed(fmt.Sprintf("The key has %d bytes, and may have %d.", len(key), maxKey))
	}
	return key, nil
}

// isRaw reports whether a value is a key that was sent without its quotes. A comma is none: it is how a proxy joins
// two field lines, and those are two keys. A quote is none either, being the rest of a broken string.
func isRaw(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == ',' {
			return false
		}
	}
	return s != ""
}

// parseString parses an item of structured fields (RFC 9651) that is a string. Its parameters say nothing here and are
// passed by, as the draft's silence about them asks for, but they must be well formed: a key that is followed by
// something else is damaged, and may be another key's beginning.
func parseString(s string) (value string, ok bool) {
	p := parser(strings.Trim(s, " "))
	value, ok = p.str()
	return value, ok && p.parameters() && p == ""
}

// parser is the rest of a field's value.
type parser string

// next takes a character if it is the next one.
func (p *parser) next(c byte) bool {
	if *p == "" || (*p)[0] != c {
		return false
	}
	*p = (*p)[1:]
	return true
}

// run takes characters as long as they are of a kind, and returns them.
func (p *parser) run(kind func(c byte) bool) string {
	n := 0
	for n < len(*p) && kind((*p)[n]) {
		n++
	}
	taken := (*p)[:n]
	*p = (*p)[n:]
	return string(taken)
}

// str takes a string.
func (p *parser) str() (value string, ok bool) {
	if !p.next('"') {
		return "", false
	}
	value = p.run(isPlain)
	if p.next('"') {
		return value, true // without an escape, which is the usual case
	}
	var b strings.Builder
	for {
		b.WriteString(value)
		switch {
		case p.next('"'):
			return b.String(), true
		case !p.next('\\') || *p == "":
			return "", false
		}
		c := (*p)[0]
		if c != '"' && c != '\\' {
			return "", false
		}
		b.WriteByte(c)
		*p = (*p)[1:]
		value = p.run(isPlain)
	}
}

// parameters takes any number of them.
func (p *parser) parameters() bool {
	for p.next(';') {
		p.run(func(c byte) bool { return c == ' ' })
		if *p == "" || !isLower((*p)[0]) && (*p)[0] != '*' {
			return false
		}
		p.run(func(c byte) bool { return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0 })
		if p.next('=') && !p.item() {
			return false
		}
	}
	return true
}

// item takes a value of any type.
func (p *parser) item() bool {
	if *p == "" {
		return false
	}
	switch c := (*p)[0]; {
	case c == '"':
		_, ok := p.str()
		return ok
	case c == '-' || isDigit(c):
		_, ok := p.number()
		return ok
	case c == '*' || isLower(c|0x20):
		p.run(isToken)
		return true
	}
	switch {
	case p.next(':'):
		p.run(isBase64)
		return p.next(':')
	case p.next('?'):
		return p.next('0') || p.next('1')
	case p.next('@'):
		whole, ok := p.number()
		return ok && whole
	case p.next('%'):
		return p.display()
	}
	return false
}

// number takes an integer of up to 15 digits, or a decimal of up to 12 and 3.
func (p *parser) number() (whole, ok bool) {
	p.next('-')
	n := len(p.run(isDigit))
	if !p.next('.') {
		return true, n >= 1 && n <= 15
	}
	frac := len(p.run(isDigit))
	return false, n >= 1 && n <= 12 && frac >= 1 && frac <= 3
}

// display takes the rest of a display string: UTF-8 of which all that is not printable ASCII is percent-encoded.
func (p *parser) display() bool {
	if !p.next('"') {
		return false
	}
	var b strings.Builder
	for {
		b.WriteString(p.run(func(c byte) bool { return c >= ' ' && c <= '~' && c != '"' && c != '%' }))
		if p.next('"') {
			return utf8.ValidString(b.String())
		}
		if !p.next('%') || len(*p) < 2 {
			return false
		}
		high, low := strings.IndexByte(lowerHex, (*p)[0]), strings.IndexByte(lowerHex, (*p)[1])
		if high < 0 || low < 0 {
			return false
		}
		b.WriteByte(byte(high<<4 | low))
		*p = (*p)[2:]
	}
}

const lowerHex = "0123456789abcdef"

func isPlain(c byte) bool { return c >= ' ' && c <= '~' && c != '"' && c != '\\' }
func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isBase64(c byte) bool {
	return isLower(c|0x20) || isDigit(c) || c == '+' || c == '/' || c == '='
}
func isToken(c byte) bool {
	return isLower(c|0x20) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~:/", c) >= 0
}
