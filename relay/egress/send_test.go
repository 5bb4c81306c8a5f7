package egress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

func TestSend(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		proto := map[bool]string{false: "HTTP/2.0", true: "HTTP/1.1"}[http1]
		t.Run(proto, func(t *testing.T) {
			f := newFarEnd(t)
			r := f.receive(t, http1)
			body := make([]byte, 70_000) // more than one HTTP/2 frame and window
			for i := range body {
				body[i] = byte(i * 7)
			}
			at := time.Now()
			s := f.sender(t, func(o *egress.Options) {
				o.Messages = messages{body: body, contentType: "application/x-odd"}
				o.Header = []egress.Header{{Name: "X-Team", Value: "data"}, {Name: "User-Agent", Value: "Acme/1.0"}}
				o.Auth = egress.Auth{Bearer: &egress.Bearer{Token: "token-of-the-test"}}
				o.Now = func() time.Time { return at }
			})
			d := newDelivery(t)
			d.Made, d.Round = 2, 3
			a := s.Send(t.Context(), d)
			check(t, a, store.ClassOK, http.StatusOK)
			if a.Delivery != d.ID || a.Round != 3 || a.Number != 3 || !a.StartedAt.Equal(at) {
				t.Errorf("got %v, round %d, number %d at %v, want %v, 3, 3 at %v", a.Delivery, a.Round, a.Number, a.StartedAt, d.ID, at)
			}
			m, ok := r.Message(d.ID.Message().String())
			if !ok {
				t.Fatal("nothing arrived under the message's id")
			}
			if m.Proto != proto || m.Method != http.MethodPost || m.Target != "/hook" {
				t.Errorf("got %s %s %s, want POST /hook %s", m.Method, m.Target, m.Proto, proto)
			}
			if !bytes.Equal(m.Body, body) {
				t.Error("the body that arrived is not the one posted")
			}
			official, err := standardwebhooks.NewWebhook(f.secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := official.Verify(m.Body, m.Header); err != nil {
				t.Errorf("the official library: %v", err)
			}
			for name, want := range map[string]string{
				"Host": farHost, "User-Agent": "Acme/1.0", "X-Team": "data", "Authorization": "Bearer token-of-the-test",
				"Content-Type": "application/x-odd", "Content-Length": "70000", "Accept-Encoding": "", "Idempotency-Key": "",
				"Webhook-Timestamp": strconv.FormatInt(at.Unix(), 10),
			} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}

			t.Run("the next attempt takes the same connection", func(t *testing.T) {
				if a.Reused || a.Timing.TLS <= 0 || a.Timing.Connect <= 0 || a.Timing.FirstByte <= 0 {
					t.Errorf("first: got reused %v, timing %+v, want a new connection and its phases", a.Reused, a.Timing)
				}
				again := s.Send(t.Context(), newDelivery(t))
				check(t, again, store.ClassOK, http.StatusOK)
				if !again.Reused || again.Timing.TLS != 0 || again.Timing.Connect != 0 || again.Timing.FirstByte <= 0 {
					t.Errorf("got reused %v, timing %+v, want a reused connection without TLS", again.Reused, again.Timing)
				}
				for _, a := range []store.Attempt{a, again} {
					if want := f.addr.String() + ":443"; a.Peer != want {
						t.Errorf("got peer %q, want %q", a.Peer, want)
					}
					if left := time.Until(a.CertExpires); left < 6*24*time.Hour || left > 8*24*time.Hour {
						t.Errorf("the certificate expires in %v, want about a week", left)
					}
				}
			})
			t.Run("the same delivery has the same id and a new time", func(t *testing.T) {
				at = at.Add(2 * time.Second)
				check(t, s.Send(t.Context(), d), store.ClassOK, http.StatusOK)
				if got := r.Stats(); got.Duplicates != 1 || got.Altered != 0 || got.Unverified != 0 {
					t.Errorf("got %+v, want one duplicate, verified", got)
				}
			})
		})
	}
}

func TestSendMethods(t *testing.T) {
	type arrived struct {
		method, body, length, contentType string
		signed                            error
	}
	f := newFarEnd(t)
	official, err := standardwebhooks.NewWebhook(f.secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1 %v", http1), func(t *testing.T) {
			last := make(chan arrived, 1)
			f.serve(t, http1, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				last <- arrived{r.Method, string(body), r.Header.Get("Content-Length") + strings.Join(r.TransferEncoding, ""),
					r.Header.Get("Content-Type"), official.Verify(body, r.Header)}
			})
			for _, c := range []struct {
				method, body, contentType string
				want                      arrived
			}{
				{"", "x", "", arrived{"POST", "x", "1", "application/octet-stream", nil}},
				{"PUT", "x", "application/json", arrived{"PUT", "x", "1", "application/json", nil}},
				{"PATCH", "x", "", arrived{"PATCH", "x", "1", "application/octet-stream", nil}},
				{"DELETE", "x", "", arrived{"DELETE", "x", "1", "application/octet-stream", nil}},
				{"POST", "", "", arrived{"POST", "", "0", "application/octet-stream", nil}},
				{"PUT", "", "", arrived{"PUT", "", "0", "application/octet-stream", nil}},
				{"PATCH", "", "text/plain", arrived{"PATCH", "", "0", "text/plain", nil}},
				{"DELETE", "", "", arrived{"DELETE", "", "", "application/octet-stream", nil}},
				{"GET", "not sent", "application/json", arrived{"GET", "", "", "", nil}},
			} {
				s := f.sender(t, func(o *egress.Options) {
					o.Method = c.method
					o.Messages = messages{body: []byte(c.body), contentType: c.contentType}
				})
				check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, http.StatusOK)
				if got := <-last; got != c.want {
					t.Errorf("%s %q: got %+v, want %+v", c.method, c.body, got, c.want)
				}
			}
		})
	}
}

