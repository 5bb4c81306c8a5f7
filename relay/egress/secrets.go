package egress

import (
	"cmp"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/postern-relay/postern/store"
)

// minSecret is the length from which a header or query value is taken for a secret.
const minSecret = 8

// minKnown is the length from which a text that is known to be a secret is looked for: a shorter one stands where it is
// by chance.
const minKnown = 6

// minToken is the length from which a part of the path of a URL that is a secret is taken for one by itself.
const minToken = 16

// keyPrefixes begin a secret of Standard Webhooks. What follows is the key by itself.
const keyPrefixes = "whsec_ whsk_"

// secrets returns what must not come back in the record of an attempt, should a receiver repeat its request: the
// credentials, what Options.Secrets says, and the header values, the fixed parts of their templates and the query values
// that are long enough to be one. In every form, longest first.
func (o Options) secrets(t templates) []string {
	all := o.Auth.secrets()
	plain := make(map[string]bool, len(o.PlainHeader))
	for _, name := range o.PlainHeader {
		plain[http.CanonicalHeaderKey(name)] = !store.SensitiveName(name)
	}
	mayHold := func(name, text string) {
		name = http.CanonicalHeaderKey(name)
		if len(text) >= minSecret && name != "User-Agent" && !plain[name] {
			all = append(append(all, text), credentialParts(text)...)
		}
	}
	for _, h := range o.Header {
		if !h.isTemplate() {
			mayHold(h.Name, h.Value)
		}
	}
	for _, h := range t.header {
		for _, text := range h.program.literals {
			mayHold(h.name, text)
		}
	}
	all = append(all, querySecrets(o.URL.RawQuery)...)
	for _, text := range o.Secrets {
		all = append(all, secretParts(text)...)
	}
	return inEveryForm(all)
}

// credentialParts returns the texts to look for because of a header's value that may be a credential: what stands behind
// a scheme, the password that Basic encodes, and each part that is as long as a token.
func credentialParts(value string) []string {
	var all []string
	if scheme, rest, ok := cutScheme(value); ok {
		all = append(all, rest)
		if strings.EqualFold(scheme, "Basic") {
			if plain, err := base64.StdEncoding.DecodeString(rest); err == nil {
				_, password, _ := strings.Cut(string(plain), ":")
				all = append(all, password)
			}
		}
	}
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t,;=\"", r) }) {
		if len(part) >= minToken && part != value {
			all = append(all, part)
		}
	}
	return slices.DeleteFunc(all, func(part string) bool { return len(part) < minKnown })
}

// querySecrets returns the values of a query that are long enough to be a secret, as they are written.
func querySecrets(query string) []string {
	var all []string
	for _, part := range strings.Split(query, "&") {
		if _, value, _ := strings.Cut(part, "="); len(value) >= minSecret {
			all = append(all, value)
		}
	}
	return all
}

// secretParts returns the texts of at least minKnown bytes to look for because of a further secret. Of a URL these are its
// path and query: its scheme and host, in which the guard may have changed it, are no secrets, for they are in the DNS.
// Parts of a path that are as long as a token are looked for by themselves too, and so is the key that follows the prefix
// of a secret of Standard Webhooks.
func secretParts(text string) []string {
	if u, err := url.Parse(text); err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil {
		text = strings.Trim(u.EscapedPath(), "/")
		if u.RawQuery != "" {
			text += "?" + u.RawQuery
		}
	}
	all := []string{text}
	for prefix := range strings.FieldsSeq(keyPrefixes) {
		if key, ok := strings.CutPrefix(text, prefix); ok {
			all = append(all, key)
		}
	}
	path, query, found := strings.Cut(text, "?")
	if found {
		all = append(append(all, path, query), querySecrets(query)...)
	}
	for _, segment := range strings.Split(path, "/") {
		if len(segment) >= minToken {
			all = append(all, segment)
		}
	}
	return slices.DeleteFunc(all, func(part string) bool { return len(part) < minKnown })
}

// spellings returns each text as it stands in a request, and as it comes back from a receiver that shows the URL, the
// headers or the body, be it in JSON or HTML. Longest first.
func spellings(texts []string) []string {
	// What these escape beyond what JSON asks for.
	php, golang := strings.NewReplacer("/", `\/`), strings.NewReplacer("&", `\u0026`, "<", `\u003c`, ">", `\u003e`)
	var all []string
	add := func(text string) {
		all = append(all, text, html.EscapeString(text))
		if quoted, err := jsontext.AppendQuote(nil, text); err == nil {
			inner := string(quoted[1 : len(quoted)-1])
			all = append(all, inner, php.Replace(inner), golang.Replace(inner))
		}
	}
	inURL := func(text string) {
		// The second is what is left of a form without its percent signs, of which findEscaped knows the spelling.
		for _, form := range []string{text, strings.ReplaceAll(text, " ", "+"), url.QueryEscape(text), url.PathEscape(text), (&url.URL{Path: text}).EscapedPath()} {
			add(form)
		}
	}
	for _, text := range texts {
		if text == "" { // stands everywhere
			continue
		}
		inURL(text)
		for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
			if plain, err := unescape(text); err == nil && plain != text {
				inURL(plain)
			}
		}
	}
	return longestFirst(all)
}

// withSecrets returns secrets with more of them, in every form.
func withSecrets(secrets []string, more ...string) []string {
	return longestFirst(append(inEveryForm(more), secrets...))
}

// appSecrets returns what the app itself has sent that is masked in the record of a request, and must not come back in an
// answer: values of headers and parameters that are sent on, and whose names tell that they are secret.
func (s *Sender) appSecrets(m store.Message) []string {
	var all []string
	add := func(text string) {
		for _, part := range append(credentialParts(text), text) {
			if len(part) >= minSecret {
				all = append(all, part)
			}
		}
	}
	for _, f := range m.Header {
		if name := http.CanonicalHeaderKey(f.Name); s.named(name) && store.SensitiveName(name) {
			add(trimValue(f.Value))
		}
	}
	if _, query, ok := strings.Cut(m.Path, "?"); ok && s.opt.ForwardPath {
		for _, part := range strings.Split(query, "&") {
			name, value, _ := strings.Cut(part, "=")
			if plain, err := url.QueryUnescape(name); err != nil || sensitiveParameter(plain) {
				add(value)
			}
		}
	}
	return all
}

// longestOfApp returns how long the longest of appSecrets may be, in bytes; 0 if there are none.
func (s *Sender) longestOfApp() int {
	longest := 0
	if s.opt.ForwardPath {
		longest = maxForwardPath
	}
	for name := range s.forward {
		if store.SensitiveName(name) {
			longest = max(longest, maxHeaderValue)
		}
	}
	return longest
}

// inEveryForm returns each text in all its spellings, and as it shows in base64 and in hexadecimal, be it with its escapes
// or without. Longest first.
func inEveryForm(texts []string) []string {
	plain := slices.Clone(texts)
	for _, text := range texts {
		for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
			if p, err := unescape(text); err == nil {
				plain = append(plain, p)
			}
		}
	}
	plain = longestFirst(plain)
	return longestFirst(slices.Concat(spellings(texts), inBase64(plain), inHex(plain)))
}

// longestFirst sorts texts, so that none is masked in part before one that holds it, and drops what is there twice.
func longestFirst(texts []string) []string {
	slices.SortFunc(texts, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	return slices.Compact(texts)
}

func sensitiveParameter(name string) bool {
	return store.SensitiveName(name) || name == "sig" || name == "code" // of Azure's signed addresses and functions
}
