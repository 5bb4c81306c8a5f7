package config

import (
	"net/netip"
)

// The tags of the fields here and in listen.go are read by the decoder, by Masked and by the generator of the JSON Schema:
//
//	yaml:"name"          the key
//	rule:"required"      must be set where its mapping is
//	rule:"default=30s"   the value without the key, written as in the file
//	rule:"min=1s;max=5m" bounds of a number, a duration or a size, both included
//	rule:"min=1;max=100" the same of a list or a mapping: how many entries
//	rule:"enum=a|b"      the only values of a text or a number
//	rule:"whole"         a mapping that replaces the inherited one instead of being merged with it
//	rule:"path"          a relative path is resolved against the folder of the config file
//	rule:"clear"         Masked prints what a ${} reference stands for, since it is never a secret
//	rule:"int"           a text that may be written as a whole number too
//	rule:"empty"         a text that may be empty
//	rule:"each=720h"     the largest entry of a list
//	rule:"chosen"        a secret that people choose rather than have made: Masked gives it no fingerprint
//
// The doc comments are the descriptions in the schema: complete sentences for people who write the file.

// Config is the whole file, with defaults and POSTERN_ variables applied. It does not change after it was loaded,
// and may be read from several goroutines.
type Config struct {
	// Where Postern listens, and whom it lets in.
	Listen Listen `yaml:"listen"`
	// Where messages are kept, for how long, and how many.
	Store Store `yaml:"store"`
	// What the log looks like.
	Log Log `yaml:"log"`
	// Where OpenTelemetry traces go, and how many.
	Tracing Tracing `yaml:"tracing"`
	// What all requests to the outside have in common.
	Egress Egress `yaml:"egress"`
	// Any keys of a destination; each destination inherits them. A mapping is merged key by key with the
	// destination's own, except for auth, retry, breaker and batch, which replace the inherited one; a list replaces a list.
	Defaults Destination `yaml:"defaults"`
	// The HTTPS targets by name. Names consist of letters, digits, dots, hyphens and underscores, and have at most 100 characters.
	Destinations map[string]*Destination `yaml:"destinations" rule:"max=4095"`

	src source
}

// Store says where messages are kept.
type Store struct {
	// Folder of the store; a relative path counts from the working directory of the process.
	Path string `yaml:"path" rule:"clear;default=./data"`
	// How long a message is kept after its last delivery ended, at least 1s. Undelivered messages never expire by it.
	Retention Duration `yaml:"retention" rule:"min=1s;max=8760h;default=72h"`
	// Free space on the disk below which ingest answers 507, while deliveries go on.
	MinFree Size `yaml:"min_free" rule:"min=1MiB;max=1TiB;default=256MiB"`
	// Number of pending deliveries above which ingest answers 429.
	MaxPending int `yaml:"max_pending" rule:"min=1;max=1000000000;default=1000000"`
	// Key that encrypts the store at rest (AES-256): 32 random bytes as 64 hexadecimal digits or in base64, as postern secret new --kind store prints them. A list rotates: the first encrypts, the others still open what they have encrypted, until the log says that they are not needed any more.
	EncryptionKey Secrets `yaml:"encryption_key" rule:"min=1;max=16"`
}

// Log says what the log looks like. It goes to standard error.
type Log struct {
	// Form of a line; auto is console on a terminal and json elsewhere.
	Format string `yaml:"format" rule:"clear;enum=auto|console|json;default=auto"`
	// Least level that is written; attempts are written at debug, ended deliveries at info.
	Level string `yaml:"level" rule:"clear;enum=debug|info|warn|error;default=info"`
}

// Tracing says where OpenTelemetry traces go, and how many.
type Tracing struct {
	// Base URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; /v1/traces is appended. http is for loopback only, any other host needs https; the port is free. Without it there are no traces, and the app's traceparent is passed on as it is.
	OTLPEndpoint string `yaml:"otlp_endpoint" rule:"empty"`
	// Headers for the collector: name and value.
	Headers map[string]Secret `yaml:"headers" rule:"max=20"`
	// Share of the traces that begin here which are recorded, from 0 to 1. Where the app sends a traceparent, its flag decides instead.
	SampleRatio float64 `yaml:"sample_ratio" rule:"min=0;max=1;default=1"`
}

// Egress is what all requests to the outside have in common.
type Egress struct {
	// User-Agent of requests, unless a destination's headers set another.
	UserAgent string `yaml:"user_agent" rule:"default=Postern/1"`
	// Proxy that tunnels requests by CONNECT: http://host:port or https://host:port, with user:password@ if it asks for them. Targets are resolved and judged here all the same, and the proxy is asked for the address. The environment's proxy variables are always ignored.
	Proxy string `yaml:"proxy" rule:"empty"`
	// Networks that no request goes to, besides those that are never allowed, such as 203.0.113.0/24.
	DenyNetworks []netip.Prefix `yaml:"deny_networks" rule:"max=1000"`
	// Addresses of host names, like a hosts file: a name and an IP address, never a port.
	Resolve map[string]netip.Addr `yaml:"resolve" rule:"max=1000"`
}

