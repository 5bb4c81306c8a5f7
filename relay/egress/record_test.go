package egress_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

func TestBodyIsKeptUpToItsBound(t *testing.T) {
	f := newFarEnd(t)
	answer := make(chan string, 1)
	f.serve(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, <-answer) })
	for _, c := range []struct {
		keep, size, want int
		truncated        bool
	}{
		{0, 0, 0, false},
		{0, egress.DefaultKeepResponse, egress.DefaultKeepResponse, false},
		{0, egress.DefaultKeepResponse + 1, egress.DefaultKeepResponse, true},
		{10, 9, 9, false},
		{10, 10, 10, false},
		{10, 11, 10, true},
		{egress.MaxKeepResponse, egress.MaxKeepResponse, egress.MaxKeepResponse, false},
		{egress.MaxKeepResponse, egress.MaxKeepResponse + 1, egress.MaxKeepResponse, true},
		{-1, 0, 0, false},
		{-1, 10, 0, true},
	} {
		t.Run(fmt.Sprintf("keep %d of %d", c.keep, c.size), func(t *testing.T) {
			answer <- strings.Repeat("b", c.size)
			a := f.sender(t, func(o *egress.Options) { o.KeepResponse = c.keep }).Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassOK, 200)
			if len(a.Body) != c.want || a.Truncated != c.truncated {
				t.Errorf("got %d bytes, truncated %v, want %d, %v", len(a.Body), a.Truncated, c.want, c.truncated)
			}
		})
	}
}

func TestSuccessIsWhatTheDestinationSays(t *testing.T) {
	f := newFarEnd(t)
	r := f.receive(t, false)
	only, err := egress.ParseSuccess([]string{"204", "409"})
	if err != nil {
		t.Fatal(err)
	}
	s := f.sender(t, func(o *egress.Options) { o.Success = only })
	for status, want := range map[int]store.Class{200: store.ClassStatus, 204: store.ClassOK, 409: store.ClassOK, 410: store.ClassStatus} {
		r.SetFault(receiver.Fault{Kind: receiver.Status, Status: status})
		check(t, s.Send(t.Context(), newDelivery(t)), want, status)
	}
}

// TestNoSecretIsRecorded sends to a receiver that repeats all it got, in body, header and address, and to one with
// each fault: no secret of the request may be in an attempt or in the log.
func TestNoSecretIsRecorded(t *testing.T) {
	const canary = "canary-0123456789"
	signer, err := sign.NewHMAC(sign.HMACOptions{Header: "X-Sig", Secret: canary + "-hmac"})
	if err != nil {
		t.Fatal(err)
	}
	logged, logs := observer.New(zap.DebugLevel)
	configure := func(auth egress.Auth) func(*egress.Options) {
		return func(o *egress.Options) {
			o.URL = parseURL(t, "https://"+farHost+"/hook?key="+canary+"-query%2F")
			o.Header = []egress.Header{{Name: "X-Token", Value: canary + "-header"}}
			o.Auth, o.Timeout, o.KeepResponse = auth, short, 3000
			o.Signers = append(o.Signers, signer)
			o.Body, o.ContentType, o.Secrets = "id={{ .ID }}&to="+canary+"-body", "text/plain", []string{canary + "-body"}
			o.Log = zap.New(logged)
		}
	}
	auths := map[string]egress.Auth{
		"basic":   {Basic: &egress.Basic{Username: "user", Password: canary + "-password"}},
		"bearer":  {Bearer: &egress.Bearer{Token: canary + "-token"}},
		"api key": {APIKey: &egress.APIKey{Header: "X-API-Key", Value: canary + "-key"}},
	}
	clean := func(t *testing.T, a store.Attempt) {
		t.Helper()
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		whole := string(text) + string(a.Body) + string(a.Request.Body)
		for _, secret := range []string{"canary", base64.StdEncoding.EncodeToString([]byte("user:" + canary + "-password"))} {
			if i := strings.Index(whole, secret); i >= 0 {
				t.Errorf("the attempt holds a secret: …%s…", whole[max(0, i-40):min(len(whole), i+60)])
			}
		}
	}
	for kind, auth := range auths {
		t.Run("echo with "+kind, func(t *testing.T) {
			f := newFarEnd(t)
			f.serve(t, false, func(w http.ResponseWriter, r *http.Request) {
				dump := fmt.Sprint(r.Header, r.URL, r.URL.Query())
				for name, values := range r.Header {
					w.Header()["X-Echo-"+name] = values
				}
				w.Header().Set("Location", r.URL.String())
				w.Header().Set("Set-Cookie", "session="+canary)
				w.WriteHeader(http.StatusFound)
				for pad := range 60 { // at some of these paddings the end of what is kept cuts a secret in two
					_, _ = fmt.Fprint(w, strings.Repeat(".", pad), dump)
				}
			})
			transport := f.transport(t, f.dialer())
			for keep := 200; keep < 260; keep++ {
				s := f.sender(t, func(o *egress.Options) {
					configure(auth)(o)
					o.Transport, o.Timeout, o.KeepResponse = transport, long, keep
				})
				a := s.Send(t.Context(), newDelivery(t))
				check(t, a, store.ClassStatus, 302)
				clean(t, a)
				if len(a.Body) != keep || a.Header.Get("X-Echo-X-Token") == "" {
					t.Fatalf("got %d bytes and header %v, want %d and the echo", len(a.Body), a.Header, keep)
				}
			}
		})
	}
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("faults, http1 %v", http1), func(t *testing.T) {
			f := newFarEnd(t)
			r := f.receive(t, http1)
			for kind := receiver.None; kind <= receiver.Slow; kind++ {
				r.SetFault(receiver.Fault{Kind: kind, Location: "https://" + farHost + "/?key=" + canary + "-query%2F", Delay: time.Minute})
				for _, auth := range auths {
					clean(t, f.sender(t, configure(auth)).Send(t.Context(), newDelivery(t)))
				}
			}
		})
	}
	t.Run("nothing listens", func(t *testing.T) {
		f := newFarEnd(t)
		clean(t, f.sender(t, configure(auths["bearer"])).Send(t.Context(), newDelivery(t)))
	})
	for _, entry := range logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "canary") {
			t.Errorf("the log holds a secret: %s", text)
		}
	}
}

