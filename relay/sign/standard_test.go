package sign

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	official "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func secretOf(key string) string { return "whsec_" + base64.StdEncoding.EncodeToString([]byte(key)) }

func newStandard(tb testing.TB, secrets ...string) *Standard {
	tb.Helper()
	s, err := NewStandard(secrets)
	if err != nil {
		tb.Fatalf("NewStandard: %v", err)
	}
	return s
}

// signed returns the webhook headers of a request.
func signed(tb testing.TB, s Signer, in Input) http.Header {
	tb.Helper()
	headers, err := s.Sign(in)
	if err != nil {
		tb.Fatalf("Sign: %v", err)
	}
	h := http.Header{}
	h.Set(HeaderID, in.ID)
	h.Set(HeaderTimestamp, strconv.FormatInt(in.Time.Unix(), 10))
	for _, x := range headers {
		h.Set(x.Name, x.Value)
	}
	return h
}

// The first is libraries/go/webhook_test.go of standard-webhooks, the second Svix's "Verifying Webhooks Manually".
// That one's key has 18 bytes, fewer than the specification allows, so it is tried below the check of secrets.
func TestStandardVectors(t *testing.T) {
	tests := []struct {
		secret, id string
		unix       int64
		body, want string
	}{
		{
			"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
			`{"test": 2432232314}`, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		},
		{
			"plJ3nmyCDGBKInavdOK15jsl", "msg_loFOjxBNrRLzqYUf", 1731705121,
			`{"event_type":"ping","data":{"success":true}}`, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
		},
	}
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			key, err := base64.StdEncoding.DecodeString(tt.secret)
			if err != nil {
				t.Fatal(err)
			}
			k, r := standardKey{mac: newKeyed(sha256.New, key)}, standardRecipe()
			for range 2 { // the second time with a used state
				if got := string(k.appendSigned(nil, &r, tt.id, tt.unix, []byte(tt.body))); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
		})
	}
	t.Run("Sign gives the first vector in the webhook-signature header alone", func(t *testing.T) {
		v := tests[0]
		s := newStandard(t, "whsec_"+v.secret)
		got, err := s.Sign(Input{ID: v.id, Time: time.Unix(v.unix, 999), Body: []byte(v.body)})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0] != (Header{Name: "webhook-signature", Value: v.want}) {
			t.Errorf("got %v, want webhook-signature: %s", got, v.want)
		}
	})
}

func TestOfficialVerifier(t *testing.T) {
	oldSecret, newSecret, other := NewSecret(), NewSecret(), NewSecret()
	bodies := map[string][]byte{
		"JSON":       []byte(`{"type":"alert.fired","data":{"ü":1}}`),
		"an empty":   {},
		"a binary":   {0, 0xff, 0xfe, '.', '\r', '\n', 0x80},
		"a text":     []byte("hello . world"),
		"a 1 MiB":    []byte(strings.Repeat("x", 1<<20)),
		"a one-byte": {'.'},
	}
	verify := func(t *testing.T, secret string, body []byte, h http.Header) error {
		t.Helper()
		wh, err := official.NewWebhook(secret)
		if err != nil {
			t.Fatalf("official.NewWebhook: %v", err)
		}
		return wh.Verify(body, h)
	}
	for name, body := range bodies {
		t.Run("the official library verifies "+name+" body", func(t *testing.T) {
			in := Input{ID: "msg_0190", Time: time.Now(), Body: body}
			h := signed(t, newStandard(t, newSecret), in)
			if err := verify(t, newSecret, body, h); err != nil {
				t.Errorf("got %v, want none", err)
			}
			if err := verify(t, other, body, h); !errors.Is(err, official.ErrNoMatchingSignature) {
				t.Errorf("with another secret: got %v, want %v", err, official.ErrNoMatchingSignature)
			}
			if err := verify(t, newSecret, append([]byte{'x'}, body...), h); err == nil {
				t.Error("with another body: got no error")
			}
		})
	}
	t.Run("while a secret is rotated, holders of either verify", func(t *testing.T) {
		in := Input{ID: "msg_0190", Time: time.Now(), Body: []byte("{}")}
		h := signed(t, newStandard(t, newSecret, oldSecret), in)
		for _, secret := range []string{newSecret, oldSecret} {
			if err := verify(t, secret, in.Body, h); err != nil {
				t.Errorf("got %v, want none", err)
			}
		}
		first := signed(t, newStandard(t, newSecret), in).Get(HeaderSignature)
		if got := h.Get(HeaderSignature); !strings.HasPrefix(got, first+" v1,") {
			t.Errorf("the signature of the first secret does not come first: %s", got)
		}
	})
	t.Run("we verify what the official library signs", func(t *testing.T) {
		wh, err := official.NewWebhook(newSecret)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1700000000, 0)
		sig, err := wh.Sign("msg_1", now, []byte("body"))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {"1700000000"}, "Webhook-Signature": {sig}}
		if err := newStandard(t, oldSecret, newSecret).Verify(h, []byte("body"), now); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
}

