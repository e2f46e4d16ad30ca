package oncehttp

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheKeyIsAStructuredString(t *testing.T) {
	long := strings.Repeat("k", 255)
	for _, c := range []struct{ line, want string }{ // want "" = 400
		{`"k"`, "k"},
		{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`, "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{`"with space, comma; and ~!"`, "with space, comma; and ~!"},
		{`"a\"b\\c"`, `a"b\c`},
		{`"\"\\"`, `"\`},
		{`  "k"  `, "k"},
		{`"` + long + `"`, long},
		{`"` + long + `k"`, ""},
		{`"` + strings.Repeat(`\"`, 255) + `"`, strings.Repeat(`"`, 255)},
		{`"` + strings.Repeat(`\"`, 256) + `"`, ""},
		{`""`, ""},
		{``, ""},
		{`"`, ""},
		{`"k`, ""},
		{`k"`, ""},
		{`"k"k`, ""},
		{`"k" "l"`, ""},
		{`"k", "l"`, ""},
		{`"k","l"`, ""},
		{`"a\b"`, ""},
		{`"a\`, ""},
		{`"a\"`, ""},
		{"\"a\tb\"", ""},
		{"\"a\x7fb\"", ""},
		{"\"a\x00b\"", ""},
		{`"ä"`, ""},
		{`'k'`, ""},
		{"\t\"k\"", ""},
		// of another type
		{`4711`, ""}, {`k`, ""}, {`:aGk=:`, ""}, {`?1`, ""}, {`4.5`, ""}, {`("k")`, ""}, {`@1`, ""}, {`%"k"`, ""}, {`a="k"`, ""},
		// parameters say nothing, but must be some
		{`"k";a`, "k"},
		{`"k"; a=1;  *b-_.*0="x\"";c=tok/en:x;d=:aGk=:;e=?0;f=-1.5;g=@-10;h=%"%c3%a4"`, "k"},
		{`"k" ;a`, ""}, {`"k";`, ""}, {`"k";A`, ""}, {`"k";1`, ""}, {`"k";a=`, ""}, {`"k";a=?2`, ""}, {`"k";a="`, ""},
		{`"k";a=1234567890123456`, ""}, {`"k";a=123456789012345`, "k"}, {`"k";a=1.`, ""}, {`"k";a=1.2345`, ""},
		{`"k";a=1234567890123.1`, ""}, {`"k";a=-`, ""}, {`"k";a=@1.5`, ""}, {`"k";a=@`, ""}, {`"k";a=:!:`, ""}, {`"k";a=:aGk=`, ""},
		{`"k";a=%"%C3%A4"`, ""}, {`"k";a=%"%ff"`, ""}, {`"k";a=%"ä"`, ""}, {`"k";a=%"%c"`, ""}, {`"k";a=%k`, ""}, {`"k";a=%"k`, ""},
		{`"k";a=(1)`, ""}, {`"k";a =1`, ""}, {`"k";a= 1`, ""}, {`"k",`, ""},
	} {
		got, bad := keyOf(http.Header{"Idempotency-Key": {c.line}}, false)
		require.Equal(t, c.want, got, c.line)
		require.Equal(t, c.want == "", bad != nil, c.line)
	}
}

func TestARawKeyIsTakenWhereThatIsAllowed(t *testing.T) {
	for _, c := range []struct {
		line string
		raw  bool
	}{
		{"8e03978e-40d5-43dd-bc93-6894a57f9324", true}, {"4711", true}, {"a/b+c==", true}, {"a;b", true}, {`a\b`, true},
		{strings.Repeat("k", 255), true},
		{strings.Repeat("k", 256), false}, {"", false}, {"a b", false}, {"a,b", false}, {"a, b", false}, {`"a`, false}, {`a"`, false}, {"ä", false}, {"a\x7f", false},
	} {
		got, bad := keyOf(http.Header{"Idempotency-Key": {c.line}}, true)
		if c.raw {
			require.Nil(t, bad, c.line)
			require.Equal(t, c.line, got)
			_, bad = keyOf(http.Header{"Idempotency-Key": {c.line}}, false)
			_, written, ok := strings.Cut(bad.detail, "Idempotency-Key: ")
			require.True(t, ok, "it says how to write it")
			got, bad = keyOf(http.Header{"Idempotency-Key": {written}}, false)
			require.Nil(t, bad, written)
			require.Equal(t, c.line, got)
		} else {
			require.NotNil(t, bad, c.line)
		}
	}
	same := &counted{}
	h := guarded(t, Options{AllowRaw: true}, same.ServeHTTP)
	post(h, "order-4711", "")
	isReplay(t, post(h, quoted, ""))
}

// A damaged key is refused where none is needed too: without it, the request would run unguarded.
func TestADamagedKeyIsRefusedWhereNoneIsRequired(t *testing.T) {
	h := guarded(t, Options{}, func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	isProblem(t, post(h, "order-4711", ""), 400, "malformed-key")
	isProblem(t, post(h, "", "", func(r *http.Request) { r.Header["Idempotency-Key"] = []string{""} }), 400, "malformed-key")
	isProblem(t, post(h, quoted, "", func(r *http.Request) { r.Header.Add("Idempotency-Key", quoted) }), 400, "malformed-key")
}

func FuzzParseString(f *testing.F) {
	for _, s := range []string{`"k"`, `"a\"b\\"`, `"k";a=1.5;b=:aGk=:;c=?1;d=@1;e=%"%c3%a4";f="x";g=*t`, `"k", "l"`, `k`, `"k`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := parseString(s)
		if !ok {
			return
		}
		// What was taken can be written, and is read as the same.
		again, ok := parseString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`)
		require.True(t, ok)
		require.Equal(t, v, again)
		for i := range len(v) {
			require.True(t, v[i] >= ' ' && v[i] <= '~')
		}
	})
}
