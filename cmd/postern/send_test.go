package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestSendRefusesWhatWouldBreakARequest: none of it reaches the relay, and no text claims that it may have.
func TestSendRefusesWhatWouldBreakARequest(t *testing.T) {
	posts := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posts++ }))
	t.Cleanup(s.Close)
	for _, tc := range []struct{ flag, value, want string }{
		{"--key", "a\r\nX-Evil: 1", "--key: it holds a control character"},
		{"--idempotency-key", "a\nb", "--idempotency-key: it holds a control character"},
		{"--delay", "1h\n", "--delay: it holds a control character"},
		{"--deliver-at", "\x00", "--deliver-at: it holds a control character"},
		{"--content-type", "text/plain\r\n", "--content-type: it holds a control character"},
		{"--header", "X-Team: a\r\nX-Evil: 1", "--header: the value of X-Team holds a control character"},
	} {
		code, _, said := once(t, "send", "far", "--ingest", s.Listener.Addr().String(), "--data", "{}", tc.flag, tc.value)
		if code != exitUsage || !strings.Contains(said, tc.want) || strings.Contains(said, "accepted all the same") {
			t.Errorf("%s %q: got %d %q, want %d %q", tc.flag, tc.value, code, said, exitUsage, tc.want)
		}
	}
	if posts != 0 {
		t.Errorf("got %d posts, want none", posts)
	}
}

// TestCompletionOffersOnlyWords: what a shell might obey is left out, whoever answers.
func TestCompletionOffersOnlyWords(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := `{"destinations": [{"name": "orders.v2"}, {"name": "o$(id)"}, {"name": "o;id"}, {"name": "o id"}, {"name": "o\u001b[31m"}]}`
		if strings.HasPrefix(r.URL.Path, "/api/v1/deliveries") {
			answer = `{"deliveries": [{"id": "dlv_1", "event": "$(id)\u001b[31m"}, {"id": "dlv_$(id)"}, {"id": "dlv_\n2"}]}`
		}
		if _, err := w.Write([]byte(answer)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	for _, tc := range []struct{ command, begun, want string }{
		{"pause", "o", "orders.v2\n:4\n"},
		{"show", "dlv_", "dlv_1\t $(id)\\x1b[31m ,\n:36\n"},
	} {
		code, out, said := once(t, "__complete", tc.command, "--admin", s.Listener.Addr().String(), tc.begun)
		if code != exitOK || out != tc.want {
			t.Errorf("%s: got %d %q %q, want %q", tc.command, code, out, said, tc.want)
		}
	}
}
