package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	canaryAddress  = "127.0.91.1" // of the far end
	refusedAddress = "127.0.91.2" // which the proxy has no way to
)

// parrot is everyone that the relay talks to: receivers, a token endpoint, an authority, a proxy and a collector, all of
// which repeat whatever they are told, in every way that they can think of.
type parrot struct {
	*canaries
	cookie   string
	issued   atomic.Int32 // access tokens
	requests atomic.Int32 // to receivers
	longest  atomic.Int32 // answer, in bytes
	tunnels  atomic.Int32
	account  atomic.Int32 // requests for an account at the authority

	mu      sync.Mutex // guards the fields below
	exports []byte     // what the collector got
	notices []byte     // what Postern told of itself
}

// newParrot starts everyone, until the test ends.
func newParrot(t *testing.T, a *aviary) *parrot {
	t.Helper()
	p := &parrot{canaries: a.canaries, cookie: a.secret("cookie", "%2F")}
	cert, err := a.ca.Issue("far.test", "acme.test", "refused.test")
	if err != nil {
		t.Fatal(err)
	}
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	p.serve(t, canaryAddress+":443", secure, p.receive)
	authority := p.serve(t, canaryAddress+":0", secure, p.authorize)
	collector := p.serve(t, canaryAddress+":0", nil, p.collect)
	proxy, err := net.Listen("tcp", canaryAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var tunnels sync.WaitGroup
	tunnels.Go(func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			tunnels.Go(func() { p.tunnel(ctx, conn) })
		}
	})
	t.Cleanup(func() { stop(); _ = proxy.Close(); tunnels.Wait() })
	a.Far, a.Refused, a.Proxy, a.Collector = canaryAddress, refusedAddress, proxy.Addr().String(), collector
	_, a.AuthorityPort, _ = net.SplitHostPort(authority)
	return p
}

// serve runs a server and returns where it is.
func (p *parrot) serve(t *testing.T, address string, secure *tls.Config, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("%v; Postern delivers to port 443 only, so this test must bind it", err)
	}
	server := &http.Server{Handler: h, TLSConfig: secure.Clone(), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() {
		if secure == nil {
			served <- server.Serve(l)
		} else {
			served <- server.ServeTLS(l, "", "")
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

// repeat returns all that a request says, in many ways.
func repeat(r *http.Request, body []byte) string {
	said := []string{r.RequestURI, r.URL.Path, string(body)}
	for _, values := range r.URL.Query() {
		said = append(said, values...)
	}
	for name, values := range r.Header {
		for _, v := range values {
			if len(v) < 12 || name == "Signature" || name == "Signature-Input" || name == "Webhook-Signature" { // no canary
				continue
			}
			said = append(said, name+": "+v, v)
			scheme, rest, ok := strings.Cut(v, " ")
			if ok {
				said = append(said, rest)
			}
			if plain, err := base64.StdEncoding.DecodeString(rest); scheme == "Basic" && err == nil {
				said = append(said, string(plain))
			}
		}
	}
	slices.Sort(said)
	var b strings.Builder
	for _, s := range said {
		quoted, _ := json.Marshal(s)
		again, _ := json.Marshal(string(quoted))
		for _, form := range []string{
			s, base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte("<" + s)),
			url.QueryEscape(s), url.PathEscape(s), lowerEscapes(s), string(quoted), string(again),
			html.EscapeString(s), strconv.QuoteToASCII(s), fmt.Sprintf("%X", s), fmt.Sprintf("%x", s),
		} {
			b.WriteString(form + "\n")
		}
	}
	return b.String()
}

// lowerEscapes returns a text escaped for a URL as .NET does.
func lowerEscapes(s string) string {
	return regexp.MustCompile("%..").ReplaceAllStringFunc(url.QueryEscape(s), strings.ToLower)
}

// receive is the receiver, and the token endpoint, which refuses at a second path.
func (p *parrot) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch r.URL.Path {
	case "/token":
		token := p.secret(fmt.Sprintf("access token %d", p.issued.Add(1)), "-._~+/")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": 3600})
		return
	case "/token/refuse":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, secret, _ := r.BasicAuth()
		_ = json.NewEncoder(w).Encode(map[string]string{
			"error":             "refused " + r.PostFormValue("client_secret"),
			"error_description": secret + " is wrong, and so is " + string(body) + " of " + r.Header.Get("Authorization"),
		})
		return
	}
	if r.URL.Path == "/notices" {
		p.keep(&p.notices, body)
		return
	}
	p.requests.Add(1)
	answer := repeat(r, body)
	p.longest.Store(max(p.longest.Load(), int32(len(answer))))
	for i, line := range strings.SplitN(answer, "\n", 40) {
		if i < 39 && len(line) < 200 {
			w.Header().Set(fmt.Sprintf("X-Parrot-%d", i), line)
		}
	}
	w.Header().Add("Set-Cookie", "session="+p.cookie+"; Path=/")
	switch mode := r.Header.Get("X-Mode"); mode {
	case "hang":
		<-r.Context().Done()
	case "reset":
		panic(http.ErrAbortHandler)
	case "same":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	default:
		status, err := strconv.Atoi(mode)
		if err != nil {
			status = http.StatusOK
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}
}

// authorize is an authority that takes no account (RFC 8555).
func (p *parrot) authorize(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	base := "https://" + r.Host + "/acme/"
	w.Header().Set("Replay-Nonce", base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(time.Now().UnixNano(), 10))))
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/acme/directory":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"newNonce": base + "nonce", "newAccount": base + "account", "newOrder": base + "order",
			"meta": map[string]any{"externalAccountRequired": true},
		})
	case "/acme/nonce":
	default:
		p.account.Add(1)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"type": "urn:ietf:params:acme:error:unauthorized", "detail": "no account for " + string(body), "status": http.StatusForbidden,
		})
	}
}

// collect is the collector: it refuses every second export.
func (p *parrot) collect(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.keep(&p.exports, body)
	if len(body)%2 == 0 {
		http.Error(w, repeat(r, nil), http.StatusBadRequest)
	}
}

func (p *parrot) keep(all *[]byte, more []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*all = append(*all, more...)
}

// kept returns what the collector got, and what Postern told of itself.
func (p *parrot) kept() (exports, notices []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.exports), slices.Clone(p.notices)
}

// tunnel is the proxy: it repeats the credentials that it is shown, where it cannot connect.
func (p *parrot) tunnel(ctx context.Context, client net.Conn) {
	defer client.Close()
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	reader := bufio.NewReader(client)
	r, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	credentials := r.Header.Get("Proxy-Authorization")
	_, coded, _ := strings.Cut(credentials, " ")
	plain, _ := base64.StdEncoding.DecodeString(coded)
	if host, _, _ := net.SplitHostPort(r.Host); host != canaryAddress || len(plain) == 0 {
		said := fmt.Sprintf("%s %s", credentials, plain)
		fmt.Fprintf(client, "HTTP/1.1 407 %[1]s\r\nProxy-Authenticate: Basic realm=%[2]q\r\nContent-Length: %[3]d\r\n\r\n%[1]s", said, plain, len(said))
		return
	}
	p.tunnels.Add(1)
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Host)
	if err != nil {
		return
	}
	defer server.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(server, reader); _ = server.(*net.TCPConn).CloseWrite() })
	both.Go(func() { _, _ = io.Copy(client, server); _ = client.(*net.TCPConn).CloseWrite() })
	both.Wait()
}
