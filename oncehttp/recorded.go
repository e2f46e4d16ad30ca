package oncehttp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// recorded is a response as it is kept: the value of its key's record.
//
//	 1  version, 1
//	 v  status, 100 to 999
//	 v  how many header fields
//	[v  length of a name
//	 n  name
//	 v  how many values; 0 = the handler took the field away
//	[v  length of a value
//	 n  value            ] as often
//	                     ] as often, in ascending order of names
//	 n  body, to the end
//
// v is an unsigned varint. docs/FORMAT.md repeats it. A value without a byte is a response of which nobody knows more
// than that the work was done: that is what settling a doubt by hand leaves.
type recorded struct {
	status int
	header http.Header // what the handler added or changed
	body   []byte
}

const recordedVersion = 1

var (
	errDamagedResponse = errors.New("oncehttp: the recorded response can't be read")
	errNewerResponse   = errors.New("oncehttp: the recorded response was written by a later version")
)

// never are the header fields that are not recorded. Some say something about the connection, or about the moment; with
// the others, whoever replays would give a secret of the first caller's, or a proof meant for him, to the next. The last
// two are this package's own, and are those of another middleware behind this one if the handler has set them.
var never = []string{
	"Set-Cookie", "Set-Cookie2", "Www-Authenticate", "Authentication-Info",
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authentication-Info", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
	"Date", "Content-Length",
	replayedHeader, expiresHeader,
}

// changed returns the header fields to be recorded: those that differ from what stood there before the handler.
func changed(before, after http.Header) http.Header {
	var connection []string
	for _, line := range after["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			connection = append(connection, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	skip := func(name string) bool {
		name = textproto.CanonicalMIMEHeaderKey(name)
		return slices.Contains(never, name) || slices.Contains(connection, name) || strings.HasPrefix(name, http.TrailerPrefix)
	}
	diff := make(http.Header)
	for name, values := range after {
		if old, ok := before[name]; (!ok || !slices.Equal(old, values)) && !skip(name) {
			diff[name] = values
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok && !skip(name) {
			diff[name] = nil
		}
	}
	return diff
}

func (r *recorded) encode() []byte {
	size := 3*binary.MaxVarintLen64 + len(r.body)
	for name, values := range r.header {
		size += 2*binary.MaxVarintLen32 + len(name)
		for _, v := range values {
			size += binary.MaxVarintLen32 + len(v)
		}
	}
	b := append(make([]byte, 0, size), recordedVersion)
	b = binary.AppendUvarint(b, uint64(r.status))
	b = binary.AppendUvarint(b, uint64(len(r.header)))
	for _, name := range slices.Sorted(maps.Keys(r.header)) {
		b = appendString(b, name)
		values := r.header[name]
		b = binary.AppendUvarint(b, uint64(len(values)))
		for _, v := range values {
			b = appendString(b, v)
		}
	}
	return append(b, r.body...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads what encode wrote, and takes nothing else. The body is part of b.
func decode(b []byte) (*recorded, error) {
	if len(b) == 0 {
		return nil, errDamagedResponse
	}
	if b[0] != recordedVersion {
		return nil, fmt.Errorf("%w: version %d", errNewerResponse, b[0])
	}
	d := decoder{b: b[1:]}
	r := &recorded{status: int(d.number(999))}
	if r.status < 100 {
		d.bad = true
	}
	fields := d.number(uint64(len(b)))
	r.header = make(http.Header, min(fields, 16))
	last := ""
	for i := uint64(0); i < fields && !d.bad; i++ {
		name := d.text()
		if i > 0 && name <= last {
			d.bad = true
		}
		last = name
		var values []string
		for n := d.number(uint64(len(b))); n > 0 && !d.bad; n-- {
			values = append(values, d.text())
		}
		r.header[name] = values
	}
	if d.bad {
		return nil, errDamagedResponse
	}
	r.body = d.b
	return r, nil
}

// decoder is the rest of an encoded response, until something is wrong with it.
type decoder struct {
	b   []byte
	bad bool
}

// number reads a number that is at most so large.
func (d *decoder) number(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > most || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string {
	n := d.number(uint64(len(d.b)))
	if n > uint64(len(d.b)) {
		d.bad = true
	}
	if d.bad {
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
