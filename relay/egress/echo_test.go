package egress_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/store"
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
		{"in the URL of another language, with a plus for each space", func(o *egress.Options) {
			o.Auth.Basic = &egress.Basic{Username: "u", Password: "canary ry/S3cret x"}
		}, "/login?from=canary+ry%2fS3cret+x"},
		{"in hexadecimal", bearer, "63616e6172792b72792f5333637265743d78"},
		{"a header of the app's", func(o *egress.Options) {
			o.ForwardHeader, o.Messages = []string{"X-App-Token"}, appMessage{header: secret}
		}, `{"error":"no such token: ` + secret + `"}`},
		{"a parameter of the app's", func(o *egress.Options) {
			o.ForwardPath, o.Messages = true, appMessage{path: "/a?api_key=canary%2Bry%2FS3cret&v=1"}
		}, "no such key: canary+ry/S3cret"},
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
			for _, part := range []string{"canary", "S3cret", "FuYXJ5", "NhbmFy", "jYW5hcn", "63616e"} { // the last ones in base64 and hexadecimal
				if strings.Contains(whole, part) {
					t.Errorf("%s is in %s and in %s", part, a.Body, whole)
				}
			}
		})
	}
}

// appMessage is a store whose messages came with a credential of the app's own.
type appMessage struct{ header, path string }

func (m appMessage) Load(ctx context.Context, id store.MessageID) (store.Message, []byte, error) {
	found, body, err := messages{}.Load(ctx, id)
	found.Path, found.Header = m.path, []store.Field{{Name: "X-App-Token", Value: m.header}}
	return found, body, err
}
