package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/oncelog/oncelog/fuzz/decoders"
)

func TestKeyOfALine(t *testing.T) {
	id := keySpec{field: "id"}
	for _, c := range []struct {
		spec      keySpec
		line, key string // "": why
		why       string
	}{
		{keySpec{}, "a\tb", "=a\tb", ""},
		{keySpec{}, "", "=", ""},
		{keySpec{}, "a\r", "=a\r", ""},

		{keySpec{column: 1, delim: '\t'}, "a\tb", "=a", ""},
		{keySpec{column: 2, delim: '\t'}, "a\tb\tc", "=b", ""},
		{keySpec{column: 2, delim: '\t'}, "a\tb\r", "=b\r", ""},
		{keySpec{column: 2, delim: ' '}, "a  b", "", "column 2 is empty"},
		{keySpec{column: 3, delim: ' '}, "a  b", "=b", ""},
		{keySpec{column: 1, delim: ','}, "a", "=a", ""},
		{keySpec{column: 1, delim: ','}, "", "", "column 1 is empty"},
		{keySpec{column: 2, delim: ','}, "", "", "no column 2"},
		{keySpec{column: 2, delim: ','}, "a", "", "no column 2"},
		{keySpec{column: 2, delim: ','}, "a,", "", "column 2 is empty"},
		{keySpec{column: 1, delim: 0}, "a\x00b", "=a", ""},

		{id, `{"id":"a"}`, "=a", ""},
		{id, " { \"id\" :\t\"a\" , \"b\":[{}] } \r", "=a", ""},
		{id, `{"x":{"id":"no"},"id":"a"}`, "=a", ""},
		{id, `{"x":"\"id\":\"no\"","y":["}",{"id":1}],"id":"a"}`, "=a", ""},
		{id, `{"id":"a","id":"b"}`, "=b", ""},
		{id, `{"\u0069d":"\u0061\n\/\\\"\b\f\r\t"}`, "=a\n/\\\"\b\f\r\t", ""},
		{id, `{"id":"\ud83d\ude00"}`, "=😀", ""},
		{id, `{"id":"\ud83d"}`, "=\xed\xa0\xbd", ""},
		{id, `{"id":"\ude00"}`, "=\xed\xb8\x80", ""},
		{id, `{"id":"\ud83dx"}`, "=\xed\xa0\xbdx", ""},
		{id, `{"id":"\ud83d\u0041"}`, "=\xed\xa0\xbdA", ""},
		{id, "{\"id\":\"\xff\"}", "=\xff", ""},
		{id, `{"id":1}`, ":1", ""},
		{id, `{"id":"1"}`, "=1", ""},
		{id, `{"id":1.0}`, ":1.0", ""},
		{id, `{"id":12345678901234567890}`, ":12345678901234567890", ""},
		{id, `{"id":true}`, ":true", ""},
		{id, `{"id":false}`, ":false", ""},
		{id, `{"id": [1, {"a b": "c d"} ]}`, `:[1,{"a b":"c d"}]`, ""},
		{id, `{"id":{}}`, ":{}", ""},
		{id, `{"id":null}`, "", `field "id" is null`},
		{id, `{"id":""}`, "", `field "id" is ""`},
		{id, `{}`, "", `no field "id"`},
		{id, `{"Id":1,"i.d":2}`, "", `no field "id"`},
		{id, `["id"]`, "", "not a JSON object"},
		{id, `"id"`, "", "not a JSON object"},
		{id, `{"id":1`, "", "not a JSON object"},
		{id, `{"id":1} {}`, "", "not a JSON object"},
		{id, ``, "", "not a JSON object"},
		{id, `id`, "", "not a JSON object"},

		{keySpec{field: "a.b"}, `{"a":{"b":1}}`, ":1", ""},
		{keySpec{field: "a.b"}, `{"a":{"b":1},"a.b":2}`, ":2", ""},
		{keySpec{field: "a.b"}, `{"a":{"c":1}}`, "", `no field "a.b"`},
		{keySpec{field: "a.b"}, `{"a":[{"b":1}]}`, "", `no field "a.b"`},
		{keySpec{field: "a.b"}, `{"a":null}`, "", `no field "a.b"`},
		{keySpec{field: "a.b.c"}, `{"a":{"b":{"c":"x"}}}`, "=x", ""},
		{keySpec{field: "a"}, `{"a":{"b":1}}`, `:{"b":1}`, ""},
		{keySpec{field: "."}, `{"":{"":1}}`, ":1", ""},
	} {
		key, why := c.spec.appendKey(nil, []byte(c.line))
		require.Equal(t, c.key, string(key), c.line)
		require.Equal(t, c.why, why, c.line)
	}
}

