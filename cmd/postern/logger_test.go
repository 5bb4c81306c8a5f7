package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestLoggerThinsOut(t *testing.T) {
	const lines = 1_000
	for _, tc := range []struct {
		name  string
		write func(*zap.Logger) // one line
		all   bool
	}{
		{"repeated debug lines are thinned out", func(l *zap.Logger) { l.Debug("attempt made") }, false},
		{"repeated info lines are thinned out", func(l *zap.Logger) { l.Info("delivery ended") }, false},
		{"no warning is dropped", func(l *zap.Logger) { l.Warn("delivery ended") }, true},
		{"no error is dropped", func(l *zap.Logger) { l.Error("store failed") }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			l := newLogger(&out, "json", zap.DebugLevel)
			for range lines {
				tc.write(l)
			}
			// At most a few seconds of it: each has a hundred lines and a hundredth of the rest.
			if got := strings.Count(out.String(), "\n"); (got == lines) != tc.all || got < 100 || got > lines {
				t.Errorf("got %d lines of %d, want all of them: %t", got, lines, tc.all)
			}
		})
	}
}

// TestFaultFloodOfForeignLines holds that a receiver cannot fill the log through a library: net/http prints what it does not
// understand, as often as it comes.
func TestFaultFloodOfForeignLines(t *testing.T) {
	const lines = 10_000
	flood := func(level zapcore.Level) string {
		var out bytes.Buffer
		defer adoptStandardLog(newLogger(&out, "json", level))()
		for n := range lines {
			log.Printf("Transport: %d \x1b[31m%s", n, strings.Repeat("x", 2000))
		}
		return out.String()
	}
	if got := flood(zap.InfoLevel); got != "" {
		t.Errorf("at the level info: got %d bytes, want none:\n%.300s", len(got), got)
	}
	got := flood(zap.DebugLevel)
	if n := strings.Count(got, "\n"); n < 100 || n > lines/2 || len(got) > n*(maxForeign+300) || strings.Contains(got, "\x1b") {
		t.Errorf("at the level debug: got %d lines in %d bytes, want them thinned out, bounded and escaped:\n%.300s", n, len(got), got)
	}
	var before bytes.Buffer
	log.SetOutput(&before)
	defer log.SetOutput(os.Stderr)
	adoptStandardLog(zap.NewNop())()
	log.Print("back")
	if !strings.Contains(before.String(), "back") {
		t.Error("the standard log was not given back")
	}
	t.Attr("fault", fmt.Sprintf("receivers: a flood of %d lines from a library: none in the log at info, %d at debug", lines, strings.Count(got, "\n")))
}
