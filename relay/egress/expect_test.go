package egress_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

func expectation(t testing.TB, path string, values ...any) *match.Expectation {
	t.Helper()
	e, err := match.NewExpectation(path, values)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The answers of a receiver.

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, strings.Repeat(" ", 1000)); err != nil {
			return
		}
	}
}

func broken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"data":{"status":"ok"}}`)
}

func late(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"data":`)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// switched serves the handler that was set last.
type switched struct {
	now atomic.Pointer[http.HandlerFunc]
}

func (s *switched) set(h http.HandlerFunc) { s.now.Store(&h) }

func (s *switched) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.now.Load())(w, r) }

func TestExpect(t *testing.T) {
	f := newFarEnd(t)
	transport := f.transport(t, f.dialer())
	var far switched
	f.serve(t, true, far.ServeHTTP)
	status := []*match.Expectation{expectation(t, "$.data.status", "ok", "queued")}
	both := []*match.Expectation{expectation(t, "$.data.status", "ok"), expectation(t, "$.data.id")}
	padded := func(size int) string { // a document of that many bytes
		const frame = `{"data":{"status":"ok"},"pad":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1)
	}
	for _, c := range []struct {
		name   string
		expect []*match.Expectation
		answer http.HandlerFunc
		class  store.Class
		want   string // in the error
	}{
		{"one of the values holds", status, text(200, `{"data":{"status":"queued"}}`), store.ClassOK, ""},
		{"none of the values holds", status, text(200, `{"data":{"status":"error"}}`), store.ClassExpect, "status"},
		{"nothing is there", status, text(200, `{"data":{}}`), store.ClassExpect, "status"},
		{"all hold", both, text(201, `{"data":{"status":"ok","id":null}}`), store.ClassOK, ""},
		{"the second does not", both, text(200, `{"data":{"status":"ok"}}`), store.ClassExpect, "id"},
		{"another status is judged by itself", status, text(500, `{"data":{"status":"ok"}}`), store.ClassStatus, "answered 500"},
		{"an answer without a body", status, text(204, ""), store.ClassExpect, "no body"},
		{"an answer that is no JSON", status, text(200, "<html>"), store.ClassExpect, "the answer is not JSON"},
		{"an answer with a name twice", status, text(200, `{"data":{"status":"ok"},"data":1}`), store.ClassExpect, "not JSON"},
		{"a very deep answer", status, text(200, strings.Repeat("[", 60_000)), store.ClassExpect, "not JSON"},
		{"just inside 64 KiB", status, text(200, padded(64<<10)), store.ClassOK, ""},
		{"just outside 64 KiB", status, text(200, padded(64<<10+1)), store.ClassExpect, "more than 65536 bytes"},
		{"a body without end", status, endless, store.ClassExpect, "more than 65536 bytes"},
		{"a body that breaks off", status, broken, store.ClassExpect, "broke off"},
		{"a body that does not come in time", status, late, store.ClassTimeout, "while reading the answer"},
		{"without expect the status is enough", nil, broken, store.ClassOK, ""},
		{"without expect a late body is no matter", nil, late, store.ClassOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := long
			if c.want == "while reading the answer" || c.name == "without expect a late body is no matter" {
				far.set(text(200, "")) // have the connection ready, so that a short time is enough
				check(t, f.sender(t, func(o *egress.Options) { o.Transport = transport }).Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
				timeout = short
			}
			far.set(c.answer)
			s := f.sender(t, func(o *egress.Options) { o.Transport, o.Expect, o.Timeout = transport, c.expect, timeout })
			a := s.Send(t.Context(), newDelivery(t))
			if a.Class != c.class || !strings.Contains(a.Error, c.want) {
				t.Errorf("got %v %d %q, want %v with %q", a.Class, a.Status, a.Error, c.class, c.want)
			}
			if a.Status == 0 || len(a.Body) > egress.DefaultKeepResponse {
				t.Errorf("got status %d and %d bytes kept", a.Status, len(a.Body))
			}
		})
	}
	t.Run("a stop while the body is read is our own", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		far.set(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "{"); cancel(); late(w, r) })
		s := f.sender(t, func(o *egress.Options) { o.Transport, o.Expect, o.Timeout = transport, status, long })
		if a := s.Send(ctx, newDelivery(t)); a.Class != store.ClassInterrupted {
			t.Errorf("got %v %q, want interrupted", a.Class, a.Error)
		}
	})
	t.Run("Retry-After counts", func(t *testing.T) {
		far.set(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "7") })
		s := f.sender(t, func(o *egress.Options) { o.Transport, o.Expect = transport, status })
		if a := s.Send(t.Context(), newDelivery(t)); a.Class != store.ClassExpect || a.RetryHint != 7*time.Second {
			t.Errorf("got %v with %v, want expect with 7s", a.Class, a.RetryHint)
		}
	})
	t.Run("the whole body is judged, whatever is kept of it", func(t *testing.T) {
		far.set(text(200, `{"pad":"`+strings.Repeat("x", 30_000)+`","data":{"status":"ok"}}`))
		s := f.sender(t, func(o *egress.Options) { o.Transport, o.Expect, o.KeepResponse = transport, status, 5 })
		a := s.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassOK, 200)
		if string(a.Body) != `{"pad` || !a.Truncated {
			t.Errorf("got %q, truncated %v", a.Body, a.Truncated)
		}
	})
	t.Run("a secret that comes back is judged and not shown", func(t *testing.T) {
		const canary = "canary-0123456789"
		for pad := range 130 { // at some of these paddings the end of what is shown cuts the secret in two
			far.set(text(200, `{"data":{"status":"`+strings.Repeat("p", pad)+canary+`"}}`))
			s := f.sender(t, func(o *egress.Options) {
				o.Transport, o.Expect = transport, status
				o.Auth.Bearer = &egress.Bearer{Token: canary}
			})
			a := s.Send(t.Context(), newDelivery(t))
			if a.Class != store.ClassExpect || a.Error == "" || strings.Contains(a.Error+string(a.Body), "can") {
				t.Fatalf("padding %d: got %v %q %q", pad, a.Class, a.Error, a.Body)
			}
			far.set(text(200, `{"data":{"status":"`+canary+`"}}`))
			s = f.sender(t, func(o *egress.Options) {
				o.Transport, o.Expect = transport, []*match.Expectation{expectation(t, "$.data.status", canary)}
				o.Auth.Bearer = &egress.Bearer{Token: canary}
			})
			if pad == 0 {
				check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
			}
		}
	})
}
