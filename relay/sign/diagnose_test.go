package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const diagnosedBody = `{"event":"alert.fired", "data":{"html":"<b>","path":"a/b","name":"ü😀"},"n":1.50}` + "\n"

// captured is a request signed by Standard Webhooks, GitHub's scheme, timestamped and rfc9421, one at a time.
func captured(t testing.TB, body string, s Signer) Request {
	t.Helper()
	in := webhookInput()
	in.Body = []byte(body)
	return received(t, in, s)
}

func TestDiagnose(t *testing.T) {
	const text = "correct horse battery"
	now := time.Unix(1700000000, 0)
	standard := newStandard(t, v1Secret)
	github, err := NewProfile(ProfileOptions{Name: "github", Secrets: []string{text}})
	if err != nil {
		t.Fatal(err)
	}
	slack, err := NewProfile(ProfileOptions{Name: "slack", Secrets: []string{text}})
	if err != nil {
		t.Fatal(err)
	}
	svix, err := NewProfile(ProfileOptions{Name: "svix", Secrets: []string{v1Secret}})
	if err != nil {
		t.Fatal(err)
	}
	own, err := NewHMAC(HMACOptions{Header: "X-Acme-Signature", Secret: text, Encoding: "base64", Algorithm: "sha512"})
	if err != nil {
		t.Fatal(err)
	}
	stamped := newTimestamped(t, "new "+text, text)
	message := newRFC9421(t, RFC9421Options{Secret: rfcEd25519, KeyID: "k"})
	decoded, err := base64.StdEncoding.DecodeString(v1Secret[6:])
	if err != nil {
		t.Fatal(err)
	}
	asText := newCoded(withLabel(standardRecipe(), version1), []byte(v1Secret))
	notDecoded := newCoded(withLabel(standardRecipe(), version1), []byte(v1Secret[6:]))
	githubDecoded := newCoded(products()[3].recipe, decoded)
	set := func(name, value string) func(*Request) { return func(r *Request) { r.Header.Set(name, value) } }
	body := func(b string) func(*Request) { return func(r *Request) { r.Body = []byte(b) } }
	edit := func(name, old, replacement string) func(*Request) {
		return func(r *Request) { r.Header.Set(name, strings.Replace(r.Header.Get(name), old, replacement, 1)) }
	}
	rename := func(from, to string) func(*Request) {
		return func(r *Request) { r.Header.Set(to, r.Header.Get(from)); r.Header.Del(from) }
	}
	for _, tt := range []struct {
		name   string
		signer interface{ Sign(Input) ([]Header, error) }
		keys   string // separated by |
		change func(r *Request)
		q      Question
		part   Part   // empty: it is valid
		want   string // in the first finding, or in the JSON of the diagnosis
	}{
		{name: "a genuine request is valid", signer: standard, keys: v1Secret, want: `"key":1`},
		{name: "the second key is named", signer: standard, keys: NewSecret() + "|" + v1Secret, want: `"key":2`},
		{name: "svix is recognised", signer: svix, keys: v1Secret, want: `"scheme":"svix"`},
		{name: "github is recognised", signer: github, keys: text, want: `"scheme":"github"`},
		{name: "slack is recognised", signer: slack, keys: text, want: `"scheme":"slack"`},
		{name: "a header of one's own is recognised", signer: stamped, keys: text, want: `"scheme":"timestamped"`},
		{name: "so is an HMAC in base64", signer: own, keys: text, q: Question{Algorithm: "sha512"}, want: `"scheme":"hmac"`},
		{name: "HTTP Message Signatures are recognised", signer: message, keys: rfcEd25519Public, want: `"scheme":"rfc9421"`},
		{name: "the private key verifies too", signer: message, keys: rfcEd25519, want: `"key":1`},
		{name: "a key that is too short works and is noted", signer: standard, keys: "x|" + v1Secret, want: `"key":2`},

		{"a missing id is told", standard, v1Secret, func(r *Request) { r.Header.Del("Webhook-Id") }, Question{}, PartHeader, "header webhook-id is missing"},
		{"a near name is told", standard, v1Secret, rename("Webhook-Timestamp", "X-Webhook-Time-Stamp"), Question{}, PartHeader, "webhook-timestamp is missing; there is X-Webhook-Time-Stamp"},
		{"svix in place of webhook is told", svix, v1Secret, nil, Question{Scheme: SchemeStandard}, PartHeader, "webhook-signature is missing; there is Svix-Signature"},
		{"no signature at all is told", standard, v1Secret, func(r *Request) { r.Header = http.Header{"Host": {"h"}} }, Question{}, PartHeader, "none of the headers looks like a signature; there are Host"},
		{"an old request is told in seconds", standard, v1Secret, nil, Question{Now: now.Add(412 * time.Second)}, PartClock, "412 seconds behind the clock here (2023-11-14T22:20:12Z), 112 more"},
		{"a request from ahead too", stamped, text, nil, Question{Now: now.Add(-time.Hour)}, PartClock, "3600 seconds ahead"},
		{"a tolerance of one's own counts", standard, v1Secret, nil, Question{Now: now.Add(11 * time.Second), Tolerance: 10 * time.Second}, PartClock, "1 more than allowed"},
		{"milliseconds are told", standard, v1Secret, set(HeaderTimestamp, "1700000000000"), Question{}, PartSignature, "the sender signs id, the time in seconds and body"},
		{"a date is told", standard, v1Secret, set(HeaderTimestamp, "2023-11-14T22:13:20Z"), Question{}, PartClock, "is a date"},
		{"a timestamp in words is told", standard, v1Secret, set(HeaderTimestamp, "now"), Question{}, PartClock, "not a number"},
		{"a changed timestamp fits nothing", standard, v1Secret, set(HeaderTimestamp, "1700000001"), Question{}, PartKey, "no signature fits: either the key is another one or id, timestamp or body was changed"},
		{"a changed id fits nothing", standard, v1Secret, set(HeaderID, "msg_2"), Question{}, PartKey, "id, timestamp or body was changed"},
		{"a changed time in a timestamped header fits nothing", stamped, text, func(r *Request) {
			edit("X-Signature", "t=1700000000", "t=1700000001")(r)
			r.Header.Del("Webhook-Timestamp")
		}, Question{}, PartKey, "either the key is another one or timestamp or body was changed"},
		{"without id and time it can be the body alone", github, text, body("{}"), Question{}, PartKey, "either the key is another one or the body was changed"},
		{"a timestamped header without time is told", stamped, text, edit("X-Signature", "t=1700000000,", ""), Question{Scheme: SchemeTimestamped, Header: "X-Signature"}, PartHeader, "holds no time"},

		{"a line end that was lost is told", standard, v1Secret, body(strings.TrimSuffix(diagnosedBody, "\n")), Question{}, PartBody, "with a line end (LF) behind it"},
		{"a line end that was added is told", standard, v1Secret, body(diagnosedBody + "\n"), Question{}, PartBody, "without the line end behind it"},
		{"white space around it is told", github, text, body("\n " + strings.TrimSpace(diagnosedBody) + "  \n\n"), Question{}, PartKey, "no signature fits"},
		{"a byte order mark is told", github, text, body("\ufeff" + diagnosedBody), Question{}, PartBody, "without the byte order mark"},
		{"a body that was parsed is told", github, text, body(""), Question{}, PartKey, "no signature fits"},
		{"another key is told", github, "wrong horse battery", nil, Question{}, PartKey, "either the key is another one"},
		{"a length that is another is told too", github, "wrong horse battery", set("Content-Length", "12"), Question{}, PartKey, "either the key is another one"},

		{"a whsec_ secret used as text is told", signerFunc(asText.sign), v1Secret, nil, Question{}, PartKey, "reads key 1 as text, the whole of it with its prefix"},
		{"base64 that is not decoded is told", signerFunc(notDecoded.sign), v1Secret, nil, Question{}, PartKey, "as text without whsec_ and not decoded"},
		{"a key without whsec_ is told", standard, v1Secret[6:], nil, Question{}, PartKey, "as the bytes that it is the base64 of"},
		{"a key in quotes is told", github, `"` + text + `"`, nil, Question{}, PartKey, "without the quotes"},
		{"a key with a line end is told", github, text + "\n", nil, Question{}, PartKey, "without the white space around it"},
		{"a text that was decoded is told", signerFunc(githubDecoded.sign), v1Secret, nil, Question{}, PartKey, "as the bytes that it is the base64 of"},
		{"another hash function is told", own, text, nil, Question{Scheme: SchemeHMAC, Header: "X-Acme-Signature", Encoding: "base64"}, PartKey, "HMACs by SHA-512"},
		{"a shared secret for v1a is told", newStandard(t, "whsk_"+v1aKey), v1Secret, nil, Question{}, PartKey, "all signatures are of ed25519"},
		{"a public key for v1 is told", standard, v1aPublic, nil, Question{}, PartKey, "all signatures are HMACs (v1)"},
		{"v1a finds a changed body as well", newStandard(t, "whsk_"+v1aKey), v1aPublic, body(diagnosedBody + "\n"), Question{}, PartBody, "without the line end"},

		{"a cut signature is told", github, text, func(r *Request) {
			r.Header.Set("X-Hub-Signature-256", r.Header.Get("X-Hub-Signature-256")[:7+20])
		}, Question{}, PartSignature, "is cut: 20 of its 64 characters"},
		{"a signature that is too long is told", github, text, func(r *Request) {
			r.Header.Set("X-Hub-Signature-256", r.Header.Get("X-Hub-Signature-256")+"ab")
		}, Question{}, PartSignature, "2 characters follow it"},
		{"a damaged signature is told", github, text, func(r *Request) {
			v := []byte(r.Header.Get("X-Hub-Signature-256"))
			v[7+30] ^= 1
			r.Header.Set("X-Hub-Signature-256", string(v))
		}, Question{}, PartSignature, "right up to its character 30 of 64"},
		{"upper case is told", github, text, func(r *Request) {
			r.Header.Set("X-Hub-Signature-256", "sha256="+strings.ToUpper(r.Header.Get("X-Hub-Signature-256")[7:]))
		}, Question{}, PartSignature, "written as hex in upper case; hex is expected"},
		{"a missing prefix is told", github, text, edit("X-Hub-Signature-256", "sha256=", ""), Question{Scheme: "github"}, PartSignature, `"sha256=" is missing in front`},
		{"a missing version is told", standard, v1Secret, edit("Webhook-Signature", "v1,", ""), Question{}, PartSignature, `"v1," is missing in front`},
		{"base64 without padding is told", standard, v1Secret, edit("Webhook-Signature", "=", ""), Question{}, PartSignature, "base64 without padding; base64 is expected"},
		{"something that is no signature is told", github, text, set("X-Hub-Signature-256", "sha256=secret"), Question{}, PartHeader, "holds nothing that can be a signature"},
		{"the body alone in place of time and body is told", github, text, rename("X-Hub-Signature-256", "X-Slack-Signature"), Question{Scheme: "slack"}, PartHeader, "X-Slack-Request-Timestamp is missing"},
		{"time and body in place of the body is told", slack, text, func(r *Request) {
			r.Header.Set("X-Hub-Signature-256", "sha256="+r.Header.Get("X-Slack-Signature")[3:])
		}, Question{Scheme: "github"}, PartSignature, "and body with colons between them, where github asks for the body alone"},

		{"another method is told", message, rfcEd25519Public, func(r *Request) { r.Method = "PUT" }, Question{}, PartRequest, `"@method" is "POST"`},
		{"a proxy's host is told", message, rfcEd25519Public, func(r *Request) {
			r.URL = &url.URL{Scheme: "https", Host: "backend:8080", RawQuery: "x=1"}
			r.Header.Set("X-Forwarded-Host", "hooks.example.com")
		}, Question{}, PartRequest, `"@authority" is "hooks.example.com": that is X-Forwarded-Host`},
		{"two changes at once are told", message, rfcEd25519Public, func(r *Request) {
			r.Method = "PUT"
			r.Header.Set("Content-Type", "application/json; charset=utf-8")
		}, Question{}, PartRequest, `"@method" is "POST"`},
		{"a missing header that is covered is told", message, rfcEd25519Public, func(r *Request) { r.Header.Del("Content-Type") }, Question{}, PartRequest, "content-type, which the signature covers"},
		{"a changed body is told by its digest", message, rfcEd25519Public, body(diagnosedBody + "\n"), Question{}, PartBody, "Content-Digest is that of the body without the line end"},
		{"another body too", message, rfcEd25519Public, body("{}"), Question{}, PartBody, "but the body of 2 bytes has sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"},
		{"an unfit algorithm is told", message, rfcShared, nil, Question{}, PartKey, "made by ed25519, and the keys are for hmac-sha256"},
		{"another key of the kind is told", newRFC9421(t, RFC9421Options{Secret: "whsk_" + v1aKey}), rfcEd25519Public, nil, Question{}, PartKey, "does not fit"},
		{"base64 that is taken as text is told", newRFC9421(t, RFC9421Options{Secret: rfcShared}), rfcShared[7:], nil, Question{}, PartKey, "reads key 1 as the bytes that it is the base64 of"},
		{"an old creation is told", message, rfcEd25519Public, nil, Question{Now: now.Add(time.Hour)}, PartClock, "3600 seconds behind"},
		{"a body that is not covered is told", newRFC9421(t, RFC9421Options{Secret: rfcEd25519, Components: []string{"@method"}}), rfcEd25519Public, nil, Question{}, PartSignature, "does not cover the body"},
		{"another label is told", message, rfcEd25519Public, nil, Question{Scheme: SchemeRFC9421, Label: "sig9"}, PartHeader, `no signature "sig9", only sig1`},
		{"a missing Signature-Input is told", message, rfcEd25519Public, rename("Signature-Input", "Signature_input"), Question{Scheme: SchemeRFC9421}, PartHeader, "Signature-Input is missing; there is Signature_input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := captured(t, diagnosedBody, signerFunc(tt.signer.Sign))
			if tt.change != nil {
				tt.change(&r)
			}
			q := tt.q
			q.Keys = strings.Split(tt.keys, "|")
			if q.Now.IsZero() {
				q.Now = now
			}
			d, err := Diagnose(r, q)
			if err != nil {
				t.Fatalf("Diagnose: %v", err)
			}
			raw, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case d.Valid != (tt.part == "") || d.Valid != (len(d.Findings) == 0):
				t.Fatalf("got %s, want valid = %t", raw, tt.part == "")
			case d.Valid && !strings.Contains(string(raw), tt.want):
				t.Errorf("got %s, want %s", raw, tt.want)
			case !d.Valid && (d.Findings[0].Part != tt.part || !strings.Contains(d.Findings[0].Text, tt.want)):
				t.Errorf("got %+v, want %s: %s", d.Findings, tt.part, tt.want)
			}
			for _, key := range q.Keys {
				if key = strings.TrimSpace(key); len(key) > 6 && strings.Contains(string(raw), key[6:]) {
					t.Errorf("the diagnosis shows a key: %s", raw)
				}
			}
		})
	}
}

