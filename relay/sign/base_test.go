package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestBase holds that Base is what Sign signs: the HMAC of it, made here without this package, stands in the headers.
func TestBase(t *testing.T) {
	const text = "a-secret-of-the-test"
	raw := []byte("0123456789abcdefghijklmnopqrstuv")
	standard := "whsec_" + base64.StdEncoding.EncodeToString(raw)
	in := Input{
		ID: "msg_1", Time: time.Unix(1_700_000_000, 0), Body: []byte(`{"a":"b"}`), Method: "POST",
		URL:    &url.URL{Scheme: "https", Host: "h.example", Path: "/p", RawQuery: "q=1"},
		Header: http.Header{"Content-Type": {"application/json"}},
	}
	must := func(s Explainer, err error) Explainer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	type signed struct {
		name   string
		signer Explainer
		key    []byte
		want   string // empty: whatever is signed
	}
	v1 := must(NewStandard([]string{standard}))
	bare := must(NewHMAC(HMACOptions{Header: "X-S", Secret: text}))
	stamped := must(NewTimestamped(TimestampedOptions{Header: "X-S", Secrets: []string{text}}))
	message := must(NewRFC9421(RFC9421Options{KeyID: "k", Algorithm: HMACSHA256, Secret: text}))
	all := []signed{
		{"standard", v1, raw, `msg_1.1700000000.{"a":"b"}`},
		{"hmac", bare, []byte(text), `{"a":"b"}`},
		{"timestamped", stamped, []byte(text), `1700000000.{"a":"b"}`},
		{"rfc9421", message, []byte(text), `"@method": POST
"@authority": h.example
"@path": /p
"@query": ?q=1
"content-digest": sha-256=:20p+yxFLxmxiOgbE/2/o2qL0nMJw6796H4HiKrBhyDc=:
"content-type": application/json
"webhook-id": msg_1
"webhook-timestamp": 1700000000
"@signature-params": ("@method" "@authority" "@path" "@query" "content-digest" "content-type" "webhook-id" "webhook-timestamp")` +
			`;created=1700000000;keyid="k";alg="hmac-sha256"`},
	}
	for _, name := range Profiles() {
		s, key := text, []byte(text)
		if name == profileSvix {
			s, key = standard, raw
		}
		all = append(all, signed{"profile " + name, must(NewProfile(ProfileOptions{Name: name, Secrets: []string{s}})), key, ""})
	}
	slack := must(NewProfile(ProfileOptions{Name: "slack", Secrets: []string{text}}))
	all = append(all, signed{"slack's version and colons", slack, []byte(text), `v0:1700000000:{"a":"b"}`})
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			base, err := c.signer.Base(in)
			if err != nil {
				t.Fatal(err)
			}
			if c.want != "" && string(base) != c.want {
				t.Errorf("got\n%s\nwant\n%s", base, c.want)
			}
			headers, err := c.signer.Sign(in)
			if err != nil {
				t.Fatal(err)
			}
			mac := hmac.New(sha256.New, c.key)
			mac.Write(base)
			sum := mac.Sum(nil)
			var values strings.Builder
			for _, h := range headers {
				values.WriteString(h.Value + "\n")
			}
			if !strings.Contains(values.String(), hex.EncodeToString(sum)) &&
				!strings.Contains(values.String(), base64.StdEncoding.EncodeToString(sum)) {
				t.Errorf("the HMAC of %q is not in\n%s", base, values.String())
			}
		})
	}
	t.Run("what cannot be signed has no base", func(t *testing.T) {
		for _, s := range []Explainer{v1, message} {
			if base, err := s.Base(Input{ID: "a.b", Body: []byte("b")}); err == nil || base != nil {
				t.Errorf("%T: got %q, %v, want an error", s, base, err)
			}
		}
	})
	t.Run("the base is the caller's", func(t *testing.T) {
		base, err := bare.Base(in)
		if err != nil {
			t.Fatal(err)
		}
		base[0] = 'x'
		if string(in.Body) != `{"a":"b"}` {
			t.Errorf("got body %q after a change of the base", in.Body)
		}
	})
}
