package receiver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
)

// oddID and oddSecret hold what gets lost where one side forgets to encode (RFC 6749, section 2.3.1).
const (
	oddID     = "id:with a colon+%41"
	oddSecret = "s&=: +/%ä\"é'"
)

// TestTokenServerWithTheLibrary asks by golang.org/x/oauth2, which is not ours.
func TestTokenServerWithTheLibrary(t *testing.T) {
	for _, c := range []struct {
		name, in string
		style    oauth2.AuthStyle
		secret   string
		refused  string
	}{
		{"the secret in the header", "header", oauth2.AuthStyleInHeader, oddSecret, ""},
		{"the secret in the body", "body", oauth2.AuthStyleInParams, oddSecret, ""},
		{"the secret in either place", "", oauth2.AuthStyleInParams, oddSecret, ""},
		{"the secret in the wrong place", "body", oauth2.AuthStyleInHeader, oddSecret, "invalid_client"},
		{"the secret in the other wrong place", "header", oauth2.AuthStyleInParams, oddSecret, "invalid_client"},
		{"a wrong secret", "", oauth2.AuthStyleInHeader, oddSecret + "x", "invalid_client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tokens := &receiver.TokenServer{ClientID: oddID, ClientSecret: oddSecret, SecretIn: c.in, Scope: "a b", Audience: "x", Life: time.Minute}
			p := newPair(t, func(r *receiver.Receiver) { r.Tokens = tokens })
			config := clientcredentials.Config{
				ClientID: oddID, ClientSecret: c.secret, TokenURL: "https://" + host + "/oauth/token", Scopes: []string{"a", "b"},
				EndpointParams: url.Values{"audience": {"x"}}, AuthStyle: c.style,
			}
			got, err := config.Token(context.WithValue(t.Context(), oauth2.HTTPClient, p.client))
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got %v, want %q in it", err, c.refused)
				}
				if got := tokens.Stats(); got != (receiver.TokenStats{Requests: 1, Refused: 1}) {
					t.Errorf("got %+v, want one request, refused", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !tokens.Valid(got.AccessToken) || got.Type() != "Bearer" || time.Until(got.Expiry) < 50*time.Second || time.Until(got.Expiry) > time.Minute {
				t.Errorf("got %v, want a valid bearer token for a minute", got)
			}
			if got := tokens.Stats(); got != (receiver.TokenStats{Requests: 1, Issued: 1}) {
				t.Errorf("got %+v, want one request, one token", got)
			}
			if got := p.Stats(); got.Requests != 0 {
				t.Errorf("got %+v, want no request counted as one to the receiver", got)
			}
		})
	}
}

func TestTokenServerRefuses(t *testing.T) {
	tokens := &receiver.TokenServer{Path: "/t", ClientID: "id", ClientSecret: "secret", Scope: "a", Audience: "x", Life: -1}
	p := newPair(t, func(r *receiver.Receiver) { r.Tokens = tokens })
	good := url.Values{"grant_type": {"client_credentials"}, "scope": {"a"}, "audience": {"x"}, "client_id": {"id"}, "client_secret": {"secret"}}
	ask := func(t *testing.T, method, body string, basic bool) (*http.Response, map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+host+"/t", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if basic {
			req.SetBasicAuth("id", "secret")
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer := map[string]any{}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return resp, answer
	}
	with := func(key, value string) string {
		form := url.Values{}
		for k, v := range good {
			form[k] = v
		}
		form.Set(key, value)
		return form.Encode()
	}
	for _, c := range []struct {
		name, method, body string
		basic              bool
		status             int
		code               string
	}{
		{"a good request", "POST", good.Encode(), false, 200, ""},
		{"another method", "PUT", good.Encode(), false, 405, "invalid_request"},
		{"another grant", "POST", with("grant_type", "password"), false, 400, "unsupported_grant_type"},
		{"another scope", "POST", with("scope", "a b"), false, 400, "invalid_scope"},
		{"another audience", "POST", with("audience", ""), false, 400, "invalid_request"},
		{"another client", "POST", with("client_id", "x"), false, 401, "invalid_client"},
		{"no form", "POST", "%", false, 400, "invalid_request"},
		{"the secret in both places", "POST", good.Encode(), true, 401, "invalid_client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, answer := ask(t, c.method, c.body, c.basic)
			code, _ := answer["error"].(string)
			if resp.StatusCode != c.status || code != c.code {
				t.Errorf("got %d %v, want %d with error %q", resp.StatusCode, answer, c.status, c.code)
			}
			if _, told := answer["expires_in"]; told {
				t.Errorf("got %v, want no expires_in", answer)
			}
		})
	}
	t.Run("on command", func(t *testing.T) {
		tokens.SetRefusal(receiver.TokenRefusal{Status: 503, Code: "temporarily_unavailable", Description: "later", RetryAfter: "7"})
		resp, answer := ask(t, "POST", good.Encode(), false)
		if resp.StatusCode != 503 || answer["error"] != "temporarily_unavailable" || answer["error_description"] != "later" || resp.Header.Get("Retry-After") != "7" {
			t.Errorf("got %d %v with %v", resp.StatusCode, answer, resp.Header)
		}
		tokens.SetRefusal(receiver.TokenRefusal{})
		if resp, _ := ask(t, "POST", good.Encode(), false); resp.StatusCode != 200 {
			t.Errorf("got %d after its end, want 200", resp.StatusCode)
		}
	})
}

