package egress_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// opaque is a signer that cannot show what it signs.
type opaque struct{}

func (opaque) Headers() []sign.Header { return []sign.Header{{Name: "X-Opaque"}} }

func (opaque) Sign(sign.Input) ([]sign.Header, error) {
	return []sign.Header{{Name: "X-Opaque", Value: "o"}}, nil
}

func TestRenderIsWhatTestSends(t *testing.T) {
	f := newFarEnd(t)
	f.receives(t, false, "")
	number, err := match.ParsePath("$.number")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	for name, body := range map[string]string{"as posted": "", "by a template": `{"id":"{{ .ID }}","number":{{ .Body }},"at":"{{ now }}"}`} {
		t.Run(name, func(t *testing.T) {
			s := f.sender(t, func(o *egress.Options) {
				o.URL = parseURL(t, "https://"+farHost+"/hook?key=canary-query")
				o.Auth = egress.Auth{Bearer: &egress.Bearer{Token: "canary-token"}}
				o.Body, o.Redact, o.OmitBody, o.Now = body, []*match.Path{number}, true, func() time.Time { return at }
			})
			m := store.Message{ID: newDelivery(t).ID.Message(), ContentType: "application/json", AcceptedAt: at}
			rendered, err := s.Render(t.Context(), m, []byte("4111"))
			if err != nil {
				t.Fatal(err)
			}
			a := s.Test(t.Context(), m, []byte("4111"))
			check(t, a, store.ClassOK, 200)
			want := a.Request
			if body == "" {
				want.Body = []byte("4111")
			} else {
				if string(want.Body) == string(rendered.Request.Body) || !strings.Contains(string(rendered.Request.Body), `"number":4111`) {
					t.Errorf("got body %s, want it without redaction, unlike the record %s", rendered.Request.Body, want.Body)
				}
				want.Body = rendered.Request.Body
			}
			if !reflect.DeepEqual(rendered.Request, want) {
				t.Errorf("got\n%+v\nwant\n%+v", rendered.Request, want)
			}
		})
	}
}

