package main

import (
	"bytes"
	"strings"
	"testing"

	"go.uber.org/zap"
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
