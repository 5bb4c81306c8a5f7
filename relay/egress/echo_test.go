package egress_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/egress"
)

// TestSecretsComeBackInNoOtherForm sends to receivers that repeat a part of a credential, or write it in their own way.
func TestSecretsComeBackInNoOtherForm(t *testing.T) {
	const secret = "canary+ry/S3cret=x"
	bearer := func(o *egress.Options) { o.Auth.Bearer = &egress.Bearer{Token: secret} }
	header := func(value string) func(*egress.Options) {
		return func(o *egress.Options) { o.Header = []egress.Header{{Name: "Authorization", Value: value}} }
	}
	f := newFarEnd(t)
	var answer string
	f.serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		said := answer
		if said == "" {
			said = string(body)
		}
		w.Header().Set("Location", "/?"+said)
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, said)
	})
	transport := f.transport(t, f.dialer())
	for _, c := range []struct {
		name   string
		change func(*egress.Options)
		answer string // empty for the body of the request
	}{
		{"in the JSON of another language", bearer, `{"token":"canary\u002Bry/S3cret=x"}`},
		{"in the URL of another language", bearer, "/login?from=canary%2bry%2fS3cret%3dx"},
		{"in a page", bearer, "<p>canary&#43;ry&#x2F;S3cret=x</p>"},
		{"a token without its scheme", header("Bearer " + secret), `{"error":"no such token: ` + secret + `"}`},
		{"a token of a scheme of its own", header("Mine key=" + secret), `{"error":"no such token: canary+ry/S3cret"}`},
		{"the password of what is encoded", header("Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+secret))), "wrong password: " + secret},
		{"a key with a scheme", func(o *egress.Options) {
			o.Auth.APIKey = &egress.APIKey{Header: "Authorization", Value: "ApiKey " + secret}
		}, "wrong key: " + secret},
		{"encoded by a template", func(o *egress.Options) {
			o.Secrets, o.Body, o.ContentType = []string{secret}, `{"a":"{{ base64 "u:`+secret+`" }}"}`, "application/json"
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer = c.answer
			a := f.sender(t, func(o *egress.Options) { o.Transport = transport; c.change(o) }).Send(t.Context(), newDelivery(t))
			if a.Status != http.StatusFound || len(a.Body) == 0 || a.Header.Get("Location") == "" {
				t.Fatalf("got %d %q %v, want the answer", a.Status, a.Body, a.Header)
			}
			text, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			whole := string(text) + string(a.Body) + string(a.Request.Body)
			for _, part := range []string{"canary", "S3cret", "FuYXJ5", "NhbmFy", "jYW5hcn"} { // the last three in base64
				if strings.Contains(whole, part) {
					t.Errorf("%s is in %s and in %s", part, a.Body, whole)
				}
			}
		})
	}
}