func TestSendSeveralSignatures(t *testing.T) {
	f := newFarEnd(t)
	older := sign.NewSecret()
	rotation, err := sign.NewStandard([]string{f.secret, older})
	if err != nil {
		t.Fatal(err)
	}
	other, err := sign.NewHMAC(sign.HMACOptions{Header: "x-acme-signature", Secret: "secret of the test", Prefix: "sha256="})
	if err != nil {
		t.Fatal(err)
	}
	r := f.receive(t, false)
	s := f.sender(t, func(o *egress.Options) { o.Signers = []sign.Signer{rotation, other} })
	d := newDelivery(t)
	check(t, s.Send(t.Context(), d), store.ClassOK, http.StatusOK)
	m, _ := r.Message(d.ID.Message().String())
	for _, secret := range []string{f.secret, older} {
		official, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := official.Verify(m.Body, m.Header); err != nil {
			t.Errorf("the official library: %v", err)
		}
	}
	want, err := other.Sign(sign.Input{Body: m.Body})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Header.Get("X-Acme-Signature"); got != want[0].Value {
		t.Errorf("got %q, want %q", got, want[0].Value)
	}
}

func TestSendInMemory(t *testing.T) {
	f := newFarEnd(t)
	pipe := receiver.NewPipe()
	r := &receiver.Receiver{Listener: pipe, Certificate: f.issue(t, farHost), Secret: f.secret}
	run(t, r.Run)
	s := f.sender(t, func(o *egress.Options) {
		o.Transport = f.transport(t, &guard.Dialer{Inject: map[string]func(context.Context) (net.Conn, error){farHost: pipe.Dial}})
	})
	var senders sync.WaitGroup
	for range 20 {
		senders.Go(func() { check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, http.StatusOK) })
	}
	senders.Wait()
	if got := r.Stats(); got.Distinct != 20 || got.Unverified != 0 {
		t.Errorf("got %+v, want 20 distinct, all verified", got)
	}
}

func TestSendWithoutMessage(t *testing.T) {
	f := newFarEnd(t)
	r := f.receive(t, false)
	for _, c := range []struct {
		name  string
		store messages
		class store.Class
	}{
		{"an unknown message", messages{err: fmt.Errorf("load: %w", store.ErrNotFound)}, store.ClassRender},
		{"a damaged record", messages{err: errors.New("bad checksum of canary")}, store.ClassRender},
		{"a closed store is our own stop", messages{err: store.ErrClosed}, store.ClassInterrupted},
		{"a broken store is our own stop", messages{err: store.ErrBroken}, store.ClassInterrupted},
		{"a content type that is none", messages{contentType: "a\r\nb"}, store.ClassRender},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := f.sender(t, func(o *egress.Options) { o.Messages = c.store }).Send(t.Context(), newDelivery(t))
			check(t, a, c.class, 0)
			if strings.Contains(a.Error, "canary") {
				t.Errorf("the inside of the store shows: %q", a.Error)
			}
		})
	}
	if got := r.Stats().Requests; got != 0 {
		t.Errorf("%d requests were sent, want none", got)
	}
}

func TestSendInterrupted(t *testing.T) {
	f := newFarEnd(t)
	t.Run("a stop before the start sends nothing", func(t *testing.T) {
		r := f.receive(t, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		check(t, f.sender(t, nil).Send(ctx, newDelivery(t)), store.ClassInterrupted, 0)
		if got := r.Stats().Requests; got != 0 {
			t.Errorf("%d requests were sent, want none", got)
		}
	})
	t.Run("a stop while waiting cuts off", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f.serve(t, false, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		check(t, f.sender(t, nil).Send(ctx, newDelivery(t)), store.ClassInterrupted, 0)
	})
	t.Run("the deadline of the caller is our own stop", func(t *testing.T) {
		f.receive(t, false).SetFault(receiver.Fault{Kind: receiver.Hang})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		check(t, f.sender(t, nil).Send(ctx, newDelivery(t)), store.ClassInterrupted, 0)
	})
}

// TestProxyVariablesAreIgnored holds T7. Nothing else in this package may look at them first, since net/http reads
// them only once.
func TestProxyVariablesAreIgnored(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	f := newFarEnd(t)
	r := f.receive(t, false)
	check(t, f.sender(t, nil).Send(t.Context(), newDelivery(t)), store.ClassOK, http.StatusOK)
	if got := r.Stats().Distinct; got != 1 {
		t.Errorf("%d messages arrived, want 1", got)
	}
}
