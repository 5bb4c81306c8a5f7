package dashboard_test

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The forms of the API's answers.
type (
	destination struct {
		Name             string         `json:"name"`
		URL              string         `json:"url,omitempty"`
		Enabled          bool           `json:"enabled"`
		InConfig         bool           `json:"in_config"`
		Pause            *pause         `json:"pause"`
		Breaker          string         `json:"breaker,omitempty"`
		BreakerOpenSince string         `json:"breaker_open_since,omitempty"`
		NextProbeAt      string         `json:"next_probe_at,omitempty"`
		InFlight         int            `json:"in_flight"`
		ConcurrencyLimit int            `json:"concurrency_limit"`
		Pending          int            `json:"pending"`
		BlockedLines     int            `json:"blocked_lines"`
		BlockingID       string         `json:"blocking_delivery_id,omitempty"`
		OldestDueAt      string         `json:"oldest_due_at,omitempty"`
		NextRetryAt      string         `json:"next_retry_at,omitempty"`
		LastHour         lastHour       `json:"last_hour"`
		CertExpiresAt    string         `json:"certificate_expires_at,omitempty"`
		Config           map[string]any `json:"config,omitempty"`
	}
	pause struct {
		At     string `json:"at"`
		Reason string `json:"reason"`
	}
	lastHour struct {
		Delivered   int      `json:"delivered"`
		Failed      int      `json:"failed"`
		Attempts    int      `json:"attempts"`
		SuccessRate *float64 `json:"success_rate"`
		Series      []minute `json:"series"`
	}
	minute struct {
		At         string   `json:"at"`
		Delivered  int      `json:"delivered"`
		Failed     int      `json:"failed"`
		Attempts   int      `json:"attempts"`
		P50Seconds *float64 `json:"p50_seconds"`
		P99Seconds *float64 `json:"p99_seconds"`
	}
	reload struct {
		At    string `json:"at"`
		OK    bool   `json:"ok"`
		Error string `json:"error,omitempty"`
	}
	delivery struct {
		ID          string   `json:"id"`
		MessageID   string   `json:"message_id"`
		Destination string   `json:"destination"`
		Event       string   `json:"event"`
		State       string   `json:"state"`
		Round       int      `json:"round"`
		Attempts    int      `json:"attempts"`
		Made        int      `json:"made"`
		AcceptedAt  string   `json:"accepted_at"`
		DueAt       string   `json:"due_at,omitempty"`
		EndedAt     string   `json:"ended_at,omitempty"`
		Reason      string   `json:"reason,omitempty"`
		Held        string   `json:"held,omitempty"`
		Blocking    bool     `json:"blocking"`
		OrderKey    string   `json:"order_key,omitempty"`
		Last        *outcome `json:"last"`

		message message
		history []attempt
	}
	outcome struct {
		At     string `json:"at"`
		Class  string `json:"class"`
		Status int    `json:"status,omitempty"`
		Error  string `json:"error,omitempty"`
	}
	message struct {
		ID            string      `json:"id"`
		Event         string      `json:"event"`
		ContentType   string      `json:"content_type"`
		AcceptedAt    string      `json:"accepted_at"`
		SizeBytes     int         `json:"size_bytes"`
		Headers       []field     `json:"headers"`
		Body          string      `json:"body,omitempty"`
		BodyBase64    string      `json:"body_base64,omitempty"`
		BodyTruncated bool        `json:"body_truncated"`
		BodyRemoved   bool        `json:"body_removed"`
		Deliveries    []*delivery `json:"deliveries,omitempty"`
	}
	field struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	request struct {
		Method        string  `json:"method"`
		URL           string  `json:"url"`
		Headers       []field `json:"headers"`
		Body          string  `json:"body,omitempty"`
		Truncated     bool    `json:"truncated"`
		BodyIsMessage bool    `json:"body_is_message"`
	}
	response struct {
		Status    int     `json:"status"`
		Headers   []field `json:"headers"`
		Body      string  `json:"body,omitempty"`
		Truncated bool    `json:"truncated"`
	}
	timing struct {
		DNS       float64 `json:"dns_seconds"`
		Connect   float64 `json:"connect_seconds"`
		TLS       float64 `json:"tls_seconds"`
		FirstByte float64 `json:"first_byte_seconds"`
		Total     float64 `json:"total_seconds"`
	}
	attempt struct {
		Round       int       `json:"round"`
		Number      int       `json:"number"`
		StartedAt   string    `json:"started_at"`
		TookSeconds float64   `json:"took_seconds"`
		Class       string    `json:"class"`
		Status      int       `json:"status,omitempty"`
		Error       string    `json:"error,omitempty"`
		Probe       bool      `json:"probe"`
		Request     *request  `json:"request"`
		Response    *response `json:"response"`
		Timing      timing    `json:"timing"`
		Peer        string    `json:"peer,omitempty"`
		Reused      bool      `json:"reused"`
	}
)

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// id makes the n-th id of a kind.
func id(kind string, n int) string {
	return fmt.Sprintf("%s_0199f3c2a1%02x7c3e8b21%012x", kind, 255-n%256, 0x5d0c11e0f000+n*7919)
}

