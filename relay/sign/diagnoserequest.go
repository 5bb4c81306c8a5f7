package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// diagnoseRFC9421 is Diagnose for HTTP Message Signatures.
func diagnoseRFC9421(r Request, q Question) (Diagnosis, error) {
	d := Diagnosis{Scheme: SchemeRFC9421, Header: headerMessageSignature}
	v, err := NewRFC9421Verifier(q.Label, q.Algorithm, q.Keys)
	if err != nil {
		return Diagnosis{}, err
	}
	for _, name := range []string{headerSignatureInput, headerMessageSignature} {
		if len(r.Header[name]) == 0 {
			d.missing(r.Header, name)
		}
	}
	if len(d.Findings) > 0 {
		return d, nil
	}
	all, err := readLabelled(r.Header, q.Label)
	if err != nil {
		d.found(PartHeader, "let the sender write these headers as RFC 9421, section 4, has them", "%v", err)
		return d, nil
	}
	// Signatures of several senders or algorithms stand side by side, and the one meant is that of these keys.
	var (
		best  Diagnosis
		rank  int
		label string
		names []string
	)
	for i, l := range all {
		names = append(names, l.label)
		if best.Valid {
			continue
		}
		one := v.diagnose(r, q, l)
		if n := v.rank(one, l); i == 0 || n > rank || n == rank && len(one.Findings) < len(best.Findings) {
			best, rank, label = one, n, l.label
		}
	}
	if len(all) > 1 {
		best.Notes = append(best.Notes, fmt.Sprintf("the request has %d signatures (%s); this is about %s", len(all),
			strings.Join(names, ", "), label))
	}
	return best, nil
}

// rank says how likely a signature is the one that the keys are for: the higher, the likelier.
func (v *RFC9421Verifier) rank(d Diagnosis, l labelled) int {
	switch {
	case d.Valid:
		return 3
	case d.Key > 0:
		return 2
	case slices.ContainsFunc(v.keys, l.fits):
		return 1
	}
	return 0
}

// fits reports whether the signature may be one by the algorithm of k: as it says itself, or else by its length.
func (l labelled) fits(k requestKey) bool {
	if algorithm := l.text("alg"); algorithm != "" {
		return algorithm == k.algorithm
	}
	if k.mac != nil {
		return len(l.given) == sha256.Size
	}
	return len(l.given) == ed25519.SignatureSize // which is that of ECDSA on P-256 too (RFC 9421, section 3.3.4)
}

func (v *RFC9421Verifier) diagnose(r Request, q Question, l labelled) Diagnosis {
	d := Diagnosis{Scheme: SchemeRFC9421, Header: headerMessageSignature + " " + l.label}
	created, ok := l.number("created")
	if ok {
		d.SignedAt = instant(created)
	}
	base, _, err := signatureBase(l.list, l.covered, r.message().value)
	d.Signed = shown(r, l)
	switch {
	case err != nil:
		d.found(PartRequest, "look whether a proxy has dropped or changed it", "%v", err)
	default:
		d.Key = v.maker(l, base) + 1
		if d.Key == 0 {
			v.search(&d, r, q, l)
		}
	}
	if d.Key > 0 || err != nil {
		d.digest(r, l)
	}
	switch expires, limited := l.number("expires"); {
	case !ok:
		d.found(PartClock, "let the sender add the parameter created", "the signature does not say when it was created")
	case limited && q.Now.Unix() > expires:
		d.found(PartClock, "verify requests as they arrive; for one that was captured earlier, say when",
			"the signature expired at %s, %d seconds ago", time.Unix(expires, 0).UTC().Format(time.RFC3339), q.Now.Unix()-expires)
	default:
		d.clock(created, q)
	}
	d.Valid = len(d.Findings) == 0
	return d
}

// shown is the signature base for a person. Of a header that may hold a secret only the length of its value is told: a
// base is shown to have its lines compared, and is pasted into tickets.
func shown(r Request, l labelled) string {
	base, _, err := signatureBase(l.list, l.covered, func(c component) (string, error) {
		value, err := r.message().value(c)
		if err == nil && !isPublic(c.name) {
			value = fmt.Sprintf("*** (%d bytes)", len(value))
		}
		return value, err
	})
	if err != nil {
		return ""
	}
	return string(base)
}

