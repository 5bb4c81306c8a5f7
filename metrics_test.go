package postern_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

var metricsList = filepath.Join("testdata", "metrics.txt")

const (
	metricsDocument = "docs/metrics.md"
	metricsBegin    = "<!-- The rest is written by a test from testdata/metrics.txt: go test -run TestMetrics -update . -->\n"
)

// listedMetric is one metric of the list: an interface that alerts and dashboards of others rely on.
type listedMetric struct {
	name, kind, help string
	labels           map[string][]string // with their values, sorted; nil for one that the config or the build gives them
}

// listedOf returns the entry of a family.
func listedOf(family *dto.MetricFamily) listedMetric {
	m := listedMetric{
		name: family.GetName(), kind: strings.ToLower(family.GetType().String()), help: family.GetHelp(), labels: map[string][]string{},
	}
	for _, series := range family.GetMetric() {
		for _, l := range series.GetLabel() {
			name, value := l.GetName(), l.GetValue()
			switch {
			case slices.Contains([]string{"destination", "token", "version", "goversion"}, name):
				m.labels[name] = nil
			case !slices.Contains(m.labels[name], value):
				m.labels[name] = append(m.labels[name], value)
			}
		}
	}
	for _, values := range m.labels {
		slices.Sort(values)
	}
	return m
}

func formatMetrics(list []listedMetric) string {
	var out strings.Builder
	for _, m := range list {
		fmt.Fprintf(&out, "%s %s", m.name, m.kind)
		for _, label := range slices.Sorted(maps.Keys(m.labels)) {
			out.WriteString(" " + label)
			if values := m.labels[label]; values != nil {
				out.WriteString("=" + strings.Join(values, "|"))
			}
		}
		fmt.Fprintf(&out, "\n    %s\n", m.help)
	}
	return out.String()
}

// readMetrics reads the list by name.
func readMetrics(t testing.TB) map[string]listedMetric {
	t.Helper()
	raw, err := os.ReadFile(metricsList)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]listedMetric{}
	var ordered []listedMetric
	for entry := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\npostern_") {
		head, help, ok := strings.Cut(entry, "\n    ")
		words := strings.Fields(head)
		if !ok || len(words) < 2 {
			t.Fatalf("%s: entry %q", metricsList, entry)
		}
		m := listedMetric{
			name: "postern_" + strings.TrimPrefix(words[0], "postern_"), kind: words[1], help: strings.TrimSpace(help), labels: map[string][]string{},
		}
		for _, word := range words[2:] {
			label, values, fixed := strings.Cut(word, "=")
			m.labels[label] = nil
			if fixed {
				m.labels[label] = strings.Split(values, "|")
			}
		}
		list[m.name] = m
		ordered = append(ordered, m)
	}
	if got := formatMetrics(ordered); got != string(raw) {
		t.Fatalf("%s is not of the form that the test writes; got\n%s", metricsList, got)
	}
	return list
}

// TestMetricsReference holds the table of docs/metrics.md against the list.
func TestMetricsReference(t *testing.T) {
	raw, err := os.ReadFile(metricsDocument)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, ok := strings.Cut(string(raw), metricsBegin)
	if !ok {
		t.Fatalf("%s has no line %s", metricsDocument, metricsBegin)
	}
	want := intro + metricsBegin + "\n" + metricsTable(readMetrics(t))
	if *update {
		if err := os.WriteFile(metricsDocument, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(raw) != want {
		t.Errorf("%s does not match %s; run go test -run TestMetrics -update .", metricsDocument, metricsList)
	}
}

func metricsTable(list map[string]listedMetric) string {
	var out strings.Builder
	out.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(list)) {
		m := list[name]
		var labels []string
		for _, label := range slices.Sorted(maps.Keys(m.labels)) {
			text := "`" + label + "`"
			if values := m.labels[label]; values != nil {
				text += ": " + strings.Join(values, ", ")
			}
			labels = append(labels, text)
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", name, m.kind, strings.Join(labels, "; "), cell(m.help))
	}
	return out.String()
}