// hour makes up a last hour: about rate deliveries a minute of which a share fails, from some minute on.
func hour(now time.Time, rate, failing float64, latency float64, failsFrom int) lastHour {
	var h lastHour
	for i := range 60 {
		wave := 0.75 + 0.25*math.Sin(float64(i)/7) + 0.22*math.Sin(float64(i*i)*1.7)
		n := int(math.Round(rate * max(0, wave)))
		m := minute{At: stamp(now.Truncate(time.Minute).Add(time.Duration(i-59) * time.Minute)), Attempts: n}
		if i >= failsFrom {
			m.Failed = int(math.Round(float64(n) * failing))
		}
		m.Delivered = n - m.Failed
		if n > 0 {
			p50 := latency * (0.9 + 0.2*math.Sin(float64(i)/5) + 0.1*math.Sin(float64(i*i)))
			p99 := p50 * (2.1 + math.Sin(float64(i)*2.3))
			m.P50Seconds, m.P99Seconds = &p50, &p99
		}
		h.Delivered += m.Delivered
		h.Failed += m.Failed
		h.Attempts += n
		h.Series = append(h.Series, m)
	}
	if ended := h.Delivered + h.Failed; ended > 0 {
		rate := float64(h.Delivered) / float64(ended)
		h.SuccessRate = &rate
	}
	return h
}

// sample fills in what most tests look at.
func (a *fakeAPI) sample() {
	in := func(d time.Duration) string { return stamp(a.now.Add(d)) }
	make := func(name, url string) *destination {
		return &destination{Name: name, URL: url, Enabled: true, InConfig: true, Breaker: "closed", ConcurrencyLimit: 16}
	}
	alerts := make("alerts", "https://hooks.example.com/alerts")
	alerts.LastHour, alerts.InFlight, alerts.Pending = hour(a.now, 42, 0.02, 0.12, 51), 3, 3
	alerts.OldestDueAt, alerts.NextRetryAt, alerts.CertExpiresAt = in(-2*time.Second), in(48*time.Second), in(80*24*time.Hour)
	billing := make("billing", "https://billing.example.org/v2/webhooks/postern")
	billing.LastHour, billing.Pending, billing.Breaker = hour(a.now, 18, 0.97, 1.9, 34), 1204, "open"
	billing.OldestDueAt, billing.BreakerOpenSince, billing.NextProbeAt = in(-25*time.Minute), in(-24*time.Minute), in(19*time.Second)
	crm := make("crm", "https://crm.example.net/in")
	crm.LastHour, crm.Pending, crm.OldestDueAt = hour(a.now, 4, 0, 0.31, 60), 205, in(-3*time.Hour)
	crm.Pause = &pause{At: in(-3 * time.Hour), Reason: "the receiver answered 410 Gone: it wants no more of these"}
	warehouse := make("warehouse", "https://ingest.warehouse.example.com/events?key=***")
	warehouse.LastHour, warehouse.CertExpiresAt = hour(a.now, 7, 0, 0.045, 60), in(9*24*time.Hour)
	audit := make("audit", "https://audit.example.com/log")
	audit.LastHour = hour(a.now, 0, 0, 0, 60)
	old := make("old-crm", "")
	old.InConfig, old.LastHour = false, hour(a.now, 0, 0, 0, 60)
	a.destinations = []*destination{alerts, audit, billing, crm, old, warehouse}

	events := []string{"alert.fired", "invoice.paid", "contact.updated", "extract.completed", "alert.resolved"}
	to := []*destination{alerts, billing, crm, warehouse, alerts}
	for n := range 130 {
		at := a.now.Add(-time.Duration(n*n*8+n*25+5) * time.Second)
		d := newDelivery(n, to[n%5], events[n%5], at)
		switch {
		case n%5 == 1 && n < 60:
			d.fail(at, a.now, n%3 == 0)
		case n%5 == 2 && n < 40:
			d.State, d.DueAt, d.Held = "pending", stamp(at), "paused"
		case n == 40:
			d.State, d.EndedAt, d.Reason = "canceled", stamp(at.Add(time.Minute)), "a duplicate of an older invoice"
		case n == 5:
			d.add(sampleAttempt(1, 1, at, "status", 503))
			d.State, d.DueAt = "pending", in(48*time.Second)
		default:
			d.add(sampleAttempt(1, 1, at.Add(40*time.Millisecond), "ok", 200))
			d.State, d.EndedAt = "delivered", stamp(at.Add(190*time.Millisecond))
		}
		a.deliveries = append(a.deliveries, d)
	}
	a.deliveries[6].OrderKey = "customer-1187"
	// One message that went to two destinations.
	a.deliveries[3].MessageID, a.deliveries[3].message.ID = a.deliveries[4].MessageID, a.deliveries[4].message.ID
}