// isPublic reports whether the value of a component can be no credential: it is derived from the request line and the
// host, describes the body, or is of Standard Webhooks.
func isPublic(name string) bool {
	return strings.HasPrefix(name, "@") || strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "webhook-")
}

// digest holds Content-Digest against the body.
func (d *Diagnosis) digest(r Request, l labelled) {
	if !l.covers("content-digest") {
		if len(r.Body) > 0 {
			d.found(PartSignature, "let the sender cover content-digest", "the signature does not cover the body: anybody may have changed it")
		}
		return
	}
	err := checkDigest(r.Header[headerContentDigest], r.Body)
	if err == nil {
		return
	}
	if !errors.Is(err, ErrBadDigest) {
		d.found(PartHeader, "let the sender write it as RFC 9530, section 2, has it", "%v", err)
		return
	}
	for _, variant := range bodyVariants(r.Body)[1:] {
		if checkDigest(r.Header[headerContentDigest], variant.body) == nil {
			f := variant.finding(r.Body)
			f.Text = strings.Replace(f.Text, "the signature is that", "Content-Digest is that", 1)
			d.Findings = append(d.Findings, f)
			d.bodyHints(r)
			return
		}
	}
	short, long := sha256.Sum256(r.Body), sha512.Sum512(r.Body)
	encode := base64.StdEncoding.EncodeToString
	d.found(PartBody, fixRaw, "Content-Digest is %s, but the body of %d bytes has sha-256=:%s: and sha-512=:%s:",
		clip(strings.Join(r.Header[headerContentDigest], ", "), 200), len(r.Body), encode(short[:]), encode(long[:]))
	d.bodyHints(r)
}

// guess is another value that a component may have had at the sender.
type guess struct {
	component, value, what string
}

// search looks for what the sender has signed in place of what arrived: one component, or two at once, or another
// reading of the key.
func (v *RFC9421Verifier) search(d *Diagnosis, r Request, q Question, l labelled) {
	if algorithm := l.text("alg"); algorithm != "" && !slices.ContainsFunc(v.keys, func(k requestKey) bool { return algorithm == k.algorithm }) {
		d.found(PartKey, "verify with the key of this sender", "the signature is made by %s, and the keys are for %s", clip(algorithm, 40), v.keys[0].algorithm)
		return
	}
	guesses := guessesOf(r, l)
	try := func(chosen ...guess) bool {
		base, _, err := signatureBase(l.list, l.covered, func(c component) (string, error) {
			for _, g := range chosen {
				if g.component == c.text {
					return g.value, nil
				}
			}
			return r.message().value(c)
		})
		if err != nil {
			return false
		}
		maker := v.maker(l, base)
		if maker >= 0 {
			d.Key = maker + 1
			for _, g := range chosen {
				d.found(PartRequest, "verify the request as the sender sent it: behind a proxy, by the host and path that the sender knows",
					"the signature fits if %s is %q: %s", g.component, clip(g.value, 200), g.what)
			}
		}
		return maker >= 0
	}
	for _, g := range guesses {
		if try(g) {
			return
		}
	}
	for i, a := range guesses {
		for _, b := range guesses[i+1:] {
			if a.component != b.component && try(a, b) {
				return
			}
		}
	}
	if d.misread(r, q, l) {
		return
	}
	d.found(PartKey, "compare the key at both ends, and the lines that are signed with those of the sender",
		"the signature does not fit: either the key is another one or something that it covers has changed; "+
			"%d changes of single components and their pairs were tried", len(guesses))
}

