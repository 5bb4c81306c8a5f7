package relay

import (
	"os"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"github.com/postern-relay/postern/store"
)

// TestSeriesOfADestination counts what one destination has at most, as docs/metrics.md promises it.
func TestSeriesOfADestination(t *testing.T) {
	r := newRig(t, "destinations: {a: {url: 'https://a.test/', breaker: {failures: 3}}}\n")
	r.awaitState(t, r.accept(t, "a"), store.Delivered)
	families, err := r.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	const want = 72
	if got := strings.Count(text.String(), `destination="a"`); got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
	docs, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(docs), "at most 72 series for each destination") {
		t.Errorf("docs/metrics.md does not say that there are at most %d", want)
	}
}
