package admin_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/admin"
)

func TestMetrics(t *testing.T) {
	good := prometheus.NewGauge(prometheus.GaugeOpts{Name: "good", Help: "Good."})
	get := func(t *testing.T, h *admin.Handler, method string) (int, http.Header, string) {
		t.Helper()
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(method, "/metrics", nil))
		return rec.Code, rec.Header(), rec.Body.String()
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(good)
	h := &admin.Handler{Metrics: admin.NewMetrics(reg, nil)}

	t.Run("GET", func(t *testing.T) {
		status, header, body := get(t, h, http.MethodGet)
		if status != 200 || !strings.Contains(body, "\ngood 0\n") || header.Get("Cache-Control") != "no-store" {
			t.Errorf("got %d %v %q", status, header, body)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if status, _, _ := get(t, h, http.MethodHead); status != 200 {
			t.Errorf("got %d, want 200", status)
		}
	})
	t.Run("POST", func(t *testing.T) {
		status, header, _ := get(t, h, http.MethodPost)
		if status != 405 || header.Get("Allow") != "GET, HEAD" {
			t.Errorf("got %d, Allow %q; want 405, GET, HEAD", status, header.Get("Allow"))
		}
	})
	t.Run("none without metrics", func(t *testing.T) {
		if status, _, body := get(t, &admin.Handler{Dashboard: http.NotFoundHandler()}, http.MethodGet); status != 404 || !strings.Contains(body, "problem") && !strings.Contains(body, "nothing at this path") {
			t.Errorf("got %d %q, want a problem 404", status, body)
		}
	})
	t.Run("what cannot be collected is left out and logged", func(t *testing.T) {
		reg := prometheus.NewRegistry()
		reg.MustRegister(good, broken{prometheus.NewDesc("bad", "Bad.", nil, nil)})
		core, logs := observer.New(zapcore.WarnLevel)
		status, _, body := get(t, &admin.Handler{Metrics: admin.NewMetrics(reg, zap.New(core))}, http.MethodGet)
		if status != 200 || !strings.Contains(body, "\ngood 0\n") || strings.Contains(body, "bad") {
			t.Errorf("got %d %q, want the good one alone", status, body)
		}
		if logged := logs.FilterMessage("scrape not answered whole").All(); len(logged) == 0 ||
			!strings.Contains(logged[0].ContextMap()["reason"].(string), "out of order") {
			t.Errorf("got %v in the log, want the reason", logged)
		}
	})
}

// broken is a collector whose metric cannot be read.
type broken struct{ desc *prometheus.Desc }

func (b broken) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }

func (b broken) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(b.desc, errors.New("out of order"))
}

// waiting gathers nothing until it may.
type waiting struct{ begun, open chan struct{} }

func (w waiting) Gather() ([]*dto.MetricFamily, error) {
	w.begun <- struct{}{}
	<-w.open
	return nil, nil
}

func TestMetricsAreAskedForByFewAtATime(t *testing.T) {
	g := waiting{begun: make(chan struct{}, 10), open: make(chan struct{})}
	server := httptest.NewServer(&admin.Handler{Metrics: admin.NewMetrics(g, nil)})
	defer server.Close()
	const asked = 10
	statuses := make(chan int, asked)
	for range asked {
		go func() {
			resp, err := http.Get(server.URL + "/metrics")
			if err != nil {
				t.Error(err)
				statuses <- 0
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			statuses <- resp.StatusCode
		}()
	}
	<-g.begun
	for range asked - 4 { // the others wait for what is being gathered
		if got := <-statuses; got != http.StatusServiceUnavailable {
			t.Errorf("got %d for one too many, want 503", got)
		}
	}
	close(g.open)
	for range 4 {
		if got := <-statuses; got != http.StatusOK {
			t.Errorf("got %d, want 200", got)
		}
	}
	if more := len(g.begun); more > 3 {
		t.Errorf("it was gathered %d times for 4 answers", more+1)
	}
}
