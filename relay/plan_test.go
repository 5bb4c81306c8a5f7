package relay

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// baseConfig is a config in which every key below can be set and changed.
const baseConfig = `
destinations:
  alerts:
    url: https://hooks.example.com/alerts
`

// keyChanges has, for each key that the plan reads, a config that sets it to something else than its default.
func keyChanges(t *testing.T) map[string]string {
	dir := t.TempDir()
	ca, err := receiver.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	destination := func(text string) string {
		return baseConfig + "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
	}
	token := func(text string) string { return "listen: {tokens: [{" + text + "}]}" + baseConfig }
	oauth := func(text string) string { return destination("auth: {oauth2: {" + text + "}}") }
	certFile, keyFile := writeClientCertificate(t, ca, dir)
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	changes := map[string]string{
		"listen.ingest":          "listen: {ingest: '127.0.0.1:9025'}" + baseConfig,
		"listen.admin":           "listen: {admin: '127.0.0.1:9026'}" + baseConfig,
		"listen.accepted_status": "listen: {accepted_status: 200}" + baseConfig,
		"listen.max_body":        "listen: {max_body: 2MiB}" + baseConfig,
		"listen.socket_mode":     "listen: {socket_mode: '0660'}" + baseConfig,
		"listen.socket_group":    "listen: {socket_group: apps}" + baseConfig,

		"listen.tokens.name":         token("name: other, token: 0123456789abcdef"),
		"listen.tokens.token":        token("name: shop, token: fedcba9876543210"),
		"listen.tokens.destinations": token("name: shop, token: 0123456789abcdef, destinations: [alerts]"),
		"listen.tokens.events":       token("name: shop, token: 0123456789abcdef, events: [a.*]"),
		"listen.tokens.rate":         token("name: shop, token: 0123456789abcdef, rate: 5/s"),
		"listen.admin_tokens.name":   "listen: {admin_tokens: [{name: other, token: 0123456789abcdef}]}" + baseConfig,
		"listen.admin_tokens.token":  "listen: {admin_tokens: [{name: ops, token: fedcba9876543210}]}" + baseConfig,

		"store.retention":       "store: {retention: 1h}" + baseConfig,
		"store.encryption_key":  "store: {encryption_key: 3f1c9a70d2b84e65f00d1b7ac94e8823516fa0c7be12d4983a75ee0164cb2f9d}" + baseConfig,
		"tracing.otlp_endpoint": "tracing: {otlp_endpoint: 'http://127.0.0.1:4318'}" + baseConfig,
		"tracing.headers":       "tracing: {otlp_endpoint: 'http://127.0.0.2:4318', headers: {X-Tenant: a}}" + baseConfig,
		"tracing.sample_ratio":  "tracing: {otlp_endpoint: 'http://127.0.0.2:4318', sample_ratio: 0.5}" + baseConfig,
		"egress.user_agent":     "egress: {user_agent: Acme/1}" + baseConfig,
		"egress.deny_networks":  "egress: {deny_networks: [203.0.113.0/24]}" + baseConfig,
		"egress.resolve":        "egress: {resolve: {hooks.example.com: 127.0.0.1}}" + baseConfig,
		"egress.proxy":          "egress: {proxy: 'http://127.0.0.1:3128'}" + baseConfig,

		"destinations.*.url":                   strings.ReplaceAll(baseConfig, "/alerts", "/other"),
		"destinations.*.enabled":               destination("enabled: false"),
		"destinations.*.method":                destination("method: PUT"),
		"destinations.*.events":                destination("events: ['alert.*']"),
		"destinations.*.headers":               destination("headers: {X-Team: data}"),
		"destinations.*.content_type":          destination("content_type: text/plain"),
		"destinations.*.auth.bearer.token":     destination("auth: {bearer: {token: abc}}"),
		"destinations.*.auth.basic.username":   destination("auth: {basic: {username: u1, password: p}}"),
		"destinations.*.auth.basic.password":   destination("auth: {basic: {username: u, password: p1}}"),
		"destinations.*.auth.api_key.header":   destination("auth: {api_key: {header: X-One, value: v}}"),
		"destinations.*.auth.api_key.value":    destination("auth: {api_key: {header: X-Key, value: v1}}"),
		"destinations.*.tls.ca_file":           destination(fmt.Sprintf("tls: {ca_file: %q}", caFile)),
		"destinations.*.tls.min_version":       destination("tls: {min_version: '1.3'}"),
		"destinations.*.sign.standard.secrets": destination("sign: [{standard: {secrets: [" + secret + "]}}]"),
		"destinations.*.sign.hmac.header":      destination("sign: [{hmac: {header: X-One, secret: '0123456789'}}]"),
		"destinations.*.sign.hmac.secret":      destination("sign: [{hmac: {header: X-Sig, secret: '9876543210'}}]"),
		"destinations.*.sign.hmac.algorithm":   destination("sign: [{hmac: {header: X-Sig, secret: '0123456789', algorithm: sha512}}]"),
		"destinations.*.sign.hmac.encoding":    destination("sign: [{hmac: {header: X-Sig, secret: '0123456789', encoding: base64}}]"),
		"destinations.*.sign.hmac.prefix":      destination("sign: [{hmac: {header: X-Sig, secret: '0123456789', prefix: 'sha256='}}]"),
		"destinations.*.timeout":               destination("timeout: 5s"),
		"destinations.*.success":               destination("success: [204]"),
		"destinations.*.retry.schedule":        destination("retry: {schedule: [0s, 1m]}"),
		"destinations.*.retry.attempts":        destination("retry: {attempts: 3}"),
		"destinations.*.retry.first":           destination("retry: {attempts: 5, first: 7s}"),
		"destinations.*.retry.max":             destination("retry: {attempts: 5, max: 8s}"),
		"destinations.*.retry.factor":          destination("retry: {attempts: 5, factor: 3}"),
		"destinations.*.retry.jitter":          destination("retry: {jitter: 0.5}"),
		"destinations.*.retry.max_age":         destination("retry: {max_age: 1h}"),
		"destinations.*.concurrency":           destination("concurrency: 3"),
		"destinations.*.allow_networks":        destination("allow_networks: [10.0.0.0/8]"),
		"destinations.*.keep.response":         destination("keep: {response: 1KiB}"),
		"destinations.*.keep.body":             destination("keep: {body: false}"),
		"destinations.*.keep.redact":           destination("keep: {redact: [$.card.number]}"),

		"destinations.*.when":                          destination("when: $.a"),
		"destinations.*.forward_headers":               destination("forward_headers: [X-Request-Id]"),
		"destinations.*.forward_path":                  destination("forward_path: true"),
		"destinations.*.body":                          destination("body: '{{ json .ID }}'"),
		"destinations.*.auth.oauth2.client_id":         oauth("client_id: c1, client_secret: s, token_url: https://login.example.com/"),
		"destinations.*.auth.oauth2.client_secret":     oauth("client_id: c, client_secret: s1, token_url: https://login.example.com/"),
		"destinations.*.auth.oauth2.token_url":         oauth("client_id: c, client_secret: s, token_url: https://login.example.com/1"),
		"destinations.*.auth.oauth2.scopes":            oauth("client_id: c, client_secret: s, token_url: https://login.example.com/, scopes: [a]"),
		"destinations.*.auth.oauth2.audience":          oauth("client_id: c, client_secret: s, token_url: https://login.example.com/, audience: a"),
		"destinations.*.auth.oauth2.secret_in":         oauth("client_id: c, client_secret: s, token_url: https://login.example.com/, secret_in: body"),
		"destinations.*.tls.cert_file":                 destination(fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", certFile, keyFile)),
		"destinations.*.tls.key_file":                  destination(fmt.Sprintf("tls: {cert_file: %q, key_file: %q}", certFile, keyFile)),
		"destinations.*.sign.timestamped.header":       destination("sign: [{timestamped: {header: X-One, secret: '0123456789'}}]"),
		"destinations.*.sign.timestamped.secret":       destination("sign: [{timestamped: {header: X-Sig, secret: ['0123456789', '9876543210']}}]"),
		"destinations.*.sign.rfc9421.key_id":           destination("sign: [{rfc9421: {key_id: k1, secret: '0123456789'}}]"),
		"destinations.*.sign.rfc9421.algorithm":        destination("sign: [{rfc9421: {key_id: k, algorithm: ed25519, secret: whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}}]"),
		"destinations.*.sign.rfc9421.secret":           destination("sign: [{rfc9421: {key_id: k, secret: '9876543210'}}]"),
		"destinations.*.sign.rfc9421.label":            destination("sign: [{rfc9421: {key_id: k, secret: '0123456789', label: own}}]"),
		"destinations.*.sign.rfc9421.components":       destination("sign: [{rfc9421: {key_id: k, secret: '0123456789', components: ['@method']}}]"),
		"destinations.*.sign.profile.name":             destination("sign: [{profile: {name: shopify, secret: '0123456789'}}]"),
		"destinations.*.sign.profile.secret":           destination("sign: [{profile: {name: github, secret: '9876543210'}}]"),
		"destinations.*.sign.profile.header":           destination("sign: [{profile: {name: grafana, secret: '0123456789', header: X-One}}]"),
		"destinations.*.sign.profile.timestamp_header": destination("sign: [{profile: {name: grafana, secret: '0123456789', timestamp_header: X-Time}}]"),
		"destinations.*.expect.path":                   destination("expect: [{path: $.b}]"),
		"destinations.*.expect.values":                 destination("expect: [{path: $.a, values: [ok, 1]}]"),
		"destinations.*.breaker.failures":              destination("breaker: {failures: 2}"),
		"destinations.*.breaker.probe_every":           destination("breaker: {probe_every: 2s}"),
		"destinations.*.rate":                          destination("rate: 30/m"),
		"destinations.*.order":                         destination("order: key"),
		"destinations.*.order_on_failure":              destination("order: all\norder_on_failure: block"),
		"destinations.*.batch.every":                   destination("batch: {every: 2s}"),
		"destinations.*.batch.max":                     destination("batch: {max: 2}"),
		"defaults (inherited by a destination)":        "defaults: {timeout: 5s}" + baseConfig,
	}
	maps.Copy(changes, httpsChanges(t, dir, ca))
	return changes
}

// readByProgram are the keys that cmd/postern reads itself, before there is a relay.
var readByProgram = []string{"store.path", "store.min_free", "store.max_pending", "log.format", "log.level"}

// variants sets the keys that a change is compared against, where the plain config lacks what surrounds them.
var variants = map[string]string{
	"auth.basic":                    "auth: {basic: {username: u, password: p}}",
	"auth.api_key":                  "auth: {api_key: {header: X-Key, value: v}}",
	"sign.hmac":                     "sign: [{hmac: {header: X-Sig, secret: '0123456789'}}]",
	"auth.oauth2":                   "auth: {oauth2: {client_id: c, client_secret: s, token_url: https://login.example.com/}}",
	"sign.timestamped":              "sign: [{timestamped: {header: X-Sig, secret: '0123456789'}}]",
	"sign.rfc9421":                  "sign: [{rfc9421: {key_id: k, secret: '0123456789'}}]",
	"sign.profile.name":             "sign: [{profile: {name: github, secret: '0123456789'}}]",
	"sign.profile.secret":           "sign: [{profile: {name: github, secret: '0123456789'}}]",
	"sign.profile.header":           "sign: [{profile: {name: grafana, secret: '0123456789'}}]",
	"sign.profile.timestamp_header": "sign: [{profile: {name: grafana, secret: '0123456789'}}]",
	"expect":                        "expect: [{path: $.a}]",
	"order_on_failure":              "order: all",
	"batch":                         "batch: {}",
	"retry.first":                   "retry: {attempts: 5}",
	"retry.max":                     "retry: {attempts: 5}",
	"retry.factor":                  "retry: {attempts: 5}",
}

func TestEveryKeyChangesThePlan(t *testing.T) {
	changes := keyChanges(t)
	for key, text := range changes {
		t.Run(key, func(t *testing.T) {
			before := baseConfig
			if strings.HasPrefix(key, "listen.tokens") {
				before = "listen: {tokens: [{name: shop, token: 0123456789abcdef}]}" + baseConfig
			}
			if strings.HasPrefix(key, "listen.admin_tokens") {
				before = "listen: {admin_tokens: [{name: ops, token: 0123456789abcdef}]}" + baseConfig
			}
			if strings.HasPrefix(key, "tracing.") {
				before = "tracing: {otlp_endpoint: 'http://127.0.0.2:4318'}" + baseConfig
			}
			if strings.HasPrefix(key, "listen.https.") {
				before = httpsConfig("domains: [relay.example.com]")
			}
			for part, variant := range variants {
				if strings.Contains(key, part) {
					before += "    " + variant + "\n"
				}
			}
			got, want := describePlan(t, compile(t, text)), describePlan(t, compile(t, before))
			if got == want {
				t.Errorf("setting %s does not change the plan: it is parsed and ignored\n%s", key, got)
			}
		})
	}
	for _, key := range keysOf(reflect.TypeFor[config.Config](), "") {
		if _, ok := changes[key]; !ok && !slices.Contains(readByProgram, key) {
			t.Errorf("key %s of the config has no case here", key)
		}
	}
}

func compile(t *testing.T, text string) *Plan {
	t.Helper()
	cfg, err := config.Parse("postern.yaml", []byte(text), nil)
	if err != nil {
		t.Fatalf("config: %v\n%s", err, text)
	}
	p, faults := newPlan(cfg, LoadOptions{})
	if err := faults.Err(); err != nil {
		t.Fatalf("plan: %v\n%s", err, text)
	}
	return p
}

// describePlan writes down all that a plan says, so that two plans can be compared: pointers by what they point
// to, and signers by a signature.
func describePlan(t *testing.T, p *Plan) string {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintln(&b, p.socketMode, p.socketGroup, p.tokens, p.adminTokens)
	fmt.Fprintln(&b, p.ingestAddress, p.adminAddress, p.acceptedStatus, p.maxBody, p.retention)
	for _, k := range p.StoreKeys() {
		fmt.Fprintln(&b, k.Fingerprint())
	}
	describeHTTPS(&b, p.https)
	fmt.Fprintln(&b, p.tracing.endpoint, p.tracing.header, p.tracing.ratio)
	for _, name := range p.names {
		d := p.destinations[name]
		fmt.Fprintln(&b, name, d.enabled, d.patterns, d.when, d.retry, d.concurrency, d.rate, d.batch, d.breaker, d.order, d.blockOnFailure)
		fmt.Fprintln(&b, d.dialer.Allow, d.dialer.Deny, d.dialer.Resolve, d.dialer.Proxy != nil)
		fmt.Fprintln(&b, d.transport.MinVersion, d.transport.MaxConnsPerHost, d.files)
		o := d.egress
		fmt.Fprintln(&b, o.URL, o.Method, o.ContentType, o.UserAgent, o.Header, o.Timeout, o.KeepResponse, o.Success)
		fmt.Fprintln(&b, o.Body, o.ForwardHeader, o.ForwardPath, o.OmitBody, o.PlainHeader, len(o.Redact), p.reduces)
		fmt.Fprintf(&b, "%+v %+v %+v %+v\n", o.Auth.Basic, o.Auth.Bearer, o.Auth.APIKey, o.Auth.OAuth2)
		for _, e := range o.Expect {
			for _, answer := range []string{`{}`, `{"a":1}`, `{"a":2}`, `{"b":1}`} {
				doc, err := match.ParseJSON([]byte(answer))
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&b, e.Check(doc))
			}
		}
		for _, s := range o.Signers {
			signature, err := s.Sign(sign.Input{
				ID: "msg_1", Time: time.Unix(1700000000, 0), Body: []byte("{}"), Method: "POST", URL: o.URL,
				Header: http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {"1700000000"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, signature)
		}
	}
	return b.String()
}

// keysOf lists the keys of the config file that are supported now, those of a destination as destinations.*.key.
func keysOf(typ reflect.Type, at string) []string {
	var keys []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" || slices.Contains(strings.Split(f.Tag.Get("rule"), ";"), "later") || at == "" && name == "defaults" {
			continue
		}
		key := strings.TrimPrefix(at+"."+name, ".")
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Map && inner.Elem().Kind() == reflect.Pointer {
			inner, key = inner.Elem().Elem(), key+".*"
		}
		if below := nestedKeys(inner, key); below != nil {
			keys = append(keys, below...)
		} else {
			keys = append(keys, key)
		}
	}
	return keys
}

