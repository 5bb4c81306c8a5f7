package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// decoding is one way to read a text as bytes.
type decoding struct {
	name string
	raw  []byte
}

// decodings returns what a text may stand for. The first word of a name is the encoding.
func decodings(text string) []decoding {
	var all []decoding
	add := func(name string, raw []byte, err error) {
		if err != nil || len(raw) == 0 {
			return
		}
		for _, other := range all {
			if hmac.Equal(other.raw, raw) {
				return
			}
		}
		all = append(all, decoding{name, raw})
	}
	raw, err := hex.DecodeString(text)
	name := "hex"
	if strings.ToLower(text) != text {
		name = "hex in upper case"
	}
	add(name, raw, err)
	raw, err = base64.StdEncoding.DecodeString(text)
	add("base64", raw, err)
	raw, err = base64.RawStdEncoding.DecodeString(text)
	add("base64 without padding", raw, err)
	raw, err = base64.URLEncoding.DecodeString(text)
	add("base64 for URLs", raw, err)
	raw, err = base64.RawURLEncoding.DecodeString(text)
	add("base64 for URLs without padding", raw, err)
	return all
}

// offered is one signature that a header may hold.
type offered struct {
	decoding
	text string // as it stands in the header
}

// offers returns all that may be a signature within the value of a header, whatever stands around it.
func offers(value string) []offered {
	var all []offered
	for n, more := 0, true; more && n < maxSignatures; n++ {
		var token string
		if i := strings.IndexAny(value, " ,;"); i >= 0 {
			token, value = value[:i], value[i+1:]
		} else {
			token, more = value, false
		}
		texts := []string{token}
		for i := range len(token) - 1 {
			if token[i] == '=' || token[i] == ':' {
				texts = append(texts, token[i+1:])
			}
		}
		for _, text := range texts {
			for _, d := range decodings(text) {
				if size := len(d.raw); size == sha1.Size || size == sha256.Size || size == sha512.Size {
					all = append(all, offered{d, text})
				}
			}
		}
	}
	return all
}

// tester tells whether a key, read in some way, made one of the signatures.
type tester struct {
	key   int    // of Question.Keys, from 1
	what  string // how the sender has read the key; empty: as it should
	fix   string
	test  func(head, body []byte) (offered, bool)
	plain bool // an HMAC with the hash function that it should have
	want  func(head, body []byte) string
}

// keyVariants returns the bytes that a secret may have stood for at the sender, the right one first.
func keyVariants(text string, decoded bool) []decoding {
	var all []decoding
	add := func(name string, raw []byte) {
		if len(raw) == 0 {
			return
		}
		for _, other := range all {
			if hmac.Equal(other.raw, raw) {
				return
			}
		}
		all = append(all, decoding{name, raw})
	}
	bare, prefixed := strings.CutPrefix(strings.TrimSpace(text), secretPrefix)
	if decoded {
		if raw, err := parseSecret(bare); err == nil && prefixed && bare == text[len(secretPrefix):] {
			add("", raw)
		}
	} else {
		add("", []byte(text))
	}
	add("as text, the whole of it with its prefix", []byte(text))
	if prefixed {
		add("as text without whsec_ and not decoded", []byte(bare))
	}
	for _, d := range decodings(bare) {
		add("as the bytes that it is the "+d.name+" of", d.raw)
	}
	trimmed := strings.TrimSpace(text)
	add("as text without the white space around it", []byte(trimmed))
	add("as text without the quotes around it", []byte(strings.Trim(trimmed, `"'`)))
	add("as text with a line end behind it", []byte(trimmed+"\n"))
	add("as text in lower case", bytes.ToLower([]byte(trimmed)))
	return all
}

// testers returns all the keys with all the ways to read and to use them, those that are right first.
func testers(q Question, r *recipe, value string) []tester {
	candidates := offers(value)
	standard := isStandard(r)
	var right, wrong []tester
	for i, text := range q.Keys {
		if public := publicOf(text); standard && public != nil {
			right = append(right, tester{key: i + 1, test: verifierOf(public, candidates)})
			continue
		}
		for _, k := range keyVariants(text, standard) {
			for _, h := range []struct {
				name string
				make func() hash.Hash
				size int
			}{{"SHA-256", sha256.New, sha256.Size}, {"SHA-1", sha1.New, sha1.Size}, {"SHA-512", sha512.New, sha512.Size}} {
				own := r.algorithm().Size() == h.size
				t := tester{key: i + 1, plain: own, test: macOf(h.make, k.raw, candidates)}
				if k.name == "" && own {
					encode := r.encode
					t.want = func(head, body []byte) string { return string(encode(nil, macSum(h.make, k.raw, head, body))) }
					right = append(right, t)
					continue
				}
				if k.name != "" {
					t.what = "reads key " + fmt.Sprint(i+1) + " " + k.name
					t.fix = fixKey(standard)
				}
				if !own {
					t.what = strings.TrimPrefix(t.what+" and makes HMACs by "+h.name, " and ")
					t.fix = "let both ends use the same hash function"
				}
				wrong = append(wrong, t)
			}
		}
	}
	return append(right, wrong...)
}

func fixKey(standard bool) string {
	if standard {
		return "the key of Standard Webhooks is what the base64 behind whsec_ stands for"
	}
	return "the key of this scheme is the text of the secret, a prefix included, and nothing is decoded"
}

// isStandard reports whether a recipe is that of Standard Webhooks or Svix, whose labels depend on the keys.
func isStandard(r *recipe) bool { return r.id != "" && r.label == "" }

// publicOf returns the public key of a whsk_ or whpk_ text, or nil.
func publicOf(text string) ed25519.PublicKey {
	k, _, err := parseStandardKey(strings.TrimSpace(text))
	if err != nil {
		return nil
	}
	return k.public
}

func macSum(h func() hash.Hash, key, head, body []byte) []byte {
	m := hmac.New(h, key)
	m.Write(head)
	m.Write(body)
	return m.Sum(nil)
}

func macOf(h func() hash.Hash, key []byte, candidates []offered) func(head, body []byte) (offered, bool) {
	return func(head, body []byte) (offered, bool) {
		made := macSum(h, key, head, body)
		for _, o := range candidates {
			if hmac.Equal(o.raw, made) {
				return o, true
			}
		}
		return offered{}, false
	}
}

func verifierOf(public ed25519.PublicKey, candidates []offered) func(head, body []byte) (offered, bool) {
	return func(head, body []byte) (offered, bool) {
		signed := append(bytes.Clone(head), body...)
		for _, o := range candidates {
			if len(o.raw) == ed25519.SignatureSize && ed25519.Verify(public, signed, o.raw) {
				return o, true
			}
		}
		return offered{}, false
	}
}
