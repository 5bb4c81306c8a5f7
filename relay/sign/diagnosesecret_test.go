package sign

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestDiagnoseShowsNoCredential has credentials in headers that a signature covers: whether it is valid or not, and
// whatever is wrong, their values are not shown.
func TestDiagnoseShowsNoCredential(t *testing.T) {
	const canary = "canary-0123456789"
	in := webhookInput()
	in.Header = http.Header{
		"Content-Type": {"application/json"}, "Authorization": {"Bearer " + canary}, "Proxy-Auth": {canary}, "Cookie": {"sid=" + canary},
		"X-Api-Key": {canary}, "X-Binary": {canary}, "X-Dictionary": {`a="` + canary + `", b=1`}, "Signature-Agent": {canary},
		"Contents": {canary}, "Webhooks": {canary}, "X-Several": {canary, canary},
	}
	components := []string{
		"@method", "@query", "authorization", "proxy-auth", "cookie", "x-api-key", "x-binary;bs", `x-dictionary;key="a"`, "signature-agent",
		"contents", "webhooks", "x-several", "content-type", "content-digest", HeaderID,
	}
	signed := received(t, in, newRFC9421(t, RFC9421Options{Secret: rfcShared, Components: components}))
	for _, tt := range []struct {
		name   string
		key    string
		change func(*Request)
	}{
		{"a valid one", rfcShared, func(*Request) {}},
		{"another key", "another text that is long enough", func(*Request) {}},
		{"another algorithm", rfcEd25519Public, func(*Request) {}},
		{"another method", rfcShared, func(r *Request) { r.Method = "PUT" }},
		{"another body", rfcShared, func(r *Request) { r.Body = []byte("{}") }},
		{"another credential", rfcShared, func(r *Request) { r.Header.Set("X-Api-Key", "another-"+canary) }},
		{"a covered header that is gone", rfcShared, func(r *Request) { r.Header.Del("Content-Type") }},
		{"a dictionary that is none", rfcShared, func(r *Request) { r.Header.Set("X-Dictionary", canary+" {") }},
		{"a credential of two lines", rfcShared, func(r *Request) { r.Header.Set("Cookie", canary+"\n"+`"content-type": `+canary) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := signed
			r.Header = signed.Header.Clone()
			tt.change(&r)
			d, err := Diagnose(r, Question{Keys: []string{tt.key}, Now: time.Unix(1700000000, 0)})
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"canary", base64.StdEncoding.EncodeToString([]byte(canary))[:20]} {
				if strings.Contains(string(text), secret) {
					t.Errorf("got %s, which shows a credential", text)
				}
			}
		})
	}
	t.Run("what is no credential is shown, and the length of what may be one", func(t *testing.T) {
		d, err := Diagnose(signed, Question{Keys: []string{rfcShared}, Now: time.Unix(1700000000, 0)})
		if err != nil || !d.Valid {
			t.Fatalf("got %+v, %v, want it valid", d, err)
		}
		for _, want := range []string{
			`"@method": POST`, `"@query": ?x=1`, `"authorization": *** (24 bytes)`, `"x-api-key": *** (17 bytes)`, `"x-dictionary";key="a": *** (19 bytes)`,
			`"content-type": application/json`, `"content-digest": sha-256=:`, `"webhook-id": msg_1`, `"@signature-params": ("@method" "@query"`,
		} {
			if !strings.Contains("\n"+d.Signed, "\n"+want) {
				t.Errorf("got\n%s\nwant a line that begins with %s", d.Signed, want)
			}
		}
	})
}