// nestedKeys returns the keys within a section of the file, and nil for a type that is a value.
func nestedKeys(typ reflect.Type, at string) []string {
	if typ.Kind() != reflect.Struct || typ.NumField() == 0 || typ.Field(0).Tag.Get("yaml") == "" {
		return nil
	}
	return keysOf(typ, at)
}

func TestFaultsOfThePlanHaveTheirPlace(t *testing.T) {
	const text = `destinations:
  alerts:
    url: https://hooks.example.com:8443/x
    events: ["a..b"]
    success: [teapot, 9xx]
    headers:
      Host: other
      X-Fine: yes
    sign:
      - standard: {secrets: [whsec_short, whsec_short]}
  plain:
    url: http://hooks.example.com/
  missing: {}
  clash:
    url: https://hooks.example.com/
    auth: {bearer: {token: abc}}
    headers: {Authorization: Basic dTpw}
  inward:
    url: https://2130706433/
    allow_networks: [10.0.0.0/8, 169.254.1.0/24]
egress: {resolve: {"hooks.example.com:443": 127.0.0.1}}
tracing: {otlp_endpoint: "http://collector:4318/", headers: {Content-Type: text/plain, X-Fine: yes}, sample_ratio: 2}
`
	path := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(path, nil)
	if err == nil {
		t.Fatal("a wrong config was accepted")
	}
	got := strings.ReplaceAll(err.Error(), path, "postern.yaml")
	for _, want := range []string{
		"postern.yaml:3:10: destinations.alerts.url: ",
		"custom port 8443 is not allowed",
		"postern.yaml:4:14: destinations.alerts.events[0]: ",
		"postern.yaml:5:15: destinations.alerts.success[0]: ",
		"postern.yaml:5:23: destinations.alerts.success[1]: ",
		"postern.yaml:7:13: destinations.alerts.headers.Host: ",
		"destinations.alerts.sign[0].standard.secrets[0]: secret 1 is not whsec_",
		"destinations.alerts.sign[0].standard.secrets[1]: secret 2 is not whsec_",
		"postern.yaml:12:10: destinations.plain.url: only https is allowed",
		"destinations.missing.url: missing",
		"destinations.clash.headers.Authorization: ",
		"postern.yaml:19:10: destinations.inward.url: ",
		"127.0.0.1",
		"destinations.inward.allow_networks[1]: 169.254.1.0/24 is link-local",
		"egress.resolve.hooks.example.com:443: not the name of a host",
		"postern.yaml:22:26: tracing.otlp_endpoint: http is for a collector on loopback only",
		"tracing.headers.Content-Type: ",
		"tracing.sample_ratio: out of range",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("faults lack %q; got:\n%s", want, got)
		}
	}
	if strings.Contains(got, "X-Fine") {
		t.Errorf("a header that is fine is among the faults:\n%s", got)
	}
}