// Destination is one HTTPS target, with all that shapes requests to it.
type Destination struct {
	// Where to: an https URL without user info and without a port other than 443.
	URL string `yaml:"url"`
	// Whether its deliveries are attempted, and events go here; false holds what is pending, and what is posted to it by name.
	Enabled bool `yaml:"enabled" rule:"default=true"`
	// Method of the request. GET sends no body.
	Method string `yaml:"method" rule:"enum=POST|PUT|PATCH|DELETE|GET;default=POST"`
	// Patterns of the events that go here from POST /events/{type}: in alert.* the star is one segment, in alert.** it is the rest. Postern's own events go to patterns that begin with postern. alone, such as postern.**.
	Events []string `yaml:"events" rule:"max=1000"`
	// Filter on the body of what is posted to /events or /cloudevents (JSONPath, RFC 9535): only messages in which it finds something go here, such as $[?@.severity == "high"]. A filter at the root is about the body itself if that is an object, and about its elements if it is an array. The body must be JSON then.
	When string `yaml:"when" rule:"empty"`
	// Headers of the request: name and value. A value may hold ${env:…} and ${file:…}, and may be a template like body.
	Headers map[string]Secret `yaml:"headers" rule:"max=100;empty"`
	// Names of headers that are taken over from the app's request.
	ForwardHeaders []string `yaml:"forward_headers" rule:"max=50"`
	// Whether the path and query behind /to/{destination} are appended to the URL; without it a post with them is refused.
	ForwardPath bool `yaml:"forward_path" rule:"default=false"`
	// Content-Type of the request; without it that of the app's request is kept.
	ContentType string `yaml:"content_type" rule:"empty"`
	// Template of the request's body (Go text/template); without it the app's bytes are sent as they are.
	Body string `yaml:"body" rule:"empty"`
	// How requests authorize themselves; at most one kind.
	Auth *Auth `yaml:"auth" rule:"whole"`
	// TLS towards the receiver. Certificates are always verified.
	TLS TLS `yaml:"tls"`
	// Signatures, any number side by side.
	Sign []Sign `yaml:"sign" rule:"max=16"`
	// Time for one attempt, from the connection to the last byte of the answer: 1s to 10m.
	Timeout Duration `yaml:"timeout" rule:"min=1s;max=10m;default=30s"`
	// Statuses that mean success: one (204), a hundred (2xx) or a range (200-204). 1xx and 3xx never do.
	Success []string `yaml:"success" rule:"int;min=1;max=100;default=2xx"`
	// Checks of the response; all must hold.
	Expect []Expect `yaml:"expect" rule:"max=50"`
	// When a failed attempt is made again: a mapping, or none for one attempt only.
	Retry Retry `yaml:"retry" rule:"whole"`
	// When an outage of the receiver holds its deliveries: a mapping, or none for never.
	Breaker Breaker `yaml:"breaker" rule:"whole"`
	// Most attempts in flight at a time: 1 to 1024.
	Concurrency int `yaml:"concurrency" rule:"min=1;max=1024;default=16"`
	// Most attempts per time, such as 50/s, 100/m or 1000/h; without it there is no such bound.
	Rate *Rate `yaml:"rate"`
	// Which deliveries wait for one another, in the order of acceptance: none, those with the same Postern-Key, or all. It is settled when a message is accepted.
	Order string `yaml:"order" rule:"enum=none|key|all;default=none"`
	// What a delivery that has failed does to those that wait for it: next lets them go, block holds them.
	OrderOnFailure string `yaml:"order_on_failure" rule:"enum=next|block;default=next"`
	// Release due deliveries together every few seconds, one request each; without it each goes when it is due.
	Batch *Batch `yaml:"batch" rule:"whole"`
	// Private networks that the receiver may be in, such as 10.20.0.0/16. Link-local and metadata addresses are never allowed.
	AllowNetworks []netip.Prefix `yaml:"allow_networks" rule:"max=1000"`
	// What the history keeps.
	Keep Keep `yaml:"keep"`
}

// Auth says how requests authorize themselves. Exactly one field is set.
type Auth struct {
	// Authorization: Bearer with a fixed token.
	Bearer *Bearer `yaml:"bearer"`
	// Authorization: Basic (RFC 7617).
	Basic *Basic `yaml:"basic"`
	// A key in a header of its own.
	APIKey *APIKey `yaml:"api_key"`
	// Tokens from an OAuth 2.0 server by client credentials (RFC 6749, section 4.4).
	OAuth2 *OAuth2 `yaml:"oauth2"`
}