func TestRenderSendsNothing(t *testing.T) {
	e, r, s := oauthPair(t, nil, nil)
	rendered, err := s.Render(t.Context(), store.Message{ID: newDelivery(t).ID.Message()}, []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	if got := field(t, rendered.Request, "Authorization"); got != "Bearer ***" || !strings.Contains(rendered.Curl, `Bearer '"${SECRET_AUTHORIZATION:?}"`) {
		t.Errorf("got %q and\n%s\nwant Bearer *** and a parameter", got, rendered.Curl)
	}
	wantFetches(t, e, 0)
	if got := r.Stats().Requests; got != 0 {
		t.Errorf("%d requests were sent", got)
	}
}

func TestRenderShowsWhatIsSigned(t *testing.T) {
	const canary = "canary-0123456789"
	standard, err1 := sign.NewStandard([]string{sign.NewSecret()})
	hmac, err2 := sign.NewHMAC(sign.HMACOptions{Header: "X-Hmac", Secret: canary + "-hmac"})
	stamped, err3 := sign.NewTimestamped(sign.TimestampedOptions{Header: "X-T", Secrets: []string{canary + "-t"}})
	slack, err4 := sign.NewProfile(sign.ProfileOptions{Name: "slack", Secrets: []string{canary + "-slack"}})
	message, err5 := sign.NewRFC9421(sign.RFC9421Options{Secret: canary + "-message", Algorithm: "hmac-sha256", Components: []string{
		"@path", "@query", "@target-uri", "authorization", "x-plain", "x-made", "x-key", `x-key;bs`, "content-digest",
	}})
	keyed, err6 := sign.NewRFC9421(sign.RFC9421Options{
		Label: "sig2", Secret: canary + "-keyed", Algorithm: "hmac-sha256", Components: []string{`x-key;key="a"`},
	})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	f := newFarEnd(t)
	got := f.receives(t, false, "")
	s := f.sender(t, func(o *egress.Options) {
		o.URL = parseURL(t, "https://"+farHost+"/"+canary+"-path/x?key="+canary+"-query&v=1")
		o.Secrets = []string{canary + "-path"}
		o.Auth = egress.Auth{Bearer: &egress.Bearer{Token: canary + "-token"}}
		o.Header = []egress.Header{{Name: "X-Plain", Value: "p"}, {Name: "X-Made", Value: canary + "-made {{ .Event }}"}, {Name: "X-Key", Value: `a=1`}}
		o.Signers = []sign.Signer{standard, hmac, opaque{}, stamped, slack, message, keyed}
		o.Now = func() time.Time { return time.Unix(1_700_000_000, 0) }
	})
	m := store.Message{ID: newDelivery(t).ID.Message(), Event: "e"}
	r, err := s.Render(t.Context(), m, []byte("the body"))
	if err != nil {
		t.Fatal(err)
	}
	want := []egress.Base{
		{Signer: "sign[0].standard", Base: []byte(m.ID.String() + ".1700000000.the body")},
		{Signer: "sign[1].hmac", Base: []byte("the body")},
		{Signer: "sign[3].timestamped", Base: []byte("1700000000.the body")},
		{Signer: "sign[4].profile", Base: []byte("v0:1700000000:the body")},
		{Signer: "sign[5].rfc9421", Base: []byte(`"@path": /***/x
"@query": ?key=***&v=1
"@target-uri": https://` + farHost + `/***/x?key=***&v=1
"authorization": Bearer ***
"x-plain": p
"x-made": ***e
"x-key": ***
"x-key";bs: :Kioq:
"content-digest": sha-256=:+oJC6Z9IlmylFAkrQjO0RoUfQrV61QMb8TPh3XZ4fz4=:
"@signature-params": ("@path" "@query" "@target-uri" "authorization" "x-plain" "x-made" "x-key" "x-key";bs "content-digest");created=1700000000;alg="hmac-sha256"`)},
		{Signer: "sign[6].rfc9421"}, // a member of a dictionary that is masked
	}
	if len(r.Bases) != len(want) {
		t.Fatalf("got %d bases, want %d", len(r.Bases), len(want))
	}
	for i, b := range r.Bases {
		if b.Signer != want[i].Signer || !bytes.Equal(b.Base, want[i].Base) {
			t.Errorf("got %s\n%s\nwant %s\n%s", b.Signer, b.Base, want[i].Signer, want[i].Base)
		}
	}
	if text := r.Curl + r.Request.URL; strings.Contains(text, "canary") {
		t.Errorf("a secret is in\n%s", text)
	}
	// The signatures are those that would be sent.
	a := s.Test(t.Context(), m, []byte("the body"))
	check(t, a, store.ClassOK, 200)
	sent := <-got
	for _, name := range []string{"Webhook-Signature", "X-Hmac", "X-T", "X-Slack-Signature", "Signature", "Signature-Input", "Content-Digest"} {
		value := field(t, r.Request, name)
		if value != sent.header[name][0] || !strings.Contains(r.Curl, value) {
			t.Errorf("%s: got %q, and %q was sent; want the same, and in\n%s", name, value, sent.header[name], r.Curl)
		}
	}
}

// TestRenderShowsNoSecretOfTheBody renders a template into which the config has put what a reference stands for.
func TestRenderShowsNoSecretOfTheBody(t *testing.T) {
	const secret = "canary+'0123/456"
	f := newFarEnd(t)
	hmac, err := sign.NewHMAC(sign.HMACOptions{Header: "X-Hmac", Secret: "of-the-signature"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, before, after, curl, file string }{
		{"in the command", `{"key":"`, `","n":1}`, `{"key":"'"${SECRET_BODY:?}"'","n":1}`, ""},
		{"like a file's name", "@", "", `--data-raw '@'"${SECRET_BODY:?}"`, ""},
		{"in a file", "", strings.Repeat("x", 5000), "@msg_", ".body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := f.sender(t, func(o *egress.Options) {
				o.Body, o.Secrets, o.Signers = c.before+secret+c.after, []string{secret}, append(o.Signers, hmac)
				o.ContentType = "text/plain"
			}).Render(t.Context(), store.Message{ID: newDelivery(t).ID.Message()}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(r.Request.Body), c.before+"***"+c.after; got != want {
				t.Errorf("got body %.100s, want %.100s", got, want)
			}
			if !strings.Contains(r.Curl, c.curl) || !strings.HasSuffix(r.BodyFile, c.file) || (r.BodyFile == "") != (c.file == "") {
				t.Errorf("got file %q and\n%s\nwant %s in it", r.BodyFile, r.Curl, c.curl)
			}
			if len(r.Bases) != 2 {
				t.Fatalf("got %d bases, want 2", len(r.Bases))
			}
			for _, b := range r.Bases {
				if !bytes.HasSuffix(b.Base, []byte(c.before+"***"+c.after)) {
					t.Errorf("%s: got %.100s, want the masked body", b.Signer, b.Base)
				}
			}
			if strings.Contains(r.Curl, "canary") {
				t.Errorf("a secret is in\n%s", r.Curl)
			}
		})
	}
	t.Run("what the app has posted is shown as it is", func(t *testing.T) {
		r, err := f.sender(t, func(o *egress.Options) { o.Secrets = []string{secret} }).Render(t.Context(), store.Message{}, []byte(secret))
		if err != nil || string(r.Request.Body) != secret {
			t.Errorf("got %s, %v, want %s", r.Request.Body, err, secret)
		}
	})
}

