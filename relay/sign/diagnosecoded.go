package sign

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxDeviations = 2         // things that may be wrong at once
	maxHashed     = 256 << 20 // bytes that one search hashes
)

// headVariant is what may have been signed in front of the body.
type headVariant struct {
	head []byte
	what string // continues "the sender signs"; empty for what the scheme asks for
}

// diagnoseCoded is Diagnose for every scheme but rfc9421.
func diagnoseCoded(r Request, q Question, rec recipe) Diagnosis {
	d := Diagnosis{Scheme: q.Scheme, Header: rec.header}
	for _, name := range []string{rec.header, rec.id, rec.stamp} {
		if name != "" && r.Header.Get(name) == "" {
			d.missing(r.Header, name)
		}
	}
	value := r.Header.Get(rec.header)
	if value == "" {
		return d
	}
	if n := len(r.Header.Values(rec.header)); n > 1 {
		d.Notes = append(d.Notes, fmt.Sprintf("header %s is there %d times; verifiers read the first", rec.header, n))
	}
	heads := headVariants(&rec, r.Header)
	d.Signed = fmt.Sprintf("%s and the body of %d bytes", orBody(heads[0].head), len(r.Body))
	c, err := rec.read(r.Header)
	stamped := err == nil && rec.timed
	if stamped {
		d.SignedAt = instant(c.unix)
	}
	if err == nil {
		if d.Key = makerOf(&rec, q.Keys, c, r.Body) + 1; d.Key > 0 {
			d.keyNotes(&rec, q.Keys[d.Key-1])
		}
	} else if len(d.Findings) == 0 {
		d.badTimestamp(&rec, r.Header, value)
	}
	if d.Key == 0 {
		d.search(r, q, &rec, heads, value)
	}
	if stamped {
		d.clock(c.unix, q)
	}
	d.Valid = len(d.Findings) == 0
	return d
}

func orBody(head []byte) string {
	if len(head) == 0 {
		return "nothing"
	}
	return strconv.Quote(string(head))
}

// makerOf is what a verifier does, but for the clock and for keys that are malformed: those make nothing.
func makerOf(rec *recipe, keys []string, c claim, body []byte) int {
	if !isStandard(rec) {
		raw := make([][]byte, len(keys))
		for i, text := range keys {
			raw[i] = []byte(text)
		}
		coded := newCoded(*rec, raw...)
		return coded.maker(c, body)
	}
	if checkID(c.id) != nil {
		return -1
	}
	v := StandardVerifier{recipe: *rec}
	for i, text := range keys {
		k, ok := lenientKey(text)
		if !ok {
			continue
		}
		v.keys = []standardKey{k}
		if v.maker(c, body) == 0 {
			return i
		}
	}
	return -1
}

// lenientKey is parseStandardKey for keys of any length, since a receiver's may be shorter than it should be.
func lenientKey(text string) (standardKey, bool) {
	if k, _, err := parseStandardKey(text); err == nil {
		return k, true
	}
	bare, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return standardKey{}, false
	}
	raw, err := decodeStrict(bare, secretPrefix)
	if err != nil || len(raw) == 0 {
		return standardKey{}, false
	}
	return standardKey{mac: newKeyed(sha256.New, raw)}, true
}

// keyNotes says what is odd about a key that works.
func (d *Diagnosis) keyNotes(rec *recipe, text string) {
	check := checkText
	if isStandard(rec) {
		check = func(text string) error { _, _, err := parseStandardKey(text); return err }
	}
	if err := check(text); err != nil {
		d.Notes = append(d.Notes, fmt.Sprintf("key %d %v", d.Key, err))
	}
}