// misread tries keys of HMACs read in other ways.
func (d *Diagnosis) misread(r Request, q Question, l labelled) bool {
	base, _, err := signatureBase(l.list, l.covered, r.message().value)
	if err != nil || len(l.given) != sha256.Size {
		return false
	}
	for i, text := range q.Keys {
		bare, _ := strings.CutPrefix(text, base64Prefix)
		for _, k := range slices.Concat(keyVariants(text, true), keyVariants(bare, false)) {
			key := requestKey{algorithm: HMACSHA256, mac: newKeyed(sha256.New, k.raw)}
			if key.verify(base, l.given) {
				d.Key = i + 1
				what := k.name
				if what == "" {
					what = "as text"
				}
				d.found(PartKey, "write base64: in front of a key in base64; without it the text itself is the key",
					"the signature fits if one reads key %d %s", i+1, what)
				return true
			}
		}
	}
	return false
}

// guessesOf returns what proxies and frameworks commonly make of the components that a signature covers.
func guessesOf(r Request, l labelled) []guess {
	var all []guess
	m := r.message()
	for _, c := range l.covered {
		actual, err := m.value(c)
		if err != nil {
			continue
		}
		add := func(value, what string) {
			if value != actual {
				all = append(all, guess{c.text, value, what})
			}
		}
		switch c.name {
		case "@method":
			for _, method := range []string{"POST", "PUT", "PATCH", "GET", "DELETE"} {
				add(method, "the method was changed on the way")
			}
			add(strings.ToLower(actual), "the sender writes it in lower case, against RFC 9421, section 2.2.1")
		case "@authority":
			for _, name := range []string{"X-Forwarded-Host", "X-Original-Host"} {
				if host := r.Header.Get(name); host != "" {
					add(strings.ToLower(host), "that is "+name+", which a proxy has set")
				}
			}
			add(m.url.Host, "the sender keeps capitals or port 443, against RFC 9421, section 2.2.3")
			add(actual+":443", "the sender keeps the port, against RFC 9421, section 2.2.3")
			host, _, _ := strings.Cut(actual, ":")
			add(host, "the port was added on the way")
			add(strings.TrimPrefix(host, "www."), "the name was changed on the way")
		case "@path":
			add(strings.TrimSuffix(actual, "/"), "the slash at the end was added on the way")
			add(actual+"/", "the slash at the end was taken away on the way")
			add(m.url.Path, "the sender signs it decoded, against RFC 9421, section 2.2.6")
			add("", "the sender signs an empty path, against RFC 9421, section 2.2.6")
			if _, rest, ok := strings.Cut(strings.TrimPrefix(actual, "/"), "/"); ok {
				add("/"+rest, "something was put in front of it on the way")
			}
		case "@query":
			add("", "the sender signs nothing where there is no query, against RFC 9421, section 2.2.7")
			add("?", "the query was added on the way")
			add(strings.TrimPrefix(actual, "?"), "the sender leaves out the question mark, against RFC 9421, section 2.2.7")
		case "@scheme":
			add("https", "the connection was HTTPS in front of a proxy")
			add("http", "the sender signed http")
		case "@target-uri":
			if rest, ok := strings.CutPrefix(actual, "http://"); ok {
				add("https://"+rest, "the connection was HTTPS in front of a proxy")
			}
		case "content-digest":
			for _, sum := range digestsOf(r.Body) {
				add(sum, "the header was changed on the way; this is the digest of the body")
			}
		case "content-type":
			media, _, _ := strings.Cut(actual, ";")
			add(strings.TrimSpace(media), "parameters were added on the way")
			add(media+"; charset=utf-8", "the charset was taken away on the way")
			add(media+";charset=utf-8", "the charset was taken away on the way")
		case "content-length":
			add(fmt.Sprint(len(r.Body)), "the header was changed on the way")
		}
	}
	return all
}

// digestsOf returns the values of Content-Digest that fit a body.
func digestsOf(body []byte) []string {
	short, long := sha256.Sum256(body), sha512.Sum512(body)
	var all []string
	for _, d := range []struct {
		name   string
		hashed []byte
	}{{"sha-256", short[:]}, {"sha-512", long[:]}} {
		text, err := httpsfv.Marshal(httpsfv.NewItem(bytes.Clone(d.hashed)))
		if err == nil {
			all = append(all, d.name+"="+text)
		}
	}
	return all
}
