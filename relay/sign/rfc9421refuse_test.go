package sign

import (
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestRFC9421Verify(t *testing.T) {
	now := time.Unix(1700000000, 0)
	good := func() Request { return received(t, webhookInput(), newRFC9421(t, RFC9421Options{Secret: rfcEd25519})) }
	other := sha512.Sum512([]byte("other"))
	for _, tt := range []struct {
		name   string
		change func(r *Request)
		want   error
	}{
		{"a genuine request passes", func(*Request) {}, nil},
		{"headers that are not covered may change", func(r *Request) { r.Header.Set("X-Team", "ops") }, nil},
		{"the authority is compared without case and port", func(r *Request) {
			r.URL = &url.URL{Scheme: "https", Host: "hooks.example.com", Path: "/", RawQuery: "x=1"}
		}, nil},
		{"another method does not match", func(r *Request) { r.Method = "PUT" }, ErrNoMatch},
		{"another host does not match", func(r *Request) { r.URL = &url.URL{Scheme: "https", Host: "evil.example", RawQuery: "x=1"} }, ErrNoMatch},
		{"another query does not match", func(r *Request) { r.URL = &url.URL{Scheme: "https", Host: "hooks.example.com", RawQuery: "x=2"} }, ErrNoMatch},
		{"another id does not match", func(r *Request) { r.Header.Set(HeaderID, "msg_2") }, ErrNoMatch},
		{"another body has another digest", func(r *Request) { r.Body = []byte("{}") }, ErrBadDigest},
		{"another digest does not match", func(r *Request) { r.Header.Set("Content-Digest", "sha-256=:AAAA:") }, ErrNoMatch},
		{"a digest that is added does not match", func(r *Request) {
			r.Header.Add("Content-Digest", "sha-512=:"+base64.StdEncoding.EncodeToString(other[:])+":")
		}, ErrNoMatch},
		{"a covered header that is gone is told", func(r *Request) { r.Header.Del("Content-Type") }, ErrMissingHeader},
		{"no Signature is told", func(r *Request) { r.Header.Del("Signature") }, ErrMissingHeader},
		{"no Signature-Input is told", func(r *Request) { r.Header.Del("Signature-Input") }, ErrMissingHeader},
		{"a Signature under another label is told", func(r *Request) {
			r.Header.Set("Signature", "x"+r.Header.Get("Signature"))
		}, ErrMissingHeader},
		{"a Signature that is text is told", func(r *Request) { r.Header.Set("Signature", `sig1="AAAA"`) }, ErrBadHeader},
		{"a Signature-Input that is no list is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=1`) }, ErrBadHeader},
		{"an empty Signature-Input is told", func(r *Request) { r.Header.Set("Signature-Input", ``) }, ErrBadHeader},
		{"a Signature-Input that is no dictionary is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=(`) }, ErrBadHeader},
		{"an unknown component is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=("@future");created=1700000000`) }, ErrBadHeader},
		{"a component twice is told", func(r *Request) { r.Header.Set("Signature-Input", `sig1=("date" "date");created=1700000000`) }, ErrBadHeader},
		{"a later creation does not match", func(r *Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), "1700000000", "1700000001", 1))
		}, ErrNoMatch},
		{"another algorithm does not match", func(r *Request) {
			r.Header.Set("Signature-Input", strings.Replace(r.Header.Get("Signature-Input"), `"ed25519"`, `"hmac-sha256"`, 1))
		}, ErrNoMatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.change(&r)
			if got := newVerifier(t, rfcEd25519Public).Verify(r, now); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"5 minutes later is in time", now.Add(Tolerance), nil},
		{"a second more is too late", now.Add(Tolerance + time.Second), ErrTooOld},
		{"5 minutes earlier is in time", now.Add(-Tolerance), nil},
		{"a second more is too early", now.Add(-Tolerance - time.Second), ErrTooNew},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := newVerifier(t, rfcEd25519Public).Verify(good(), tt.now); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("what expires is taken until then, and what says no time never", func(t *testing.T) {
		k, err := parseRequestKey(rfcEd25519, "")
		if err != nil {
			t.Fatal(err)
		}
		for params, want := range map[string]error{
			";created=1700000000;expires=1700000000": nil,
			";created=1700000000;expires=1699999999": ErrTooOld,
			";expires=1700000010":                    ErrBadTimestamp,
			`;created="now"`:                         ErrBadTimestamp,
		} {
			r := Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "h"}, Header: http.Header{}}
			base, _ := baseOf(t, r, `("@method")`+params, nil)
			proof, err := k.sign([]byte(base))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Signature-Input", `s=("@method")`+params)
			r.Header.Set("Signature", "s=:"+base64.StdEncoding.EncodeToString(proof)+":")
			if got := newVerifier(t, rfcEd25519Public).Verify(r, now); !errors.Is(got, want) || got != nil && want == nil {
				t.Errorf("%s: got %v, want %v", params, got, want)
			}
		}
	})
}