// badTimestamp says why a timestamp that is there cannot be read.
func (d *Diagnosis) badTimestamp(rec *recipe, header http.Header, value string) {
	stamp := stampText(rec, header)
	switch _, dateErr := time.Parse(time.RFC3339, stamp); {
	case stamp == "" && rec.inline:
		d.found(PartHeader, "let the sender write t=<Unix seconds>,"+rec.label+"<signature>",
			"header %s holds no time: it begins with %q", rec.header, clip(value, 16))
	case dateErr == nil:
		d.found(PartClock, "let the sender write Unix seconds", "the timestamp %q is a date", clip(stamp, 40))
	default:
		d.found(PartClock, "let the sender write Unix seconds in plain digits",
			"the timestamp %q is not a number of Unix seconds", clip(stamp, 40))
	}
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// stampText is the time as it stands in the request, which is what has been signed.
func stampText(rec *recipe, header http.Header) string {
	if rec.inline {
		_, stamp := rec.split(header.Get(rec.header))
		return stamp
	}
	if rec.stamp == "" {
		return ""
	}
	return header.Get(rec.stamp)
}

// headVariants returns what may stand in front of the body, the right one first.
func headVariants(rec *recipe, header http.Header) []headVariant {
	var all []headVariant
	add := func(head, what string) {
		for _, other := range all {
			if string(other.head) == head {
				return
			}
		}
		all = append(all, headVariant{[]byte(head), what})
	}
	stamp, id := stampText(rec, header), ""
	if rec.id != "" {
		id = header.Get(rec.id)
	}
	right := rec.before
	if rec.id != "" {
		right += id + rec.sep
	}
	if rec.timed {
		right += stamp + rec.sep
	}
	add(right, "")
	add("", "the body alone")
	for _, s := range stampVariants(stamp, header) {
		if id != "" {
			add(id+"."+s.text+".", "id, "+s.name+" and body with full stops between them")
			add(s.text+"."+id+".", s.name+", id and body: the order is wrong")
			add(id+s.text, "id, "+s.name+" and body with nothing between them")
			add(id+".", "id and body without the time")
		}
		for _, sep := range []struct{ text, name string }{
			{".", "a full stop"}, {":", "a colon"}, {",", "a comma"}, {"", "nothing"}, {"\n", "a line end"},
		} {
			add(s.text+sep.text, s.name+" and body with "+sep.name+" between them")
		}
		add("v0:"+s.text+":", "v0, "+s.name+" and body with colons between them")
	}
	return all
}

// stampVariant is a time that may have been signed.
type stampVariant struct{ text, name string }

// stampVariants returns the times that a request speaks of: stamp, those of other headers, and those that are in
// milliseconds once more in seconds.
func stampVariants(stamp string, header http.Header) []stampVariant {
	const most = 6
	var all []stampVariant
	if stamp != "" {
		all = append(all, stampVariant{stamp, "time"})
	}
	var names []string
	for name := range header {
		if strings.Contains(strings.ToLower(name), "time") && header.Get(name) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), most)] {
		if text := header.Get(name); text != stamp {
			all = append(all, stampVariant{text, "the time of " + name})
		}
	}
	for _, s := range slices.Clone(all) {
		if n, err := strconv.ParseInt(s.text, 10, 64); err == nil && n > lastSecond {
			all = append(all, stampVariant{strconv.FormatInt(n/1000, 10), "the time in seconds"})
		}
	}
	return all
}

// search looks for what the sender has signed, and how, from few deviations to many.
func (d *Diagnosis) search(r Request, q Question, rec *recipe, heads []headVariant, value string) {
	bodies, all := bodyVariants(r.Body), testers(q, rec, value)
	before := len(d.Findings)
	budget := maxHashed
	for deviations := range maxDeviations + 1 {
		for _, t := range all {
			for i, head := range heads {
				for j, body := range bodies {
					if count(t.what != "", i > 0, j > 0) != deviations {
						continue
					}
					if budget -= len(body.body) + len(head.head); budget < 0 {
						d.unknown(r, rec, value, all, "the body is too long to try more")
						return
					}
					o, ok := t.test(head.head, body.body)
					if !ok {
						continue
					}
					d.Key = t.key
					d.explain(r, rec, t, head, body)
					if len(d.Findings) == before { // nothing but the way it is written
						d.written(rec, o, value)
					}
					return
				}
			}
		}
	}
	if d.nearMiss(r, all, heads[0].head, value) {
		return
	}
	d.unknown(r, rec, value, all, fmt.Sprintf("%d ways to read the keys, %d forms of the body and %d ways to put them together were tried",
		len(all), len(bodies), len(heads)))
}

func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

// explain turns what deviates into findings.
func (d *Diagnosis) explain(r Request, rec *recipe, t tester, head headVariant, body bodyVariant) {
	if t.what != "" {
		d.found(PartKey, t.fix, "the signature fits if one %s", t.what)
	}
	if head.what != "" {
		fix := "let the sender sign what the scheme asks for, or choose the scheme that it uses"
		d.found(PartSignature, fix, "the sender signs %s, where %s asks for %s", head.what, d.Scheme, rec.asks())
	}
	if body.what != "" {
		d.Findings = append(d.Findings, body.finding(r.Body))
		d.bodyHints(r)
	}
}

