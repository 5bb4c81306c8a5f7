package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

func TestClient(t *testing.T) {
	a := newAPI(t)
	_, failed, pending, _ := populate(t, a)
	a.relay.attempt = store.Attempt{Class: store.ClassOK, Status: 200, Request: sent(), StartedAt: epoch()}
	ctx, c := t.Context(), a.client
	for name, call := range map[string]func() (got, want any, err error){
		"overview": func() (any, any, error) {
			o, err := c.Overview(ctx)
			return o.Version, "1.2.3", err
		},
		"destinations": func() (any, any, error) {
			list, err := c.Destinations(ctx)
			return len(list), 3, err
		},
		"destination": func() (any, any, error) {
			d, err := c.Destination(ctx, "audit")
			return d.Breaker, "open", err
		},
		"pause": func() (any, any, error) {
			d, err := c.Pause(ctx, "audit", "they are moving")
			return d.Pause.Reason, "they are moving", err
		},
		"test": func() (any, any, error) {
			x, err := c.Test(ctx, "alerts", admin.Sample{Body: "x"})
			return x.Attempt.Class, "ok", err
		},
		"render": func() (any, any, error) {
			r, err := c.Render(ctx, "alerts", admin.Sample{BodyBase64: []byte{0xff}})
			return string(r.Request.BodyBase64), "\xff", err
		},
		"render a delivery": func() (any, any, error) {
			r, err := c.RenderDelivery(ctx, "audit", failed.ID.String())
			return r.Request.Method, "POST", err
		},
		"delivery": func() (any, any, error) {
			d, err := c.Delivery(ctx, failed.ID.String())
			return d.History[0].Status, 500, err
		},
		"message": func() (any, any, error) {
			m, err := c.Message(ctx, failed.ID.Message().String())
			return len(m.Deliveries), 2, err
		},
		"retry": func() (any, any, error) {
			d, err := c.Retry(ctx, pending.ID.String())
			return d.State, "pending", err
		},
		"dry run": func() (any, any, error) {
			r, err := c.ReplayAll(ctx, admin.BulkReplay{DryRun: true, Filter: admin.DeliveryFilter{Event: "alert.fired"}})
			return r.Matched, 2, err
		},
		"reload": func() (any, any, error) {
			r, err := c.Reload(ctx)
			return r.OK, true, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got, want, err := call(); err != nil || got != want {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
	if d, err := c.Resume(ctx, "audit"); err != nil || d.Pause != nil {
		t.Errorf("resume: got %+v, %v", d, err)
	}
	if d, err := c.Replay(ctx, failed.ID.String()); err != nil || d.Round != 2 {
		t.Errorf("replay: got %+v, %v", d, err)
	}
	if d, err := c.Cancel(ctx, pending.ID.String(), "because"); err != nil || d.Reason != "because" {
		t.Errorf("cancel: got %+v, %v", d, err)
	}
	_, err := c.Pause(ctx, "a/b", "")
	if refusal, ok := errors.AsType[*admin.Refusal](err); !ok || refusal.Status != 404 || !strings.Contains(err.Error(), `pause "a/b" through`) {
		t.Errorf("a name that has to be escaped: got %v, want that there is none", err)
	}
	a.relay.err = errors.New("disk on fire")
	if _, err := c.Resume(ctx, "alerts"); err == nil || strings.Contains(err.Error(), "fire") {
		t.Errorf("trouble inside: got %v, want an error that tells nothing of it", err)
	}
	if _, err := (admin.Client{Address: "garbage"}).Pause(ctx, "alerts", ""); !errors.Is(err, admin.ErrAddress) {
		t.Errorf("got %v, want ErrAddress", err)
	}
}

func TestClientSendsItsToken(t *testing.T) {
	var got atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, "hello")
	}))
	defer server.Close()
	c := admin.Client{Address: server.Listener.Addr().String(), Token: "t0k3n"}
	if _, err := c.Overview(t.Context()); err == nil || !strings.Contains(err.Error(), "is not of Postern") {
		t.Errorf("got %v, want that this is another server", err)
	}
	if got.Load() != "Bearer t0k3n" {
		t.Errorf("got Authorization %v, want the token", got.Load())
	}
}

