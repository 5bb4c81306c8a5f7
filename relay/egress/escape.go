package egress

import (
	"encoding/base64"
	"encoding/hex"
	"html"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxEscaped is how many escapes within one another are looked into for secrets: JSON in a string of JSON, for example.
const maxEscaped = 3

// escapes are the characters that begin one.
const escapes = `%\&`

// maxEntity is the longest character reference of HTML that is looked at, in bytes.
const maxEntity = 12

// findEscaped returns where secrets stand in v with escapes in them. Which characters somebody else escapes, and how, is
// not known: .NET has \u002B and %2b where we have + and %2B.
func findEscaped(v string, secrets []string) []extent {
	if len(secrets) == 0 {
		return nil
	}
	var found []extent
	var at []int
	for range maxEscaped {
		plain, next := unescape(v)
		if next == nil {
			break
		}
		if at != nil {
			for i, p := range next {
				next[i] = at[p]
			}
		}
		for _, secret := range secrets {
			if len(secret) < minKnown { // longest first
				break
			}
			found = appendFound(found, plain, secret, next)
		}
		v, at = plain, next
	}
	return found
}

// unescape returns v without the escapes of URLs, JSON and HTML, and where in v each of its bytes begins, v's end being
// the last. Both are empty if there is none.
func unescape(v string) (plain string, at []int) {
	i := strings.IndexAny(v, escapes)
	for i >= 0 {
		if _, size := escapeAt(v[i:]); size > 0 {
			break
		}
		next := strings.IndexAny(v[i+1:], escapes)
		if next < 0 {
			return "", nil
		}
		i += 1 + next
	}
	if i < 0 {
		return "", nil
	}
	b := make([]byte, 0, len(v))
	at = make([]int, 0, len(v)+1)
	for i := 0; i < len(v); {
		text, size := escapeAt(v[i:])
		if size == 0 {
			text, size = v[i:i+1], 1
		}
		for range len(text) {
			at = append(at, i)
		}
		b = append(b, text...)
		i += size
	}
	return string(b), append(at, len(v))
}

// escapeAt returns what the escape stands for that v begins with, and its length, which is 0 if there is none.
func escapeAt(v string) (text string, size int) {
	switch {
	case len(v) < 2:
	case v[0] == '%':
		if len(v) >= 3 {
			if c, err := hex.DecodeString(v[1:3]); err == nil {
				return string(c), 3
			}
		}
	case v[0] == '&':
		if end := strings.IndexByte(v[:min(len(v), maxEntity)], ';'); end > 0 {
			if text := html.UnescapeString(v[:end+1]); text != v[:end+1] {
				return text, end + 1
			}
		}
	case v[0] != '\\':
	case v[1] == 'u':
		r, ok := hexRune(v)
		if !ok {
			return "", 0
		}
		if !utf16.IsSurrogate(r) {
			return string(r), 6
		}
		if low, ok := hexRune(v[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return string(pair), 12
			}
		}
	default:
		if i := strings.IndexByte(`bfnrt/\"'`, v[1]); i >= 0 {
			return "\b\f\n\r\t/\\\"'"[i : i+1], 2
		}
	}
	return "", 0
}

// hexRune reads the escape of six characters, \u and four hexadecimal digits, that v begins with.
func hexRune(v string) (rune, bool) {
	if len(v) < 6 || v[:2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(v[2:6], 16, 16)
	return rune(n), err == nil
}

// inBase64 returns what each text of at least minSecret bytes shows as within anything that is encoded in base64, in
// either alphabet: that depends on where it begins there. The letter at an end that is of its neighbour too is left out.
func inBase64(texts []string) []string {
	var all []string
	for _, text := range texts {
		if len(text) < minSecret {
			continue
		}
		for before, shared := range []int{0, 2, 3} {
			coded := base64.RawStdEncoding.EncodeToString([]byte("\x00\x00"[:before] + text))
			if (before+len(text))%3 != 0 {
				coded = coded[:len(coded)-1]
			}
			coded = coded[shared:]
			all = append(all, coded)
			if strings.ContainsAny(coded, "+/") {
				all = append(all, strings.NewReplacer("+", "-", "/", "_").Replace(coded))
			}
		}
	}
	return all
}

// inHex returns each text of at least minSecret bytes as it is written in hexadecimal, in small letters and in capitals.
func inHex(texts []string) []string {
	var all []string
	for _, text := range texts {
		if len(text) >= minSecret {
			coded := hex.EncodeToString([]byte(text))
			all = append(all, coded, strings.ToUpper(coded))
		}
	}
	return all
}