// newDelivery makes the n-th delivery as it is before its first attempt.
func newDelivery(n int, to *destination, event string, at time.Time) *delivery {
	body := fmt.Sprintf(`{"id":"evt_%05d","type":%q,"created":"%s","livemode":true,"data":{"customer":"cus_Nf8Q2","amount":12900,`+
		`"currency":"eur","lines":[{"sku":"seat-annual","quantity":3},{"sku":"support","quantity":1}],"note":null}}`, 48210-n, event, stamp(at))
	d := &delivery{
		ID: id("dlv", n), MessageID: id("msg", n), Destination: to.Name, Event: event, State: "pending", Round: 1,
		AcceptedAt: stamp(at), DueAt: stamp(at),
	}
	d.message = message{
		ID: d.MessageID, Event: event, ContentType: "application/json", AcceptedAt: stamp(at), Body: body, SizeBytes: len(body),
		Headers: []field{{"X-Request-Id", fmt.Sprintf("req-%06d", 918273-n)}},
	}
	return d
}

func (d *delivery) add(made attempt) {
	made.Request.URL = "https://hooks.example.com/" + d.Destination
	d.history = append(d.history, made)
	d.Made++
	d.Attempts++
	d.Last = &outcome{At: made.StartedAt, Class: made.Class, Status: made.Status, Error: made.Error}
}

// fail gives a delivery a history that ends badly, all of it between its acceptance and now.
func (d *delivery) fail(at, now time.Time, long bool) {
	part := now.Sub(at) / 10
	d.add(sampleAttempt(1, 1, at.Add(50*time.Millisecond), "status", 500))
	second := sampleAttempt(1, 2, at.Add(part), "timeout", 0)
	second.Error = "no answer within 30s"
	d.add(second)
	if long {
		third := sampleAttempt(1, 3, at.Add(4*part), "connect", 0)
		third.Error = "connect to 203.0.113.7:443: connection refused"
		d.add(third)
	}
	d.add(sampleAttempt(1, d.Made+1, at.Add(8*part), "status", 502))
	d.State, d.DueAt, d.EndedAt = "failed", "", stamp(at.Add(8*part+time.Second))
	d.Reason = fmt.Sprintf("the schedule is used up after %d attempts; the last answer was 502 Bad Gateway", d.Attempts)
}

func sampleRequest(d *destination, event string) *request {
	return &request{
		Method: "POST", URL: d.URL, BodyIsMessage: true,
		Headers: []field{
			{"Authorization", "Bearer ***"}, {"Content-Length", "312"}, {"Content-Type", "application/json"},
			{"User-Agent", "Postern/1"}, {"Webhook-Id", id("msg", 1)},
			{"Webhook-Signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="}, {"Webhook-Timestamp", "1792000000"},
			{"X-Event", event},
		},
	}
}

