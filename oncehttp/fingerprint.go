package oncehttp

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/oncelog/oncelog/receiver"
)

// fingerprint is the default: a duplicate is equal in all that a handler would usually look at.
func fingerprint(r *http.Request, body []byte) ([]byte, error) {
	return fingerprintOf("raw", r, body), nil
}

// fingerprintOf must stay as it is: another fingerprint would make a duplicate of a recorded request look like another
// request. A test pins it.
func fingerprintOf(form string, r *http.Request, body []byte) []byte {
	return []byte(receiver.KeyOf([]byte("oncehttp request 1"), []byte(form), []byte(r.Method), []byte(r.URL.EscapedPath()),
		[]byte(r.URL.RawQuery), joined(r.Header, "Content-Type"), joined(r.Header, "Content-Encoding"), body))
}

func joined(h http.Header, name string) []byte { return []byte(strings.Join(h[name], ", ")) }

// CanonicalJSON is for Options.Fingerprint, for clients that write the same body anew with each retry: in JSON the order
// of an object's names, whitespace, and how a character is escaped make no difference. Numbers are the same if they are
// written the same. A body that is not JSON by its Content-Type and in fact, or that two readers could understand
// differently (a name twice in one object, characters that are not Unicode), counts byte for byte.
func CanonicalJSON(r *http.Request, body []byte) ([]byte, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && (t == "application/json" || strings.HasSuffix(t, "+json")) &&
		len(r.Header["Content-Encoding"]) == 0 {
		if b, ok := canonical(body); ok {
			return fingerprintOf("json", r, b), nil
		}
	}
	return fingerprint(r, body)
}

func canonical(body []byte) ([]byte, bool) {
	// Valid bounds the depth too (10,000).
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	return appendCanonical(nil, d)
}

// appendCanonical appends a form of the decoder's next value that is the same for the same values alone.
func appendCanonical(dst []byte, d *json.Decoder) (_ []byte, ok bool) {
	t, err := d.Token()
	if err != nil {
		return nil, false
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			dst, ok = appendObject(dst, d)
		} else {
			dst, ok = appendArray(dst, d)
		}
		if !ok {
			return nil, false
		}
		_, err = d.Token() // the closing bracket
		return dst, err == nil
	case string:
		return appendQuoted(dst, t)
	case json.Number:
		return append(dst, t...), true
	case bool:
		return strconv.AppendBool(dst, t), true
	}
	return append(dst, "null"...), true
}

func appendArray(dst []byte, d *json.Decoder) (_ []byte, ok bool) {
	dst = append(dst, '[')
	for d.More() {
		if dst, ok = appendCanonical(dst, d); !ok {
			return nil, false
		}
		dst = append(dst, ',')
	}
	return append(dst, ']'), true
}

// appendObject appends the hash of an object's members in the order of their names. It is a hash because sorted members
// are copied, and those of an object inside thousands of others would be copied thousands of times.
func appendObject(dst []byte, d *json.Decoder) (_ []byte, ok bool) {
	var all []byte // one after the other
	type place struct{ from, to int }
	members := map[string]place{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, false
		}
		name := t.(string) // or there were an error
		if _, twice := members[name]; twice {
			return nil, false
		}
		from := len(all)
		if all, ok = appendQuoted(all, name); !ok {
			return nil, false
		}
		if all, ok = appendCanonical(append(all, ':'), d); !ok {
			return nil, false
		}
		members[name] = place{from, len(all)}
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(members)) {
		h.Write(all[members[name].from:members[name].to])
		h.Write([]byte{','})
	}
	return append(h.Sum(append(dst, '{')), '}'), true
}

// appendQuoted refuses what half a surrogate pair becomes: many different strings would be the same one.
func appendQuoted(dst []byte, s string) ([]byte, bool) {
	if strings.ContainsRune(s, utf8.RuneError) {
		return nil, false
	}
	return strconv.AppendQuote(dst, s), true
}
