package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
)

// odd are keys and values that are hard to print.
var odd = map[string]string{"plain": "", "tab\tnew\nline": "\"quoted\"", "\x00\xff": "\xfe", "ünï": "\u202e\x1b[31m<&>"}

func TestLookingBesideTheOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	st, err := oncelog.Open(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	for k, v := range odd {
		_, inserted, err := st.PutIfAbsent([]byte(k), []byte(v), oncelog.Forever)
		require.NoError(t, err)
		require.True(t, inserted)
	}
	_, _, err = st.PutIfAbsent([]byte("soon"), nil, 100*time.Hour)
	require.NoError(t, err)
	before := tree(t, dir)

	text := done(t, "", "stat", dir)
	require.Contains(t, text, "keys          5\n")
	var s map[string]any
	require.NoError(t, json.Unmarshal([]byte(done(t, "", "stat", dir, "--json")), &s))
	require.EqualValues(t, 5, s["keys"])
	require.Equal(t, dir, s["dir"])
	for _, name := range []string{"index_bytes", "disk_bytes", "live_bytes", "segments"} {
		require.Greater(t, s[name], 0.0, name)
		require.Contains(t, text, fmt.Sprint(s[name]))
	}
	require.Len(t, s["time_line"], int(s["segments"].(float64)))
	require.Regexp(t, `(?m)^ +2 +\d+ +\d+  #+\.*  never$`, text, "the time line")

	require.Equal(t, dir+" is whole\n", done(t, "", "verify", dir))
	require.JSONEq(t, `{"ok":true}`, done(t, "", "verify", dir, "--json"))

	seen := map[string]bool{}
	for line := range strings.Lines(done(t, "", "dump", dir, "--json")) {
		require.Equal(t, 1, strings.Count(line, "\n"))
		var d dumped
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		key, value := string(d.KeyBase64), string(d.ValueBase64)
		if d.Key != nil {
			key = *d.Key
		}
		if d.Value != nil {
			value = *d.Value
		}
		seen[key] = true
		require.Equal(t, odd[key], value)
		require.WithinDuration(t, time.Now(), d.Committed, time.Hour)
		if key == "soon" {
			require.Equal(t, 100*time.Hour, d.Expires.Sub(d.Committed))
		} else {
			require.Nil(t, d.Expires)
		}
	}
	require.Len(t, seen, 5)

	lines := slices.Sorted(strings.Lines(done(t, "", "dump", dir)))
	require.Len(t, lines, 5)
	const when = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
	for i, want := range []string{
		`^"\\x00\\xff"\t"\\xfe"\t` + when + `\tnever\n$`,
		`^"plain"\t""\t` + when + `\tnever\n$`,
		`^"soon"\t""\t` + when + `\t` + when + `\n$`,
		`^"tab\\tnew\\nline"\t"\\"quoted\\""\t` + when + `\tnever\n$`,
		`^"ünï"\t"\\u202e\\x1b\[31m<&>"\t` + when + `\tnever\n$`,
	} {
		require.Regexp(t, want, lines[i])
	}
	require.Equal(t, before, tree(t, dir), "looking changes nothing")
}

func TestDamageIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for i := range 3 {
		done(t, fmt.Sprintf("line %d\nanother %d\n", i, i), "dedup", "--dir", dir)
	}
	// A byte in a key of the oldest run: later ones were acknowledged behind it.
	var file string
	var at int
	for path, content := range tree(t, dir) {
		if i := strings.Index(content, "another 0"); i >= 0 {
			file, at = path, i-(len(content)-len(read(t, path)))
		}
	}
	require.NotEmpty(t, file)
	b := []byte(read(t, file))
	b[at]++
	write(t, file, string(b))
	before := tree(t, dir)

	r := oncelogRun("", "verify", dir)
	require.Empty(t, r.out)
	failsWith(t, r, exitFailed, file, "at offset ", "restore a backup")

	r = oncelogRun("", "verify", dir, "--json")
	failsWith(t, r, exitFailed, file)
	var v struct {
		OK     *bool
		File   string
		Offset *int
		Reason string
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &v))
	require.False(t, *v.OK)
	require.Equal(t, file, v.File)
	require.InDelta(t, at, *v.Offset, 100, "the frame that holds the byte")
	require.NotEmpty(t, v.Reason)
	require.Contains(t, r.err, fmt.Sprintf("%s at offset %d: %s", v.File, *v.Offset, v.Reason))

	require.Equal(t, before, tree(t, dir), "a damaged store is left alone")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "snapshot"))) // with it, opening does not read so far back
	before = tree(t, dir)
	for _, args := range [][]string{{"stat", dir}, {"dump", dir}, {"dedup", "--dir", dir}} {
		failsWith(t, oncelogRun("x\n", args...), exitFailed, file, "at offset ", "restore a backup")
	}
	require.Equal(t, before, tree(t, dir), "a damaged store is left alone")

	require.NoError(t, os.RemoveAll(filepath.Join(dir, "wal")))
	failsWith(t, oncelogRun("", "verify", dir), exitFailed, "wal", "missing")
	failsWith(t, oncelogRun("", "verify", dir+"-nope", "--json"), exitFailed, "check the path")
}