func TestFaultsOfDefaultsAreToldOnce(t *testing.T) {
	const text = `
defaults: {when: "$[", headers: {Host: x}}
destinations:
  a: {url: "https://a.example.com/"}
  b: {url: "https://b.example.com/"}
`
	cfg, err := config.Parse("postern.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, faults := newPlan(cfg, LoadOptions{}); len(faults) != 2 {
		t.Errorf("got %d faults, want 2:\n%v", len(faults), faults)
	}
}

func TestReferencesMakeNoTemplate(t *testing.T) {
	cfg, err := config.Parse("postern.yaml", []byte(`
destinations:
  a: {url: "https://a.example.com/", headers: {X-Secret: "${env:ODD}", X-Both: "{{ .ID }} ${env:PLAIN}"}}
`), []string{"ODD=a {{ canary }}", "PLAIN=x"})
	if err != nil {
		t.Fatal(err)
	}
	p, faults := newPlan(cfg, LoadOptions{})
	if err := faults.Err(); err != nil {
		t.Fatalf("a secret with braces is taken for a template: %v", err)
	}
	for _, h := range p.destinations["a"].egress.Header {
		if want := h.Name == "X-Secret"; h.Literal != want {
			t.Errorf("%s: got literal %t, want %t", h.Name, h.Literal, want)
		}
	}
}

