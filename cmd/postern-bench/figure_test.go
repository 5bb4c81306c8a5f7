package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGoals(t *testing.T) {
	for _, c := range []struct {
		rule string
		f    figure
		want string
	}{
		{"no goal", figure{Postern: 1}, ""},
		{"a ratio of just the least", figure{Postern: 80, Bound: 100, Goal: ratioAtLeast(0.8)}, "yes"},
		{"a ratio below it", figure{Postern: 79.9, Bound: 100, Goal: ratioAtLeast(0.8)}, "no"},
		{"a ratio of just the most", figure{Postern: 130, Bound: 100, Goal: ratioAtMost(1.3)}, "yes"},
		{"a ratio above it", figure{Postern: 131, Bound: 100, Goal: ratioAtMost(1.3)}, "no"},
		{"a figure of just the most", figure{Postern: 30, Goal: atMost(30)}, "yes"},
		{"a figure above it", figure{Postern: 30.1, Goal: atMost(30)}, "no"},
		{"a most of nothing is no goal", figure{Postern: 30, Goal: atMost(0)}, ""},
	} {
		if got := c.f.met(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.rule, got, c.want)
		}
	}
}

func TestMedianAndPercentile(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 4}, 4}, {[]float64{4, 1, 9, 2}, 3}} {
		if got := median(c.xs); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.xs, got, c.want)
		}
	}
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(i+1))
	}
	if got := percentile(times, 0.5); got != 51 {
		t.Errorf("p50: got %d, want 51", got)
	}
	if got := percentile(times, 0.99); got != 100 {
		t.Errorf("p99: got %d, want 100", got)
	}
	if got := percentile(nil, 0.99); got != 0 {
		t.Errorf("of none: got %d, want 0", got)
	}
}

func TestNumbersAreShortAndGrouped(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.0123: "0.012", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 999.4: "999", 1234.5: "1,235", 1234567: "1,234,567",
	} {
		if got := number(x); got != want {
			t.Errorf("%v: got %q, want %q", x, got, want)
		}
	}
}

// grown is what the measurements of the growth would tell.
func grown() []figure {
	pending, destinations := &growing{axis: axisPending}, &growing{axis: axisDestinations}
	for i, x := range []int{0, 100_000, 1_000_000, 10_000_000} {
		pending.add(seriesAccepts, x, "/s", float64(15_000-i*321), "")
		pending.add(seriesMemory, x, "MiB", 20+float64(i)*17.5, "")
		pending.add(seriesStart, x, "s", 0.05+float64(i)*0.21, "")
		if x <= 1_000_000 {
			pending.add(seriesDeliver, x, "/s", float64(9_000-i*123), "")
			pending.add(seriesReceipt, x, "ms", 1.4+float64(i)*0.1, "")
			pending.add(seriesTail, x, "ms", 4.1+float64(i)*0.9, "")
		}
	}
	for i, x := range []int{1, 10, 100, 1000} {
		destinations.add(seriesAccepts, x, "/s", float64(15_000-i*999), "")
		destinations.add(seriesDeliver, x, "/s", float64(6_000-i*123), "")
		destinations.add(seriesReceipt, x, "ms", 1.4+float64(i)*0.1, "")
		destinations.add(seriesTail, x, "ms", 4.1+float64(i)*0.9, "")
		destinations.add(seriesMemory, x, "MiB", 20+float64(i)*9, "")
		destinations.add(seriesStart, x, "s", 0.05+float64(i)*0.1, "")
	}
	return append(pending.figures, destinations.figures...)
}

func TestTheChartShowsEachFigureOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "growth.svg")
	figures := grown()
	if err := writeChart(path, figures); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(text))
	circles := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != len(figures) {
		t.Errorf("got %d points, want %d", circles, len(figures))
	}
	for _, want := range []string{"10,000,000", "milliseconds", "MiB", "p99", "prefers-color-scheme: dark"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the chart lacks %q", want)
		}
	}
	if strings.Contains(string(text), "NaN") {
		t.Error("the chart has a place that is no number")
	}
	if err := writeChart(path, figures[:0]); err == nil {
		t.Error("a chart of nothing: got no error")
	}
}

func TestFiguresOfEarlierRunsAreReadAsTheyWerePrinted(t *testing.T) {
	figures := append(grown(), figure{Measurement: "drain", Name: "n", Unit: "/s", Postern: 4, Bound: 5, BoundName: "c", Goal: ratioAtLeast(0.8), Note: "so"})
	path := filepath.Join(t.TempDir(), "figures.json")
	var printed bytes.Buffer
	printJSON(&printed, figures)
	if err := os.WriteFile(path, printed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := readFigures([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(again)
	want, _ := json.Marshal(figures)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