func TestLongKeysAreHashedAndMeetNoShortOne(t *testing.T) {
	key := func(line []byte) []byte {
		k, why := keySpec{}.appendKey([]byte("before"), line)
		require.Empty(t, why)
		require.True(t, bytes.HasPrefix(k, []byte("before")))
		return k[len("before"):]
	}
	short := bytes.Repeat([]byte("x"), maxKey-1)
	require.Equal(t, "="+string(short), string(key(short)))
	long := append(short, 'y')
	sum := sha256.Sum256(append([]byte("="), long...))
	hashed := key(long)
	require.Equal(t, "#"+string(sum[:]), string(hashed))
	require.NotEqual(t, hashed, key(append(short, 'z')))
	// A line that is the hash of another, tag and all.
	require.NotEqual(t, hashed, key(hashed))
	require.NotEqual(t, hashed, key(sum[:]))
	// A JSON value that reads as a string's key.
	num := strings.Repeat("1", maxKey)
	field := keySpec{field: "n"}
	a, _ := field.appendKey(nil, []byte(`{"n":`+num+`}`))
	b, _ := field.appendKey(nil, []byte(`{"n":"`+num+`"}`))
	require.NotEqual(t, a, b)
}

// checkJSON compares with what encoding/json makes of a line.
func checkJSON(t require.TestingT, line []byte, name string) {
	v, why := jsonField(line, name)
	var obj map[string]json.RawMessage
	if json.Unmarshal(line, &obj) != nil || obj == nil {
		require.NotEmpty(t, why, "%q", line)
		return
	}
	if !utf8.Valid(line) || bytes.Contains(line, []byte(`\u`)) && strings.ContainsRune(name, utf8.RuneError) {
		return // two names may become one there
	}
	want, ok := obj[name]
	switch {
	case !ok:
		return // a dotted path
	case string(want) == "null" || string(want) == `""`:
		require.NotEmpty(t, why, "%q", line)
		return
	}
	require.Empty(t, why, "%q", line)
	require.Equal(t, string(want), string(v), "%q", line)
	if v[0] == '"' {
		var s string
		require.NoError(t, json.Unmarshal(v, &s))
		if !strings.ContainsRune(s, utf8.RuneError) {
			require.Equal(t, s, string(unquote(v)))
		}
		return
	}
	var compact bytes.Buffer
	require.NoError(t, json.Compact(&compact, v))
	require.Equal(t, compact.String(), string(appendCompact(nil, v)))
}

func TestFieldIsWhatOthersRead(t *testing.T) {
	values := rapid.OneOf(
		rapid.String().AsAny(), rapid.Int().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(), rapid.Just[any](nil),
		rapid.SliceOf(rapid.String()).AsAny(), rapid.MapOf(rapid.String(), rapid.String()).AsAny(),
	)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, 5, -1).Draw(t, "name")
		obj := rapid.MapOf(rapid.String(), values).Draw(t, "object")
		obj[name] = values.Draw(t, "value")
		line, err := json.Marshal(obj)
		require.NoError(t, err)
		if rapid.Bool().Draw(t, "indented") {
			var b bytes.Buffer
			require.NoError(t, json.Indent(&b, line, "\t", " "))
			line = b.Bytes()
		}
		checkJSON(t, line, name)
	})
}

func FuzzField(f *testing.F) {
	f.Fuzz(func(t *testing.T, line []byte, name string) { checkJSON(t, line, name) })
}

func TestSeeds(t *testing.T) {
	var seeds []decoders.Seed
	for name, line := range map[string]string{
		"number": `{"id":1}`, "a-lone-surrogate": `{"a":{"id":"\ud800"},"id":[]}`, "an-escaped-name": `{"i\u0064":{"":null}}`,
		"spaces": ` {"id":-0e1 }`, "no-end": `{"id":"`, "a-list": `[]`, "nothing": ``,
	} {
		seeds = append(seeds, decoders.Seed{Name: name, Args: []any{[]byte(line), "id"}})
	}
	decoders.Seeds(t, "FuzzField", seeds)
}