func TestReferencesInRequestsAreMasked(t *testing.T) {
	cfg, err := config.Parse("postern.yaml", []byte(`
destinations:
  a: {expect: [{path: $.a, values: [plain, "${env:TOKEN}", {x: ["${env:TOKEN}2"]}]}], body: '{"token": "${env:BODY}"}',
    headers: {X-Any: "key=${env:HEADER};v=1"}, auth: {bearer: {token: "${env:AUTH}"}},
    sign: [{hmac: {header: X-S, secret: "${env:SIGN}"}}]}
defaults: {url: "https://a.example.com/${env:URL}"}
`), []string{
		"TOKEN=s3cret-from-env", "BODY=s3cret-of-the-body", "URL=s3cret-of-the-url", "HEADER=s3cret-of-a-header",
		"AUTH=s3cret-of-the-auth", "SIGN=s3cret-that-signs",
	})
	if err != nil {
		t.Fatal(err)
	}
	p, faults := newPlan(cfg, LoadOptions{})
	if err := faults.Err(); err != nil {
		t.Fatal(err)
	}
	got := slices.Compact(slices.Sorted(slices.Values(p.destinations["a"].egress.Secrets)))
	want := []string{
		"s3cret-from-env", "s3cret-of-a-header", "s3cret-of-the-auth", "s3cret-of-the-body", "s3cret-of-the-url", "s3cret-that-signs",
	}
	if !slices.Equal(got, want) {
		t.Errorf("texts to mask: got %q, want %q", got, want)
	}
}

