package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// all reads lines to their end and checks each batch against its bounds.
func all(t require.TestingT, l *lines) (got []string, end error) {
	for {
		b := l.fill(context.Background())
		for i := range b.ends {
			got = append(got, string(b.line(i)))
		}
		require.LessOrEqual(t, len(b.ends), batchLines)
		if n := len(b.ends); n > 1 {
			require.Less(t, b.ends[n-2], batchBytes)
		}
		require.Equal(t, strings.Join(got[len(got)-len(b.ends):], ""), string(b.whole()))
		if b.end != nil {
			return got, b.end
		}
		require.NotEmpty(t, b.ends, "a batch of nothing")
	}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.SplitAfter(strings.TrimSuffix(s, "\n"), "\n")
}

func TestLinesComeAsTheyAre(t *testing.T) {
	big := strings.Repeat("x", 3<<20)
	for _, in := range []string{
		"", "\n", "a", "a\n", "a\nb", "a\n\n\nb\n", "a\r\nb\x00\n", strings.Repeat("\n", 3*batchLines),
		big + "\n" + big + "\nshort\n" + big, strings.Repeat("0123456\n", blockBytes/4),
	} {
		for name, r := range map[string]io.Reader{
			"at once": strings.NewReader(in), "with its end": iotest.DataErrReader(strings.NewReader(in)), "in halves": iotest.HalfReader(strings.NewReader(in)),
		} {
			l := readLines(r, 16<<20)
			got, end := all(t, l)
			l.stop()
			require.Equal(t, io.EOF, end)
			want := split(in)
			if strings.HasSuffix(in, "\n") {
				want[len(want)-1] += "\n"
			}
			require.Equal(t, len(want), len(got), name)
			require.True(t, strings.Join(got, "") == in, name)
			require.Equal(t, want, got, name)
		}
	}
}

func TestLongestLine(t *testing.T) {
	for _, newline := range []string{"\n", ""} {
		l := readLines(strings.NewReader("ab\nabc"+newline), 3)
		got, end := all(t, l)
		l.stop()
		require.Equal(t, io.EOF, end)
		require.Equal(t, []string{"ab\n", "abc" + newline}, got)
		l = readLines(iotest.OneByteReader(strings.NewReader("ab\nabcd"+newline)), 3)
		got, end = all(t, l)
		l.stop()
		require.Equal(t, errLineTooLong, end)
		require.Equal(t, []string{"ab\n"}, got)
	}
}

func TestFailedRead(t *testing.T) {
	l := readLines(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(errors.New("gone"))), 100)
	defer l.stop()
	got, end := all(t, l)
	require.EqualError(t, end, "standard input: gone")
	require.Equal(t, []string{"a\n"}, got, "half a line is not one")
}

func TestPausingInputIsNotWaitedForWithLinesAtHand(t *testing.T) {
	r, w := io.Pipe()
	l := readLines(r, 100)
	defer l.stop()
	for _, s := range []string{"a\n", "b\nc", "c\n"} {
		go w.Write([]byte(s)) // returns once it is read
		b := l.fill(t.Context())
		require.NoError(t, b.end)
		require.Equal(t, 1, len(b.ends))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go cancel(errors.New("a signal"))
	b := l.fill(ctx)
	require.ErrorIs(t, b.end, errStopped)
	require.ErrorContains(t, b.end, "a signal")
	require.Empty(t, b.ends)
}

func TestSkipThenFill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := []byte(strings.Join(rapid.SliceOf(rapid.StringMatching(`[ab]{0,3}\n`)).Draw(t, "lines"), ""))
		for range rapid.IntRange(0, 2).Draw(t, "blow up") {
			in = bytes.Repeat(in, 100)
		}
		n := rapid.IntRange(0, len(in)).Draw(t, "skipped")
		l := readLines(iotest.HalfReader(bytes.NewReader(in)), 100)
		defer l.stop()
		sum := sha256.New()
		require.NoError(t, l.skip(context.Background(), int64(n), sum))
		want := sha256.Sum256(in[:n])
		require.Equal(t, want[:], sum.Sum(nil))
		got, end := all(t, l)
		require.Equal(t, io.EOF, end)
		require.Equal(t, string(in[n:]), strings.Join(got, ""))
	})
	l := readLines(strings.NewReader("abc"), 100)
	defer l.stop()
	require.Equal(t, io.EOF, l.skip(t.Context(), 4, io.Discard))
}
