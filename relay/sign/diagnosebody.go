package sign

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// bodyVariant is a body that may have been signed in place of the one that was captured.
type bodyVariant struct {
	body []byte
	what string // how the signed body relates to the captured one; empty for the captured one itself
	fix  string
}

// maxRewrite is the longest body, in bytes, whose JSON is written anew in search of what was signed.
const maxRewrite = 4 << 20

const (
	fixRaw    = "verify the bytes as they arrived, before anything parses, prints or saves them"
	fixParsed = "verify the bytes as they arrived, not JSON that was parsed and written anew"
	fixSigner = "let the sender sign the bytes that it sends"
)

// bodyVariants returns what commonly happens to a body between a sender's signature and a receiver's verification.
// The captured body comes first; no two are the same.
func bodyVariants(body []byte) []bodyVariant {
	all := []bodyVariant{{body: body}}
	add := func(v []byte, fix, format string, args ...any) {
		for _, other := range all {
			if string(other.body) == string(v) {
				return
			}
		}
		all = append(all, bodyVariant{v, fmt.Sprintf(format, args...), fix})
	}
	const bom = "\ufeff"
	add(bytes.TrimSuffix(bytes.TrimSuffix(body, []byte("\n")), []byte("\r")), fixRaw, "without the line end behind it")
	add(append(bytes.Clone(body), '\n'), fixRaw, "with a line end (LF) behind it")
	add(append(bytes.Clone(body), "\r\n"...), fixRaw, "with a line end (CR LF) behind it")
	add(bytes.TrimSpace(body), fixRaw, "without the white space around it")
	unix := bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
	add(unix, fixRaw, "with LF in place of each CR LF")
	add(bytes.ReplaceAll(unix, []byte("\n"), []byte("\r\n")), fixRaw, "with CR LF in place of each LF")
	add(bytes.TrimPrefix(body, []byte(bom)), fixRaw, "without the byte order mark in front of it")
	add(append([]byte(bom), body...), fixRaw, "with a byte order mark in front of it")
	add(nil, "look for what read the body before it was signed or verified", "empty")
	if len(body) > maxRewrite {
		return all
	}
	if trimmed := bytes.TrimPrefix(body, []byte(bom)); json.Valid(trimmed) {
		addJSON(trimmed, func(v []byte, what string) { add(v, fixParsed, "%s", what) })
	}
	return all
}

// addJSON adds the ways in which common libraries write the same document.
func addJSON(body []byte, add func(v []byte, what string)) {
	var buf bytes.Buffer
	_ = json.Compact(&buf, body) // the caller has checked that it is JSON
	compact := bytes.Clone(buf.Bytes())
	add(compact, "as compact JSON")
	add(append(bytes.Clone(compact), '\n'), "as compact JSON with a line end")
	for _, indent := range []struct{ text, name string }{{"  ", "two spaces"}, {"    ", "four spaces"}, {"\t", "tabs"}} {
		buf.Reset()
		_ = json.Indent(&buf, body, "", indent.text)
		add(bytes.Clone(buf.Bytes()), "as JSON indented by "+indent.name)
	}
	spaced := rewrite(compact, spaceOut)
	add(spaced, "as JSON with a space behind each comma and colon, as Python writes it")
	add(rewrite(spaced, escapeWide), "as Python writes JSON: spaces, and \\u escapes for all but ASCII")
	add(rewrite(compact, escapeWide), "as compact JSON with \\u escapes for all but ASCII")
	add(rewrite(compact, escapeHTML), "as Go writes JSON: compact, with \\u escapes for <, > and &")
	add(rewrite(compact, escapeSlash), `as PHP writes JSON: compact, with \/ for each slash`)
	add(bytes.ReplaceAll(compact, []byte(`\/`), []byte("/")), `as compact JSON with / for each \/`)
	if plain, err := unescaped(compact); err == nil {
		add(plain, "as compact JSON without \\u escapes")
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return
	}
	buf.Reset()
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return
	}
	sorted := bytes.TrimSuffix(bytes.Clone(buf.Bytes()), []byte("\n"))
	add(sorted, "as compact JSON with sorted keys")
	add(rewrite(sorted, spaceOut), "as JSON with sorted keys and a space behind each comma and colon")
}

// rewrite replaces the characters of a JSON text by what each tells, which depends on whether it stands in a string.
func rewrite(text []byte, each func(dst []byte, r rune, inString bool) []byte) []byte {
	out := make([]byte, 0, len(text)+len(text)/8)
	inString, escaped := false, false
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 || escaped {
			out = append(out, text[i:i+size]...)
		} else {
			out = each(out, r, inString)
		}
		switch {
		case escaped:
			escaped = false
		case inString && r == '\\':
			escaped = true
		case r == '"':
			inString = !inString
		}
		i += size
	}
	return out
}

func spaceOut(dst []byte, r rune, inString bool) []byte {
	dst = utf8.AppendRune(dst, r)
	if !inString && (r == ',' || r == ':') {
		dst = append(dst, ' ')
	}
	return dst
}

func escapeWide(dst []byte, r rune, _ bool) []byte {
	if r < utf8.RuneSelf {
		return append(dst, byte(r))
	}
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError { // JSON knows 16 bits
		return fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}

func escapeHTML(dst []byte, r rune, _ bool) []byte {
	switch r {
	case '<', '>', '&', '\u2028', '\u2029':
		return fmt.Appendf(dst, `\u%04x`, r)
	}
	return utf8.AppendRune(dst, r)
}

func escapeSlash(dst []byte, r rune, _ bool) []byte {
	if r == '/' {
		return append(dst, `\/`...)
	}
	return utf8.AppendRune(dst, r)
}

// unescaped turns the \u escapes of a compact JSON text into characters, where JSON allows these.
func unescaped(text []byte) ([]byte, error) {
	var out []byte
	for i := 0; i < len(text); {
		if text[i] != '"' {
			out = append(out, text[i])
			i++
			continue
		}
		end := i + 1
		for end < len(text) && text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		var s string
		if end >= len(text) || json.Unmarshal(text[i:end+1], &s) != nil {
			return nil, fmt.Errorf("string at byte %d", i)
		}
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			return nil, fmt.Errorf("string at byte %d: %w", i, err)
		}
		out = append(out, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
		i = end + 1
	}
	return out, nil
}

// finding describes the variant as what is wrong with the captured body.
func (v bodyVariant) finding(captured []byte) Finding {
	f := Finding{Part: PartBody, Fix: v.fix}
	at := firstDifference(captured, v.body)
	f.Offset = &at
	f.Text = fmt.Sprintf("the signature is that of the body %s: %d bytes were signed, %d are here; they differ from byte %d on: %s here, %s signed",
		v.what, len(v.body), len(captured), at, excerpt(captured, at), excerpt(v.body, at))
	return f
}

// firstDifference is the number of bytes that a and b have in common at their beginning.
func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// excerpt shows a few bytes.
func excerpt(b []byte, at int) string {
	if at >= len(b) {
		return "the end"
	}
	const length = 8
	return strings.ToValidUTF8(fmt.Sprintf("%q", b[at:min(len(b), at+length)]), "?")
}
