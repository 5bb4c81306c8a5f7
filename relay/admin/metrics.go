package admin

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

const (
	// maxScrapes is how many may be answered at a time. Those that come while one is collected share it.
	maxScrapes = 4

	// scrapeTimeout is how long one may take, as Prometheus waits by default.
	scrapeTimeout = 10 * time.Second
)

// NewMetrics returns what answers with the metrics of g, in the text format of Prometheus or in OpenMetrics, compressed
// if the client takes that; for Handler.Metrics. At most 4 requests are answered at a time, and each within 10 s, else
// the answer is 503. What cannot be collected is left out and logged. A nil log logs nothing.
func NewMetrics(g prometheus.Gatherer, log *zap.Logger) http.Handler {
	if log == nil {
		log = zap.NewNop()
	}
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log}, ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout, CoalesceGather: true,
	})
}

// metrics answers a scrape.
func (h *Handler) metrics(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wrongMethod(r, "GET, HEAD")
	}
	setHeaders(w.Header(), "text/plain; charset=utf-8") // unless the handler says a better one
	h.Metrics.ServeHTTP(w, r)
	return nil
}

// Streams returns how many streams there are now. A nil Changes has none.
func (c *Changes) Streams() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// scrapeLog writes what promhttp has to tell into our log.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger.
func (s scrapeLog) Println(v ...any) {
	s.log.Warn("scrape not answered whole", zap.String("reason", strings.TrimSuffix(fmt.Sprintln(v...), "\n")))
}
