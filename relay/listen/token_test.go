package listen_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/listen"
)

// tokens returns tokens that are called as they are.
func tokens(t testing.TB, words ...string) []listen.Token {
	t.Helper()
	list := []listen.Token{}
	for _, word := range words {
		digest, err := listen.ParseToken(word)
		if err != nil {
			t.Fatalf("parse %q: %v", word, err)
		}
		list = append(list, listen.Token{Name: "name-of-" + word, Digest: digest})
	}
	return list
}

func TestTokens(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	public := func(path string) bool { return path == "/" }
	s, _ := start(t, listen.Options{Tokens: tokens(t, "first-token", "second-token"), Log: zap.New(core), Public: public})
	for _, tc := range []struct {
		name, target, header string
		want                 int
	}{
		{"the first token passes", "/a", "Authorization: Bearer first-token", 200},
		{"the header's name may be in any case", "/a", "authorization: Bearer first-token", 200},
		{"the second token passes", "/a", "Authorization: Bearer second-token", 200},
		{"the scheme may be in any case", "/a", "Authorization: bEARER first-token", 200},
		{"spaces around the token pass", "/a", "Authorization:   Bearer   first-token  ", 200},
		{"no token", "/a", "X: y", 401},
		{"a wrong token", "/a", "Authorization: Bearer canary-wrong", 401},
		{"the begin of a token", "/a", "Authorization: Bearer first", 401},
		{"a token and more", "/a", "Authorization: Bearer first-token2", 401},
		{"no scheme", "/a", "Authorization: first-token", 401},
		{"another scheme", "/a", "Authorization: Basic first-token", 401},
		{"an empty token", "/a", "Authorization: Bearer ", 401},
		{"a scheme alone", "/a", "Authorization: Bearer", 401},
		{"two tokens in one header", "/a", "Authorization: Bearer first-token, Bearer second-token", 401},
		{"two headers", "/a", "Authorization: Bearer first-token\r\nAuthorization: Bearer first-token", 401},
		{"a token in the query", "/a?access_token=first-token", "X: y", 401},
		{"a token in a cookie", "/a", "Cookie: token=first-token", 401},
		{"a token in another header", "/a", "Proxy-Authorization: Bearer first-token", 401},
		{"health needs none", "/livez", "X: y", 200},
		{"readiness needs none", "/readyz", "X: y", 200},
		{"what is public needs none", "/", "X: y", 200},
		{"what is public takes a wrong one", "/", "Authorization: Bearer wrong", 200},
		{"a path that only begins like health", "/livezz", "X: y", 401},
		{"a path that leads out of what is public", "//a", "X: y", 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := exchange(t, s, "GET "+tc.target+" HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n"+tc.header+"\r\n\r\n")
			if len(got) != 1 || got[0].StatusCode != tc.want {
				t.Fatalf("got %v, want one answer with status %d", got, tc.want)
			}
			challenge := ""
			if tc.want == 401 {
				challenge = `Bearer realm="postern"`
				if text, ok := strings.CutPrefix(tc.header, "Authorization: Bearer "); ok && strings.TrimSpace(text) != "" && !strings.ContainsAny(text, ",\r") {
					challenge += `, error="invalid_token"` // it looks like one
				}
			}
			if got := got[0].Header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("got WWW-Authenticate %q, want %q", got, challenge)
			}
		})
	}
	t.Run("HTTP/1.0 has the same rule", func(t *testing.T) {
		for header, want := range map[string]int{"Authorization: Bearer first-token": 200, "Authorization: Bearer wrong": 401, "X: y": 401} {
			got := exchange(t, s, "GET /a HTTP/1.0\r\n"+header+"\r\n\r\n")
			if len(got) != 1 || got[0].StatusCode != want {
				t.Errorf("%s: got %v, want one answer with status %d", header, got, want)
			}
		}
	})
	if logs.FilterMessage("wrong token").Len() == 0 {
		t.Error("got no line about wrong tokens in the log, want some")
	}
	for _, line := range logs.All() {
		for key, value := range line.ContextMap() {
			if text, ok := value.(string); ok && key != "token" && (strings.Contains(text, "token2") || strings.Contains(text, "canary") || strings.Contains(text, "first-token")) {
				t.Errorf("got %s %q in the log: what was tried does not belong there", key, text)
			}
		}
	}
}

// answered makes one request with a token on a connection of its own, and returns the answer.
func answered(t testing.TB, s *listen.Server, token string) *http.Response {
	t.Helper()
	got := exchange(t, s, "GET /a HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	if len(got) != 1 {
		t.Fatalf("got %d answers, want one", len(got))
	}
	return got[0]
}

