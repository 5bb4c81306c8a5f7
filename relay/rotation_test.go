package relay

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// rotating is a rig whose secrets are files. Nothing but its follower is told when they change.
type rotating struct {
	*rig
	dir string
}

// newRotating starts a relay with files beside it; DIR in the config is their folder. At the end of the test no file's
// content may be in the log.
func newRotating(t *testing.T, files map[string]string, config string) *rotating {
	t.Helper()
	r := &rotating{dir: t.TempDir()}
	var secrets []string
	t.Cleanup(func() { // after the end of the relay
		for _, line := range r.logs.All() {
			text := fmt.Sprint(line.Message, line.ContextMap())
			if slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(text, s) }) || strings.Contains(text, "canary") {
				t.Errorf("the log shows a secret: %s", text)
			}
		}
	})
	for name, text := range files {
		writeTo(t, r.file(name), text)
		secrets = append(secrets, text)
	}
	r.rig = newRig(t, r.config(config), func(r *rig) { r.Follow = true })
	return r
}

func (r *rotating) file(name string) string { return filepath.Join(r.dir, name) }

func (r *rotating) config(text string) string { return strings.ReplaceAll(text, "DIR", r.dir) }

// reloads waits until so many reloads have been made and refused.
func (r *rotating) reloads(t *testing.T, made, refused int) {
	t.Helper()
	count := func(message string) int { return r.logs.FilterMessage(message).Len() }
	until(t, fmt.Sprintf("%d reloads and %d refused", made, refused), func() bool {
		return count("config reloaded") >= made && count("config not reloaded, the earlier one stays in force") >= refused
	})
	if m, n := count("config reloaded"), count("config not reloaded, the earlier one stays in force"); m != made || n != refused {
		t.Errorf("got %d reloads and %d refused, want %d and %d", m, n, made, refused)
	}
	counted := testutil.ToFloat64(r.metrics.reloads[true]) + testutil.ToFloat64(r.metrics.reloads[false])*1000
	if want := float64(made + 1000*refused); counted != want {
		t.Errorf("got reloads counted %v, want %v (thousands are the refused ones)", counted, want)
	}
}

// deliver posts to a destination, waits for the end, and returns the last request to host, that of the first attempt.
func (r *rotating) deliver(t *testing.T, name string) farRequest {
	t.Helper()
	id := r.accept(t, name)
	r.awaitState(t, id, store.Delivered)
	if d := r.delivery(t, id); d.Made != 1 {
		t.Errorf("got %d attempts, want one", d.Made)
	}
	all := r.far.of(name + ".test")
	return all[len(all)-1]
}

// newKeys makes keys of a kind of sign.NewKey.
func newKeys(t *testing.T, kind string, n int) []sign.Key {
	t.Helper()
	keys := make([]sign.Key, n)
	for i := range keys {
		var err error
		if keys[i], err = sign.NewKey(kind); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

func TestSigningKeysRotate(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		one, two   string // the entries of sign with one key, and with two: ONE is the file of the first, TWO that of the second
		question   sign.Question
		headers    []string // that may carry the signature, if there is a choice
	}{
		{"standard", "standard", `standard: {secrets: [ONE]}`, `standard: {secrets: [TWO, ONE]}`, sign.Question{Scheme: sign.SchemeStandard}, nil},
		{"standard with ed25519", "ed25519", `standard: {secrets: [ONE]}`, `standard: {secrets: [TWO, ONE]}`, sign.Question{Scheme: sign.SchemeStandard}, nil},
		{"timestamped", "timestamped", `timestamped: {header: X-S, secret: ONE}`, `timestamped: {header: X-S, secret: [TWO, ONE]}`,
			sign.Question{Scheme: sign.SchemeTimestamped}, []string{"X-S"}},
		{"profile stripe", "hmac", `profile: {name: stripe, secret: ONE}`, `profile: {name: stripe, secret: [TWO, ONE]}`, sign.Question{Scheme: "stripe"}, nil},
		{"rfc9421, an entry each", "rfc9421-ed25519", `rfc9421: {key_id: one, algorithm: ed25519, secret: ONE}`,
			"rfc9421: {key_id: two, algorithm: ed25519, secret: TWO}\n      - rfc9421: {key_id: one, algorithm: ed25519, secret: ONE}",
			sign.Question{Scheme: sign.SchemeRFC9421, Algorithm: sign.Ed25519}, nil},
		{"hmac, a header each", "hmac", `hmac: {header: X-One, secret: ONE}`, "hmac: {header: X-Two, secret: TWO}\n      - hmac: {header: X-One, secret: ONE}",
			sign.Question{Scheme: sign.SchemeHMAC}, []string{"X-One", "X-Two"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := newKeys(t, c.kind, 3)
			config := func(entries string) string {
				entries = strings.NewReplacer("ONE", `"${file:DIR/one}"`, "TWO", `"${file:DIR/two}"`).Replace(entries)
				return "destinations:\n  a:\n    url: https://a.test/\n    sign:\n      - " + entries + "\n"
			}
			r := newRotating(t, map[string]string{"one": keys[0].Secret, "two": keys[1].Secret, "three": keys[2].Secret}, config(c.one))
			// signed waits for the reload and returns which keys the next attempt is signed by.
			signed := func(reloads int) string {
				t.Helper()
				r.reloads(t, reloads, 0)
				req := r.deliver(t, "a")
				by := ""
				for i, key := range keys {
					question := c.question
					question.Now, question.Keys = time.Now(), []string{key.Secret}
					if key.Public != "" {
						question.Keys = []string{key.Public}
					}
					headers := c.headers
					if headers == nil {
						headers = []string{""}
					}
					for _, question.Header = range headers {
						d, err := sign.Diagnose(sign.Request{
							Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: "a.test", Path: "/"}, Header: req.header, Body: []byte(req.body),
						}, question)
						if err != nil {
							t.Fatal(err)
						}
						if d.Valid {
							by += fmt.Sprint(i + 1)
						}
					}
				}
				return by
			}
			if got := signed(0); got != "1" {
				t.Errorf("at the beginning: signed by %q, want the first key", got)
			}
			r.write(t, r.config(config(c.two)))
			if got := signed(1); got != "12" {
				t.Errorf("with two in the config: signed by %q, want both", got)
			}
			replaceFile(t, r.file("two"), keys[2].Secret+"\n")
			if got := signed(2); got != "13" {
				t.Errorf("after the file of the second was replaced: signed by %q, want the first and the third", got)
			}
			replaceFile(t, r.file("one"), keys[1].Secret)
			r.write(t, r.config(config(c.one)))
			if got := signed(3); got != "2" {
				t.Errorf("with one in the config and its file replaced: signed by %q, want what stands there now", got)
			}
		})
	}
}

