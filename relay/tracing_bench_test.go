package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
)

// instant is an engine that keeps nothing and has every message, with a trace context.
type instant struct {
	store.Store
	flags string // of the context
}

func (instant) Full() error { return nil }

func (instant) Accept(_ context.Context, m store.Message, _ []byte) (store.Message, bool, error) {
	return m, false, nil
}

func (i instant) Load(_ context.Context, id store.MessageID) (store.Message, []byte, error) {
	return store.Message{ID: id, Header: []store.Field{{Name: "Traceparent", Value: appParent[:53] + i.flags}}}, []byte("{}"), nil
}

// answers is a receiver that takes no time.
type answers struct{}

func (answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
}

// BenchmarkTracing shows what spans add to what takes no time otherwise; their export, to a collector that discards
// them, included.
func BenchmarkTracing(b *testing.B) {
	for _, section := range []string{"", ", sample_ratio: 0", ", sample_ratio: 1"} {
		name, flags := "off", "01"
		if section != "" {
			name, flags = "ratio "+section[len(section)-1:], "0"+section[len(section)-1:]
		}
		tr := &traces{Log: zap.NewNop()}
		p, stop := newPart(b.Context(), func() {})
		tr.begin(p)
		if section != "" {
			c := newCollector(b, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			cfg, err := config.Parse("postern.yaml", []byte(c.section(section)+oneDestination), nil)
			if err != nil {
				b.Fatal(err)
			}
			plan, faults := newPlan(cfg, LoadOptions{})
			if err := faults.Err(); err != nil {
				b.Fatal(err)
			}
			tr.use(plan.tracing)
		}
		b.Run("accept/"+name, func(b *testing.B) {
			h := &ingest.Handler{Acceptor: instant{}, Router: compiled(b), Tracer: tr.tracer}
			body := bytes.Repeat([]byte("x"), 1000)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/to/a", bytes.NewReader(body))
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != http.StatusAccepted {
					b.Fatalf("got %d", w.Code)
				}
			}
		})
		b.Run("attempt/"+name, func(b *testing.B) {
			s, err := egress.New(egress.Options{
				URL: &url.URL{Scheme: "https", Host: "a.test", Path: "/"}, Transport: answers{}, Messages: instant{flags: flags}, Tracer: tr.tracer,
			})
			if err != nil {
				b.Fatal(err)
			}
			id, err := store.NewMessageID()
			if err != nil {
				b.Fatal(err)
			}
			d := store.Delivery{ID: id.Delivery(0), Destination: "a", State: store.Pending, Round: 1, Last: store.Outcome{At: time.Now()}}
			b.ReportAllocs()
			for b.Loop() {
				if a := s.Send(b.Context(), d); a.Class != store.ClassOK {
					b.Fatal(errors.New(a.Error))
				}
			}
		})
		tr.end()
		time.AfterFunc(5*time.Second, stop)
		if err := p.group.Wait(); err != nil {
			b.Fatal(fmt.Errorf("export: %w", err))
		}
		stop()
	}
}

// compiled is the plan of oneDestination.
func compiled(b *testing.B) *Plan {
	b.Helper()
	cfg, err := config.Parse("postern.yaml", []byte(oneDestination), nil)
	if err != nil {
		b.Fatal(err)
	}
	p, faults := newPlan(cfg, LoadOptions{})
	if err := faults.Err(); err != nil {
		b.Fatal(err)
	}
	return p
}
