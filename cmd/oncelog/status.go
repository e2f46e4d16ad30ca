package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A statusLine owns standard error while a run goes on: the line that shows its
// progress, if that is a terminal, and the reports that must not end up in it.
type statusLine struct {
	w    io.Writer
	tty  bool
	text func() string // what to show; called from the line's own goroutine
	done chan struct{}
	over sync.WaitGroup

	mu    sync.Mutex
	width int // of the line on the screen
}

const drawEvery = 200 * time.Millisecond

// start begins to draw, if there is a terminal to draw on.
func (l *statusLine) start() {
	l.done = make(chan struct{})
	if l.tty {
		// Its own goroutine, so that the line changes while the input pauses.
		l.over.Go(l.keepDrawing)
	}
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

func (l *statusLine) keepDrawing() {
	t := time.NewTicker(drawEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.draw()
		case <-l.done:
			return
		}
	}
}

func (l *statusLine) draw() {
	line := l.text()
	l.mu.Lock()
	defer l.mu.Unlock()
	// Blanks over the rest of a longer line: they work where escape sequences
	// don't.
	fmt.Fprintf(l.w, "\r%s%s", line, strings.Repeat(" ", max(0, l.width-len(line))))
	l.width = len(line)
}

// printf prints a line of its own.
func (l *statusLine) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	fmt.Fprintln(l.w, oneLine(fmt.Sprintf(format, args...)))
}

func (l *statusLine) clear() {
	if l.width > 0 {
		fmt.Fprintf(l.w, "\r%s\r", strings.Repeat(" ", l.width))
		l.width = 0
	}
}

// stop leaves the terminal's line empty for what follows.
func (l *statusLine) stop() {
	if !l.tty {
		return
	}
	close(l.done)
	l.over.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
}