// signerFunc makes a Signer of what signs.
type signerFunc func(Input) ([]Header, error)

func (f signerFunc) Headers() []Header               { return nil }
func (f signerFunc) Sign(in Input) ([]Header, error) { return f(in) }

func withLabel(r recipe, label string) recipe {
	r.label, r.each = label, true
	return r
}

// TestDiagnoseBodies: whatever a library makes of the JSON that was signed, the first byte that differs is found.
func TestDiagnoseBodies(t *testing.T) {
	const text = "correct horse battery"
	s, err := NewHMAC(HMACOptions{Header: "X-Sig", Secret: text})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		signed, here, want string
		offset             int
	}{
		{`{"b":1,"a":[1,2]}`, `{"b": 1, "a": [1, 2]}`, "as compact JSON", 5},
		{`{"b": 1, "a": [1, 2]}`, `{"b":1,"a":[1,2]}`, "as Python writes it", 5},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, "sorted keys", 2},
		{"{\"a\":1}\n", `{ "a": 1 }`, "compact JSON with a line end", 1},
		{"{\n  \"a\": 1\n}", `{"a":1}`, "indented by two spaces", 1},
		{"{\n    \"a\": 1\n}", `{"a":1}`, "indented by four spaces", 1},
		{"{\n\t\"a\": 1\n}", `{"a":1}`, "indented by tabs", 1},
		{`{"a": "\u00fc\ud83d\ude00, b: c"}`, `{"a":"ü😀, b: c"}`, "as Python writes JSON", 5},
		{`{"a":"\u00fc"}`, `{"a":"ü"}`, "escapes for all but ASCII", 6},
		{`{"a":"ü"}`, `{"a":"\u00fc"}`, `without \u escapes`, 6},
		{`{"a":"\u003cb\u003e"}`, `{"a":"<b>"}`, "as Go writes JSON", 6},
		{`{"a":"<b>"}`, `{"a":"\u003cb\u003e"}`, `without \u escapes`, 6},
		{`{"a":"b\/c"}`, `{"a":"b/c"}`, "as PHP writes JSON", 7},
		{`{"a":"b/c"}`, `{"a":"b\/c"}`, `with / for each \/`, 7},
		{"a\r\nb", "a\nb", "with CR LF in place of each LF", 1},
		{"a\nb", "a\r\nb", "with LF in place of each CR LF", 1},
		{"a", "a \t", "without the white space", 1},
		{"a\r\n", "a", "a line end (CR LF)", 1},
		{"a", "a\r\n", "without the line end", 1},
		{"\ufeffa", "a", "with a byte order mark", 0},
		{"", `{"a":1}`, "empty", 0},
	} {
		t.Run(tt.want+" of "+tt.here, func(t *testing.T) {
			r := captured(t, tt.signed, s)
			r.Body = []byte(tt.here)
			d, err := Diagnose(r, Question{Keys: []string{"another secret", text}, Now: time.Unix(1700000000, 0)})
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Findings) != 1 || d.Key != 2 || !strings.Contains(d.Findings[0].Text, tt.want) {
				t.Fatalf("got %+v, want key 2 and %q", d, tt.want)
			}
			if got := d.Findings[0].Offset; got == nil || *got != tt.offset {
				t.Errorf("got offset %v, want %d", got, tt.offset)
			}
		})
	}
}