func TestCheckDigest(t *testing.T) {
	body := []byte(rfcBody)
	const sha256Value = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:" // of RFC 9530, Appendix D
	for _, tt := range []struct {
		name, value string
		want        error
	}{
		{"sha-512 passes", rfcDigest, nil},
		{"sha-256 passes", sha256Value, nil},
		{"both pass", sha256Value + ", " + rfcDigest, nil},
		{"unknown ones are skipped", "md5=:AAAA:, " + sha256Value, nil},
		{"one that is wrong is told though the other fits", "sha-512=:AAAA:, " + sha256Value, ErrBadDigest},
		{"unknown ones alone are told", "md5=:AAAA:", ErrBadHeader},
		{"text is told", `sha-256="X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="`, ErrBadHeader},
		{"no dictionary is told", "sha-256=:", ErrBadHeader},
		{"nothing is told", "", ErrBadHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkDigest([]string{tt.value}, body); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNewRFC9421(t *testing.T) {
	rsa := "-----BEGIN PUBLIC KEY-----\nMDwwDQYJKoZIhvcNAQEBBQADKwAwKAIhAL3u\n-----END PUBLIC KEY-----"
	long := make([]string, 65)
	for _, tt := range []struct {
		name string
		o    RFC9421Options
		want string // in the error; empty means none
	}{
		{"a secret is enough", RFC9421Options{Secret: "correct horse"}, ""},
		{"a whsec_ secret is decoded", RFC9421Options{Secret: v1Secret, Algorithm: HMACSHA256}, ""},
		{"a whsk_ secret signs ed25519", RFC9421Options{Secret: "whsk_" + v1aKey, Algorithm: Ed25519}, ""},
		{"white space around PEM does not matter", RFC9421Options{Secret: "\n" + rfcECDSA + "\n"}, ""},
		{"16 bytes in base64 are enough", RFC9421Options{Secret: "base64:MDEyMzQ1Njc4OWFiY2RlZg=="}, ""},
		{"15 bytes are not", RFC9421Options{Secret: "base64:MDEyMzQ1Njc4OWFiY2Rl"}, "holds 15 bytes"},
		{"base64 must be base64", RFC9421Options{Secret: "base64:correct horse"}, "is not base64:"},
		{"a repeated byte is refused", RFC9421Options{Secret: "base64:AAAAAAAAAAAAAAAAAAAAAA=="}, "repeated"},
		{"a short text is refused", RFC9421Options{Secret: "short"}, "shorter than 8"},
		{"an empty secret is refused", RFC9421Options{}, "is empty"},
		{"a public key is refused", RFC9421Options{Secret: rfcECDSAPublic}, "cannot sign"},
		{"a whpk_ key is refused", RFC9421Options{Secret: v1aPublic}, "cannot sign"},
		{"a broken public key is refused", RFC9421Options{Secret: rsa}, "cannot be read as PUBLIC KEY"},
		{"half a PEM is refused", RFC9421Options{Secret: rfcECDSA[:100]}, "not a whole block"},
		{"two keys are refused", RFC9421Options{Secret: rfcECDSA + "\n" + rfcEd25519}, "something behind"},
		{"a certificate is refused", RFC9421Options{Secret: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, "CERTIFICATE"},
		{"the algorithm must be that of the key", RFC9421Options{Secret: rfcECDSA, Algorithm: Ed25519}, "ecdsa-p256-sha256, and the algorithm is ed25519"},
		{"a text is no ed25519 key", RFC9421Options{Secret: "correct horse", Algorithm: Ed25519}, "hmac-sha256, and the algorithm"},
		{"an unknown algorithm is refused", RFC9421Options{Secret: "correct horse", Algorithm: "rsa-pss-sha512"}, "not known; write hmac-sha256, ed25519 or"},
		{"a label of one's own is allowed", RFC9421Options{Secret: "correct horse", Label: "*my_sig-1.a"}, ""},
		{"a label in capitals is refused", RFC9421Options{Secret: "correct horse", Label: "Sig"}, "label"},
		{"a label that begins with a digit is refused", RFC9421Options{Secret: "correct horse", Label: "1a"}, "label"},
		{"a label of 65 bytes is refused", RFC9421Options{Secret: "correct horse", Label: strings.Repeat("a", 65)}, "at most 64"},
		{"a key id with a line end is refused", RFC9421Options{Secret: "correct horse", KeyID: "a\nb"}, "printable ASCII"},
		{"a key id of 257 bytes is refused", RFC9421Options{Secret: "correct horse", KeyID: strings.Repeat("a", 257)}, "up to 256"},
		{"a component twice is refused", RFC9421Options{Secret: "correct horse", Components: []string{"Date", `"date"`}}, "twice"},
		{"an unknown component is refused", RFC9421Options{Secret: "correct horse", Components: []string{"@status"}}, "not known"},
		{"a hop-by-hop header is refused", RFC9421Options{Secret: "correct horse", Components: []string{"connection"}}, "changes on the way"},
		{"65 components are refused", RFC9421Options{Secret: "correct horse", Components: long}, "at most 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewRFC9421(tt.o)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err != nil && len(tt.o.Secret) > 8 && strings.Contains(err.Error(), tt.o.Secret[len(tt.o.Secret)-8:]) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestCheckLabels(t *testing.T) {
	first, second := newRFC9421(t, RFC9421Options{Secret: rfcShared}), newRFC9421(t, RFC9421Options{Secret: rfcECDSA, Label: "sig2"})
	if err := CheckLabels([]Signer{first, newStandard(t, v1Secret), second}); err != nil {
		t.Errorf("got %v, want none", err)
	}
	if err := CheckLabels([]Signer{first, newStandard(t, v1Secret), second, first}); err == nil || !strings.HasPrefix(err.Error(), "sign[3]: label sig1 is that of sign[0]") {
		t.Errorf("got %v, want an error of sign[3] and sign[0]", err)
	}
}

// FuzzRFC9421Verify: nothing that a sender writes makes a verifier panic, and only what we signed passes.
func FuzzRFC9421Verify(f *testing.F) {
	f.Add(`sig1=("@method" "@query-param";name="a" "x-team";bs "content-digest";key="sha-256");created=1700000000`, "sig1=:AAAA:", "sha-256=:AAAA:", "a=b&a", []byte("{}"))
	f.Add(`a=();created=1, b=("@path";req)`, `a=:AAAA:, b="x"`, "", "%", []byte(""))
	f.Add(`sig1=("@status" 1 token)`, "sig1", "sha-512=1", "?", []byte{0xff})
	v := newVerifier(f, rfcEd25519Public, rfcShared, rfcECDSAPublic)
	s := newRFC9421(f, RFC9421Options{Label: "own", Secret: rfcShared})
	f.Fuzz(func(t *testing.T, input, proof, digest, query string, body []byte) {
		now := time.Unix(1700000000, 0)
		r := Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "h", RawQuery: query}, Body: body, Header: http.Header{
			"Signature-Input": {input}, "Signature": {proof}, "Content-Digest": {digest}, "X-Team": {query, digest},
		}}
		if v.Verify(r, now) == nil {
			t.Errorf("a signature that nobody made passes: %v", r.Header)
		}
		if strings.ContainsAny(query, "\r\n") {
			return // such a URL cannot be sent
		}
		own := received(t, Input{ID: "msg_1", Time: now, Body: body, Method: "POST", URL: r.URL}, s)
		if err := v.Verify(own, now); err != nil {
			t.Errorf("we refuse what we signed: %v", err)
		}
	})
}

// FuzzParseRequestKey: no text makes the readers of keys panic, and no error shows it.
func FuzzParseRequestKey(f *testing.F) {
	for _, s := range []string{rfcShared, rfcEd25519, rfcECDSA, rfcECDSAPublic, v1Secret, v1aPublic, "whsk_" + v1aKey, "correct horse"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseRequestKey(text, "")
		switch {
		case err != nil && len(text) > 40 && strings.Contains(err.Error(), text):
			t.Errorf("the error shows the key: %v", err)
		case err != nil || !k.canSign():
			return
		}
		proof, err := k.sign([]byte("base"))
		if err != nil || !k.verify([]byte("base"), proof) {
			t.Errorf("a key that was accepted does not work: %v", err)
		}
	})
}