func TestRenderDelivery(t *testing.T) {
	f := newFarEnd(t)
	d := newDelivery(t)
	d.ID = d.ID.Message().Delivery(2)
	t.Run("a message of the store", func(t *testing.T) {
		r, err := f.sender(t, func(o *egress.Options) {
			o.Header = []egress.Header{{Name: "X-Delivery", Value: "{{ .DeliveryID }} {{ .Destination }}"}}
		}).RenderDelivery(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := field(t, r.Request, "X-Delivery"), d.ID.String()+" far"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := string(r.Request.Body), `{"id":"`+d.ID.Message().String()+`"}`; got != want || r.Request.Rendered {
			t.Errorf("got %q, rendered %v, want %q, false", got, r.Request.Rendered, want)
		}
	})
	t.Run("a message that is gone", func(t *testing.T) {
		_, err := f.sender(t, func(o *egress.Options) { o.Messages = messages{err: store.ErrNotFound} }).RenderDelivery(t.Context(), d)
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
}

func TestRenderFails(t *testing.T) {
	f := newFarEnd(t)
	t.Run("an error names the option and holds no secret", func(t *testing.T) {
		s := f.sender(t, func(o *egress.Options) {
			o.Header = []egress.Header{{Name: "X-A", Value: `canary-secret {{ .Data.none }}`}}
		})
		_, err := s.Render(t.Context(), store.Message{}, []byte(`{}`))
		option, ok := errors.AsType[*egress.OptionError](err)
		if !ok || option.Option != "headers.X-A" || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v, want an OptionError of headers.X-A", err)
		}
	})
	t.Run("after the end of ctx", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.sender(t, nil).Render(ctx, store.Message{}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that of ctx", err)
		}
	})
}

func TestRenderWithoutABody(t *testing.T) {
	s := newFarEnd(t).sender(t, func(o *egress.Options) { o.Method = http.MethodGet })
	r, err := s.Render(t.Context(), store.Message{}, []byte("not sent"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Request.Body != nil || r.BodyFile != "" || strings.Contains(r.Curl, "data") || !strings.HasPrefix(r.Curl, "curl --request GET 'https://") {
		t.Errorf("got body %q, file %q and\n%s\nwant none of a GET", r.Request.Body, r.BodyFile, r.Curl)
	}
}
