package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// demoTally is the state of the demo at one moment. In JSON it is one line a second.
type demoTally struct {
	Seconds   float64 `json:"seconds"`
	Accepted  int     `json:"accepted"`  // posts answered with 202
	Delivered int     `json:"delivered"` // distinct messages at their receiver, signature verified
	Waiting   int     `json:"waiting"`   // accepted and not yet there
	Refused   int     `json:"refused"`   // requests that a receiver in an outage answered with 503
	Reposts   int     `json:"reposts"`   // posts that the app made again, under the same Idempotency-Key
}

// demoSummary is the end of the story.
type demoSummary struct {
	demoTally
	Kills      int `json:"kills"`      // of the relay, by kill -9
	Duplicates int `json:"duplicates"` // requests that arrived again under an id already taken
	Lost       int `json:"lost"`       // accepted and never delivered
	Altered    int `json:"altered"`    // delivered with another body than was posted
	Unverified int `json:"unverified"` // requests whose signature was not right
}

// demoScreen tells the story: a line a second and a line for each turn of it.
type demoScreen struct {
	palette
	out  io.Writer
	json bool
}

func (s *demoScreen) intro(stage *demoStage) {
	if s.json {
		return
	}
	fmt.Fprintf(s.out, `%s

  app ── plain HTTP ──► postern on http://%s ── HTTPS, signed ──► orders%s
                        store: %s%salerts%s

`, s.strong.Render("Postern demo"), stage.ingest, demoDomain, stage.dataDir(), padding(stage.dataDir(), 38), demoDomain)
}

func padding(text string, width int) string { return fmt.Sprintf("%*s", max(2, width-len(text)), "") }

func (s *demoScreen) header() {
	if !s.json {
		fmt.Fprintln(s.out, s.faint.Render("   time   accepted  delivered    waiting   refused by receiver"))
	}
}

// turn announces something that happens in the story.
func (s *demoScreen) turn(at time.Duration, good bool, text string) {
	if s.json {
		s.encode(map[string]any{"seconds": at.Seconds(), "event": text})
		return
	}
	style := s.bad
	if good {
		style = s.good
	}
	fmt.Fprintf(s.out, "%6.1fs   %s\n", at.Seconds(), style.Render(text))
}

func (s *demoScreen) tally(t demoTally) {
	if s.json {
		s.encode(t)
		return
	}
	fmt.Fprintf(s.out, "%6.1fs %10d %10d %10d %10d\n", t.Seconds, t.Accepted, t.Delivered, t.Waiting, t.Refused)
}

// sample shows one request as its receiver saw it.
func (s *demoScreen) sample(lines []string) {
	if s.json {
		return
	}
	fmt.Fprintf(s.out, "\n%s\n", s.strong.Render("The first delivery, as its receiver saw it"))
	for _, line := range lines {
		fmt.Fprintln(s.out, "  "+line)
	}
	fmt.Fprintf(s.out, "  %s\n\n", s.good.Render("signature verified by the receiver"))
}

func (s *demoScreen) summary(sum demoSummary) {
	if s.json {
		s.encode(map[string]any{"summary": sum})
		return
	}
	verdict := s.good.Render("nothing was lost")
	if sum.Lost > 0 || sum.Altered > 0 || sum.Unverified > 0 {
		verdict = s.bad.Render("something went wrong")
	}
	fmt.Fprintf(s.out, `
%s
  accepted with 202         %6d   of them %d posted again by the app under the same Idempotency-Key
  delivered, verified       %6d
  refused in the outage     %6d   and delivered later, by retries
  kill -9 of the relay      %6d
  arrived twice, same id    %6d   an attempt was cut off before its outcome was on disk
  altered                   %6d
  lost                      %6d   %s
`, s.strong.Render("Summary"), sum.Accepted, sum.Reposts, sum.Delivered, sum.Refused, sum.Kills, sum.Duplicates,
		sum.Altered, sum.Lost, verdict)
}

func (s *demoScreen) encode(v any) {
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a reader that has gone away ends the story by SIGPIPE
}