func TestRouting(t *testing.T) {
	p := compile(t, `
destinations:
  a: {url: "https://a.example.com/", events: ["order.*"], retry: {schedule: [3s, 1m]}, order: key, forward_headers: [x-request-id]}
  b: {url: "https://b.example.com/", events: ["order.**", schema_change], order: all, forward_path: true}
  high: {url: "https://d.example.com/", events: ["alert.*"], when: '$[?@.severity == "high"]'}
  off: {url: "https://c.example.com/", events: ["**"], enabled: false}
  costly: {url: "https://e.example.com/", events: ["cost.*"], when: '$[?$[?@.a]]'}
`)
	for _, c := range []struct {
		event, body string
		want        []string
	}{
		{"order.paid", "no JSON", []string{"a", "b"}},
		{"order.paid.late", "", []string{"b"}},
		{"schema_change", "", []string{"b"}},
		{"other", "", nil},
		{"alert.fired", `{"severity": "high"}`, []string{"high"}},
		{"alert.fired", `[{"severity": "low"}, {"severity": "high"}]`, []string{"high"}},
		{"alert.fired", `{"severity": "low"}`, nil},
	} {
		routes, err := p.Route(ingest.Post{Event: c.event, Body: []byte(c.body)})
		if err != nil {
			t.Errorf("%s %s: %v", c.event, c.body, err)
		}
		var got []string
		for _, r := range routes {
			got = append(got, r.To.Destination)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %s: got %v, want %v", c.event, c.body, got, c.want)
		}
	}
	for _, c := range []struct {
		post ingest.Post
		want ingest.Route
	}{
		{
			ingest.Post{Destination: "a", Key: "customer 7"},
			ingest.Route{To: store.Recipient{Destination: "a", Delay: 3 * time.Second, Order: "=customer 7"}, Header: []string{"X-Request-Id"}},
		},
		{
			ingest.Post{Destination: "a"}, // without a key there is no order among them
			ingest.Route{To: store.Recipient{Destination: "a", Delay: 3 * time.Second}, Header: []string{"X-Request-Id"}},
		},
		{ingest.Post{Destination: "b", Key: "7", Path: "/x?y"}, ingest.Route{To: store.Recipient{Destination: "b", Order: "*"}}},
		// One that is not enabled takes messages by name all the same, to hold them, and no filter concerns them.
		{ingest.Post{Destination: "off"}, ingest.Route{To: store.Recipient{Destination: "off"}}},
		{ingest.Post{Destination: "high", Key: "7"}, ingest.Route{To: store.Recipient{Destination: "high"}}},
	} {
		got, err := p.Route(c.post)
		if err != nil || !reflect.DeepEqual(got, []ingest.Route{c.want}) {
			t.Errorf("%+v: got %+v, %v; want %+v", c.post, got, err, c.want)
		}
	}
	for _, c := range []struct {
		post ingest.Post
		want ingest.RouteError
	}{
		{ingest.Post{Destination: "of"}, ingest.RouteError{Fault: ingest.UnknownDestination, Destination: "of", Nearest: "off"}},
		{ingest.Post{Destination: "a", Path: "/x"}, ingest.RouteError{Fault: ingest.PathNotForwarded, Destination: "a"}},
		{ingest.Post{Event: "postern.delivery.failed"}, ingest.RouteError{Fault: ingest.ReservedEvent}},
		{ingest.Post{Event: "alert.fired", Body: []byte("{")}, ingest.RouteError{Fault: ingest.BodyNotJSON, Destination: "high"}},
		{
			ingest.Post{Event: "cost.huge", Body: []byte("[" + strings.Repeat("[0],", 50_000) + "0]")},
			ingest.RouteError{Fault: ingest.FilterTooCostly, Destination: "costly"},
		},
	} {
		_, err := p.Route(c.post)
		got, ok := errors.AsType[*ingest.RouteError](err)
		if !ok || got.Fault != c.want.Fault || got.Destination != c.want.Destination || got.Nearest != c.want.Nearest {
			t.Errorf("%+v: got %v, want %v", c.post, err, &c.want)
		}
	}
}

