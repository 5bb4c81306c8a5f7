package receiver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
)

const host = "receiver.example.test"

// pair is a receiver in memory and a client for it.
type pair struct {
	*receiver.Receiver
	client *http.Client
	secret string
}

func newPair(t *testing.T, change func(*receiver.Receiver)) *pair {
	t.Helper()
	ca, err := receiver.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(host)
	if err != nil {
		t.Fatal(err)
	}
	pipe, secret := receiver.NewPipe(), sign.NewSecret()
	r := &receiver.Receiver{Listener: pipe, Certificate: cert, Secret: secret}
	if change != nil {
		change(r)
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: ca.Pool()},
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return pipe.Dial(ctx) },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		transport.CloseIdleConnections()
	})
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &pair{Receiver: r, client: client, secret: secret}
}

// post sends a message signed with secret and returns the status, or 0 without an answer.
func (p *pair) post(t *testing.T, id, body, secret string) int {
	t.Helper()
	answer, err := p.do(t, id, body, secret)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1000))
	return answer.StatusCode
}

func (p *pair) do(t *testing.T, id, body, secret string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+"/in?q=1", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.GetBody = nil
	standard, err := sign.NewStandard([]string{secret})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := standard.Sign(sign.Input{ID: id, Time: now, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(sign.HeaderID, id)
	req.Header.Set(sign.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	for _, h := range signature {
		req.Header.Set(h.Name, h.Value)
	}
	return p.client.Do(req)
}

func TestReceiverCounts(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1 %v", http1), func(t *testing.T) {
			p := newPair(t, func(r *receiver.Receiver) { r.HTTP1 = http1 })
			for _, c := range []struct {
				name, id, body, secret string
				want                   int
			}{
				{"a message", "msg_1", "one", p.secret, 200},
				{"another", "msg_2", "two", p.secret, 200},
				{"a duplicate", "msg_1", "one", p.secret, 200},
				{"an altered one", "msg_1", "other", p.secret, 200},
				{"a forged one", "msg_3", "three", sign.NewSecret(), 401},
			} {
				if got := p.post(t, c.id, c.body, c.secret); got != c.want {
					t.Errorf("%s: got %d, want %d", c.name, got, c.want)
				}
			}
			p.Outage(true)
			if got := p.post(t, "msg_4", "four", p.secret); got != 503 {
				t.Errorf("in an outage: got %d, want 503", got)
			}
			p.Outage(false)
			if got := p.post(t, "msg_4", "four", p.secret); got != 200 {
				t.Errorf("after it: got %d, want 200", got)
			}
			want := receiver.Stats{Requests: 7, Distinct: 3, Duplicates: 1, Altered: 1, Unverified: 1, Faulted: 1}
			if got := p.Stats(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			m, ok := p.Message("msg_1")
			proto := map[bool]string{false: "HTTP/2.0", true: "HTTP/1.1"}[http1]
			if !ok || m.Count != 3 || string(m.Body) != "one" || m.Target != "/in?q=1" || m.Proto != proto || m.Header.Get("Host") != host {
				t.Errorf("got %+v, want what came first", m)
			}
			if _, ok := p.Message("msg_3"); ok {
				t.Error("the forged message is remembered")
			}
			if got, want := fmt.Sprint(p.IDs()), "[msg_1 msg_2 msg_4]"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestReceiverForgets(t *testing.T) {
	p := newPair(t, func(r *receiver.Receiver) { r.MaxMessages, r.MaxBytes = 2, 5 })
	for _, id := range []string{"msg_1", "msg_2", "msg_3"} {
		p.post(t, id, "four", p.secret)
	}
	if got := p.Stats(); got.Distinct != 2 || got.Forgotten != 1 {
		t.Errorf("got %+v, want two distinct and one forgotten", got)
	}
	if m, _ := p.Message("msg_2"); m.Body != nil {
		t.Errorf("got body %q beyond MaxBytes, want none", m.Body)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		fault  receiver.Fault
		status int // 0 is no answer
		taken  bool
	}{
		{receiver.Fault{}, 200, true},
		{receiver.Fault{Kind: receiver.Status}, 503, false},
		{receiver.Fault{Kind: receiver.Status, Status: 429, RetryAfter: "7"}, 429, false},
		{receiver.Fault{Kind: receiver.ResetBefore}, 0, false},
		{receiver.Fault{Kind: receiver.ResetAfter}, 0, true},
		{receiver.Fault{Kind: receiver.CutBody}, 200, true},
		{receiver.Fault{Kind: receiver.HugeBody}, 200, true},
		{receiver.Fault{Kind: receiver.Drip, Delay: time.Microsecond}, 200, true},
		{receiver.Fault{Kind: receiver.Redirect, Location: "/x"}, 307, false},
		{receiver.Fault{Kind: receiver.Flood}, 0, false},
		{receiver.Fault{Kind: receiver.Slow, Delay: time.Millisecond}, 200, true},
		{receiver.Fault{Kind: receiver.Status, Fraction: 1e-300}, 200, true},
	} {
		t.Run(fmt.Sprintf("%v %d", c.fault.Kind, c.status), func(t *testing.T) {
			p := newPair(t, nil)
			p.SetFault(c.fault)
			answer, err := p.do(t, "msg_1", "one", p.secret)
			status := 0
			if err == nil {
				status = answer.StatusCode
				if got := answer.Header.Get("Retry-After"); got != c.fault.RetryAfter {
					t.Errorf("got Retry-After %q, want %q", got, c.fault.RetryAfter)
				}
				if got := answer.Header.Get("Location"); got != c.fault.Location {
					t.Errorf("got Location %q, want %q", got, c.fault.Location)
				}
				n, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1000))
				if c.fault.Kind == receiver.CutBody && err == nil || c.fault.Kind == receiver.HugeBody && n < 1000 {
					t.Errorf("the body has %d bytes and error %v", n, err)
				}
				answer.Body.Close()
			}
			if status != c.status {
				t.Errorf("got status %d (%v), want %d", status, err, c.status)
			}
			if _, taken := p.Message("msg_1"); taken != c.taken {
				t.Errorf("taken: got %v, want %v", taken, c.taken)
			}
		})
	}
	t.Run("a stop ends what hangs", func(t *testing.T) {
		p := newPair(t, func(r *receiver.Receiver) { r.Secret = "" }) // whose cleanup waits for Run
		p.SetFault(receiver.Fault{Kind: receiver.Hang})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want no answer until the client left", err)
		}
		if got := p.Stats(); got.Faulted != 1 || got.Distinct != 0 {
			t.Errorf("got %+v, want one request that was not taken", got)
		}
	})
}

func TestRunNeedsItsFields(t *testing.T) {
	if err := (&receiver.Receiver{}).Run(t.Context()); err == nil {
		t.Error("got no error without listener and certificate")
	}
	ca, err := receiver.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(host)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver.Receiver{Listener: receiver.NewPipe(), Certificate: cert, Secret: "whsec_canary"}
	if err := r.Run(t.Context()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v, want an error that does not show the secret", err)
	}
	if _, err := ca.Issue(); err == nil {
		t.Error("got no error for a certificate without a host")
	}
}

func TestPipe(t *testing.T) {
	connect := func(t *testing.T) (near, far net.Conn) {
		t.Helper()
		p := receiver.NewPipe()
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := p.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		near, err := p.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return near, <-accepted
	}
	t.Run("carries bytes in order both ways at once", func(t *testing.T) {
		near, far := connect(t)
		sent := bytes.Repeat([]byte("0123456789"), 50_000) // more than the buffer
		var all sync.WaitGroup
		for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
			all.Go(func() {
				if n, err := ends[0].Write(sent); n != len(sent) || err != nil {
					t.Errorf("write: got %d, %v", n, err)
				}
			})
			all.Go(func() {
				got := make([]byte, len(sent))
				if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("read: %v, equal %v", err, bytes.Equal(got, sent))
				}
			})
		}
		all.Wait()
	})
	t.Run("what was written before Close can be read after it", func(t *testing.T) {
		near, far := connect(t)
		if _, err := near.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		near.Close()
		if got, err := io.ReadAll(far); string(got) != "last" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("write to a closed end: got %v", err)
		}
	})
	t.Run("deadlines end reads and writes, and can be set anew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			near, far := connect(t)
			start := time.Now()
			if err := near.SetDeadline(start.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
				t.Errorf("read: got %v after %v, want the deadline after a minute", err, time.Since(start))
			}
			if n, err := near.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n != 0 {
				t.Errorf("write after the deadline: got %d, %v", n, err)
			}
			if err := near.SetDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if n, err := near.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || time.Since(start) != 61*time.Minute {
				t.Errorf("write into a full buffer: got %d, %v after %v", n, err, time.Since(start))
			}
			if err := near.SetDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = far.Write([]byte("x")) }()
			if n, err := near.Read(make([]byte, 5)); n != 1 || err != nil {
				t.Errorf("read without deadline: got %d, %v", n, err)
			}
		})
	})
	t.Run("Close ends Accept and Dial", func(t *testing.T) {
		p := receiver.NewPipe()
		p.Close()
		p.Close()
		if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: got %v", err)
		}
		if _, err := p.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: got %v", err)
		}
	})
	t.Run("Dial ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := receiver.NewPipe().Dial(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