func TestWrongTokensAreLimited(t *testing.T) {
	var clock atomic.Int64 // seconds; requests run on the server's goroutines
	core, logs := observer.New(zapcore.InfoLevel)
	s, handler := start(t, listen.Options{
		Tokens: tokens(t, "right"), Log: zap.New(core),
		Now: func() time.Time { return time.Unix(1_800_000_000+clock.Load(), 0) },
	})
	for n := range 20 {
		if got := answered(t, s, "wrong").StatusCode; got != 401 {
			t.Fatalf("try %d: got status %d, want 401", n+1, got)
		}
	}
	clock.Add(20)
	resp := answered(t, s, "wrong")
	if wait := resp.Header.Get("Retry-After"); resp.StatusCode != 429 || wait != "40" || !resp.Close {
		t.Errorf("try 21: got status %d with Retry-After %q, close %t; want 429 with 40, and an end", resp.StatusCode, wait, resp.Close)
	}
	if got := resp.Header.Get("WWW-Authenticate"); got != `Bearer realm="postern", error="invalid_token"` {
		t.Errorf("try 21: got the challenge %q", got)
	}
	if got := answered(t, s, "right").StatusCode; got != 200 {
		t.Errorf("the right token beyond the limit: got status %d, want 200", got)
	}
	if got := exchange(t, s, "GET /a HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"); len(got) != 1 || got[0].StatusCode != 401 {
		t.Errorf("no token beyond the limit: got %v, want 401: it is no guess", got)
	}
	clock.Add(41)
	if got := answered(t, s, "wrong").StatusCode; got != 401 {
		t.Errorf("in the next minute: got status %d, want 401", got)
	}
	if got := handler.count.Load(); got != 1 {
		t.Errorf("got %d requests let in, want 1", got)
	}
	// Of 22 failures in three different seconds.
	var unlogged int64
	for _, line := range logs.FilterMessage("wrong token").All() {
		unlogged += line.ContextMap()["unlogged"].(int64)
	}
	if got := logs.FilterMessage("wrong token").Len(); got != 3 || unlogged != 19 {
		t.Errorf("got %d lines that tell of %d more, want 3 and 19", got, unlogged)
	}
}

