package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// screen is what a terminal shows after s: a carriage return starts the line over.
func screen(s string) (rows []string) {
	for row := range strings.SplitSeq(s, "\n") {
		var shown []byte
		for part := range strings.SplitSeq(row, "\r") {
			shown = append([]byte(part), shown[min(len(part), len(shown)):]...)
		}
		rows = append(rows, strings.TrimRight(string(shown), " "))
	}
	return rows
}

func TestProgressOnATerminal(t *testing.T) {
	var b bytes.Buffer
	m := newMeter(&b, true)
	m.done = make(chan struct{}) // not started: the test draws
	m.set(counts{Lines: 100_000, Passed: 60_000})
	m.draw()
	require.Regexp(t, `^100000 lines, 40000 duplicates, \d+ lines/s$`, screen(b.String())[0])
	m.set(counts{Lines: 7, Passed: 7}) // a shorter line leaves nothing of the longer one
	m.draw()
	require.Regexp(t, `^7 lines, 0 duplicates, \d+ lines/s$`, screen(b.String())[0])
	m.printf("line 8: \x1b no key")
	m.draw()
	require.Equal(t, `line 8: \x1b no key`, screen(b.String())[0])
	m.summary()
	m.draw()
	m.stop()
	rows := screen(b.String())
	require.Len(t, rows, 3)
	require.Regexp(t, `^7 lines: 7 passed, 0 duplicates, in `, rows[1])
	require.Empty(t, rows[2], "the progress line is gone at the end")
}

func TestRateIsOfThisProcess(t *testing.T) {
	m := newMeter(&bytes.Buffer{}, false)
	m.resumed(counts{Lines: 1 << 40})
	m.set(counts{Lines: 1 << 40})
	require.Zero(t, m.rate(), "lines that an earlier process read")
}

func TestNoProgressWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	m := newMeter(&b, isTerminal(&b))
	m.set(counts{Lines: 7})
	m.summary()
	m.stop()
	require.Empty(t, b.String())
}
