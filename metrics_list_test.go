package postern_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay"
	"github.com/postern-relay/postern/store/badgerstore"
)

// TestMetricsList holds the metrics of a whole relay against the list, and against the rules of the ecosystem.
func TestMetricsList(t *testing.T) {
	reg := runForMetrics(t)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var list []listedMetric
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "postern_") {
			list = append(list, listedOf(family))
		}
	}
	got := formatMetrics(list)
	if *update {
		if err := os.WriteFile(metricsList, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(metricsList)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the metrics are not those of %s, which others rely on; got\n%s\nIf that is meant, run go test -run TestMetrics -update .", metricsList, got)
	}
}

// runForMetrics runs a whole relay until the end of the test, and returns its registry when something has been delivered.
func runForMetrics(t *testing.T) *prometheus.Registry {
	t.Helper()
	dir := t.TempDir()
	far := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(far.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: far.Certificate().Raw})
	file := filepath.Join(dir, "postern.yaml")
	key, err := x509.MarshalPKCS8PrivateKey(far.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"ca.pem":  string(ca),
		"tls.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"postern.yaml": `
listen:
  ingest: 127.0.0.1:0
  admin: 127.0.0.1:0
  tokens: [app-token-0123456789]
  admin_tokens: [admin-token-0123456789]
  https: {address: "127.0.0.1:0", cert_file: ca.pem, key_file: tls.key}
destinations:
  far: {url: 'https://example.com/', tls: {ca_file: ca.pem}}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, plan, err := relay.LoadWith(file, nil, relay.LoadOptions{Inject: map[string]func(context.Context) (net.Conn, error){
		"example.com": func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", far.Listener.Addr().String())
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	st, err := badgerstore.Open(badgerstore.Options{Path: filepath.Join(dir, "data"), Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	r := &relay.Relay{Plan: plan, Store: st, Log: zap.New(core), Version: "1.2.3", Metrics: reg}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	eventually(t, "the relay listens", func() bool { return logs.FilterMessage("listening").Len() > 0 })
	ingest := logs.FilterMessage("listening").All()[0].ContextMap()["ingest"].(string)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ingest+"/to/far", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer app-token-0123456789")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("got %d, want 202", resp.StatusCode)
	}
	eventually(t, "the message is delivered", func() bool { return logs.FilterMessage("delivery ended").Len() > 0 })
	eventually(t, "it is counted", func() bool {
		n, err := testutil.GatherAndCount(reg, "postern_receiver_certificate_expiry_timestamp_seconds")
		return err == nil && n == 1
	})
	return reg
}

// eventually waits until ok says yes, and fails the test if it does not.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