func TestClientTimeout(t *testing.T) {
	silent := listen(t, "tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	defer silent.Close()
	c := admin.Client{Address: silent.Addr().String(), Timeout: 50 * time.Millisecond}
	if _, err := c.Overview(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("got %v, want it to tell of the bound", err)
	}
}

func TestClientEvents(t *testing.T) {
	t.Run("a stream that ends is opened again", func(t *testing.T) {
		var opened atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query().Get("destination"); got != "a b" {
				t.Errorf("got destination %q, want it escaped", got)
			}
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "retry: 1\n\n: comment\n\nevent: unheard-of\ndata: {}\n\nevent: delivery\ndata: {\"round\":%d}\n\nevent: delivery\ndata: no JSON\n\n", opened.Add(1))
		}))
		defer server.Close()
		var got []string
		for e, err := range (admin.Client{Address: server.Listener.Addr().String()}).Events(t.Context(), "a b") {
			if err != nil {
				t.Fatal(err)
			}
			if e.Delivery != nil {
				got = append(got, fmt.Sprint(e.Delivery.Round))
			} else {
				got = append(got, strings.TrimSpace(e.Name+" "+e.Reason))
			}
			if len(got) == 5 {
				break
			}
		}
		if strings.Join(got, ", ") != "connected, 1, disconnected the relay has ended the stream, connected, 2" {
			t.Errorf("got %q, want one delivery of each stream, and the end of the first", got)
		}
	})
	t.Run("a stream that lags says so", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: lagging\ndata: {}\n\n")
		}))
		defer server.Close()
		for e, err := range (admin.Client{Address: server.Listener.Addr().String()}).Events(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			if e.Name == admin.EventDisconnected {
				if !strings.Contains(e.Reason, "not read fast enough") {
					t.Errorf("got the reason %q", e.Reason)
				}
				break
			}
		}
	})
	t.Run("a refusal ends it", func(t *testing.T) {
		a := newAPI(t)
		calls := 0
		c := a.client
		a.Changes = nil
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		c.Address = server.Listener.Addr().String()
		for _, err := range c.Events(t.Context(), "") {
			if calls++; err == nil || !strings.Contains(err.Error(), "is not of Postern") {
				t.Errorf("got %v, want what was refused", err)
			}
		}
		if calls != 1 {
			t.Errorf("got %d yields, want 1", calls)
		}
	})
	t.Run("nobody there is an error", func(t *testing.T) {
		nobody := listen(t, "tcp", "127.0.0.1:0")
		if err := nobody.Close(); err != nil {
			t.Fatal(err)
		}
		calls := 0
		for _, err := range (admin.Client{Address: nobody.Addr().String()}).Events(t.Context(), "") {
			if calls++; err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("got %v, want that the connection was refused", err)
			}
		}
		if calls != 1 {
			t.Errorf("got %d yields, want 1", calls)
		}
	})
	t.Run("the end of its context ends it", func(t *testing.T) {
		a := newAPI(t)
		ctx, cancel := context.WithCancel(t.Context())
		for e, err := range a.client.Events(ctx, "") {
			if err != nil {
				t.Errorf("got %v after %+v, want no error", err, e)
			}
			cancel()
		}
		cancel()
	})
}

func FuzzEvents(f *testing.F) {
	f.Add("event: delivery\ndata: {\"round\":1}\n\n")
	f.Add("data\n\nevent:\n\n:\n\n")
	f.Add("event: reload\ndata: []\n\nevent: destination\ndata: {}")
	f.Fuzz(func(t *testing.T, text string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, text+"\n\nevent: reload\ndata: {\"error\":\"the end\"}\n\n")
		}))
		defer server.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for e, err := range (admin.Client{Address: server.Listener.Addr().String()}).Events(ctx, "") {
			if err != nil {
				break
			}
			if e.Name == admin.EventDelivery && e.Delivery == nil || e.Name == admin.EventReload && e.Reload == nil {
				t.Errorf("got %+v, want an event with what its name says", e)
			}
			if e.Reload != nil && e.Reload.Error == "the end" {
				break
			}
		}
	})
}

func TestClientTellsACut(t *testing.T) {
	for _, piece := range []string{"", "{"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if piece != "" {
				w.Header().Set("Content-Length", "1000")
				w.Header().Set("Postern-Backup-Counts", "{}")
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
			panic(http.ErrAbortHandler)
		}))
		defer server.Close()
		c := admin.Client{Address: server.Listener.Addr().String()}
		_, err := c.Overview(t.Context())
		_, _, backup := c.Backup(t.Context(), false, io.Discard)
		for what, err := range map[string]error{"overview": err, "backup": backup} {
			if !errors.Is(err, admin.ErrCut) || strings.Contains(err.Error(), "EOF") {
				t.Errorf("%s cut off behind %q: got %v, want ErrCut", what, piece, err)
			}
		}
	}
}

func TestClientTellsOtherServers(t *testing.T) {
	var body atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, body.Load().(string))
	}))
	defer server.Close()
	ctx, c := t.Context(), admin.Client{Address: server.Listener.Addr().String()}
	for _, answer := range []string{`{}`, `null`, `[]`, `"pending"`, `{"status":"ok"}`} {
		body.Store(answer)
		for name, call := range map[string]func() error{
			"overview": func() error { _, err := c.Overview(ctx); return err },
			"pause":    func() error { _, err := c.Pause(ctx, "alerts", ""); return err },
			"delivery": func() error { _, err := c.Delivery(ctx, "dlv_1"); return err },
			"replay":   func() error { _, err := c.ReplayAll(ctx, admin.BulkReplay{}); return err },
			"reload":   func() error { _, err := c.Reload(ctx); return err },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), "is not of Postern; check the address") {
				t.Errorf("%s answered by %s: got %v, want that this is another server", name, answer, err)
			}
		}
	}
	t.Run("a cursor that stands still ends a walk", func(t *testing.T) {
		body.Store(`{"deliveries":[],"next_cursor":"x"}`)
		var got error
		for _, err := range c.AllDeliveries(ctx, admin.DeliveryQuery{}) {
			got = err
		}
		if got == nil || !strings.Contains(got.Error(), "is not of Postern") {
			t.Errorf("got %v, want an error", got)
		}
	})
}
