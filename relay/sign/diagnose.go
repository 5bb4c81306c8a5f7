package sign

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The schemes of a Question besides the names of Profiles.
const (
	SchemeStandard    = "standard"
	SchemeHMAC        = "hmac"
	SchemeTimestamped = "timestamped"
	SchemeRFC9421     = "rfc9421"
)

// Question says what a captured request is held against.
type Question struct {
	Scheme string   // one of the Scheme constants or of Profiles; empty: what the headers of the request suggest
	Keys   []string // one to eight secrets, or public keys for standard, svix and rfc9421

	Now       time.Time     // the receiver's clock, required
	Tolerance time.Duration // how far a timestamp may be from Now, either way; 0 means the constant Tolerance

	Header          string // that carries the signature; required for hmac, empty elsewhere: as the request suggests
	TimestampHeader string // as in ProfileOptions
	Prefix          string // as in HMACOptions, and Algorithm and Encoding for hmac too
	Algorithm       string // for rfc9421 as in RFC9421Options
	Encoding        string
	Label           string // of the one signature to look at; empty: that which fits the keys best. For rfc9421 alone
}

// Part is what a Finding is about.
type Part string

// The parts of a request, and of what it is held against, that can be wrong.
const (
	PartHeader    Part = "header"    // a header is missing or cannot be read
	PartClock     Part = "clock"     // the timestamp, or the clock it is held against
	PartKey       Part = "key"       // the secret or public key, or how it is read
	PartBody      Part = "body"      // the bytes of the body
	PartSignature Part = "signature" // the text of the signature, or what the sender signed
	PartRequest   Part = "request"   // method, target, host, or a header that is signed
)

// Finding is one thing that is wrong. It holds no secret.
type Finding struct {
	Part Part   `json:"part"`
	Text string `json:"text"`          // what is wrong
	Fix  string `json:"fix,omitempty"` // what to do about it

	// Offset is where the body differs first from what was signed, in bytes from 0; nil if that is not known.
	Offset *int `json:"offset,omitempty"`
}

// Diagnosis is the answer to a Question.
type Diagnosis struct {
	Valid    bool      `json:"valid"`
	Scheme   string    `json:"scheme,omitempty"`
	Header   string    `json:"header,omitempty"`   // that carries the signature
	Key      int       `json:"key,omitempty"`      // which of Keys made it, from 1; 0 if none did as it stands
	SignedAt time.Time `json:"signed_at,omitzero"` // what the signature says; zero if nothing
	Signed   string    `json:"signed,omitempty"`   // what is signed, in words or, for rfc9421, the signature base with headers masked
	Findings []Finding `json:"findings,omitempty"` // why it is not valid, the first cause first
	Notes    []string  `json:"notes,omitempty"`    // what is worth knowing though nothing is wrong
}

// found adds a finding; with one the request is not valid.
func (d *Diagnosis) found(part Part, fix, format string, args ...any) {
	d.Findings = append(d.Findings, Finding{Part: part, Text: fmt.Sprintf(format, args...), Fix: fix})
}

// Diagnose checks a captured request as its receiver would, and if it is not valid looks for the reason: it tries
// what commonly happens to bodies, keys, clocks and headers on their way into a verifier until the signature fits.
// Unlike a verifier it is not made for requests that an attacker can time. An error means that the question itself
// is wrong; it holds no secret.
func Diagnose(r Request, q Question) (Diagnosis, error) {
	if len(q.Keys) == 0 || len(q.Keys) > maxSecrets {
		return Diagnosis{}, fmt.Errorf("there are %d keys; one to %d are needed", len(q.Keys), maxSecrets)
	}
	if q.Now.IsZero() {
		return Diagnosis{}, errors.New("the clock is missing")
	}
	if q.Tolerance == 0 {
		q.Tolerance = Tolerance
	}
	if q.Scheme != "" {
		return diagnose(r, q)
	}
	suggested := suggestions(r.Header, q)
	if len(suggested) == 0 {
		var d Diagnosis
		d.missingAny(r.Header)
		return d, nil
	}
	// With several signatures side by side, the one that these keys made is meant.
	var (
		tried    []Diagnosis
		firstErr error
	)
	for _, s := range suggested {
		d, err := diagnose(r, s)
		switch {
		case err != nil && firstErr == nil:
			firstErr = err // keys of another scheme may not even be keys of this one
		case err != nil:
		case d.Valid || d.Key > 0:
			return d, nil
		default:
			tried = append(tried, d)
		}
	}
	if len(tried) == 0 {
		return Diagnosis{}, firstErr
	}
	var others []string
	for _, d := range tried[1:] {
		others = append(others, d.Scheme)
	}
	if len(others) > 0 {
		tried[0].Notes = append(tried[0].Notes, "the request has further signatures, which these keys did not make either: "+
			strings.Join(others, ", "))
	}
	return tried[0], nil
}

