package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A meter owns standard error while a run goes on: the line that shows its
// progress, if that is a terminal, and the reports that must not end up in it.
type meter struct {
	w    io.Writer
	tty  bool
	done chan struct{}
	over sync.WaitGroup

	mu    sync.Mutex
	c     counts
	base  int64 // lines of a run resumed, which this process did not read
	began time.Time
	width int // of the line on the screen
}

const drawEvery = 200 * time.Millisecond

func newMeter(w io.Writer, tty bool) *meter {
	m := &meter{w: w, tty: tty, began: time.Now(), done: make(chan struct{})}
	if m.tty {
		// Its own goroutine, so that the rate falls while the input pauses.
		m.over.Go(m.keepDrawing)
	}
	return m
}

// isTerminal also takes /dev/null for one, where the line does no harm. The exact
// question is another system call on each platform.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

func (m *meter) keepDrawing() {
	t := time.NewTicker(drawEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			m.draw()
		case <-m.done:
			return
		}
	}
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

// printf prints a line of its own.
func (m *meter) printf(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
	fmt.Fprintln(m.w, oneLine(fmt.Sprintf(format, args...)))
}

func (m *meter) draw() {
	m.mu.Lock()
	defer m.mu.Unlock()
	line := fmt.Sprintf("%d lines, %d duplicates, %.0f lines/s", m.c.Lines, m.c.Lines-m.c.Passed, m.rate())
	// Blanks over the rest of a longer line: they work where escape sequences
	// don't.
	fmt.Fprintf(m.w, "\r%s%s", line, strings.Repeat(" ", max(0, m.width-len(line))))
	m.width = len(line)
}

func (m *meter) rate() float64 {
	took := time.Since(m.began).Seconds()
	if took <= 0 {
		return 0
	}
	return float64(m.c.Lines-m.base) / took
}

func (m *meter) clear() {
	if m.width > 0 {
		fmt.Fprintf(m.w, "\r%s\r", strings.Repeat(" ", m.width))
		m.width = 0
	}
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

// stop leaves the terminal's line empty for what follows.
func (m *meter) stop() {
	if !m.tty {
		return
	}
	close(m.done)
	m.over.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
}