func TestDiagnoseTwoCauses(t *testing.T) {
	coded := newCoded(withLabel(standardRecipe(), version1), []byte(v1Secret))
	r := captured(t, "{}", signerFunc(coded.sign))
	r.Body = []byte("{}\n")
	r.Header.Set("Content-Length", "2")
	d, err := Diagnose(r, Question{Keys: []string{v1Secret}, Now: time.Unix(1700001000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range d.Findings {
		got = append(got, string(f.Part))
	}
	if want := "key body body clock"; strings.Join(got, " ") != want || !strings.Contains(d.Findings[2].Text, "Content-Length says 2 bytes, and 3 are here") {
		t.Errorf("got %+v, want %s", d.Findings, want)
	}
}

// TestDiagnoseSeveral: of several HTTP Message Signatures the one is judged that the keys are for, wherever it stands.
func TestDiagnoseSeveral(t *testing.T) {
	const other = "another text that is long enough"
	whole := captured(t, diagnosedBody, newRFC9421(t, RFC9421Options{Label: "b", Secret: rfcEd25519}))
	several := func(options ...RFC9421Options) Request {
		in := webhookInput()
		in.Body = []byte(diagnosedBody)
		var signers []Signer
		for _, o := range options {
			signers = append(signers, newRFC9421(t, o))
		}
		return received(t, in, signers...)
	}
	a, b := RFC9421Options{Label: "a", Secret: rfcShared}, RFC9421Options{Label: "b", Secret: rfcEd25519}
	c := RFC9421Options{Label: "c", Secret: rfcECDSA}
	tests := []struct {
		name    string
		request Request
		key     string
		change  func(*Request)
		label   string // that is judged
		part    Part   // of the first finding; empty: valid
		text    string // in the first finding
	}{
		{"the first fits", several(a, b), rfcShared, nil, "a", "", ""},
		{"the second fits", several(a, b), rfcEd25519Public, nil, "b", "", ""},
		{"the third fits", several(a, b, c), rfcECDSAPublic, nil, "c", "", ""},
		{"the second fits, but for the path", several(a, b), rfcEd25519Public, func(r *Request) { r.URL.Path = "/changed" }, "b", PartKey, "something that it covers has changed"},
		{"the first fits, but for the path", several(a, b), rfcShared, func(r *Request) { r.URL.Path = "/changed" }, "a", PartKey, "something that it covers has changed"},
		{"the second fits, but for the method", several(a, b), rfcEd25519Public, func(r *Request) { r.Method = "PUT" }, "b", PartRequest, `"@method" is "POST"`},
		{"the second fits, but for the body", several(a, b), rfcEd25519Public, func(r *Request) { r.Body = []byte("{}") }, "b", PartBody, "Content-Digest is"},
		{"the second has the algorithm of another key", several(b, a), other, nil, "a", PartKey, "something that it covers has changed"},
		{"the algorithms are told by the lengths alone", several(b, a), other, func(r *Request) {
			r.Header["Signature-Input"] = strings.Split(strings.NewReplacer(`;alg="ed25519"`, "", `;alg="hmac-sha256"`, "").
				Replace(strings.Join(r.Header["Signature-Input"], "\n")), "\n")
		}, "a", PartKey, "something that it covers has changed"},
		{"none has the algorithm", several(a, b), rfcECDSAPublic, nil, "a", PartKey, "made by hmac-sha256, and the keys are for ecdsa"},
		{"one alone needs no word about it", whole, rfcEd25519Public, nil, "b", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change != nil {
				tt.change(&tt.request)
			}
			d, err := Diagnose(tt.request, Question{Keys: []string{tt.key}, Now: time.Unix(1700000000, 0)})
			if err != nil {
				t.Fatal(err)
			}
			if d.Header != "Signature "+tt.label || d.Valid != (tt.part == "") {
				t.Fatalf("got %+v, want the verdict on %s, valid = %t", d, tt.label, tt.part == "")
			}
			if !d.Valid && (d.Findings[0].Part != tt.part || !strings.Contains(d.Findings[0].Text, tt.text)) {
				t.Errorf("got %+v, want %s: %s", d.Findings, tt.part, tt.text)
			}
			notes := strings.Join(d.Notes, "\n")
			if got, want := strings.Contains(notes, "signatures (a") || strings.Contains(notes, "signatures (b, a)"), tt.name != tests[len(tests)-1].name; got != want ||
				got && !strings.HasSuffix(notes, "; this is about "+tt.label) {
				t.Errorf("got notes %q, want them to name %s among several: %t", notes, tt.label, want)
			}
		})
	}
}

func TestDiagnoseRefuses(t *testing.T) {
	good := Question{Keys: []string{"correct horse"}, Now: time.Unix(1, 0)}
	for _, tt := range []struct {
		name   string
		change func(q *Question)
		want   string
	}{
		{"no key", func(q *Question) { q.Keys = nil }, "there are 0 keys"},
		{"nine keys", func(q *Question) { q.Keys = make([]string, 9) }, "there are 9 keys"},
		{"no clock", func(q *Question) { q.Now = time.Time{} }, "clock"},
		{"an unknown scheme", func(q *Question) { q.Scheme = "gitlab" }, `scheme "gitlab" is not known; there are standard, hmac, timestamped, rfc9421, anomalyarmor`},
		{"hmac without header", func(q *Question) { q.Scheme = SchemeHMAC }, "the header is missing"},
		{"timestamped without header", func(q *Question) { q.Scheme = SchemeTimestamped }, "the header is missing"},
		{"an unknown algorithm", func(q *Question) { q.Scheme, q.Header, q.Algorithm = SchemeHMAC, "X-S", "md5" }, `"md5"`},
		{"a header for github", func(q *Question) { q.Scheme, q.Header = "github", "X-S" }, "always X-Hub-Signature-256"},
		{"a key that rfc9421 cannot read", func(q *Question) { q.Scheme, q.Keys = SchemeRFC9421, []string{"short"} }, "secret 1 is shorter"},
	} {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			q := good
			tt.change(&q)
			if _, err := Diagnose(Request{Header: http.Header{}}, q); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// FuzzDiagnose: it agrees with the verifiers on what is valid, always says why something is not, and ends.
func FuzzDiagnose(f *testing.F) {
	f.Add("webhook-signature", "v1,AAAA", "1700000000", []byte(`{"a":1}`))
	f.Add("X-Hub-Signature-256", "sha256=00", "", []byte("x\r\n"))
	f.Add("X-Signature", "t=1,v1=,v1", "-", []byte(`"\ud800"`))
	f.Add("Signature-Input", `sig1=("@method" "@query-param";name="a" "date";bs);created=1`, "", []byte{0xff})
	f.Add("Signature", "sig1=:AAAA:", "", []byte{})
	s := newStandard(f, v1Secret)
	f.Fuzz(func(t *testing.T, name, value, stamp string, body []byte) {
		now := time.Unix(1700000000, 0)
		r := Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "h"}, Body: body, Header: http.Header{
			"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {stamp}, http.CanonicalHeaderKey(name): {value}, "Signature": {"sig1=:AAAA:"},
		}}
		before := bytes.Clone(body)
		d, err := Diagnose(r, Question{Keys: []string{v1Secret}, Now: now})
		if err != nil {
			return
		}
		if d.Valid == (len(d.Findings) > 0) {
			t.Errorf("got %+v", d)
		}
		if d.Scheme == SchemeStandard && d.Valid != (s.Verify(r.Header, body, now) == nil) {
			t.Errorf("got %+v, and Verify says %v", d, s.Verify(r.Header, body, now))
		}
		if string(before) != string(body) {
			t.Error("the body was changed")
		}
	})
}
