package oncehttp

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The bytes are on disk, and docs/FORMAT.md has this example.
var recordedExample = []byte("\x01\xc9\x01\x02" + "\x0cContent-Type\x01\x10application/json" + "\x08Location\x01\x0b/payments/1" + `{"id":1}`)

func TestTheBytesOfARecordedResponse(t *testing.T) {
	rec := recorded{status: 201, body: []byte(`{"id":1}`), header: http.Header{
		"Location": {"/payments/1"}, "Content-Type": {"application/json"},
	}}
	require.Equal(t, recordedExample, rec.encode())
	got, err := decode(recordedExample)
	require.NoError(t, err)
	require.Equal(t, &rec, got)
	require.Equal(t, []byte("\x01\xcc\x01\x01\x01A\x00"), (&recorded{status: 204, header: http.Header{"A": nil}}).encode())
}

func TestADamagedResponseIsNoResponse(t *testing.T) {
	headers := len(recordedExample) - len(`{"id":1}`)
	for n := range headers {
		_, err := decode(recordedExample[:n])
		require.ErrorIs(t, err, errDamagedResponse, n)
	}
	for _, b := range []string{
		"\x01\x63\x00",                       // status 99
		"\x01\xe8\x07\x00",                   // 1000
		"\x01\xc8\x01\x02\x01B\x00\x01A\x00", // not in order
		"\x01\xc8\x01\x02\x01A\x00\x01A\x00", // twice
		"\x01\xc8\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"\x01\xc8\x01\x01\x01A\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"\x01\xc8\x01\x01\x01A\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"\x01\xc8\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01A",
	} {
		_, err := decode([]byte(b))
		require.ErrorIs(t, err, errDamagedResponse, "%x", b)
	}
	for _, version := range []byte{0, 2, 255} {
		_, err := decode(append([]byte{version}, recordedExample[1:]...))
		require.ErrorIs(t, err, errNewerResponse)
	}
}

func TestAResponseComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := recorded{
			status: rapid.IntRange(100, 999).Draw(t, "status"),
			body:   rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
			header: rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.String())).Draw(t, "header"),
		}
		got, err := decode(rec.encode())
		require.NoError(t, err)
		require.Equal(t, rec.status, got.status)
		require.True(t, bytes.Equal(rec.body, got.body))
		require.Len(t, got.header, len(rec.header))
		for name, values := range rec.header {
			require.Equal(t, append([]string{}, values...), append([]string{}, got.header[name]...))
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(recordedExample)
	f.Add([]byte("\x01\xcc\x01\x01\x01A\x00"))
	f.Add([]byte("\x01\xc8\x01\x00body"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(rec.encode())
		require.NoError(t, err)
		require.Equal(t, rec.status, again.status)
		require.Equal(t, rec.header, again.header)
		require.True(t, bytes.Equal(rec.body, again.body))
	})
}
