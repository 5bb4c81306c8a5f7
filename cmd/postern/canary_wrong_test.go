package main

// wrongConfig is a config that is wrong where a secret is.
type wrongConfig struct {
	name string
	odd  string // characters in the middle of the secret
	top  bool   // text is of sections of the file, and not of destinations
	text string
}

// wrongConfigs are mistakes that people make around secrets. In their texts SECRET is one, QUOTED the same as a quoted text,
// VARIABLE a reference to it, REFERENCE one to a file that holds it, and FILE the name of that.
func wrongConfigs() []wrongConfig {
	wrong := func(auth string) string { return "  wrong: {url: \"https://far.test/\", auth: " + auth + "}" }
	block := func(auth string) string {
		return "  wrong:\n    url: https://far.test/\n    auth:\n" + auth
	}
	signed := func(sign string) string { return "  wrong: {url: \"https://far.test/\", sign: [" + sign + "]}" }
	return []wrongConfig{
		{name: "a quote that does not end", text: wrong(`{bearer: {token: "SECRET}}`)},
		{name: "a quote that ends too early", text: wrong(`{bearer: {token: "SECRET"SECRET}}`)},
		{name: "an apostrophe", odd: "'", text: wrong(`{bearer: {token: 'SECRET'}}`)},
		{name: "an escape that is none", odd: `\q`, text: wrong(`{bearer: {token: "SECRET"}}`)},
		{name: "it begins like an alias", text: wrong(`{bearer: {token: *SECRET}}`)},
		{name: "it begins like an anchor", text: wrong(`{bearer: {token: &SECRET}}`)},
		{name: "it begins like a tag", text: wrong(`{bearer: {token: !SECRET}}`)},
		{name: "it begins like a tag with a handle", text: wrong(`{bearer: {token: !SECRET!x}}`)},
		{name: "it begins like a tag with a URI", text: wrong(`{bearer: {token: !<SECRET}}`)},
		{name: "it begins like a directive", text: block("      bearer:\n%SECRET token: x\n")},
		{name: "it begins with an at sign", text: wrong(`{bearer: {token: @SECRET}}`)},
		{name: "it begins with a percent sign", text: wrong(`{bearer: {token: %SECRET}}`)},
		{name: "it begins like a block", text: block("      bearer:\n        token: |SECRET\n")},
		{name: "it begins like a folded block", text: block("      bearer:\n        token: >SECRET\n")},
		{name: "it has a colon in it", odd: ": ", text: block("      bearer:\n        token: SECRET\n")},
		{name: "it has a brace in it", odd: "}", text: wrong(`{bearer: {token: SECRET}}`)},
		{name: "it has a control character in it", odd: "\x01", text: wrong(`{bearer: {token: SECRET}}`)},
		{name: "a tab before it", text: block("      bearer:\n\t\ttoken: SECRET\n")},
		{name: "a line that stands too far left", text: block("      bearer:\n        token:\nSECRET\n")},
		{name: "no space behind the colon", text: wrong(`{bearer: {token:SECRET}}`)},
		{name: "no space behind the colon of a block", text: block("      bearer:\n        token:SECRET\n")},
		{name: "an equals sign for a colon", text: wrong(`{bearer: {token=SECRET}}`)},
		{name: "a key instead of a value", text: wrong(`{bearer: {SECRET: token}}`)},
		{name: "a key instead of a mapping", text: wrong(`{SECRET: {}}`)},
		{name: "a reference for a key", text: wrong(`{bearer: {VARIABLE: token}}`)},
		{name: "a list of keys", text: wrong(`{bearer: {? [SECRET] : token}}`)},
		{name: "a misspelt key", text: wrong(`{bearer: {tokn: SECRET}}`)},
		{name: "the same key twice", text: wrong(`{bearer: {token: SECRET, token: SECRET}}`)},
		{name: "the same key of a header twice", text: "  wrong: {url: \"https://far.test/\", headers: {X-A: SECRET, x-a: SECRET}}"},
		{name: "a text instead of a mapping", text: wrong(`{bearer: SECRET}`)},
		{name: "a text instead of all", text: wrong(`SECRET`)},
		{name: "a list instead of a text", text: wrong(`{bearer: {token: [SECRET]}}`)},
		{name: "a mapping instead of a text", text: wrong(`{bearer: {token: {SECRET: SECRET}}}`)},
		{name: "a tag of its own", text: wrong(`{bearer: {token: !own SECRET}}`)},
		{name: "a line break in it", odd: "\r\n", text: wrong(`{bearer: {token: "REFERENCE"}}`)},
		{name: "a line break in a header", odd: "\n", text: "  wrong: {url: \"https://far.test/\", headers: {X-A: \"VARIABLE\"}}"},
		{name: "a line break in a password", odd: "\n", text: wrong(`{basic: {username: u, password: "REFERENCE"}}`)},
		{name: "a variable without its kind", text: wrong(`{bearer: {token: "${SECRET}"}}`)},
		{name: "a reference without an end", text: wrong(`{bearer: {token: "${SECRET"}}`)},
		{name: "the name of a certificate's file", text: "  wrong: {url: \"https://far.test/\", tls: {key_file: REFERENCE, cert_file: REFERENCE}}"},
		{name: "a file that is no key", text: "  wrong: {url: \"https://far.test/\", tls: {key_file: FILE, cert_file: client.pem}}"},
		{name: "half a key of Standard Webhooks", odd: "-", text: signed(`{standard: {secrets: ["whsec_SECRET"]}}`)},
		{name: "half a private key", odd: "-", text: signed(`{standard: {secrets: ["whsk_SECRET"]}}`)},
		{name: "a key without its beginning", text: signed(`{standard: {secrets: [SECRET]}}`)},
		{name: "a key that is no PEM", text: signed(`{rfc9421: {key_id: a, algorithm: ed25519, secret: QUOTED}}`)},
		{name: "PEM that is no key", text: signed(`{rfc9421: {key_id: a, algorithm: ecdsa-p256-sha256, secret: "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----"}}`)},
		{name: "an algorithm", text: signed(`{hmac: {header: X-A, algorithm: "VARIABLE", secret: a-secret-that-is-long}}`)},
		{name: "the name of a header", text: signed(`{hmac: {header: "VARIABLE x", secret: a-secret-that-is-long}}`)},
		{name: "a number", text: "  wrong: {url: \"https://far.test/\", concurrency: SECRET}"},
		{name: "a duration", text: "  wrong: {url: \"https://far.test/\", timeout: \"VARIABLE\"}"},
		{name: "a rate", text: "  wrong: {url: \"https://far.test/\", rate: SECRET}"},
		{name: "a word of a list", text: "  wrong: {url: \"https://far.test/\", order: SECRET}"},
		{name: "a URL", text: "  wrong: {url: \"VARIABLE\"}"},
		{name: "a URL with a password", text: "  wrong: {url: \"https://u:SECRET@far.test/\"}"},
		{name: "a URL with a password and no scheme", text: "  wrong: {url: \"u:SECRET@far.test/\"}"},
		{name: "a URL with a port", text: "  wrong: {url: \"https://far.test:8443/?key=SECRET\"}"},
		{name: "a URL with a port that is none", text: "  wrong: {url: \"https://u:SECRET/hook\"}"},
		{name: "a URL of http", text: "  wrong: {url: \"http://far.test/VARIABLE\"}"},
		{name: "a URL with a fragment", text: "  wrong: {url: \"https://far.test/#SECRET\"}"},
		{name: "a token endpoint", text: wrong(`{oauth2: {client_id: a, client_secret: SECRET, token_url: "http://far.test/?s=SECRET"}}`)},
		{name: "a network", text: "  wrong: {url: \"https://far.test/\", allow_networks: [\"VARIABLE\"]}"},
		{name: "a template", text: "  wrong: {url: \"https://far.test/\", body: \"{{ nothing VARIABLE }}\"}"},
		{name: "a template in a header", text: "  wrong: {url: \"https://far.test/\", headers: {X-A: \"{{ nothing }} SECRET\"}}"},
		{name: "a path", text: "  wrong: {url: \"https://far.test/\", expect: [{path: \"VARIABLE\"}]}"},
		{name: "a filter", text: "  wrong: {url: \"https://far.test/\", when: \"$[?@.key == VARIABLE]\"}"},
		{name: "a pattern", text: "  wrong: {url: \"https://far.test/\", events: [\"VARIABLE **\"]}"},
		{name: "a status", text: "  wrong: {url: \"https://far.test/\", success: [\"VARIABLE\"]}"},
		{name: "a ratio", top: true, text: "tracing: {sample_ratio: SECRET}"},
		{name: "a short key of the store", top: true, text: "store: {encryption_key: SECRET}"},
		{name: "a collector", top: true, text: "tracing: {otlp_endpoint: \"http://u:SECRET@127.0.0.1\"}"},
		{name: "a section", top: true, text: "SECRET: x"},
		{name: "a section that is a secret", top: true, text: "tracing: SECRET"},
		{name: "a second document", text: "---\nSECRET"},
	}
}
