package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/store"
)

// trip is a transport without a network, so that a test can be in a bubble of its own time.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	return f(r)
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)),
	}
}

// oneMessage is a store that has the same message under every id.
type oneMessage struct{}

func (oneMessage) Load(_ context.Context, id store.MessageID) (store.Message, []byte, error) {
	return store.Message{ID: id, ContentType: "application/json"}, []byte("{}"), nil
}

// timed is a Sender in a bubble. Its endpoint answers after delay; -1 never does.
type timed struct {
	*Sender
	delay  time.Duration
	status int // of the receiver's answers; 0 means 200

	mu       sync.Mutex // guards the fields below
	fetches  int
	canceled int // fetches that ended before their answer
	requests int
}

func newTimed(t *testing.T, delay, timeout time.Duration) *timed {
	t.Helper()
	x := &timed{delay: delay}
	endpoint := trip(func(r *http.Request) (*http.Response, error) {
		x.mu.Lock()
		x.fetches++
		n, delay := x.fetches, x.delay
		x.mu.Unlock()
		if err := sleep(r.Context(), delay); err != nil {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.canceled++
			return nil, err
		}
		return answer(r, 200, fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, n)), nil
	})
	far := trip(func(r *http.Request) (*http.Response, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.requests++
		return answer(r, max(x.status, 200), "refused"), nil
	})
	s, err := New(Options{
		URL: &url.URL{Scheme: "https", Host: "hooks.example.test"}, Transport: far, Timeout: timeout, Messages: oneMessage{},
		Auth: Auth{OAuth2: &OAuth2{
			ClientID: "id", ClientSecrets: []string{"secret-of-the-test"}, Client: &http.Client{Transport: endpoint},
			TokenURL: &url.URL{Scheme: "https", Host: "login.example.test"},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	x.Sender = s
	return x
}

// sleep returns nil after d, or the error of ctx if that ends first. A negative d does not end.
func sleep(ctx context.Context, d time.Duration) error {
	var over <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *timed) counts(t *testing.T, fetches, canceled, requests int) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fetches != fetches || x.canceled != canceled || x.requests != requests {
		t.Errorf("got %d fetches, %d of them canceled, and %d requests, want %d, %d and %d", x.fetches, x.canceled, x.requests, fetches, canceled, requests)
	}
}

func (x *timed) send(t *testing.T, ctx context.Context, class store.Class, status int, text string, took time.Duration) {
	t.Helper()
	a := x.Send(ctx, store.Delivery{Round: 1})
	if a.Class != class || a.Status != status || !strings.Contains(a.Error, text) || (a.Error == "") != (text == "") || a.Took != took {
		t.Errorf("got %v %d %q after %v, want %v %d %q after %v", a.Class, a.Status, a.Error, a.Took, class, status, text, took)
	}
}

func TestWaitingForToken(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"an endpoint that does not answer is given up after ten seconds", func(t *testing.T) {
			x := newTimed(t, -1, time.Minute)
			x.send(t, t.Context(), store.ClassAuth, 0, `no token from "login.example.test": no answer within 10s`, 10*time.Second)
			x.counts(t, 1, 1, 0)
		}},
		{"an answer that does not end is given up after ten seconds", func(t *testing.T) {
			x := newTimed(t, 0, time.Minute)
			x.tokens.opt.Client = &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
				resp := answer(r, 200, "")
				resp.Body = endless{r.Context()}
				return resp, nil
			})}
			x.send(t, t.Context(), store.ClassAuth, 0, "no answer within 10s; the time was over while reading the answer", 10*time.Second)
		}},
		{"an attempt waits no longer than it may, and the next one has the token", func(t *testing.T) {
			x := newTimed(t, 8*time.Second, 5*time.Second)
			x.send(t, t.Context(), store.ClassAuth, 0, `no token from "login.example.test" within 5s, the time of the attempt`, 5*time.Second)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			x.send(t, t.Context(), store.ClassOK, 200, "", 0)
			x.counts(t, 1, 0, 1)
		}},
		{"the one who fetches may leave the others", func(t *testing.T) {
			x := newTimed(t, 5*time.Second, time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			all.Go(func() { x.send(t, ctx, store.ClassInterrupted, 0, "while waiting for a token", 2*time.Second) })
			synctest.Wait()
			for range 2 {
				all.Go(func() { x.send(t, t.Context(), store.ClassOK, 200, "", 5*time.Second) })
			}
			time.Sleep(2 * time.Second)
			cancel()
			all.Wait()
			x.counts(t, 1, 0, 2)
		}},
		{"a stop ends the fetch with the last one who waits", func(t *testing.T) {
			x := newTimed(t, -1, time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() { x.send(t, ctx, store.ClassInterrupted, 0, "while waiting for a token", 2*time.Second) })
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			cancel()
			all.Wait()
			x.counts(t, 1, 1, 0)
			x.mu.Lock()
			x.delay = 0
			x.mu.Unlock()
			x.send(t, t.Context(), store.ClassOK, 200, "", 0) // and is no failure of the endpoint
			x.counts(t, 2, 1, 1)
		}},
		{"a stop after a refusal leaves that on record", func(t *testing.T) {
			x := newTimed(t, 0, time.Minute)
			x.send(t, t.Context(), store.ClassOK, 200, "", 0)
			x.mu.Lock()
			x.delay, x.status = -1, 401
			x.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			x.send(t, ctx, store.ClassStatus, 401, "answered 401 Unauthorized; the time was over before there was a fresh token", 2*time.Second)
			x.counts(t, 2, 1, 2)
		}},
		{"the end of the attempt after a refusal leaves that on record", func(t *testing.T) {
			x := newTimed(t, 0, 3*time.Second)
			x.send(t, t.Context(), store.ClassOK, 200, "", 0)
			x.mu.Lock()
			x.delay, x.status = 4*time.Second, 401
			x.mu.Unlock()
			x.send(t, t.Context(), store.ClassStatus, 401, "answered 401 Unauthorized; the time was over before there was a fresh token", 3*time.Second)
			time.Sleep(time.Second)
			synctest.Wait()
			x.counts(t, 2, 0, 2)
		}},
		{"the time of both requests counts", func(t *testing.T) {
			x := newTimed(t, time.Second, time.Minute)
			x.status = 401
			x.send(t, t.Context(), store.ClassStatus, 401, "answered 401 Unauthorized; a fresh token did not help", 2*time.Second)
			x.counts(t, 2, 0, 2)
		}},
		{"a failure is kept from those who come after it for a second", func(t *testing.T) {
			x := newTimed(t, -1, time.Minute)
			const text = "no answer within 10s"
			x.send(t, t.Context(), store.ClassAuth, 0, text, 10*time.Second)
			time.Sleep(time.Second - 1)
			x.send(t, t.Context(), store.ClassAuth, 0, text, 0)
			time.Sleep(time.Nanosecond)
			x.send(t, t.Context(), store.ClassAuth, 0, text, 10*time.Second)
			x.counts(t, 2, 2, 0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) { synctest.Test(t, c.test) })
	}
}

// endless is a body that says nothing until its request ends.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) {
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}

func (endless) Close() error { return nil }
