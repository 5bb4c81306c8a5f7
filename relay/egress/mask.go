package egress

import (
	"bytes"
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-relay/postern/store"
)

// masked stands in place of a secret in what is recorded of a request.
const masked = "***"

// masks is what is the same in the records of all requests.
type masks struct {
	auth   string            // header that Options.Auth sets, in canonical form; empty for none
	public map[string]bool   // keys of a request's header whose values are never secrets: those of Postern and of signatures
	fixed  map[string]string // by the key of a header that all requests have, its value masked
	url    string            // the address, masked
}

func (s *Sender) newMasks() masks {
	m := masks{
		public: map[string]bool{idHeader: true, timestampHeader: true, store.HopsHeader: true, store.ReplayHeader: true},
		fixed:  make(map[string]string, len(s.header)),
	}
	for _, signer := range s.opt.Signers {
		for _, h := range signer.Headers() {
			m.public[http.CanonicalHeaderKey(h.Name)] = true
		}
	}
	if name, _, _ := s.opt.Auth.header(); name != "" {
		m.auth = http.CanonicalHeaderKey(name)
	}
	for key, values := range s.header {
		m.fixed[key] = m.value(key, values[0], masked, s.secrets)
	}
	m.url = maskURL(s.opt.URL, s.opt.URL, masked, s.secrets)
	return m
}

// value returns a header's value with mark in place of what is secret of it.
func (m *masks) value(key, v, mark string, secrets []string) string {
	switch {
	case m.public[key]:
		return v
	case key == m.auth || store.SensitiveName(key):
		return maskCredential(v, mark)
	}
	return replaceSecrets(v, secrets, mark)
}

// maskCredential leaves the scheme of a credential, if it has one that is known.
func maskCredential(v, mark string) string {
	if scheme, _, ok := cutScheme(v); ok {
		return scheme + " " + mark
	}
	return mark
}

// cutScheme cuts a credential behind its scheme, if it has one that is known (RFC 9110, section 11.4).
func cutScheme(v string) (scheme, rest string, ok bool) {
	scheme, rest, found := strings.Cut(v, " ")
	if found {
		for _, known := range [...]string{"Basic", "Bearer", "Token", "ApiKey", "Digest"} {
			if strings.EqualFold(scheme, known) {
				return scheme, rest, true
			}
		}
	}
	return "", "", false
}

// extent is a part of a text, from its first byte to behind its last.
type extent struct{ start, end int }

// maskURL returns u with mark in place of what is secret of it: all secrets that are known, long values of the query of
// base, which is the config's, and values of parameters whose names tell it. Else what the app's path adds stays, and so
// does the slash that ends the host.
func maskURL(u, base *url.URL, mark string, secrets []string) string {
	text := u.String() // ends with the query: the guard lets no fragment through
	hide := findSecrets(text, secrets)
	path := len("https://") + strings.IndexByte(text[len("https://"):], '/')
	for i := range hide {
		if hide[i].start == path {
			hide[i].start++
		}
	}
	ours := 0
	if base.RawQuery != "" {
		ours = strings.Count(base.RawQuery, "&") + 1
	}
	at := len(text) - len(u.RawQuery)
	for i, part := range strings.Split(u.RawQuery, "&") {
		name, value, _ := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		end := at + len(part)
		if value != "" && (i < ours && len(value) >= minSecret || err != nil || sensitiveParameter(plain)) {
			hide = append(hide, extent{end - len(value), end})
		}
		at = end + 1
	}
	return replace(text, hide, mark)
}

// replaceSecrets puts mark in place of each secret in v.
func replaceSecrets(v string, secrets []string, mark string) string {
	return replace(v, findSecrets(v, secrets), mark)
}

// findSecrets returns where secrets stand in v, be it with escapes: those that somebody else has encoded as well. Secrets
// too short to be found without mistakes are left out: where a request has one, its place is known.
func findSecrets(v string, secrets []string) []extent {
	var found []extent
	for _, secret := range secrets {
		if len(secret) < minKnown { // longest first
			break
		}
		found = appendFound(found, v, secret, nil)
	}
	return append(found, findEscaped(v, secrets)...)
}

// appendFound appends where secret stands in v, as places of the text that at leads to.
func appendFound(found []extent, v, secret string, at []int) []extent {
	for from := 0; ; {
		i := strings.Index(v[from:], secret)
		if i < 0 {
			return found
		}
		s := extent{from + i, from + i + len(secret)}
		from = s.end
		if at != nil {
			s = extent{at[s.start], at[s.end]}
		}
		found = append(found, s)
	}
}

// replace puts mark in place of the extents of v, and one only where they touch.
func replace(v string, hide []extent, mark string) string {
	if len(hide) == 0 {
		return v
	}
	slices.SortFunc(hide, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	var b strings.Builder
	done, open := 0, false
	for _, s := range hide {
		if s.end <= done {
			continue
		}
		if !open || s.start > done {
			b.WriteString(v[done:s.start])
			b.WriteString(mark)
		}
		done, open = s.end, true
	}
	b.WriteString(v[done:])
	return b.String()
}

func holdsSecret(v string, secrets []string) bool {
	for _, s := range secrets {
		if strings.Contains(v, s) {
			return true
		}
	}
	return len(findEscaped(v, secrets)) > 0
}

func holdsSecretBytes(b []byte, secrets []string) bool {
	for _, s := range secrets {
		if bytes.Contains(b, []byte(s)) {
			return true
		}
	}
	return bytes.ContainsAny(b, escapes) && len(findEscaped(string(b), secrets)) > 0
}

// namesSecret reports whether the name of a header holds a secret, whose case has got lost there.
func namesSecret(name string, secrets []string) bool {
	for _, s := range secrets {
		if len(s) < minSecret { // part of many names
			break
		}
		for i := 0; i+len(s) <= len(name); i++ {
			if strings.EqualFold(name[i:i+len(s)], s) {
				return true
			}
		}
	}
	return false
}

// maskSecrets replaces each byte of a secret in v by an asterisk: the length stays, so bounds do too.
func maskSecrets(v string, secrets []string) string {
	if !holdsSecret(v, secrets) {
		return v
	}
	b := []byte(v)
	maskBytes(b, secrets)
	return string(b)
}

// maskBytes overwrites each secret in b with asterisks, be it with escapes.
func maskBytes(b []byte, secrets []string) {
	for _, secret := range secrets {
		for from := 0; ; {
			i := bytes.Index(b[from:], []byte(secret))
			if i < 0 {
				break
			}
			from += i
			hideBytes(b[from : from+len(secret)])
			from += len(secret)
		}
	}
	if bytes.ContainsAny(b, escapes) {
		for _, s := range findEscaped(string(b), secrets) {
			hideBytes(b[s.start:s.end])
		}
	}
}

func hideBytes(b []byte) {
	for i := range b {
		b[i] = '*'
	}
}