func diagnose(r Request, q Question) (Diagnosis, error) {
	if q.Scheme == SchemeRFC9421 {
		return diagnoseRFC9421(r, q)
	}
	rec, err := q.recipe()
	if err != nil {
		return Diagnosis{}, err
	}
	return diagnoseCoded(r, q, rec), nil
}

// recipe returns the recipe of every scheme but rfc9421.
func (q Question) recipe() (recipe, error) {
	switch q.Scheme {
	case SchemeStandard:
		return standardRecipe(), nil
	case SchemeHMAC:
		return HMACOptions{Header: q.Header, Prefix: q.Prefix, Algorithm: q.Algorithm, Encoding: q.Encoding}.recipe()
	case SchemeTimestamped:
		if err := checkHeader(q.Header); err != nil {
			return recipe{}, err
		}
		return timestampedRecipe(q.Header), nil
	}
	if !slices.Contains(Profiles(), q.Scheme) {
		return recipe{}, fmt.Errorf("scheme %q is not known; there are %s, %s, %s, %s, %s", q.Scheme, SchemeStandard,
			SchemeHMAC, SchemeTimestamped, SchemeRFC9421, strings.Join(Profiles(), ", "))
	}
	p, err := ProfileOptions{Name: q.Scheme, Header: q.Header, TimestampHeader: q.TimestampHeader}.product()
	return p.recipe, err
}

// suggestions returns the question once for each scheme that the headers of a request suggest, the surest first.
func suggestions(header http.Header, q Question) []Question {
	var all []Question
	add := func(scheme, name, prefix, encoding string) {
		s := q
		s.Scheme, s.Header = scheme, name
		if s.Prefix == "" {
			s.Prefix = prefix
		}
		if s.Encoding == "" {
			s.Encoding = encoding
		}
		all = append(all, s)
	}
	if q.Header == "" {
		if header.Get(HeaderSignature) != "" {
			add(SchemeStandard, "", "", "")
		}
		if header.Get(headerSignatureInput) != "" {
			add(SchemeRFC9421, "", "", "")
		}
		for _, p := range products() {
			if header.Get(p.recipe.header) == "" {
				continue
			}
			add(p.name, "", "", "")
			if !p.clocked {
				all[len(all)-1].TimestampHeader = ""
			}
		}
	}
	names := make([]string, 0, len(header))
	for name := range header {
		lower := strings.ToLower(name)
		if q.Header == "" && (strings.Contains(lower, "sig") || strings.Contains(lower, "hmac")) || lower == strings.ToLower(q.Header) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		value := header.Get(name)
		prefix, encoding := shape(value)
		known := slices.ContainsFunc(products(), func(p product) bool {
			return http.CanonicalHeaderKey(p.recipe.header) == name && (p.recipe.timed || p.recipe.label == prefix)
		})
		// Signature may also be somebody's own header, if it is alone.
		ours := map[string]bool{headerMessageSignature: header.Get(headerSignatureInput) != "", headerSignatureInput: true}[name]
		switch {
		case checkHeader(name) != nil, known && q.Header == "", ours:
		case strings.HasPrefix(value, inlineLabel) && strings.Contains(value, ",v1="):
			add(SchemeTimestamped, name, "", "")
		case encoding != "":
			add(SchemeHMAC, name, prefix, encoding)
		}
	}
	return all
}

