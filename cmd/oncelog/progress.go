package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// A meter is the status line of dedup.
type meter struct {
	statusLine

	mu    sync.Mutex
	c     counts
	base  int64 // lines of a run resumed, which this process did not read
	began time.Time
}

func newMeter(w io.Writer, tty bool) *meter {
	m := &meter{statusLine: statusLine{w: w, tty: tty}, began: time.Now()}
	m.text = m.line
	return m
}

// set tells the meter where the run is.
func (m *meter) set(c counts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c = c
}

// resumed tells the meter that a run goes on that earlier processes began.
func (m *meter) resumed(c counts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.c, m.base, m.began = c, c.Lines, time.Now()
}

func (m *meter) line() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%d lines, %d duplicates, %.0f lines/s", m.c.Lines, m.c.Lines-m.c.Passed, m.rate())
}

func (m *meter) rate() float64 {
	took := time.Since(m.began).Seconds()
	if took <= 0 {
		return 0
	}
	return float64(m.c.Lines-m.base) / took
}

// summary is the last word of a run that went well, for people only: a script
// has the exit code.
func (m *meter) summary() {
	if !m.tty {
		return
	}
	m.mu.Lock()
	took := time.Since(m.began).Round(time.Millisecond)
	c := m.c
	m.mu.Unlock()
	m.printf("%d lines: %d passed, %d duplicates, in %v", c.Lines, c.Passed, c.Lines-c.Passed, took)
}
