package main

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMetrics scrapes the real program: what relay, ingest and store count is in one place.
func TestMetrics(t *testing.T) {
	far := newFarEnd(t, "127.0.0.88", "metrics.test")
	dir := t.TempDir()
	ingest, admin := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	writeFile(t, config, far.config(ingest, admin, filepath.Join(dir, "data"), "timeout: 20s"))
	relay := startPostern(t, admin, "run", "--config", config)
	if _, err := post(t.Context(), http.DefaultClient, "http://"+ingest+"/to/far", "{}"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, 10*time.Second, "the delivery is counted", func() bool {
		return strings.Contains(metricsOf(t, admin), `postern_deliveries_ended_total{destination="far",state="delivered"} 1`+"\n")
	})
	text := metricsOf(t, admin)
	for _, part := range []string{
		"\npostern_messages_accepted_total 1\n", "\npostern_store_commit_requests_count ", "\npostern_store_disk_free_bytes ",
		"\npostern_build_info{goversion=\"go", "\ngo_goroutines ", "\nprocess_open_fds ",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the metrics have no %q", strings.TrimSpace(part))
		}
	}
	if strings.Contains(text, far.secret) || strings.Contains(text, far.host) {
		t.Error("the metrics tell a secret or a host")
	}
	relay.stop(t)
}

func metricsOf(t *testing.T, admin string) string {
	t.Helper()
	answer, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