func TestReceiverRequiresToken(t *testing.T) {
	now := time.Now()
	tokens := &receiver.TokenServer{ClientID: "id", ClientSecret: "secret", Life: time.Minute, Now: func() time.Time { return now }}
	p := newPair(t, func(r *receiver.Receiver) { r.Tokens, r.Secret, r.KeepLatest = tokens, "", 3 })
	issue := func() string {
		config := clientcredentials.Config{ClientID: "id", ClientSecret: "secret", TokenURL: "https://" + host + "/oauth/token"}
		got, err := config.Token(context.WithValue(t.Context(), oauth2.HTTPClient, p.client))
		if err != nil {
			t.Fatal(err)
		}
		return got.AccessToken
	}
	send := func(authorization string) int {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+host+"/in?q=1", strings.NewReader("body of "+authorization))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	first := issue()
	for _, c := range []struct {
		name, authorization string
		before              func()
		want                int
	}{
		{"a valid one", "Bearer " + first, nil, 200},
		{"a valid one in small letters", "bearer " + first, nil, 200},
		{"none", "", nil, 401},
		{"another", "Bearer x", nil, 401},
		{"another scheme", "Basic " + first, nil, 401},
		{"one just before its end", "Bearer " + first, func() { now = now.Add(time.Minute - 1) }, 200},
		{"one at its end", "Bearer " + first, func() { now = now.Add(1) }, 401},
	} {
		if c.before != nil {
			c.before()
		}
		if got := send(c.authorization); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	second := issue()
	if got := send("Bearer " + second); got != 200 {
		t.Errorf("the next: got %d, want 200", got)
	}
	tokens.Revoke()
	if got := send("Bearer " + second); got != 401 {
		t.Errorf("a revoked one: got %d, want 401", got)
	}
	if got := p.Stats(); got.Requests != 9 || got.Unauthorized != 5 || got.Distinct+got.Duplicates+got.Altered != 4 {
		t.Errorf("got %+v, want 9 requests, 5 of them unauthorized", got)
	}
	t.Run("the latest requests are kept, refused ones too", func(t *testing.T) {
		latest := p.Latest()
		if len(latest) != 3 {
			t.Fatalf("got %d requests, want 3", len(latest))
		}
		for i, want := range []string{"Bearer " + first, "Bearer " + second, "Bearer " + second} {
			r := latest[i]
			if string(r.Body) != "body of "+want || r.Header.Get("Authorization") != want || r.Target != "/in?q=1" || r.Method != "POST" || r.Header.Get("Host") != host || r.Peer != "" {
				t.Errorf("%d: got %+v, want the one with %s", i, r, want)
			}
		}
	})
}

func TestReceiverRequiresClientCertificate(t *testing.T) {
	ours, err := receiver.NewCA("ours")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := receiver.NewCA("theirs")
	if err != nil {
		t.Fatal(err)
	}
	client := func(ca *receiver.CA) tls.Certificate {
		t.Helper()
		cert, err := ca.IssueClient("relay")
		if err != nil {
			t.Fatal(err)
		}
		certPEM, keyPEM, err := receiver.EncodePEM(cert)
		if err != nil {
			t.Fatal(err)
		}
		again, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	server, err := ours.Issue("relay")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cert *tls.Certificate
		peer string // empty means that the handshake fails
	}{
		{"a certificate of the authority", new(client(ours)), "CN=relay"},
		{"one of another authority", new(client(theirs)), ""},
		{"one for servers", &server, ""},
		{"none", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, func(r *receiver.Receiver) { r.ClientCAs = ours.Pool() })
			if c.cert != nil {
				transport, ok := p.client.Transport.(*http.Transport)
				if !ok {
					t.Fatal("the client of the test has another transport")
				}
				// Without GetClientCertificate one of an authority that the server does not name would not be shown.
				transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
			}
			status := p.post(t, "msg_1", "one", p.secret)
			m, taken := p.Message("msg_1")
			if taken != (c.peer != "") || m.Peer != c.peer || taken && status != 200 {
				t.Errorf("got status %d, taken %v from %q, want %q", status, taken, m.Peer, c.peer)
			}
		})
	}
	t.Run("a client certificate serves no host", func(t *testing.T) {
		cert := client(ours)
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: ours.Pool()}); err == nil {
			t.Error("it passes for a server's")
		}
	})
}

// TestLatestHoldsWhatEnds holds that requests are kept whatever becomes of them.
func TestLatestHoldsWhatEnds(t *testing.T) {
	p := newPair(t, func(r *receiver.Receiver) { r.KeepLatest = 10 })
	p.SetFault(receiver.Fault{Kind: receiver.ResetBefore})
	p.post(t, "msg_1", "one", p.secret)
	p.SetFault(receiver.Fault{Kind: receiver.Status})
	p.post(t, "msg_2", "two", p.secret)
	p.SetFault(receiver.Fault{})
	p.post(t, "msg_3", "three", sign.NewSecret())
	var got []string
	for _, r := range p.Latest() {
		got = append(got, r.Header.Get("Webhook-Id")+" "+string(r.Body))
	}
	if got, want := strings.Join(got, ", "), "msg_1 , msg_2 two, msg_3 three"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if quiet := newPair(t, nil); quiet.post(t, "msg_1", "one", quiet.secret) != 200 || len(quiet.Latest()) != 0 {
		t.Error("requests are kept that nobody asked for")
	}
}