// TestFurtherSecretsAreNotRecorded sends to a receiver that repeats a secret which stands in the URL, the body and what is
// expected, wherever it can.
func TestFurtherSecretsAreNotRecorded(t *testing.T) {
	const secret, inURL, inJSON = `canary/"0123`, "canary%2F%220123", `canary/\"0123`
	expectation, err := match.NewExpectation("$.a", []any{secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		class  store.Class
		mask   string // that is in the record
	}{
		{"in a body as it is", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<"+secret+">") }, store.ClassExpect, "<************>"},
		{"in a body as JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"a":"`+inJSON+`"}`) }, store.ClassOK, `{"a":"*************"}`},
		{"in a body with the URL", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) }, store.ClassExpect, "/hook/****************"},
		{"at the end of what is kept", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat(".", 94)+secret) }, store.ClassExpect, "..******"},
		{"in a header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Echo", secret); w.WriteHeader(500) }, store.ClassStatus, "X-Echo:[************]"},
		{"in the address of a redirect", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", r.URL.String())
			w.WriteHeader(302)
		}, store.ClassStatus, "Location:[/hook/****************]"},
		{"in the name of a header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Canary0123", "1"); w.WriteHeader(500) }, store.ClassStatus, "answered 500"},
		{"in what is not as expected", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"a":"b `+inJSON+`"}`) }, store.ClassExpect, `got "b *****`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFarEnd(t)
			f.serve(t, false, c.answer)
			a := f.sender(t, func(o *egress.Options) {
				o.URL = parseURL(t, "https://"+farHost+"/hook/"+inURL)
				o.Secrets, o.Expect, o.KeepResponse = []string{"", secret, inURL, "canary0123"}, []*match.Expectation{expectation}, 100
			}).Send(t.Context(), newDelivery(t))
			if a.Class != c.class {
				t.Errorf("got %v, %s, want %v", a.Class, a.Error, c.class)
			}
			if text := fmt.Sprintf("%s %v %s", a.Error, a.Header, a.Body); strings.Contains(strings.ToLower(text), "canary") || !strings.Contains(text, c.mask) {
				t.Errorf("got %s, want %s in it and no secret", text, c.mask)
			}
		})
	}
	t.Run("in a template that fails", func(t *testing.T) {
		f := newFarEnd(t)
		f.receive(t, false)
		a := f.sender(t, func(o *egress.Options) {
			o.Body, o.Secrets = `{{ json .Data.canary0123 }}`, []string{"canary0123"}
		}).Send(t.Context(), newDelivery(t))
		if check(t, a, store.ClassRender, 0); !strings.Contains(a.Error, ".Data.********** is missing") {
			t.Errorf("got %s, want it masked", a.Error)
		}
	})
}

// answering is a transport that answers at once, so that a benchmark sees what Send itself costs.
type answering struct{}

func (answering) RoundTrip(r *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: 200, Header: http.Header{"Date": {"x"}}, Body: io.NopCloser(strings.NewReader("ok")), Request: r}, err
}

func BenchmarkSend(b *testing.B) {
	f := newFarEnd(b)
	d := newDelivery(b)
	bench := func(s *egress.Sender) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if a := s.Send(b.Context(), d); a.Class != store.ClassOK {
						b.Fatal(a.Error)
					}
				}
			})
		}
	}
	b.Run("alone", bench(f.sender(b, func(o *egress.Options) { o.Transport = answering{} })))
	f.serve(b, false, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	b.Run("to HTTP2", bench(f.sender(b, nil)))
}
