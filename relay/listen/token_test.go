package listen_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/listen"
)

func TestTokens(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	s, _ := start(t, listen.Options{Tokens: []string{"first-token", "second-token"}, Log: zap.New(core)})
	for _, tc := range []struct {
		name, target, header string
		want                 int
	}{
		{"the first token passes", "/", "Authorization: Bearer first-token", 200},
		{"the second token passes", "/", "Authorization: Bearer second-token", 200},
		{"the scheme may be in any case", "/", "Authorization: bEARER first-token", 200},
		{"spaces before the token pass", "/", "Authorization: Bearer   first-token", 200},
		{"no token", "/", "X: y", 401},
		{"a wrong token", "/", "Authorization: Bearer canary-wrong", 401},
		{"the begin of a token", "/", "Authorization: Bearer first", 401},
		{"a token and more", "/", "Authorization: Bearer first-token2", 401},
		{"no scheme", "/", "Authorization: first-token", 401},
		{"another scheme", "/", "Authorization: Basic first-token", 401},
		{"an empty token", "/", "Authorization: Bearer ", 401},
		{"two headers", "/", "Authorization: Bearer first-token\r\nAuthorization: Bearer first-token", 401},
		{"a token in the query", "/?access_token=first-token", "X: y", 401},
		{"a token in a cookie", "/", "Cookie: token=first-token", 401},
		{"health needs none", "/livez", "X: y", 200},
		{"readiness needs none", "/readyz", "X: y", 200},
		{"a path that only begins like health", "/livezz", "X: y", 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := exchange(t, s, "GET "+tc.target+" HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"+tc.header+"\r\n\r\n")
			if len(got) != 1 || got[0].StatusCode != tc.want {
				t.Fatalf("got %v, want one answer with status %d", got, tc.want)
			}
			if challenge := got[0].Header.Get("WWW-Authenticate"); (tc.want == 401) != strings.HasPrefix(challenge, "Bearer") {
				t.Errorf("got WWW-Authenticate %q with status %d", challenge, tc.want)
			}
		})
	}
	if logs.FilterMessage("wrong token").Len() == 0 {
		t.Error("got no line about wrong tokens in the log, want some")
	}
	for _, line := range logs.All() {
		for key, value := range line.ContextMap() {
			if text, ok := value.(string); ok && (strings.Contains(text, "token2") || strings.Contains(text, "canary")) {
				t.Errorf("got %s %q in the log: what was tried does not belong there", key, text)
			}
		}
	}
}

func TestWrongTokensAreLimited(t *testing.T) {
	var clock atomic.Int64 // seconds; requests run on the server's goroutines
	core, logs := observer.New(zapcore.DebugLevel)
	s, _ := start(t, listen.Options{
		Tokens: []string{"right"}, Log: zap.New(core),
		Now: func() time.Time { return time.Unix(1_800_000_000+clock.Load(), 0) },
	})
	try := func(token string) *http.Response {
		t.Helper()
		got := exchange(t, s, "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n")
		if len(got) != 1 {
			t.Fatalf("got %d answers, want one", len(got))
		}
		return got[0]
	}
	for n := range 20 {
		if got := try("wrong").StatusCode; got != 401 {
			t.Fatalf("try %d: got status %d, want 401", n+1, got)
		}
	}
	lines := logs.Len()
	resp := try("wrong")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("try 21: got status %d with Retry-After %q, want 429 with one", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if logs.Len() != lines {
		t.Errorf("got %d more lines in the log beyond the limit, want none", logs.Len()-lines)
	}
	if got := try("right").StatusCode; got != 200 {
		t.Errorf("the right token beyond the limit: got status %d, want 200", got)
	}
	clock.Add(61)
	if got := try("wrong").StatusCode; got != 401 {
		t.Errorf("in the next minute: got status %d, want 401", got)
	}
}