// asks says what a scheme signs.
func (r *recipe) asks() string {
	text := ""
	if r.before != "" {
		text = strconv.Quote(r.before) + ", "
	}
	if r.id != "" {
		text += "id, "
	}
	if r.timed {
		return text + "time and body with " + strconv.Quote(r.sep) + " between them"
	}
	return "the body alone"
}

// written is about a signature that is the right one in another form.
func (d *Diagnosis) written(rec *recipe, o offered, value string) {
	const text = "let the sender write it as the verifier expects it"
	form := "hex"
	if !strings.HasPrefix(string(rec.encode(nil, []byte{0, 0})), "00") {
		form = "base64"
	}
	label := rec.label
	if isStandard(rec) {
		if label = version1; len(o.raw) != sha256.Size {
			label = version1a
		}
	}
	switch {
	case o.name != form:
		d.found(PartSignature, text, "the signature is right, but written as %s; %s is expected", o.name, form)
	case label != "" && !strings.Contains(value, label+o.text):
		d.found(PartSignature, text, "the signature is right, but %q is missing in front of it: the header begins with %q", label, clip(value, 12))
	default:
		d.found(PartSignature, text, "the signature is right, but something stands around it: the header begins with %q and has %d characters",
			clip(value, 12), len(value))
	}
}

// nearMiss recognises a signature that was cut or typed over.
func (d *Diagnosis) nearMiss(r Request, all []tester, head []byte, value string) bool {
	const enough = 8 // characters that are not equal by chance
	for _, t := range all {
		if t.want == nil {
			continue
		}
		made := t.want(head, r.Body)
		at := strings.Index(value, made[:enough])
		if at < 0 {
			continue
		}
		given := value[at:]
		if i := strings.IndexAny(given, " ,;"); i >= 0 {
			given = given[:i]
		}
		same := firstDifference([]byte(given), []byte(made))
		d.Key = t.key
		switch {
		case same == len(given) && len(given) < len(made):
			d.found(PartSignature, "capture the whole header", "the signature is cut: %d of its %d characters are here, and they are right", len(given), len(made))
		case same == len(made):
			d.found(PartSignature, "capture the header again", "the signature is right, but %d characters follow it", len(given)-len(made))
		default:
			d.found(PartSignature, "capture the header again", "the signature is right up to its character %d of %d and damaged there", same, len(made))
		}
		return true
	}
	return false
}

// unknown is the last resort: the signature is none of these keys, or of another body.
func (d *Diagnosis) unknown(r Request, rec *recipe, value string, all []tester, tried string) {
	candidates := offers(value)
	public := slices.ContainsFunc(all, func(t tester) bool { return t.want == nil && t.what == "" })
	shared := slices.ContainsFunc(all, func(t tester) bool { return t.want != nil })
	elements := strings.Fields(value)
	only := func(version string) bool {
		return isStandard(rec) && !slices.ContainsFunc(elements, func(e string) bool { return !strings.HasPrefix(e, version) })
	}
	switch {
	case only(version1a) && !public:
		d.found(PartKey, "verify with the sender's public key (whpk_)", "all signatures are of ed25519 (v1a), and the keys are shared secrets (whsec_)")
	case only(version1) && !shared:
		d.found(PartKey, "verify with the shared secret (whsec_)", "all signatures are HMACs (v1), and the keys are for ed25519")
	case len(candidates) == 0:
		d.found(PartHeader, "look whether this is the right header and scheme", "header %s holds nothing that can be a signature of %s: %q",
			rec.header, d.Scheme, clip(value, 24))
	default:
		d.found(PartKey, "compare the secret at both ends, and capture headers and body byte for byte",
			"no signature fits: either the key is another one or %s changed in some other way; %s", rec.changed(), tried)
	}
	d.bodyHints(r)
}

// bodyHints adds what a body gives away about itself.
func (d *Diagnosis) bodyHints(r Request) {
	if length := r.Header.Get("Content-Length"); length != "" && length != strconv.Itoa(len(r.Body)) {
		d.found(PartBody, fixRaw, "Content-Length says %s bytes, and %d are here", clip(length, 20), len(r.Body))
	}
	if i := bytes.Index(r.Body, []byte(string(utf8.RuneError))); i >= 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("the body holds U+FFFD at byte %d: something has read bytes as text that were none, and they are lost", i))
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		d.Notes = append(d.Notes, fmt.Sprintf("Content-Encoding is %s: the signature is over the bytes as sent, before they are decoded", clip(e, 20)))
	}
}