func TestAnAttemptInFlightKeepsItsSecrets(t *testing.T) {
	keys := newKeys(t, "standard", 2)
	r := newRotating(t, map[string]string{"key": keys[0].Secret, "token": "canary-old-token"}, `destinations:
  a: {url: "https://a.test/", auth: {bearer: {token: "${file:DIR/token}"}}, sign: [{standard: {secrets: ["${file:DIR/key}"]}}]}
`)
	r.far.answer("a.test", func(n int) int { return map[int]int{1: 500}[n] + map[bool]int{true: 200}[n > 1] })
	r.far.hang("a.test")
	id := r.accept(t, "a")
	until(t, "the attempt is in flight", func() bool { return len(r.far.of("a.test")) == 1 })
	replaceFile(t, r.file("key"), keys[1].Secret)
	replaceFile(t, r.file("token"), "canary-new-token")
	r.reloads(t, 1, 0)
	r.far.open()
	r.awaitState(t, id, store.Delivered)
	all := r.far.of("a.test")
	if len(all) != 2 {
		t.Fatalf("got %d requests, want 2", len(all))
	}
	for i, want := range []string{"Bearer canary-old-token", "Bearer canary-new-token"} {
		verifier, err := sign.NewStandard([]string{keys[i].Secret})
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(all[i].header, []byte(all[i].body), time.Now()); err != nil || all[i].header.Get("Authorization") != want {
			t.Errorf("attempt %d: got %v with key %d, and %q; want %q", i+1, err, i+1, all[i].header.Get("Authorization"), want)
		}
	}
}

func TestTokensOfAppsRotate(t *testing.T) {
	const old, next, last = "canary-old-token-0123", "canary-new-token-0123", "canary-last-token-0123"
	r := newRotating(t, map[string]string{"one": old, "two": next}, `
listen: {ingest: "127.0.0.1:0", admin: "127.0.0.1:0", tokens: ["${file:DIR/one}", {name: shop, token: "${file:DIR/two}"}]}
destinations: {a: {url: "https://a.test/"}}
`)
	accepted := func() string {
		out := ""
		for i, token := range []string{old, next, last} {
			if status, _ := r.post(t, "/to/a", "{}", "Authorization", "Bearer "+token); status == http.StatusAccepted {
				out += fmt.Sprint(i + 1)
			} else if status != http.StatusUnauthorized {
				t.Errorf("got %d", status)
			}
		}
		return out
	}
	if got := accepted(); got != "12" {
		t.Errorf("at the beginning: tokens %q let in, want the first two", got)
	}
	replaceFile(t, r.file("one"), last)
	r.reloads(t, 1, 0)
	if got := accepted(); got != "23" {
		t.Errorf("after the first was replaced: tokens %q let in, want the other two", got)
	}
}