func (Auth) oneOf() string { return "kind of authorization" }

// Bearer is a fixed bearer token.
type Bearer struct {
	// The token, without the word Bearer.
	Token Secret `yaml:"token" rule:"required"`
}

// Basic is a user name with a password.
type Basic struct {
	// User name, without a colon.
	Username string `yaml:"username" rule:"required"`
	// Password.
	Password Secret `yaml:"password" rule:"required;chosen"`
}

// APIKey is a key in a header of its own.
type APIKey struct {
	// Name of the header.
	Header string `yaml:"header" rule:"required"`
	// Value of the header.
	Value Secret `yaml:"value" rule:"required"`
}

// OAuth2 obtains tokens by client credentials.
type OAuth2 struct {
	// Id of the client.
	ClientID string `yaml:"client_id" rule:"required"`
	// Secret of the client; or two, of which the other one is used when the token endpoint refuses the first.
	ClientSecret Secrets `yaml:"client_secret" rule:"required;min=1;max=2"`
	// URL of the token endpoint: https without a port other than 443, under the same rules as url. Its certificate is checked against the system's roots and those of tls.ca_file.
	TokenURL string `yaml:"token_url" rule:"required"`
	// Scopes to ask for.
	Scopes []string `yaml:"scopes" rule:"max=100"`
	// Audience to ask for.
	Audience string `yaml:"audience"`
	// Where the client's id and secret are sent: in the header by Basic authentication (RFC 6749, section 2.3.1), or in the body.
	SecretIn string `yaml:"secret_in" rule:"enum=header|body;default=header"`
}

// TLS says whom to trust and how to show who we are.
type TLS struct {
	// PEM file with the roots that the receiver's certificate is checked against, instead of the system's. A relative path counts from the folder of the config file.
	CAFile string `yaml:"ca_file" rule:"path;clear"`
	// PEM file with the client certificate (mTLS), its chain behind it. All three files are read again when they change.
	CertFile string `yaml:"cert_file" rule:"path;clear"`
	// PEM file with the key of the client certificate, not encrypted.
	KeyFile string `yaml:"key_file" rule:"path;clear"`
	// Least version of TLS.
	MinVersion string `yaml:"min_version" rule:"enum=1.2|1.3;default=1.2"`
}

// Sign is one signature. Exactly one field is set.
type Sign struct {
	// Standard Webhooks: webhook-signature with v1 or v1a.
	Standard *Standard `yaml:"standard"`
	// HMAC of the body in a header.
	HMAC *HMAC `yaml:"hmac"`
	// HMAC-SHA256 of time and body in a header: t=…,v1=….
	Timestamped *Timestamped `yaml:"timestamped"`
	// HTTP Message Signatures (RFC 9421) with Content-Digest (RFC 9530).
	RFC9421 *RFC9421 `yaml:"rfc9421"`
	// The signature that the verifiers of a known product expect.
	Profile *Profile `yaml:"profile"`
}

func (Sign) oneOf() string { return "kind of signature" }

// Standard signs as Standard Webhooks says.
type Standard struct {
	// Secrets of the form whsec_… (HMAC, v1) or whsk_… (ed25519, v1a); each one makes a signature, so that receivers can change from one to the next.
	Secrets []Secret `yaml:"secrets" rule:"required;min=1;max=8"`
}

// HMAC signs the body.
type HMAC struct {
	// Name of the header that carries the signature.
	Header string `yaml:"header" rule:"required"`
	// The key. A header carries one signature: for two keys at a time, write two entries with different headers.
	Secret Secret `yaml:"secret" rule:"required"`
	// Hash function.
	Algorithm string `yaml:"algorithm" rule:"enum=sha1|sha256|sha512;default=sha256"`
	// How the signature is written.
	Encoding string `yaml:"encoding" rule:"enum=hex|base64;default=hex"`
	// Text in front of the signature, such as sha256=.
	Prefix string `yaml:"prefix" rule:"empty"`
}

// Timestamped signs time and body: the HMAC-SHA256 of the Unix time, a full stop and the body.
type Timestamped struct {
	// Name of the header that carries time and signature.
	Header string `yaml:"header" rule:"required"`
	// The key; of a list each one makes a signature, so that receivers can change from one to the next.
	Secret Secrets `yaml:"secret" rule:"required;min=1;max=8"`
}

