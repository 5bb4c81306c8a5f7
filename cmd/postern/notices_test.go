package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// adminOf returns where a relay's admin listener listens, by its log.
func adminOf(t *testing.T, relay *process) string {
	t.Helper()
	for line := range strings.Lines(relay.log.String()) {
		var said struct{ Message, Admin string }
		if err := json.Unmarshal([]byte(line), &said); err == nil && said.Message == "listening" {
			return said.Admin
		}
	}
	t.Fatal("the log does not say where the admin listener listens")
	return ""
}

func TestExampleNotices(t *testing.T) {
	e := runExample(t, "notices", exampleOptions{
		ip:  "127.0.0.37",
		env: map[string]string{"CHAT_HOOK": "hook-5f0c21", "PAGER_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="},
		shorten: func(t *testing.T, doc map[string]any) {
			short, _ := shortened(t, 300, get(t, doc, "destinations", "orders", "retry", "schedule"))
			set(t, doc, short, "destinations", "orders", "retry", "schedule")
		},
	})
	var status atomic.Int64
	status.Store(http.StatusServiceUnavailable)
	e.site.answers(func(r wireRequest) siteAnswer {
		if r.host == "orders.example.com" {
			return siteAnswer{status: int(status.Load())}
		}
		return siteAnswer{}
	})
	// chat returns the text of the n-th message to the chat, which all have come to by then.
	chat := func(n int) (text string, all wireRequest) {
		t.Helper()
		got := e.site.await(t, "chat.example.com", n)
		var said struct{ Text string }
		if err := json.Unmarshal([]byte(got[n-1].body), &said); err != nil {
			t.Fatalf("the chat got %q: %v", got[n-1].body, err)
		}
		return said.Text, got[n-1]
	}

	t.Run("an order that is given up is told to the chat", func(t *testing.T) {
		id := e.send(t)[0]
		text, _ := chat(1)
		want := ":x: " + id + " (order.paid) did not reach orders: no success in 3 of 3 attempts; last: answered 503 Service Unavailable"
		if text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	})
	t.Run("a receiver that is gone is told to the chat and to the pager, byte for byte", func(t *testing.T) {
		status.Store(http.StatusGone)
		id := e.send(t)[0]
		_, failed := chat(3)
		paused := e.site.to("chat.example.com")[1]
		if strings.Contains(paused.body, id) { // the two are due at about the same time
			failed, paused = paused, failed
		}
		e.compare(t, "expected-request-chat-failed.txt", failed, map[string]string{
			"webhook-id": failed.header.Get("Webhook-Id"), "message_id": id,
		})
		e.compare(t, "expected-request-chat-paused.txt", paused, map[string]string{"webhook-id": paused.header.Get("Webhook-Id")})
		pager := e.site.await(t, "pager.example.com", 1)[0]
		var told struct {
			Timestamp time.Time
			Data      struct{ Since time.Time }
		}
		if err := json.Unmarshal([]byte(pager.body), &told); err != nil || told.Data.Since != told.Timestamp || told.Timestamp.Before(e.began) {
			t.Errorf("got %s, %v; want the time of the pause", pager.body, err)
		}
		at := told.Timestamp.Format(time.RFC3339Nano)
		e.compare(t, "expected-request-pager.txt", pager, map[string]string{
			"webhook-id": pager.header.Get("Webhook-Id"), "since": at, "signature": pager.header.Get("Webhook-Signature"),
			"content-length": pager.header.Get("Content-Length"),
		})
	})
	t.Run("one who resumes it is told to the chat", func(t *testing.T) {
		resp, err := httpClient(t).Post("http://"+adminOf(t, e.relay)+"/api/v1/destinations/orders/resume", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("got %s, want 200", resp.Status)
		}
		text, all := chat(4)
		e.compare(t, "expected-request-chat-recovered.txt", all, map[string]string{"webhook-id": all.header.Get("Webhook-Id")})
		if want := ":white_check_mark: orders is back, deliveries waiting: 0"; text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	})
	e.relay.stop(t)
}
