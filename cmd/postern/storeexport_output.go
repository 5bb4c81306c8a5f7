package main

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// harmlessLines writes JSON lines to a terminal, which must not obey what stands in them.
type harmlessLines struct {
	out  io.Writer
	rest []byte // of a line that is not complete
}

func (h *harmlessLines) Write(p []byte) (int, error) {
	end := bytes.LastIndexByte(p, '\n') + 1
	if end > 0 {
		if _, err := h.out.Write(escapeJSON(append(h.rest, p[:end]...))); err != nil {
			return 0, err
		}
		h.rest = h.rest[:0]
	}
	h.rest = append(h.rest, p[end:]...)
	return len(p), nil
}

// meter tells a person at the terminal how far something has come.
type meter struct {
	out  io.Writer // nil for nobody
	what string
	last time.Time
}

const meterRound = 200 * time.Millisecond

func (p *program) meter(what string, wanted bool) *meter {
	if !wanted || !isTerminal(p.stderr) || p.json || p.getenv("TERM") == "dumb" {
		return &meter{}
	}
	return &meter{out: p.stderr, what: what, last: time.Now()}
}

func (c *meter) show(how string) {
	if c.out == nil || time.Since(c.last) < meterRound {
		return
	}
	c.last = time.Now()
	fmt.Fprintf(c.out, "\r\x1b[K%s: %s", c.what, how)
}

func (c *meter) end() {
	if c.out != nil {
		fmt.Fprint(c.out, "\r\x1b[K")
	}
}