// writeClientCertificate writes a certificate of ca with its key, and returns the names of the files.
func writeClientCertificate(t *testing.T, ca *receiver.CA, dir string) (certFile, keyFile string) {
	t.Helper()
	cert, err := ca.Issue("client.example.com")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestFaultsShowNoReferencedValue(t *testing.T) {
	const canary = "canary-5d2f-value"
	for _, key := range []string{
		"success: ['${env:CANARY}']", "tls: {ca_file: '/x/${env:CANARY}'}", "events: ['a..${env:CANARY}']", "method: '${env:CANARY}'",
		"headers: {Host: '${env:CANARY}'}", "sign: [{standard: {secrets: ['${env:CANARY}']}}]", "timeout: '${env:CANARY}'",
		"content_type: '${env:CANARY}'", "sign: [{hmac: {header: '${env:CANARY} x', secret: '0123456789'}}]",
		"auth: {api_key: {header: 'a b${env:CANARY}', value: x}}", "allow_networks: ['${env:CANARY}']",
		"when: '$[?@.a == ${env:CANARY}]'", "body: '{{ .Event \"${env:CANARY} }}'", "expect: [{path: '$.a[${env:CANARY}'}]",
		"headers: {X-A: '{{ nothing \"${env:CANARY}\" }}'}", "forward_headers: ['${env:CANARY} x']",
		"auth: {oauth2: {client_id: a, client_secret: b, token_url: 'http://x.example/${env:CANARY}'}}",
		"sign: [{timestamped: {header: X-S, secret: ['${env:CANARY}', short]}}]", "sign: [{profile: {name: '${env:CANARY}', secret: '0123456789'}}]",
		"sign: [{rfc9421: {key_id: k, algorithm: ed25519, secret: '${env:CANARY}'}}]", "rate: '${env:CANARY}'", "breaker: '${env:CANARY}'",
		"keep: {redact: ['$[${env:CANARY}']}",
	} {
		t.Run(key, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "postern.yaml")
			if err := os.WriteFile(path, []byte(baseConfig+"    "+key+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := Load(path, []string{"CANARY=" + canary})
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the value is shown: %v", err)
			}
		})
	}
}