func TestNewStandard(t *testing.T) {
	good := secretOf("0123456789abcdef01234567")
	tests := []struct {
		name    string
		secrets []string
		want    string // in the error; empty means none
	}{
		{"24 bytes are enough", []string{good}, ""},
		{"64 bytes are allowed", []string{secretOf(strings.Repeat("0123456789abcdef", 4))}, ""},
		{"a new secret is good", []string{NewSecret()}, ""},
		{"two secrets are a rotation", []string{NewSecret(), NewSecret()}, ""},
		{"no secret is refused", nil, "there is no secret"},
		{"an empty secret is refused", []string{""}, "secret 1 does not start with whsec_"},
		{"23 bytes are refused", []string{secretOf("0123456789abcdef0123456")}, "secret 1 holds 23 bytes; 24 to 64"},
		{"65 bytes are refused", []string{secretOf(strings.Repeat("0123456789abc", 5))}, "secret 1 holds 65 bytes"},
		{"the prefix alone is refused", []string{"whsec_"}, "holds 0 bytes"},
		{"a secret without prefix is refused", []string{strings.TrimPrefix(good, "whsec_")}, "does not start with whsec_"},
		{"a private key of 24 bytes is refused", []string{"whsk_" + strings.TrimPrefix(good, "whsec_")}, "holds 24 bytes; an ed25519 key has 32, or 64"},
		{"a public key is refused", []string{"whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="}, "cannot sign"},
		{"text that is not base64 is refused", []string{"whsec_correct horse battery staple!"}, "base64"},
		{"URL base64 is refused", []string{"whsec_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_"}, "base64"},
		{"missing padding is refused", []string{strings.TrimRight(secretOf("0123456789abcdef012345678"), "=")}, "base64"},
		{"stray bits are refused", []string{"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3OB=="}, "base64"},
		{"a line end behind it is refused", []string{good + "\n"}, "white space"},
		{"a space before it is refused", []string{" " + good}, "white space"},
		{"a line end within is refused", []string{good[:20] + "\n" + good[20:]}, "line end"},
		{"a repeated byte is refused", []string{secretOf(strings.Repeat("a", 32))}, "one byte repeated"},
		{"the faulty one is named", []string{good, "oops"}, "secret 2 does not"},
		{"the same secret twice is refused", []string{NewSecret(), good, good}, "secret 3 is the same as secret 2"},
		{"nine secrets are refused", make([]string, 9), "at most 8"},
	}
	t.Run("each faulty one is named at its place", func(t *testing.T) {
		got := StandardFaults([]string{good, "oops", good, "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="})
		for i, want := range []string{"<nil>", "secret 2 does not start", "<nil>", "secret 4 is a public key"} {
			if !strings.HasPrefix(fmt.Sprint(got[i]), want) {
				t.Errorf("secret %d: got %v, want %s…", i+1, got[i], want)
			}
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewStandard(tt.secrets)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			for _, secret := range tt.secrets {
				for _, p := range []string{"whsec_", "whsk_", "whpk_"} {
					secret = strings.TrimPrefix(strings.TrimSpace(secret), p)
				}
				if err != nil && len(secret) > 3 && strings.Contains(err.Error(), secret[:4]) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
		})
	}
}

func TestNewSecret(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if a == b {
		t.Error("two new secrets are the same")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(a, "whsec_"))
	if err != nil || len(key) != 32 || !strings.HasPrefix(a, "whsec_") {
		t.Errorf("got %d bytes, %v; want whsec_ and 32 bytes", len(key), err)
	}
}

func TestSignRefusesIDs(t *testing.T) {
	s := newStandard(t, NewSecret())
	for _, id := range []string{"", "msg.1", "msg 1", "msg\r\n1", "msg\x00", "mség", "\x7f"} {
		if got, err := s.Sign(Input{ID: id, Time: time.Unix(1, 0)}); err == nil {
			t.Errorf("id %q: got %v, want an error", id, got)
		}
	}
}

func TestVerify(t *testing.T) {
	now := time.Unix(1700000000, 0)
	secret := NewSecret()
	s := newStandard(t, secret)
	good := signed(t, s, Input{ID: "msg_1", Time: now, Body: []byte("body")})
	at := func(d time.Duration) http.Header {
		return signed(t, s, Input{ID: "msg_1", Time: now.Add(d), Body: []byte("body")})
	}
	with := func(name, value string) http.Header {
		h := good.Clone()
		if value == "" {
			h.Del(name)
		} else {
			h.Set(name, value)
		}
		return h
	}
	sig := good.Get(HeaderSignature)
	tests := []struct {
		name   string
		header http.Header
		body   string
		want   error
	}{
		{"a genuine request passes", good, "body", nil},
		{"signatures of other versions are skipped", with(HeaderSignature, "v1a,AAAA v2,x "+sig+" v9"), "body", nil},
		{"5 minutes ago is in time", at(-Tolerance), "body", nil},
		{"5 minutes ahead is in time", at(Tolerance), "body", nil},
		{"a second more ago is too old", at(-Tolerance - time.Second), "body", ErrTooOld},
		{"a second more ahead is too new", at(Tolerance + time.Second), "body", ErrTooNew},
		{"a missing id is told", with(HeaderID, ""), "body", ErrMissingHeader},
		{"a missing timestamp is told", with(HeaderTimestamp, ""), "body", ErrMissingHeader},
		{"a missing signature is told", with(HeaderSignature, ""), "body", ErrMissingHeader},
		{"no header at all is told", http.Header{}, "body", ErrMissingHeader},
		{"a timestamp in words is malformed", with(HeaderTimestamp, "now"), "body", ErrBadTimestamp},
		{"a timestamp with a fraction is malformed", with(HeaderTimestamp, "1700000000.5"), "body", ErrBadTimestamp},
		{"a timestamp with a sign is malformed", with(HeaderTimestamp, "+1700000000"), "body", ErrBadTimestamp},
		{"a negative timestamp is malformed", with(HeaderTimestamp, "-1"), "body", ErrBadTimestamp},
		{"a timestamp with a leading zero is malformed", with(HeaderTimestamp, "01700000000"), "body", ErrBadTimestamp},
		{"a timestamp beyond 64 bits is malformed", with(HeaderTimestamp, "99999999999999999999"), "body", ErrBadTimestamp},
		{"another timestamp does not match", with(HeaderTimestamp, "1700000001"), "body", ErrNoMatch},
		{"the largest timestamp does not match", with(HeaderTimestamp, strconv.Itoa(math.MaxInt64)), "body", ErrNoMatch},
		{"another id does not match", with(HeaderID, "msg_2"), "body", ErrNoMatch},
		{"an id with a full stop does not match", with(HeaderID, "msg.1"), "body", ErrNoMatch},
		{"another body does not match", good, "Body", ErrNoMatch},
		{"a signature without version does not match", with(HeaderSignature, sig[3:]), "body", ErrNoMatch},
		{"a signature of version 2 does not match", with(HeaderSignature, "v2"+sig[2:]), "body", ErrNoMatch},
		{"a cut signature does not match", with(HeaderSignature, sig[:len(sig)-1]), "body", ErrNoMatch},
		{"an empty signature does not match", with(HeaderSignature, "v1,"), "body", ErrNoMatch},
		{"a signature far down the list is not looked at", with(HeaderSignature, strings.Repeat("v1,x ", 64)+sig), "body", ErrNoMatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := s.Verify(tt.header, []byte(tt.body), now); !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("another secret does not match", func(t *testing.T) {
		if got := newStandard(t, NewSecret()).Verify(good, []byte("body"), now); !errors.Is(got, ErrNoMatch) {
			t.Errorf("got %v, want %v", got, ErrNoMatch)
		}
	})
}

func TestConcurrentSign(t *testing.T) {
	s := newStandard(t, NewSecret(), NewSecret())
	now := time.Unix(1700000000, 0)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				in := Input{ID: fmt.Sprintf("msg_%d_%d", g, i), Time: now, Body: []byte(strings.Repeat("x", i))}
				headers, err := s.Sign(in)
				if err != nil {
					t.Errorf("Sign: %v", err)
					return
				}
				h := http.Header{}
				h.Set(HeaderID, in.ID)
				h.Set(HeaderTimestamp, "1700000000")
				h.Set(headers[0].Name, headers[0].Value)
				if err := s.Verify(h, in.Body, now); err != nil {
					t.Errorf("Verify: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	f.Add("msg_1", "1700000000", "v1,AAAA", []byte("body"))
	f.Add("", "", "", []byte{})
	f.Add("a.b", "-1", "v1, v1a,x  v1", []byte("{}"))
	f.Add("x", "9223372036854775807", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", []byte{0xff})
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	ours := newStandard(f, secret)
	theirs, err := official.NewWebhook(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, stamp, list string, body []byte) {
		now := time.Now()
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {list}}
		if ours.Verify(h, body, now) == nil && theirs.Verify(body, h) != nil {
			t.Errorf("only we take %q", h)
		}
		// And what we sign passes, whatever stands around it in the list.
		headers, err := ours.Sign(Input{ID: id, Time: now, Body: body})
		if err != nil {
			return
		}
		h.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
		h.Set(HeaderSignature, headers[0].Value+" "+list)
		if err := ours.Verify(h, body, now); err != nil {
			t.Errorf("we refuse what we signed: %v", err)
		}
		if err := theirs.Verify(body, h); err != nil {
			t.Errorf("they refuse what we signed: %v", err)
		}
	})
}

func BenchmarkStandardSign(b *testing.B) {
	s := newStandard(b, NewSecret())
	in := Input{ID: "msg_0190a1b2c3d4e5f60718293a4b5c6000", Time: time.Unix(1700000000, 0), Body: make([]byte, 1024)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(in); err != nil {
			b.Fatal(err)
		}
	}
}
