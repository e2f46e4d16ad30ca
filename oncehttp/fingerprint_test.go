package oncehttp

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Fingerprints are compared with recorded ones for as long as those live. If this test fails, the change is wrong.
// The values were computed by another program, in another language.
func TestFingerprintsArePinned(t *testing.T) {
	r := request(quoted, "", func(r *http.Request) { r.URL.RawQuery = "a=1"; r.Header.Set("Content-Encoding", "br") })
	b, err := fingerprint(r, []byte(`{"a": 1}`))
	require.NoError(t, err)
	require.Equal(t, "8ed9a10ae6ac2bf471fb04d8c4ef8452ab92b9df15ec81095ab80a70f7cefb5d", string(b))
	r.Header.Del("Content-Encoding")
	b, err = CanonicalJSON(r, []byte(`{"b": [1, "x", true, null, {}], "a": {"c": 1.0}}`))
	require.NoError(t, err)
	require.Equal(t, "da51ff4fe190e4e01e0f93853008424de3ac36354ab17d479644276336f226e8", string(b))
}

func TestCanonicalJSON(t *testing.T) {
	print := func(body string, change ...func(*http.Request)) string {
		b, err := CanonicalJSON(request(quoted, "", change...), []byte(body))
		require.NoError(t, err)
		return string(b)
	}
	nested := strings.Repeat(`{"a":[`, 4000) + strings.Repeat(`]}`, 4000)
	for _, same := range [][]string{
		{`{"a":1,"b":2}`, ` { "b" : 2 , "a" : 1 } `, "{\"b\":2,\n\"\\u0061\":1}"},
		{`[{"a":{"x":1,"y":[]}},"\/"]`, `[{"a":{"y":[ ],"x":1}},"/"]`},
		{`"ä😀"`, `"\u00e4\ud83d\ude00"`},
		{nested, nested + " "},
	} {
		for _, body := range same {
			require.Equal(t, print(same[0]), print(body), body)
		}
	}
	all := []string{
		`{"a":1,"b":2}`, `{"a":1,"b":2,"c":3}`, `{"a":1}`, `{"a":1.0}`, `{"a":1e0}`, `{"a":"1"}`, `{"a":true}`, `{"a":null}`, `{"a":[1]}`,
		`{"a":[[1]]}`, `[1,2]`, `[2,1]`, `[12]`, `[]`, `[[]]`, `[[],[]]`, `[[[]]]`, `{}`, `{"a":{}}`, `""`, `"a"`, `"a,"`, `"\""`, `"\\\""`, `1`, `true`, `"true"`, `null`,
		// byte for byte
		`{"a":1,"a":2}`, `{"a":2,"a":1}`, `{"a":2}`, `{"a":1,"a":2 }`, `"\ud800"`, `"\ud801"`, `"\ufffd"`, "\"\xff\"", "\"\xfe\"", `{"\ud800":1}`,
		`{`, `{ `, `{"a":1}{"a":1}`, ``, nested,
		strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), strings.Repeat("[", 20_000) + " " + strings.Repeat("]", 20_000),
	}
	seen := map[string]string{}
	for _, body := range all {
		p := print(body)
		require.NotContains(t, seen, p, body)
		seen[p] = body
	}
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
		func(r *http.Request) { r.Header.Del("Content-Type") },
	} {
		require.NotEqual(t, print(`{"a":1}`, change), print(`{"a": 1}`, change))
	}
	jsonLike := func(r *http.Request) { r.Header.Set("Content-Type", "application/vnd.pay+json; charset=utf-8") }
	require.Equal(t, print(`{"a":1}`, jsonLike), print(`{"a": 1}`, jsonLike))
	require.NotEqual(t, print(`{"a":1}`, jsonLike), print(`{"a":1}`))

	c := &counted{}
	h := guarded(t, Options{Fingerprint: CanonicalJSON}, c.ServeHTTP)
	post(h, quoted, `{"a":1,"b":2}`)
	isReplay(t, post(h, quoted, `{"b": 2, "a": 1}`))
	isProblem(t, post(h, quoted, `{"b": 2, "a": 2}`), 422, "key-reused")
}

// What a hostile body costs grows with its length, not with its depth times its length.
func BenchmarkCanonicalNested(b *testing.B) {
	body := []byte(strings.Repeat(`{"a":`, 9000) + `"` + strings.Repeat("x", 900_000) + `"` + strings.Repeat(`}`, 9000))
	for b.Loop() {
		if _, ok := canonical(body); !ok {
			b.Fatal("not canonical")
		}
	}
}
