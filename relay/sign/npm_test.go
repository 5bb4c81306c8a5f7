//go:build npm

package sign

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// npmCase is one line for verify.mjs.
type npmCase struct {
	Name       string            `json:"name"`
	Verifier   string            `json:"verifier"`
	Key        string            `json:"key"`
	Method     string            `json:"method,omitempty"`
	URL        string            `json:"url,omitempty"`
	Headers    map[string]string `json:"headers"`
	Body       []byte            `json:"body"`
	Algorithm  string            `json:"algorithm,omitempty"`
	KeyID      string            `json:"keyId,omitempty"`
	Components []string          `json:"components,omitempty"`

	valid bool // what the verifier should say
}

type npmAnswer struct {
	Name    string            `json:"name"`
	OK      bool              `json:"ok"`
	Error   string            `json:"error"`
	Headers map[string]string `json:"headers"`
}

// runNPM installs the pinned libraries into a folder of its own and puts the cases to them.
func runNPM(t *testing.T, cases []npmCase) []npmAnswer {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "verify.mjs"} {
		raw, err := os.ReadFile(filepath.Join("npmverify", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	var input bytes.Buffer
	for _, c := range cases {
		line, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		input.Write(append(line, '\n'))
	}
	node := exec.CommandContext(ctx, "node", "verify.mjs")
	node.Dir, node.Stdin = dir, &input
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("node verify.mjs: %v\n%s", err, stderr.Bytes())
	}
	var answers []npmAnswer
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var a npmAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(cases) {
		t.Fatalf("got %d answers, want %d\n%s", len(answers), len(cases), stderr.Bytes())
	}
	return answers
}

// TestNPM proves our signatures by the libraries that receivers written for Node use. It needs npm and its registry.
func TestNPM(t *testing.T) {
	now := time.Now()
	bodies := map[string]string{"a JSON": `{"type":"alert.fired","data":{"ü":"€"}}`, "an empty JSON": `{}`}
	older, newer := NewSecret(), NewSecret()
	pair := func(kind string) Key {
		t.Helper()
		key, err := NewKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	profile := func(name string, secrets ...string) Signer {
		t.Helper()
		p, err := NewProfile(ProfileOptions{Name: name, Secrets: secrets})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ed, text := pair("ed25519"), pair("hmac").Secret
	var cases []npmCase
	add := func(c npmCase, signers ...Signer) {
		t.Helper()
		in := Input{ID: "msg_0190", Time: now, Body: c.Body, Method: "POST", Header: http.Header{"Content-Type": {"application/json"}}}
		if c.URL != "" {
			u, err := url.Parse(c.URL)
			if err != nil {
				t.Fatal(err)
			}
			in.URL, c.Method = u, in.Method
		}
		r := received(t, in, signers...)
		r.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
		c.Headers = map[string]string{}
		for name := range r.Header {
			c.Headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		c.valid = true
		cases = append(cases, c)
		changed := c
		changed.Name, changed.valid = c.Name+", changed", false
		changed.Body = append(slices.Clone(c.Body), ' ')
		cases = append(cases, changed)
	}
	for what, body := range bodies {
		b := []byte(body)
		for i, secret := range []string{newer, older} {
			n := strconv.Itoa(i + 1)
			add(npmCase{Name: "standard, key " + n + ", " + what, Verifier: "standard", Key: secret, Body: b}, newStandard(t, newer, older))
			add(npmCase{Name: "svix, key " + n + ", " + what, Verifier: "svix", Key: secret, Body: b}, profile("svix", newer, older))
			add(npmCase{Name: "stripe, key " + n + ", " + what, Verifier: "stripe", Key: secret, Body: b}, profile("stripe", newer, older))
		}
		add(npmCase{Name: "svix by the headers of Standard Webhooks, " + what, Verifier: "svix", Key: newer, Body: b}, newStandard(t, newer))
		add(npmCase{Name: "standard beside v1a, " + what, Verifier: "standard", Key: newer, Body: b}, newStandard(t, ed.Secret, newer))
		add(npmCase{Name: "v1a, " + what, Verifier: "v1a", Key: ed.Public, Body: b}, newStandard(t, newer, ed.Secret))
		add(npmCase{Name: "github, " + what, Verifier: "github", Key: text, Body: b}, profile("github", text))
		for _, kind := range []string{"rfc9421-hmac", "rfc9421-ed25519", "rfc9421-ecdsa"} {
			key := pair(kind)
			public := key.Public
			if public == "" {
				public = key.Secret
			}
			for _, target := range []string{"https://example.com", "https://Example.com:443/a%2Fb/?c=d&e", "https://example.com/hook"} {
				s := newRFC9421(t, RFC9421Options{KeyID: "key-1", Secret: key.Secret})
				beside := newRFC9421(t, RFC9421Options{Label: "sig2", KeyID: "key-2", Secret: rfcEd25519})
				add(npmCase{
					Name: kind + " " + target + ", " + what, Verifier: "rfc9421", Key: public, Body: b, URL: target,
					Algorithm: s.key.algorithm, KeyID: "key-1", Components: defaultComponents[:],
				}, s, beside)
			}
		}
	}
	// The other way round: what the library signs, we verify.
	signs := len(cases)
	keys := []Key{pair("rfc9421-hmac"), pair("rfc9421-ed25519"), pair("rfc9421-ecdsa")}
	for _, key := range keys {
		k, err := parseRequestKey(key.Secret, "")
		if err != nil {
			t.Fatal(err)
		}
		digest, err := contentDigest([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, npmCase{
			Name: "npm signs by " + key.Kind, Verifier: "sign", Key: key.Secret, Algorithm: k.algorithm, KeyID: "key-1", Body: []byte("{}"),
			Method: "POST", URL: "https://example.com/a?b=c", Headers: map[string]string{"Content-Digest": digest, "Date": "today"},
			Components: []string{"@method", "@authority", "@path", "@query", "@target-uri", "content-digest", "date"}, valid: true,
		})
	}
	answers := runNPM(t, cases)
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if got := answers[i]; got.Name != c.Name || got.OK != c.valid {
				t.Fatalf("got %+v, want ok = %t", got, c.valid)
			}
			if i < signs {
				return
			}
			key := keys[i-signs]
			public := key.Public
			if public == "" {
				public = key.Secret
			}
			u, err := url.Parse(c.URL)
			if err != nil {
				t.Fatal(err)
			}
			r := Request{Method: c.Method, URL: u, Header: http.Header{}, Body: c.Body}
			for name, value := range answers[i].Headers {
				r.Header.Set(name, value)
			}
			if err := newVerifier(t, public).Verify(r, time.Now()); err != nil {
				t.Errorf("got %v, want none: %v", err, r.Header)
			}
		})
	}
}