// RFC9421 signs by HTTP Message Signatures.
type RFC9421 struct {
	// Id of the key, for the receiver.
	KeyID string `yaml:"key_id" rule:"required"`
	// Algorithm of the signature.
	Algorithm string `yaml:"algorithm" rule:"enum=hmac-sha256|ed25519|ecdsa-p256-sha256;default=hmac-sha256"`
	// The key: for hmac-sha256 a text, base64:… or whsec_…, for ed25519 whsk_… or a PEM block, for ecdsa-p256-sha256 a PEM block.
	Secret Secret `yaml:"secret" rule:"required"`
	// Label of the signature. Without it the first is sig1, the second sig2.
	Label string `yaml:"label"`
	// What the signature covers, such as "@method" or content-digest, without which the body is not protected. Without this key it is the method, the target, the digest and type of the body, and webhook-id and webhook-timestamp.
	Components []string `yaml:"components" rule:"max=50"`
}

// Profile signs as a known product does.
type Profile struct {
	// Name of the product: anomalyarmor, fizzy, gitea, github, grafana, hook0, outpost, sentry, shopify, slack, stripe, svix or webhookx.
	Name string `yaml:"name" rule:"required"`
	// The key; of a list each one makes a signature where the product allows for several.
	Secret Secrets `yaml:"secret" rule:"required;min=1;max=8"`
	// Name of the header that carries the signature, where the product lets its users choose it.
	Header string `yaml:"header"`
	// Name of the header that carries the time, where the product lets its users choose it.
	TimestampHeader string `yaml:"timestamp_header"`
}

// Secrets is one secret or a list of them. In the file a single one needs no brackets.
type Secrets []Secret

// Expect is a check of the response.
type Expect struct {
	// Where to look in the body (JSONPath, RFC 9535). It must find something.
	Path string `yaml:"path" rule:"required"`
	// What may stand there, of any JSON type; all that the path finds must be among them. Without values it is enough that it finds something.
	Values []Value `yaml:"values" rule:"min=1;max=100"`
}

// Value is any JSON value: nil, a bool, a string, a json.Number, a []any or a map[string]any of them.
type Value struct{ JSON any }

// Retry says when attempts are made. Either None is set, or Schedule has entries, or Attempts is at least 1.
type Retry struct {
	// None means one attempt and no more. In the file it is the word none in place of the mapping.
	None bool `yaml:"-"`
	// Delay before each attempt, the first included: five entries are five attempts. Not together with attempts, first, max and factor. Without either it is the schedule of Standard Webhooks, ten attempts in three days.
	Schedule []Duration `yaml:"schedule" rule:"min=1;max=100;each=720h;default=0s,5s,5m,30m,2h,5h,10h,14h,20h,24h"`
	// Number of attempts, the first included: 1 to 100.
	Attempts int `yaml:"attempts" rule:"min=1;max=100"`
	// Delay before the second attempt; 5s without it. The first attempt is made at once.
	First Duration `yaml:"first" rule:"min=1ms;max=720h"`
	// Longest delay between two attempts; 1h without it.
	Max Duration `yaml:"max" rule:"min=1ms;max=720h"`
	// By what each delay is longer than the one before: 1 to 100; 2 without it.
	Factor float64 `yaml:"factor" rule:"min=1;max=100"`
	// By what fraction of itself a delay may be longer, at random: 0 to 1. It is never shorter.
	Jitter float64 `yaml:"jitter" rule:"min=0;max=1;default=0.2"`
	// How long after the first attempt a further one may still be planned. What a delivery has waited for before that does not count, and a replay begins anew.
	MaxAge Duration `yaml:"max_age" rule:"min=1s;max=8760h;default=96h"`
}

// Breaker holds deliveries during an outage.
type Breaker struct {
	// None means that there is none. In the file it is the word none in place of the mapping.
	None bool `yaml:"-"`
	// Failures in a row, without a success between, that open it: 1 to 1000. What is held while it is open uses up no attempt.
	Failures int `yaml:"failures" rule:"min=1;max=1000;default=20"`
	// Time between two attempts that test whether the receiver is back: 100ms to 24h.
	ProbeEvery Duration `yaml:"probe_every" rule:"min=100ms;max=24h;default=30s"`
}

// Batch releases due deliveries together.
type Batch struct {
	// Time between two releases: 100ms to 24h.
	Every Duration `yaml:"every" rule:"min=100ms;max=24h;default=5s"`
	// Most deliveries of one release: 1 to 100000.
	Max int `yaml:"max" rule:"min=1;max=100000;default=100"`
}

// Keep says what the history keeps.
type Keep struct {
	// Whether the body of a message is kept after the end of its last delivery, and what a template made of it at all.
	// Without it a delivery cannot be replayed.
	Body bool `yaml:"body" rule:"default=true"`
	// Bytes kept of each response's body, at most 64KiB.
	Response Size `yaml:"response" rule:"min=0B;max=64KiB;default=16KiB"`
	// JSONPaths (RFC 9535) of values that are *** in the history: in the body of a message after the end of its last
	// delivery, which cannot be replayed then, and in the bodies of requests and answers at once.
	Redact []string `yaml:"redact"`
}