func sampleAttempt(round, number int, at time.Time, class string, status int) attempt {
	a := attempt{
		Round: round, Number: number, StartedAt: stamp(at), Class: class, Status: status, Peer: "203.0.113.7:443",
		TookSeconds: 0.231, Timing: timing{DNS: 0.004, Connect: 0.021, TLS: 0.048, FirstByte: 0.214, Total: 0.231},
		Request: sampleRequest(&destination{URL: "https://hooks.example.com/alerts"}, "invoice.paid"),
	}
	switch {
	case class == "timeout":
		a.TookSeconds, a.Timing = 30, timing{DNS: 0.004, Connect: 0.022, TLS: 0.051, Total: 30}
	case class == "connect":
		a.TookSeconds, a.Timing, a.Peer = 0.026, timing{DNS: 0.004, Connect: 0.022, Total: 0.026}, ""
	case status == 200:
		a.Reused, a.Timing = true, timing{FirstByte: 0.118, Total: 0.131}
		a.TookSeconds = 0.131
		a.Response = &response{Status: 200, Headers: []field{{"Content-Type", "application/json"}, {"Date", "Sat, 14 Mar 2026 15:09:26 GMT"}},
			Body: `{"received":true,"queue":"default"}`}
	default:
		a.Error = fmt.Sprintf("the answer has the status %d", status)
		a.Response = &response{Status: status, Headers: []field{
			{"Content-Type", "application/json"}, {"Date", "Sat, 14 Mar 2026 15:09:26 GMT"}, {"Server", "envoy"}, {"X-Trace", "9f1c2e77a0"},
		}, Body: `{"error":{"code":"upstream_unavailable","message":"ledger did not answer in time","retryable":true}}`}
	}
	return a
}

// hostileScript is what must stay text wherever it is shown (T28).
const hostileScript = `<script>window.pwned=1</script><img src=x onerror="window.pwned=1">`

// hostile makes a delivery with markup in all that comes from outside.
func (a *fakeAPI) hostile() *delivery {
	d := newDelivery(200, a.destinations[0], "alert.fired", time.Now())
	d.Event, d.message.Event = hostileScript, hostileScript
	d.OrderKey = hostileScript
	d.message.Body = `{"html":` + quoteJSON(hostileScript) + `}`
	d.message.ContentType = "text/html" + hostileScript
	d.message.Headers = []field{{hostileScript, hostileScript}}
	made := sampleAttempt(1, 1, time.Now(), "status", 500)
	made.Error = hostileScript
	made.Peer = hostileScript
	made.Response.Headers = []field{{"X-Html", hostileScript}}
	made.Response.Body = "<!doctype html>" + hostileScript
	d.add(made)
	made.Request.URL = "https://hooks.example.com/" + hostileScript
	d.State, d.EndedAt, d.Reason = "failed", stamp(time.Now()), hostileScript
	return d
}

func quoteJSON(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"`
}

func sampleConfig(d *destination) map[string]any {
	return map[string]any{
		"url": d.URL, "enabled": d.Enabled, "method": "POST", "events": []string{"alert.*", "schema_change"},
		"headers": map[string]string{"X-Team": "data", "X-Event": "{{ .Event }}"},
		"auth":    map[string]any{"bearer": map[string]string{"token": "***"}},
		"sign": []any{
			map[string]any{"standard": map[string]any{"secrets": []string{"***"}}},
			map[string]any{"hmac": map[string]any{"header": "X-Signature", "secret": "***", "algorithm": "sha256", "encoding": "hex"}},
		},
		"timeout": "30s", "success": []string{"2xx"}, "retry": map[string]any{"schedule": []string{"0s", "5s", "5m", "30m", "2h", "5h"}, "max_age": "96h"},
		"breaker": map[string]any{"failures": 5, "probe_every": "30s"}, "concurrency": d.ConcurrencyLimit, "order": "none",
		"keep": map[string]any{"body": true, "response": "16KiB", "redact": []string{"$.card.number"}},
	}
}
