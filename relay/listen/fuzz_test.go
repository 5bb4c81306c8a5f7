package listen

import (
	"net/http"
	"testing"

	"golang.org/x/net/http/httpguts"
)

// FuzzParseToken holds each token that the config may have to: a client can send it, the listener reads it back as it was
// sent, and no other text has its digest.
func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"abc", "A-Z._~+/=", "a b", "", "é", "a\x00", "=", "Bearer x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		digest, err := ParseToken(text)
		if err != nil {
			return
		}
		value := "Bearer " + text
		if !httpguts.ValidHeaderFieldValue(value) {
			t.Fatalf("%q is taken, and cannot be sent", text)
		}
		r := &http.Request{Header: http.Header{"Authorization": {value}}}
		list := newTokens([]Token{{Name: "app", Digest: digest}}, nil, nil)
		if found, why := list.authenticate(r); found == nil || found.Name != "app" {
			t.Errorf("%q is refused where it is the only token: %s", text, why)
		}
		r.Header.Set("Authorization", value+"x")
		if found, _ := list.authenticate(r); found != nil {
			t.Errorf("%q with a letter more is let in", text)
		}
	})
}