func TestTokensAreKnownByName(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	reg := prometheus.NewPedanticRegistry()
	metrics, err := listen.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	list := tokens(t, "old", "new")
	list[1].Holder = "who brings the new one"
	var holder atomic.Value
	s, _ := start(t, listen.Options{
		Tokens: list, Log: zap.New(core), Metrics: metrics, Name: "ingest",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := listen.HolderOf(r.Context()); h != nil {
				holder.Store(h)
			}
			w.WriteHeader(http.StatusAccepted)
		}),
	})
	for _, token := range []string{"old", "new", "old", "wrong"} {
		answered(t, s, token)
	}
	exchange(t, s, "GET /a?secret=canary HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nAuthorization: Basic abc\r\n\r\n")
	exchange(t, s, "GET /a HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
	if got := holder.Load(); got != "who brings the new one" {
		t.Errorf("got the holder %v", got)
	}
	compare := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "postern_token_requests_total", "postern_token_refusals_total"); err != nil {
			t.Error(err)
		}
	}
	const refusals = `
		# HELP postern_token_refusals_total Requests that a listener refused for their token, by reason: none, no bearer token, one that is not in force, or either of these after too many of them.
		# TYPE postern_token_refusals_total counter
		postern_token_refusals_total{listener="ingest",reason="malformed"} 1
		postern_token_refusals_total{listener="ingest",reason="missing"} 1
		postern_token_refusals_total{listener="ingest",reason="throttled"} 0
		postern_token_refusals_total{listener="ingest",reason="unknown"} 1
		# HELP postern_token_requests_total Requests that were let in with a token, by its name. One that no app uses any more can be taken out of the config.
		# TYPE postern_token_requests_total counter
	`
	compare(refusals + `postern_token_requests_total{listener="ingest",token="name-of-new"} 1
		postern_token_requests_total{listener="ingest",token="name-of-old"} 2
	`)
	t.Run("a token that is gone has no series, one that stays goes on", func(t *testing.T) {
		if err := s.SetTokens(tokens(t, "new", "next")); err != nil {
			t.Fatal(err)
		}
		compare(refusals + `postern_token_requests_total{listener="ingest",token="name-of-new"} 1
			postern_token_requests_total{listener="ingest",token="name-of-next"} 0
		`)
	})
	t.Run("the log has a line for each request", func(t *testing.T) {
		lines := logs.FilterMessage("request served").All()
		var got []string
		for _, line := range lines {
			fields := line.ContextMap()
			name, _ := fields["token"].(string)
			got = append(got, strings.TrimSpace(name+" "+strconv.FormatInt(fields["status"].(int64), 10)+" "+fields["path"].(string)))
			if line.Level != zapcore.DebugLevel {
				t.Errorf("got the level %s, want debug", line.Level)
			}
		}
		want := "name-of-old 202 /a|name-of-new 202 /a|name-of-old 202 /a|401 /a|401 /a|401 /a"
		if strings.Join(got, "|") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("a registry takes them once", func(t *testing.T) {
		if _, err := listen.NewMetrics(reg); err == nil {
			t.Error("got no error for the second time")
		}
	})
}

func TestAWithdrawnTokenEndsItsStreams(t *testing.T) {
	begun, ended := make(chan struct{}, 2), make(chan error, 2)
	s, _ := start(t, listen.Options{
		Tokens: tokens(t, "old", "new"),
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			<-r.Context().Done()
			ended <- r.Context().Err()
		}),
	})
	stream := func(token string) io.Closer {
		t.Helper()
		conn := dial(t, s)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+token+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-begun
		return conn
	}
	stream("old")
	kept := stream("new")
	// The same token under another name and with another holder is the same token.
	renamed := tokens(t, "new")
	renamed[0].Name, renamed[0].Holder = "other", "somebody"
	if err := s.SetTokens(renamed); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("got no error of the context")
		}
	case <-time.After(patience):
		t.Fatal("the stream of the old token goes on")
	}
	select {
	case <-ended:
		t.Fatal("the stream of the token that stays was cut off too")
	default:
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func TestParseToken(t *testing.T) {
	for text, want := range map[string]bool{
		"a": true, "AZaz09-._~+/=": true, "": false, "a b": false, "a\n": false, "é": false, "a,b": false, "Bearer a": false, `a"`: false,
	} {
		digest, err := listen.ParseToken(text)
		if (err == nil) != want || err == nil && digest == (listen.Digest{}) {
			t.Errorf("%q: got %v, want fine = %t", text, err, want)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) && len(text) > 1 {
			t.Errorf("%q is in its own error %q", text, err)
		}
	}
}

// TestSetTokens uses one connection for all: a client that stays connected must not keep what it had.
func TestSetTokens(t *testing.T) {
	s, _ := start(t, listen.Options{Tokens: tokens(t, "first-token")})
	conn := dial(t, s)
	answers := bufio.NewReader(conn)
	try := func(token string) int {
		t.Helper()
		head := "GET / HTTP/1.1\r\nHost: localhost\r\n"
		if token != "" {
			head += "Authorization: Bearer " + token + "\r\n"
		}
		if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for _, tc := range []struct {
		name string
		set  []string
		want map[string]int // status by token
	}{
		{"two tokens are valid while they are changed", []string{"first-token", "second-token"}, map[string]int{"first-token": 200, "second-token": 200, "": 401}},
		{"the former token is not valid any more", []string{"second-token"}, map[string]int{"first-token": 401, "second-token": 200, "": 401}},
		{"without tokens none is needed on loopback", nil, map[string]int{"first-token": 200, "": 200}},
		{"tokens can come later", []string{"third-token"}, map[string]int{"third-token": 200, "second-token": 401, "": 401}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := s.SetTokens(tokens(t, tc.set...)); err != nil {
				t.Fatal(err)
			}
			for token, want := range tc.want {
				if got := try(token); got != want {
					t.Errorf("token %q: got %d, want %d", token, got, want)
				}
			}
		})
	}
	t.Run("a list that is refused changes nothing", func(t *testing.T) {
		err := s.SetTokens(append(tokens(t, "fine-token"), listen.Token{Name: "nothing"}))
		if err == nil || !strings.Contains(err.Error(), "needs a name and a digest") {
			t.Errorf("got %v, want an error", err)
		}
		if got, other := try("third-token"), try("fine-token"); got != 200 || other != 401 {
			t.Errorf("got %d for the token before and %d for the new one, want 200 and 401", got, other)
		}
	})
	t.Run("an address that others reach needs one", func(t *testing.T) {
		listener := elsewhere(t, "192.0.2.7")
		open, _ := start(t, listen.Options{Listener: listener, Tokens: tokens(t, "first-token")})
		for what, set := range map[string]func([]listen.Token) error{"set": open.SetTokens, "check": open.CheckTokens} {
			if err := set(nil); err == nil || !strings.Contains(err.Error(), "a token is required") {
				t.Errorf("%s: got %v, want an error", what, err)
			}
		}
		conn, err := net.Dial("tcp", listener.(displaced).Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 401 {
			t.Errorf("got %v and error %v without a token, want 401 as before", resp, err)
		}
	})
	t.Run("a check changes nothing", func(t *testing.T) {
		if err := s.CheckTokens(tokens(t, "other-token")); err != nil {
			t.Fatal(err)
		}
		if got, other := try("third-token"), try("other-token"); got != 200 || other != 401 {
			t.Errorf("got %d for the token in force and %d for the other one, want 200 and 401", got, other)
		}
	})
	t.Run("others may set them at the same time", func(t *testing.T) {
		done := make(chan error, 8)
		for n := range cap(done) {
			go func() { done <- s.SetTokens(tokens(t, "third-token", "token-"+strconv.Itoa(n))) }()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got := try("third-token"); got != 200 {
				t.Errorf("got %d, want 200 throughout", got)
			}
		}
	})
}
