package main

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestDemoEndsByItselfAndLosesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "postern", "demo", "--for", "6s", "--json").Output()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var last struct{ Summary demoSummary }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("last line %q: %v", lines[len(lines)-1], err)
	}
	s := last.Summary
	if s.Accepted == 0 || s.Delivered != s.Accepted || s.Lost != 0 || s.Altered != 0 || s.Unverified != 0 {
		t.Errorf("summary: got %+v, want as many delivered as accepted, nothing lost or altered", s)
	}
	if s.Kills != 1 || s.Refused == 0 {
		t.Errorf("summary: got %+v, want one kill and an outage that refused something", s)
	}
}