// shape recognises an HMAC in a header's value, perhaps behind a prefix. It returns no encoding for anything else.
func shape(value string) (prefix, encoding string) {
	if i := strings.IndexByte(value, '='); i > 0 && i < len(value)-2 {
		prefix, value = value[:i+1], value[i+1:]
	}
	for _, form := range decodings(value) {
		switch len(form.raw) {
		case 20, 32, 64:
			return prefix, strings.Fields(form.name)[0]
		}
	}
	return "", ""
}

// missingAny says that there is no signature at all.
func (d *Diagnosis) missingAny(header http.Header) {
	var names []string
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	d.found(PartHeader, "name the header with the signature, or look whether a proxy or framework has dropped it",
		"none of the headers looks like a signature; there are %s", orNone(names))
}

// missing says that one header is not there, and which one may be meant instead.
func (d *Diagnosis) missing(header http.Header, name string) {
	var near []string
	for candidate := range header {
		if isNear(candidate, name) {
			near = append(near, candidate)
		}
	}
	slices.Sort(near)
	switch {
	case len(near) > 0:
		d.found(PartHeader, "let the sender write the name that the verifier looks for",
			"header %s is missing; there is %s", name, strings.Join(near, " and "))
	default:
		d.found(PartHeader, "look whether a proxy or framework has dropped it, and whether this is the right scheme",
			"header %s is missing", name)
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// isNear reports whether two names of headers are easily confused: they differ in punctuation, in a prefix X- or by
// up to two letters, or are the names of Standard Webhooks and Svix for one thing.
func isNear(a, b string) bool {
	plain := func(s string) string {
		s = strings.ToLower(s)
		s = strings.TrimPrefix(strings.TrimPrefix(s, "http_"), "x-")
		s = strings.NewReplacer("-", "", "_", "").Replace(s)
		if rest, ok := strings.CutPrefix(s, "svix"); ok {
			s = "webhook" + rest
		}
		return s
	}
	return distance(plain(a), plain(b)) <= 2
}

// distance is the number of letters to add, remove or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// clock holds a timestamp against the clock.
func (d *Diagnosis) clock(unix int64, q Question) {
	at := instant(unix)
	off := q.Now.Sub(at)
	switch {
	case at.IsZero():
		d.found(PartClock, "let the sender write Unix seconds", "the timestamp %d is out of all range", unix)
	case unix > lastSecond:
		d.found(PartClock, "let the sender write seconds", "the timestamp %d is in milliseconds: as such it is %s", unix,
			at.Format(time.RFC3339))
	case off.Abs() <= q.Tolerance:
	case off > 0:
		d.found(PartClock, "verify requests as they arrive and compare both clocks; for one that was captured earlier, say when",
			"the timestamp %s is %d seconds behind the clock here (%s), %d more than allowed",
			at.Format(time.RFC3339), seconds(off), q.Now.UTC().Format(time.RFC3339), seconds(off-q.Tolerance))
	default:
		d.found(PartClock, "compare the clocks of sender and receiver",
			"the timestamp %s is %d seconds ahead of the clock here (%s), %d more than allowed",
			at.Format(time.RFC3339), seconds(-off), q.Now.UTC().Format(time.RFC3339), seconds(-off-q.Tolerance))
	}
}

// instant is a timestamp as a time, or zero for one that no calendar has. Milliseconds are understood.
func instant(unix int64) time.Time {
	switch {
	case unix > lastSecond && unix <= lastSecond*1000:
		return time.UnixMilli(unix).UTC()
	case unix < 0 || unix > lastSecond:
		return time.Time{}
	}
	return time.Unix(unix, 0).UTC()
}

// lastSecond is far beyond all timestamps in seconds, and as milliseconds in 1973: the year 5138.
const lastSecond = 100_000_000_000

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
