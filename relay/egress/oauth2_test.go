package egress_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
)

const tokenHost = "login.example.test"

// tokenEnd is a token endpoint: an address and a name of its own, under the same authority as the far end.
type tokenEnd struct {
	farEnd
	server *receiver.TokenServer
}

func newTokenEnd(f *farEnd) *tokenEnd {
	b := f.addr.As4()
	b[1]++
	return &tokenEnd{
		farEnd: farEnd{addr: netip.AddrFrom4(b), ca: f.ca},
		server: &receiver.TokenServer{ClientID: "relay", ClientSecret: "secret-of-the-test", Life: time.Hour},
	}
}

// serve runs h behind the token endpoint's name until the end of the test.
func (e *tokenEnd) serve(t testing.TB, h http.HandlerFunc) {
	t.Helper()
	server := &http.Server{Handler: h, ReadHeaderTimeout: long}
	l := tls.NewListener(e.listen(t), &tls.Config{Certificates: []tls.Certificate{e.issue(t, tokenHost)}})
	run(t, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { server.Close() })()
		if err := server.Serve(l); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
}

// dialer reaches the token endpoint through the guard.
func (e *tokenEnd) dialer() *guard.Dialer {
	return &guard.Dialer{
		Allow:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Resolve: map[string]netip.Addr{tokenHost: e.addr},
	}
}

// auth makes the options for the token endpoint; change alters them.
func (e *tokenEnd) auth(t testing.TB, d *guard.Dialer, change func(*egress.OAuth2)) egress.Auth {
	t.Helper()
	client := guard.NewClient(guard.TransportOptions{Dialer: d, RootCAs: e.ca.Pool()})
	t.Cleanup(client.CloseIdleConnections)
	o := &egress.OAuth2{
		ClientID: e.server.ClientID, ClientSecrets: []string{e.server.ClientSecret}, Client: client,
		TokenURL: parseURL(t, "https://"+tokenHost+"/oauth/token"),
	}
	if change != nil {
		change(o)
	}
	return egress.Auth{OAuth2: o}
}

// oauthPair makes a receiver that takes only what carries a token of the endpoint, and a sender for it. All three
// have the clock now; nil is the real one.
func oauthPair(t testing.TB, now func() time.Time, change func(*egress.Options)) (*tokenEnd, *receiver.Receiver, *egress.Sender) {
	t.Helper()
	f := newFarEnd(t)
	e := newTokenEnd(f)
	e.server.Now = now
	e.serve(t, e.server.ServeHTTP)
	r := &receiver.Receiver{
		Listener: f.listen(t), Certificate: f.issue(t, farHost), Secret: f.secret, Tokens: e.server, KeepLatest: 1000, Now: now,
	}
	run(t, r.Run)
	s := f.sender(t, func(o *egress.Options) {
		o.Auth, o.Now = e.auth(t, e.dialer(), nil), now
		if change != nil {
			change(o)
		}
	})
	return e, r, s
}

func wantFetches(t testing.TB, e *tokenEnd, want int) {
	t.Helper()
	if got := e.server.Stats().Requests; got != want {
		t.Errorf("%d tokens were asked for, want %d", got, want)
	}
}

