package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonField returns the JSON text of a field of the object in line: of the
// member with exactly that name, or else of the member that the name's dots lead
// to. If there is none that can be a key, why says so.
func jsonField(line []byte, name string) (value []byte, why string) {
	// encoding/json judges the line once; what walks over it afterwards can rely
	// on the grammar and needs no errors. Decoding into a map, or token by token,
	// allocates for each member and would be most of the command's time.
	if !json.Valid(line) {
		return nil, "not a JSON object"
	}
	obj := trimSpace(line)
	if obj[0] != '{' {
		return nil, "not a JSON object"
	}
	v, ok := member(obj, name)
	if !ok {
		v, ok = memberAt(obj, name)
	}
	switch {
	case !ok:
		return nil, "no field " + strconv.Quote(name)
	case string(v) == "null" || string(v) == `""`:
		return nil, "field " + strconv.Quote(name) + " is " + string(v)
	}
	return v, ""
}

// memberAt follows a dotted path from object to object.
func memberAt(obj []byte, path string) (value []byte, ok bool) {
	head, tail, more := strings.Cut(path, ".")
	v, ok := member(obj, head)
	if !ok || !more {
		return v, ok
	}
	if v[0] != '{' {
		return nil, false
	}
	return memberAt(v, tail)
}

// member returns the value of a member of an object. Of several with the name,
// the last counts, as for encoding/json and most other readers: it is the value
// that the line's consumer will act on.
func member(obj []byte, name string) (value []byte, ok bool) {
	rest := trimSpace(obj[1:])
	for rest[0] != '}' {
		n := rest[:valueLen(rest)]
		rest = trimSpace(rest[len(n):])
		rest = trimSpace(rest[1:]) // the colon
		v := rest[:valueLen(rest)]
		if string(unquote(n)) == name {
			value, ok = v, true
		}
		rest = trimSpace(rest[len(v):])
		if rest[0] == ',' {
			rest = trimSpace(rest[1:])
		}
	}
	return value, ok
}

// valueLen returns the length of the value that s starts with.
func valueLen(s []byte) int {
	switch s[0] {
	case '"':
		return stringLen(s)
	case '{', '[':
		depth := 0
		for i := 0; ; i++ {
			switch s[i] {
			case '"':
				i += stringLen(s[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	return bytes.IndexAny(s, ",]} \t\r\n") // a member is never the end of the line
}

func stringLen(s []byte) int {
	for i := 1; ; i++ {
		switch s[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
}

// trimSpace trims JSON's white space on the left, which is less than Unicode's.
func trimSpace(s []byte) []byte { return bytes.TrimLeft(s, " \t\r\n") }

// appendCompact appends a value without the white space between its parts.
func appendCompact(dst, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case ' ', '\t', '\r', '\n':
		case '"':
			n := stringLen(v[i:])
			dst = append(dst, v[i:i+n]...)
			i += n - 1
		default:
			dst = append(dst, v[i])
		}
	}
	return dst
}

// unquote returns the bytes of a JSON string. Unlike encoding/json's, it does not
// turn what is not UTF-8 into U+FFFD: two different keys would become one, and a
// line would be lost. Half a surrogate pair becomes the three bytes that UTF-8
// would have for it.
func unquote(raw []byte) []byte {
	s := raw[1 : len(raw)-1]
	if bytes.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r := hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) && i+6 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
				if pair := utf16.DecodeRune(r, hex4(s[i+3:])); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			if utf16.IsSurrogate(r) {
				b = append(b, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
			} else {
				b = utf8.AppendRune(b, r)
			}
		default: // " \ /
			b = append(b, s[i])
		}
	}
	return b
}

func hex4(s []byte) rune {
	n, _ := strconv.ParseUint(string(s[:4]), 16, 32) // the grammar says four hex digits
	return rune(n)
}
