package sign

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	stripe "github.com/stripe/stripe-go/v82/webhook"
)

func newTimestamped(tb testing.TB, secrets ...string) *Timestamped {
	tb.Helper()
	s, err := NewTimestamped(TimestampedOptions{Header: "X-Signature", Secrets: secrets})
	if err != nil {
		tb.Fatalf("NewTimestamped: %v", err)
	}
	return s
}

func TestStripeVerifies(t *testing.T) {
	const older, newer, other = "whsec_older secret", "whsec_newer secret", "whsec_other secret"
	now := time.Now()
	for name, body := range map[string]string{"JSON": `{"a":"ü"}`, "an empty": "", "a binary": "\x00\xff.\r\n"} {
		in := Input{Time: now, Body: []byte(body)}
		t.Run(name+" body, by either secret of a rotation", func(t *testing.T) {
			value := signed(t, newTimestamped(t, newer, older), in).Get("X-Signature")
			for _, secret := range []string{newer, older} {
				if err := stripe.ValidatePayload(in.Body, value, secret); err != nil {
					t.Errorf("got %v, want none", err)
				}
			}
			if err := stripe.ValidatePayload(in.Body, value, other); !errors.Is(err, stripe.ErrNoValidSignature) {
				t.Errorf("with another secret: got %v, want %v", err, stripe.ErrNoValidSignature)
			}
			if err := stripe.ValidatePayload([]byte(body+" "), value, newer); !errors.Is(err, stripe.ErrNoValidSignature) {
				t.Errorf("with another body: got %v, want %v", err, stripe.ErrNoValidSignature)
			}
		})
	}
	t.Run("and finds the time too old after 5 minutes", func(t *testing.T) {
		in := Input{Time: now.Add(-301 * time.Second), Body: []byte("{}")}
		value := signed(t, newTimestamped(t, newer), in).Get("X-Signature")
		if err := stripe.ValidatePayload(in.Body, value, newer); !errors.Is(err, stripe.ErrTooOld) {
			t.Errorf("got %v, want %v", err, stripe.ErrTooOld)
		}
	})
	t.Run("and we verify what it makes", func(t *testing.T) {
		made := stripe.GenerateTestSignedPayload(&stripe.UnsignedPayload{Payload: []byte("{}"), Secret: older, Timestamp: now})
		h := http.Header{"X-Signature": {made.Header}}
		if err := newTimestamped(t, newer, older).Verify(h, []byte("{}"), now); err != nil {
			t.Errorf("%s: got %v, want none", made.Header, err)
		}
	})
}

func TestTimestampedVerify(t *testing.T) {
	now := time.Unix(1700000000, 0)
	s := newTimestamped(t, "correct horse")
	at := func(d time.Duration) string {
		return signed(t, s, Input{Time: now.Add(d), Body: []byte("body")}).Get("X-Signature")
	}
	good := at(0)
	proof := strings.TrimPrefix(good, "t=1700000000,")
	for _, tt := range []struct {
		name, value string
		want        error
	}{
		{"what was signed passes", good, nil},
		{"elements of other kinds are skipped", "v0=abc," + good + ",x", nil},
		{"the time may stand behind", proof + ",t=1700000000", nil},
		{"5 minutes ago is in time", at(-Tolerance), nil},
		{"5 minutes ahead is in time", at(Tolerance), nil},
		{"a second more ago is too old", at(-Tolerance - time.Second), ErrTooOld},
		{"a second more ahead is too new", at(Tolerance + time.Second), ErrTooNew},
		{"another time does not match", "t=1700000001," + proof, ErrNoMatch},
		{"no time is malformed", proof, ErrBadTimestamp},
		{"two times count as the first", "t=1700000001," + good, ErrNoMatch},
		{"another kind does not match", "t=1700000000,v0=" + proof[3:], ErrNoMatch},
		{"no signature does not match", "t=1700000000", ErrNoMatch},
		{"a missing header is told", "", ErrMissingHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := s.Verify(http.Header{"X-Signature": {tt.value}}, []byte("body"), now)
			if !errors.Is(got, tt.want) || got != nil && tt.want == nil {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNewTimestamped(t *testing.T) {
	for _, tt := range []struct {
		name    string
		header  string
		secrets []string
		want    string // in the error; empty means none
	}{
		{"a header and a secret are enough", "X-S", []string{"8 bytes!"}, ""},
		{"eight secrets are allowed", "X-S", strings.Fields("secret-1 secret-2 secret-3 secret-4 secret-5 secret-6 secret-7 secret-8"), ""},
		{"a missing header is refused", "", []string{"8 bytes!"}, "the header is missing"},
		{"webhook-signature is refused", "webhook-signature", []string{"8 bytes!"}, "Standard Webhooks"},
		{"no secret is refused", "X-S", nil, "there is no secret"},
		{"nine secrets are refused", "X-S", make([]string, 9), "at most 8"},
		{"a short secret is refused and named", "X-S", []string{"8 bytes!", "7 bytes"}, "secret 2 is shorter than 8"},
		{"the same secret twice is refused", "X-S", []string{"8 bytes!", "8 bytes!"}, "secret 2 is the same as secret 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewTimestamped(TimestampedOptions{Header: tt.header, Secrets: tt.secrets})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// FuzzTimestampedVerify: whatever we take, Stripe's library takes too.
func FuzzTimestampedVerify(f *testing.F) {
	f.Add("t=1700000000,v1=00", []byte("{}"))
	f.Add("v1=,t=,t=1,,=", []byte{0xff})
	f.Add("t=-1", []byte(""))
	const secret = "correct horse"
	s := newTimestamped(f, secret)
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		now := time.Now()
		if s.Verify(http.Header{"X-Signature": {value}}, body, now) == nil && stripe.ValidatePayload(body, value, secret) != nil {
			t.Errorf("only we take %q", value)
		}
		own := signed(t, s, Input{Time: now, Body: body}).Get("X-Signature")
		if err := s.Verify(http.Header{"X-Signature": {own + "," + value}}, body, now); err != nil {
			t.Errorf("we refuse what we signed: %v", err)
		}
	})
}