// TestTokenRequest reads what is sent to the endpoint with nothing but net/http and net/url, as RFC 6749, sections
// 2.3.1 and 4.4.2 have it.
func TestTokenRequest(t *testing.T) {
	const id, secret = "id:with a colon+%41", "s&=: +/%ä\"é'"
	f := newFarEnd(t)
	e := newTokenEnd(f)
	got := make(chan *http.Request, 1)
	e.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		got <- r
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"tok+en/1=","token_type":"bEARER"}`)
	})
	authorization := make(chan string, 1)
	f.serve(t, false, func(_ http.ResponseWriter, r *http.Request) { authorization <- r.Header.Get("Authorization") })
	for _, c := range []struct {
		name   string
		change func(*egress.OAuth2)
		form   url.Values
		basic  bool
	}{
		{"the secret in the header is the default", nil, url.Values{}, true},
		{"the secret in the header", func(o *egress.OAuth2) { o.SecretIn = egress.SecretInHeader }, url.Values{}, true},
		{"the secret in the body", func(o *egress.OAuth2) { o.SecretIn = egress.SecretInBody },
			url.Values{"client_id": {id}, "client_secret": {secret}}, false},
		{"scopes and audience", func(o *egress.OAuth2) {
			o.Scopes, o.Audience = []string{"read:all", "write"}, "https://api.example.com/?a=b&c"
		},
			url.Values{"scope": {"read:all write"}, "audience": {"https://api.example.com/?a=b&c"}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := f.sender(t, func(o *egress.Options) {
				o.UserAgent = "Acme/1.0"
				o.Auth = e.auth(t, e.dialer(), func(o *egress.OAuth2) {
					o.ClientID, o.ClientSecrets = id, []string{secret}
					o.TokenURL = parseURL(t, "https://"+tokenHost+":443/token?tenant=a%20b")
					if c.change != nil {
						c.change(o)
					}
				})
			})
			check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
			r := <-got
			if r.Method != "POST" || r.RequestURI != "/token?tenant=a%20b" || r.Host != tokenHost {
				t.Errorf("got %s %s to %s", r.Method, r.RequestURI, r.Host)
			}
			for name, want := range map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": "Acme/1.0", "Accept-Encoding": ""} {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			c.form.Set("grant_type", "client_credentials")
			if got, want := r.PostForm.Encode(), c.form.Encode(); got != want {
				t.Errorf("got body %s, want %s", got, want)
			}
			user, password, basic := r.BasicAuth()
			if basic != c.basic {
				t.Fatalf("got Basic authentication %v, want %v", basic, c.basic)
			}
			user, userErr := url.QueryUnescape(user)
			password, passwordErr := url.QueryUnescape(password)
			if basic && (userErr != nil || passwordErr != nil || user != id || password != secret) {
				t.Errorf("got %q and %q (%v, %v), want %q and %q", user, password, userErr, passwordErr, id, secret)
			}
			if got, want := <-authorization, "Bearer tok+en/1="; got != want {
				t.Errorf("the receiver got %q, want %q", got, want)
			}
		})
	}
}

func TestTokenIsKeptUntilShortlyBeforeItsEnd(t *testing.T) {
	for _, c := range []struct {
		name       string
		life, kept time.Duration
	}{
		{"a minute before the end of an hour", time.Hour, 59 * time.Minute},
		{"a tenth before the end of a short life", 100 * time.Second, 90 * time.Second},
		{"nine minutes when the server does not say", -1, 9 * time.Minute},
		{"a day at most", 365 * 24 * time.Hour, 24*time.Hour - time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := time.Now()
			e, _, s := oauthPair(t, func() time.Time { return at }, nil)
			e.server.Life = c.life
			start := at
			for _, step := range []struct {
				after   time.Duration
				fetches int
			}{{0, 1}, {c.kept - 1, 1}, {c.kept, 2}, {2*c.kept - 1, 2}} {
				at = start.Add(step.after)
				check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
				wantFetches(t, e, step.fetches)
			}
		})
	}
}

// loads closes all when as many messages have been read, which is when as many attempts have begun.
type loads struct {
	messages
	left *atomic.Int64
	all  chan struct{}
}

func (l loads) Load(ctx context.Context, id store.MessageID) (store.Message, []byte, error) {
	if l.left.Add(-1) == 0 {
		close(l.all)
	}
	return l.messages.Load(ctx, id)
}

// herd sends from many goroutines at once, and returns what came of it.
func herd(t testing.TB, s *egress.Sender, n int) []store.Attempt {
	t.Helper()
	attempts := make([]store.Attempt, n)
	deliveries := make([]store.Delivery, n)
	for i := range n {
		deliveries[i] = newDelivery(t)
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { attempts[i] = s.Send(t.Context(), deliveries[i]) })
	}
	all.Wait()
	return attempts
}

func TestOneFetchForManyAttempts(t *testing.T) {
	const many = 50
	t.Run("the first ones share it", func(t *testing.T) {
		f := newFarEnd(t)
		e := newTokenEnd(f)
		begun := loads{left: new(atomic.Int64), all: make(chan struct{})}
		begun.left.Store(many)
		e.serve(t, func(w http.ResponseWriter, r *http.Request) {
			select { // so that none comes late and finds a token
			case <-begun.all:
				e.server.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		})
		r := &receiver.Receiver{Listener: f.listen(t), Certificate: f.issue(t, farHost), Secret: f.secret, Tokens: e.server}
		run(t, r.Run)
		s := f.sender(t, func(o *egress.Options) {
			o.Auth, o.Messages = e.auth(t, e.dialer(), nil), begun
		})
		for _, a := range herd(t, s, many) {
			check(t, a, store.ClassOK, 200)
		}
		wantFetches(t, e, 1)
		if got := r.Stats(); got.Distinct != many || got.Unauthorized != 0 {
			t.Errorf("got %+v, want %d messages and none refused", got, many)
		}
	})
	t.Run("so do those whose token was taken back", func(t *testing.T) {
		e, r, s := oauthPair(t, nil, nil)
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		e.server.Revoke()
		for _, a := range herd(t, s, many) {
			check(t, a, store.ClassOK, 200)
		}
		wantFetches(t, e, 2)
		if got := r.Stats(); got.Distinct != many+1 || got.Unauthorized < 1 || got.Requests > 1+2*many {
			t.Errorf("got %+v, want %d messages, with at most one refusal each", got, many+1)
		}
	})
	t.Run("so do those that get none", func(t *testing.T) {
		at := time.Now()
		e, r, s := oauthPair(t, func() time.Time { return at }, nil)
		e.server.SetRefusal(receiver.TokenRefusal{Status: 503, Code: "temporarily_unavailable"})
		for _, a := range herd(t, s, many) {
			check(t, a, store.ClassAuth, 0)
		}
		wantFetches(t, e, 1)
		e.server.SetRefusal(receiver.TokenRefusal{})
		at = at.Add(time.Second - 1)
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassAuth, 0)
		wantFetches(t, e, 1)
		at = at.Add(1)
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		wantFetches(t, e, 2)
		if got := r.Stats().Requests; got != 1 {
			t.Errorf("the receiver got %d requests, want only the one with a token", got)
		}
	})
}
