package listen_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-relay/postern/relay/listen"
)

// TestFraming sends requests with malformed or ambiguous framing, each with a second request hidden behind it. No
// client of ours sends any of them, so none may reach the handler twice (threat T19).
func TestFraming(t *testing.T) {
	const hidden = "GET /hidden HTTP/1.1\r\nHost: HOST\r\n\r\n"
	const host = "Host: HOST\r\n"
	for _, tc := range []struct {
		name, raw string
		want      int // status of the answer; 0: 2xx is fine too, but the connection ends
	}{
		{"length and chunked", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
		{"chunked and length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n0\r\n\r\n", 0},
		{"chunked alone", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 0},
		{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400},
		{"a list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 2\r\n\r\nxy", 400},
		{"a signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\nx", 400},
		{"a negative length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400},
		{"a hexadecimal length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x1\r\n\r\nx", 400},
		{"an overlong length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\nx", 400},
		{"an empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", 400},
		{"gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"two transfer codings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
		{"identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", 501},
		{"chunked misspelt", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{"a space before the colon", "POST / HTTP/1.1\r\n" + host + "Content-Length : 1\r\n\r\nx", 400},
		{"a space before the coding's colon", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		{"a field that starts with a space", "POST / HTTP/1.1\r\n Host: HOST\r\n\r\n", 400},
		{"a field without a colon", "POST / HTTP/1.1\r\n" + host + "Nonsense\r\n\r\n", 400},
		{"a field without a name", "POST / HTTP/1.1\r\n" + host + ": x\r\n\r\n", 400},
		{"a NUL in a value", "POST / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 400},
		{"a bare CR in a value", "POST / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", 400},
		{"a chunk size that is no number", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n", 408},
		{"a negative chunk size", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n", 408},
		{"a chunk size with 0x", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", 408},
		{"an overflowing chunk size", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\nx\r\n0\r\n\r\n", 408},
		{"a chunk longer than its size", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n", 408},
		{"HTTP/1.0 chunked", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
		{"HTTP/1.0 chunked with keep-alive", "POST / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411},
		{"HTTP/1.0 chunked with a length", "POST / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
		{"HTTP/1.0 with keep-alive", "GET / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n", 0},
		{"HTTP/0.9", "GET /\r\n", 400},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"HTTP/3", "GET / HTTP/3.0\r\n" + host + "\r\n", 505},
		{"a PRI of HTTP/1.1", "PRI / HTTP/1.1\r\n" + host + "\r\n", 505},
		{"an absolute target", "GET http://HOST/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a foreign absolute target", "GET http://evil.example/ HTTP/1.1\r\n" + host + "\r\n", 400},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 400},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 501},
		{"CONNECT with a path", "CONNECT / HTTP/1.1\r\n" + host + "\r\n", 501},
		{"TRACE", "TRACE / HTTP/1.1\r\n" + host + "\r\n", 501},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + "Host: evil.example\r\n\r\n", 400},
		{"a space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a control character in the target", "GET /a\x01b HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a method that is no token", "G(T / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"an unknown expectation", "POST / HTTP/1.1\r\n" + host + "Expect: magic\r\nContent-Length: 0\r\n\r\n", 417},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, handler := start(t, listen.Options{})
			got := exchange(t, s, tc.raw+hidden)
			if len(got) > 1 {
				t.Errorf("got %d answers, want at most one and an end", len(got))
			}
			if n := handler.count.Load(); n > 1 {
				t.Errorf("got %d requests let in, want at most one", n)
			}
			if len(got) == 0 {
				t.Fatal("got no answer, want one")
			}
			if status := got[0].StatusCode; tc.want != 0 && status != tc.want {
				t.Errorf("got status %d, want %d", status, tc.want)
			}
			if body, _ := io.ReadAll(got[0].Body); strings.Contains(string(body), "hidden") {
				t.Errorf("got %q: the hidden request was served", body)
			}
		})
	}
}

func TestSmuggledFoldedHeader(t *testing.T) {
	// net/http joins a folded line (RFC 9112, section 5.2 allows that). It must not become a field of its own.
	s, handler := start(t, listen.Options{})
	got := exchange(t, s, "POST / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n Content-Length: 5\r\nConnection: close\r\n\r\nhello")
	if len(got) != 1 || handler.count.Load() > 1 {
		t.Fatalf("got %d answers, want one", len(got))
	}
	if body, _ := io.ReadAll(got[0].Body); strings.Contains(string(body), "hello") {
		t.Errorf("got %q: the folded line was taken for a length", body)
	}
}

func TestSizes(t *testing.T) {
	s, _ := start(t, listen.Options{})
	request := func(target, headers string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n" + headers + "\r\n"
	}
	for _, tc := range []struct {
		name, raw string
		want      int
	}{
		{"a target of 8 KiB passes", request("/"+strings.Repeat("a", 8<<10-1), ""), 200},
		{"a longer target is refused", request("/"+strings.Repeat("a", 8<<10), ""), 414},
		{"headers of 15 KiB pass", request("/", "X: "+strings.Repeat("a", 15<<10)+"\r\n"), 200},
		{"headers of 17 KiB are refused", request("/", "X: "+strings.Repeat("a", 17<<10)+"\r\n"), 431},
		{"128 fields pass", request("/", strings.Repeat("X: a\r\n", 127)), 200}, // Connection counts, Host does not
		{"129 fields are refused", request("/", strings.Repeat("X: a\r\n", 128)), 431},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := exchange(t, s, tc.raw)
			if len(got) != 1 || got[0].StatusCode != tc.want {
				t.Errorf("got %v, want one answer with status %d", got, tc.want)
			}
		})
	}
}

func TestHost(t *testing.T) {
	s, _ := start(t, listen.Options{})
	_, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"127.0.0.1:PORT": 200, "127.0.0.1": 200, "127.9.9.9:PORT": 200, "localhost:PORT": 200, "LocalHost:PORT": 200,
		"localhost": 200, "[::1]:PORT": 200, "[::1]": 200,
		"": 421, "evil.example": 421, "evil.example:PORT": 421, "localhost:1": 421, "127.0.0.1:80": 421,
		"localhost.evil.example:PORT": 421, "127.0.0.1.evil.example:PORT": 421, "localhost.:PORT": 421,
		"2130706433:PORT": 421, "0.0.0.0:PORT": 421, "10.0.0.1:PORT": 421, "[::2]:PORT": 421, "::1": 421,
		"[localhost]:PORT": 421, "localhost:": 421, "127.1:PORT": 421, "a@localhost:PORT": 421,
	} {
		t.Run(fmt.Sprintf("%q gets %d", host, want), func(t *testing.T) {
			raw := "GET /secret HTTP/1.1\r\nHost: " + strings.ReplaceAll(host, "PORT", port) + "\r\nConnection: close\r\n\r\n"
			got := exchange(t, s, raw)
			if len(got) != 1 {
				t.Fatalf("got %d answers, want one", len(got))
			}
			body, _ := io.ReadAll(got[0].Body)
			if got[0].StatusCode != want && !(want == 421 && got[0].StatusCode == 400) {
				t.Errorf("got status %d, want %d", got[0].StatusCode, want)
			}
			if want != 200 && strings.Contains(string(body), "secret") {
				t.Errorf("got content %q, want none", body)
			}
		})
	}
	t.Run("HTTP/1.0 may do without", func(t *testing.T) {
		if got := exchange(t, s, "GET / HTTP/1.0\r\n\r\n"); len(got) != 1 || got[0].StatusCode != 200 {
			t.Errorf("got %v, want one 200", got)
		}
	})
}

func TestOrigin(t *testing.T) {
	s, handler := start(t, listen.Options{})
	for _, tc := range []struct {
		name, method, headers string
		want                  int
	}{
		{"a program", "POST", "", 200},
		{"a page of ours", "POST", "Origin: http://HOST\r\nSec-Fetch-Site: same-origin\r\n", 200},
		{"a page of ours, older browser", "POST", "Origin: http://HOST\r\n", 200},
		{"the address bar", "GET", "Sec-Fetch-Site: none\r\n", 200},
		{"a link elsewhere", "GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", 200},
		{"a frame elsewhere", "GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n", 403},
		{"a form elsewhere", "POST", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nOrigin: https://evil.example\r\n", 403},
		{"a fetch elsewhere", "POST", "Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n", 403},
		{"a simple post elsewhere, older browser", "POST", "Origin: https://evil.example\r\nContent-Type: text/plain\r\n", 403},
		{"a fetch that reads", "GET", "Origin: https://evil.example\r\n", 403},
		{"another port of localhost", "POST", "Sec-Fetch-Site: same-site\r\nOrigin: http://127.0.0.1:3000\r\n", 403},
		{"a sandboxed page", "POST", "Origin: null\r\n", 403},
		{"two origins", "POST", "Origin: http://HOST\r\nOrigin: https://evil.example\r\n", 403},
		{"two sites", "POST", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n", 403},
		{"a preflight", "OPTIONS", "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n", 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := handler.count.Load()
			got := exchange(t, s, tc.method+" /to/a HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\nContent-Length: 0\r\n"+tc.headers+"\r\n")
			if len(got) != 1 || got[0].StatusCode != tc.want {
				t.Fatalf("got %v, want one answer with status %d", got, tc.want)
			}
			if came := handler.count.Load() > before; came != (tc.want == 200) {
				t.Errorf("got let in = %t, want %t", came, tc.want == 200)
			}
			for key := range got[0].Header {
				if strings.HasPrefix(key, "Access-Control-") {
					t.Errorf("got header %s, want no CORS", key)
				}
			}
			if tc.want == http.StatusForbidden && got[0].Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got content type %q, want a problem", got[0].Header.Get("Content-Type"))
			}
		})
	}
}

func TestWhatIsTurnedAwayIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	metrics, err := listen.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	s, handler := start(t, listen.Options{Metrics: metrics, Name: "ingest", Tokens: tokens(t, "right")})
	const right = "Authorization: Bearer right\r\n"
	for _, raw := range []string{
		"GET / HTTP/1.1\r\nHost: HOST\r\n" + right,
		"TRACE / HTTP/1.1\r\nHost: HOST\r\n" + right,
		"GET http://HOST/ HTTP/1.1\r\nHost: HOST\r\n" + right,
		"GET / HTTP/1.1\r\nHost: HOST\r\n" + right + strings.Repeat("X: a\r\n", 128),
		"GET / HTTP/1.1\r\nHost: evil.example\r\n" + right,
		"GET / HTTP/1.1\r\nHost:\r\n" + right,
		"GET / HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer wrong\r\n",
		"GET / HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\n" + right,
	} {
		if got := exchange(t, s, raw+"Connection: close\r\n\r\n"); len(got) != 1 {
			t.Fatalf("%q: got %d answers, want one", raw, len(got))
		}
	}
	if got := handler.count.Load(); got != 1 {
		t.Errorf("got %d requests let in, want 1", got)
	}
	const want = `
		# HELP postern_listener_refusals_total Requests that a listener refused before their token counted, by reason: framing that could be read in two ways, size of the head, a Host that is not ours, a client certificate that is not accepted any more, or the page of another site as their origin. What is no HTTP at all is not counted.
		# TYPE postern_listener_refusals_total counter
		postern_listener_refusals_total{listener="ingest",reason="client"} 0
		postern_listener_refusals_total{listener="ingest",reason="framing"} 2
		postern_listener_refusals_total{listener="ingest",reason="host"} 3
		postern_listener_refusals_total{listener="ingest",reason="origin"} 1
		postern_listener_refusals_total{listener="ingest",reason="size"} 1
		# HELP postern_token_refusals_total Requests that a listener refused for their token, by reason: none, no bearer token, one that is not in force, or either of these after too many of them.
		# TYPE postern_token_refusals_total counter
		postern_token_refusals_total{listener="ingest",reason="malformed"} 0
		postern_token_refusals_total{listener="ingest",reason="missing"} 0
		postern_token_refusals_total{listener="ingest",reason="throttled"} 0
		postern_token_refusals_total{listener="ingest",reason="unknown"} 0
	`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "postern_listener_refusals_total", "postern_token_refusals_total"); err != nil {
		t.Error(err)
	}
}
