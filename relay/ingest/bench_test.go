package ingest_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
)

// instant is an Acceptor that keeps nothing, so that the benchmark shows what ingest itself costs.
type instant struct{ store.Acceptor }

func (instant) Full() error { return nil }

func (instant) Accept(_ context.Context, m store.Message, _ []byte) (store.Message, bool, error) {
	return m, false, nil
}

func BenchmarkPost(b *testing.B) {
	h := &ingest.Handler{Acceptor: instant{}, Router: routes{known: map[string]time.Duration{"alerts": 0}}}
	body := bytes.Repeat([]byte("x"), 1000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest(http.MethodPost, "/to/alerts", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			w := newRecorder()
			if h.ServeHTTP(w, r); w.status != http.StatusAccepted {
				b.Fatalf("got %d, want 202", w.status)
			}
		}
	})
}
