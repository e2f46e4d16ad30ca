package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oncelog/oncelog"
	"github.com/oncelog/oncelog/receiver"
)

func TestDoubtsAndSettle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	st, err := oncelog.Open(dir, nil)
	require.NoError(t, err)
	r, err := st.Receiver(nil)
	require.NoError(t, err)
	lost := func(context.Context) ([]byte, error) { return nil, receiver.Unknown(errors.New("no answer")) }
	note := receiver.WithIntent([]byte("charge\t10"))
	tenant := r.Scope("tenant").Scope("a/b")
	_, err = r.Do(t.Context(), "first", lost, note)
	require.ErrorIs(t, err, receiver.ErrInDoubt)
	_, err = tenant.Do(t.Context(), "\xffkey", lost)
	require.ErrorIs(t, err, receiver.ErrInDoubt)
	for seq := uint64(5); seq <= 6; seq++ {
		_, err = tenant.DoSeq(t.Context(), "orders", seq, lost, receiver.WithEpoch(2))
		require.ErrorIs(t, err, receiver.ErrInDoubt)
	}
	before := tree(t, dir)
	want := []string{
		"\t\"first\"\t\"charge\\t10\"\n",
		"\"tenant\"/\"a/b\"\t\"\\xffkey\"\t\"\"\n",
		"\"tenant\"/\"a/b\"\t\"orders\" epoch 2 number 5\t\"\"\n",
		"\"tenant\"/\"a/b\"\t\"orders\" epoch 2 number 6\t\"\"\n",
	}
	got := strings.SplitAfter(done(t, "", "doubts", dir), "\n")
	require.ElementsMatch(t, append(want, ""), got)
	for line := range strings.Lines(done(t, "", "doubts", dir, "--json")) {
		var d doubted
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		require.True(t, d.Seq != nil && d.Source == "orders" || d.Key != nil && *d.Key == "first" || string(d.KeyBase64) == "\xffkey")
	}
	require.Contains(t, done(t, "", "stat", dir), "doubts        4\n")
	require.Equal(t, before, tree(t, dir), "looking changes nothing")

	failsWith(t, oncelogRun("", "settle", dir, "first", "happened"), 1, "open already")
	refused, err := process(t, "settle", dir, "first", "happened").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(refused), strconv.Itoa(os.Getpid()), "the owner's process id")
	require.NoError(t, st.Close())

	done(t, "", "settle", dir, "first", "happened", "--value", "10 charged")
	done(t, "", "settle", "--scope", "tenant", "--scope", "a/b", dir, "\xffkey", "not")
	done(t, "", "settle", "--scope", "tenant", "--scope", "a/b", "--source", "orders", "--epoch", "2", dir, "5", "happened")
	require.Equal(t, want[3], done(t, "", "doubts", dir))
	for _, args := range [][]string{{dir, "first", "happened"}, {dir, "nobody's", "not"}} {
		failsWith(t, oncelogRun("", append([]string{"settle"}, args...)...), 1, "not in doubt")
	}
	for _, args := range [][]string{
		{}, {dir}, {dir, "k"}, {dir, "k", "perhaps"}, {dir, "", "not"}, {dir, "k", "not", "--value", "v"},
		{dir, "k", "not", "--source", "s"}, {dir, "k", "not", "more"},
	} {
		failsWith(t, oncelogRun("", append([]string{"settle"}, args...)...), 2)
	}
	failsWith(t, oncelogRun("", "settle", filepath.Join(dir, "none"), "k", "not"), 1)

	st, err = oncelog.Open(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	r, err = st.Receiver(nil)
	require.NoError(t, err)
	out, err := r.Do(t.Context(), "first", lost)
	require.NoError(t, err)
	require.Equal(t, "10 charged", string(out.Value))
	out, err = r.Scope("tenant").Scope("a/b").DoSeq(t.Context(), "orders", 5, lost, receiver.WithEpoch(2))
	require.NoError(t, err)
	require.True(t, out.Replayed)
	_, err = r.Scope("tenant").Scope("a/b").Do(t.Context(), "\xffkey", func(context.Context) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
}
