package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strconv"
)

// Every key starts with a byte that says how it was made, so that no line, JSON
// value or hash can be taken for a key of another kind. It also makes the key of
// an empty line legal: the store has no empty keys.
const (
	tagBytes = '=' // the bytes of a line, of a column or in a JSON string follow
	tagJSON  = ':' // the text of another JSON value follows
	tagHash  = '#' // the SHA-256 of a longer key follows, its own tag included

	maxKey = 1 << 10 // the store's limit unless it is opened with another
)

// keySpec is where the key of a line is. The zero value: the line is the key.
type keySpec struct {
	field  string // a JSON field
	column int    // a column, from 1
	delim  byte   // of the columns
}

// String is what the record of an unfinished run keeps, and what people read
// when a restart asks for other keys.
func (s keySpec) String() string {
	switch {
	case s.field != "":
		return "--field " + strconv.Quote(s.field)
	case s.column > 0:
		return fmt.Sprintf("--column %d --delimiter %q", s.column, string([]byte{s.delim}))
	}
	return "the whole line"
}

// appendKey appends the key of a line without its newline to dst. If it has
// none, why says so. An empty column or JSON string is no key: it is how most
// formats write "no id", and as a key it would drop all such lines but one.
func (s keySpec) appendKey(dst, line []byte) (key []byte, why string) {
	start := len(dst)
	switch {
	case s.field != "":
		v, why := jsonField(line, s.field)
		switch {
		case why != "":
			return nil, why
		case v[0] == '"':
			dst = append(append(dst, tagBytes), unquote(v)...)
		default:
			// As it is written: 1 and 1.0 are two keys. To find them equal takes a
			// canonical form, and a flaw in one would drop lines.
			dst = appendCompact(append(dst, tagJSON), v)
		}
	case s.column > 0:
		v, ok := column(line, s.column, s.delim)
		switch {
		case !ok:
			return nil, "no column " + strconv.Itoa(s.column)
		case len(v) == 0:
			return nil, "column " + strconv.Itoa(s.column) + " is empty"
		}
		dst = append(append(dst, tagBytes), v...)
	default:
		dst = append(append(dst, tagBytes), line...)
	}
	if key := dst[start:]; len(key) > maxKey {
		sum := sha256.Sum256(key)
		dst = append(append(dst[:start], tagHash), sum[:]...)
	}
	return dst, ""
}

// column returns column n of a line. A line without the delimiter has one column.
func column(line []byte, n int, delim byte) ([]byte, bool) {
	for ; n > 1; n-- {
		i := bytes.IndexByte(line, delim)
		if i < 0 {
			return nil, false
		}
		line = line[i+1:]
	}
	if i := bytes.IndexByte(line, delim); i >= 0 {
		line = line[:i]
	}
	return line, true
}