func TestOAuthSecretsRotate(t *testing.T) {
	const old, next = "canary-old-client-secret", "canary-new-client-secret"
	start := func(t *testing.T, secrets string) (r *rotating, server func(secret string) *receiver.TokenServer) {
		r = newRotating(t, map[string]string{"one": old, "two": next}, `destinations:
  a: {url: "https://a.test/", auth: {oauth2: {client_id: c, client_secret: `+secrets+`, token_url: "https://b.test/oauth/token"}}}
`)
		// server has the token endpoint know one secret, and the receiver take the tokens that are given for it.
		return r, func(secret string) *receiver.TokenServer {
			s := &receiver.TokenServer{ClientID: "c", ClientSecret: secret}
			r.far.mu.Lock()
			defer r.far.mu.Unlock()
			r.far.handlers["b.test"] = s.ServeHTTP
			r.far.handlers["a.test"] = func(w http.ResponseWriter, req *http.Request) {
				if !s.Valid(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")) {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}
			return s
		}
	}
	t.Run("the server takes the other one from now on", func(t *testing.T) {
		r, server := start(t, `["${file:DIR/one}", "${file:DIR/two}"]`)
		first := server(old)
		r.deliver(t, "a")
		second := server(next) // the token in memory is void too
		r.deliver(t, "a")
		r.deliver(t, "a")
		if a, b := first.Stats(), second.Stats(); a.Issued != 1 || b.Issued != 1 || b.Refused != 1 {
			t.Errorf("got %+v and %+v, want a token each, and one refusal", a, b)
		}
		lines := r.logs.FilterMessage("client secret refused, another one is in use now").All()
		if len(lines) != 1 || lines[0].ContextMap()["destination"] != "a" {
			t.Errorf("got %v, want one line, with the destination", lines)
		}
		if got := testutil.ToFloat64(r.metrics.refused.WithLabelValues("a")); got != 1 {
			t.Errorf("got %v refusals counted, want 1", got)
		}
		r.reloads(t, 0, 0)
	})
	t.Run("a file that changes is used for a token at once, whatever is left of the earlier one", func(t *testing.T) {
		r, server := start(t, `"${file:DIR/one}"`)
		server(old)
		r.deliver(t, "a")
		s := server(next)
		replaceFile(t, r.file("one"), next+"\n")
		r.reloads(t, 1, 0)
		r.deliver(t, "a")
		if got := s.Stats(); got.Issued != 1 || got.Refused != 0 {
			t.Errorf("got %+v, want a token for the new secret, and none asked for with the old one", got)
		}
	})
}

func TestASecretFileThatIsNoneChangesNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, path, next string)
	}{
		{"empty", func(t *testing.T, path, _ string) { replaceFile(t, path, "") }},
		{"a line end alone", func(t *testing.T, path, _ string) { replaceFile(t, path, "\n") }},
		{"half written", func(t *testing.T, path, next string) { writeTo(t, path, next[:len(next)/2]) }},
		{"with something around it", func(t *testing.T, path, next string) { replaceFile(t, path, next+"\n\n") }},
		{"too large", func(t *testing.T, path, next string) { replaceFile(t, path, strings.Repeat(next, 5000)) }},
		{"gone", func(t *testing.T, path, _ string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a folder", func(t *testing.T, path, _ string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := newKeys(t, "standard", 2)
			r := newRotating(t, map[string]string{"key": keys[0].Secret, "next": keys[1].Secret}, `destinations:
  a: {url: "https://a.test/", sign: [{standard: {secrets: ["${file:DIR/key}"]}}]}
`)
			signedBy := func(key sign.Key) {
				t.Helper()
				verifier, err := sign.NewStandard([]string{key.Secret})
				if err != nil {
					t.Fatal(err)
				}
				req := r.deliver(t, "a")
				if err := verifier.Verify(req.header, []byte(req.body), time.Now()); err != nil {
					t.Error(err)
				}
			}
			c.spoil(t, r.file("key"), keys[1].Secret)
			r.reloads(t, 0, 1)
			err := r.LastReload().Err
			if err == nil || !strings.Contains(err.Error(), "destinations.a.sign[0].standard.secrets[0]: ") {
				t.Errorf("got %v, want the key named", err)
			} else if half := keys[1].Secret[:20]; strings.Contains(err.Error(), half) {
				t.Errorf("got %v, want no secret", err)
			}
			signedBy(keys[0])
			if err := os.RemoveAll(r.file("key")); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, r.file("key"), keys[1].Secret)
			until(t, "the new one is in force", func() bool { return r.LastReload().Err == nil })
			signedBy(keys[1])
		})
	}
}
