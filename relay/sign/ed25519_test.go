package sign

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The vector of Svix's tests of v1a, which the specification shows in its example of the header.
const (
	v1aKey    = "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	v1aPublic = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
	v1aProof  = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
	v1Secret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	v1Proof   = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func vectorInput() Input {
	return Input{ID: "msg_p5jXN8AQM9LWM0D4loKWxJek", Time: time.Unix(1614265330, 0), Body: []byte(`{"test": 2432232314}`)}
}

// seedOnly returns the same private key without its public half.
func seedOnly(t testing.TB, key string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw[:32])
}

func TestStandardEd25519(t *testing.T) {
	in := vectorInput()
	for _, tt := range []struct {
		name    string
		secrets []string
		want    string
	}{
		{"seed and public key", []string{"whsk_" + v1aKey}, v1aProof},
		{"the seed alone", []string{"whsk_" + seedOnly(t, v1aKey)}, v1aProof},
		{"both kinds keep their order", []string{"whsk_" + v1aKey, v1Secret}, v1aProof + " " + v1Proof},
		{"and the other way round", []string{v1Secret, "whsk_" + v1aKey}, v1Proof + " " + v1aProof},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStandard(t, tt.secrets...)
			h := signed(t, s, in)
			if got := h.Get(HeaderSignature); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			for _, key := range append([]string{v1aPublic}, tt.secrets...) {
				v, err := NewStandardVerifier([]string{key})
				if err != nil {
					t.Fatalf("NewStandardVerifier: %v", err)
				}
				if err := v.Verify(h, in.Body, in.Time); err != nil {
					t.Errorf("%.6s: got %v, want none", key, err)
				}
				if err := v.Verify(h, append([]byte(" "), in.Body...), in.Time); !errors.Is(err, ErrNoMatch) {
					t.Errorf("%.6s, another body: got %v, want %v", key, err, ErrNoMatch)
				}
			}
		})
	}
	t.Run("the standard library verifies it", func(t *testing.T) {
		public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(v1aPublic, "whpk_"))
		if err != nil {
			t.Fatal(err)
		}
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(
			signed(t, newStandard(t, "whsk_"+v1aKey), in).Get(HeaderSignature), "v1a,"))
		if err != nil {
			t.Fatal(err)
		}
		if !ed25519.Verify(public, []byte(in.ID+".1614265330."+string(in.Body)), given) {
			t.Error("got false, want true")
		}
	})
	t.Run("a new pair fits", func(t *testing.T) {
		key, err := NewKey("ed25519")
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewStandardVerifier([]string{key.Public})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(signed(t, newStandard(t, key.Secret), in), in.Body, in.Time); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
	t.Run("signatures that are not whole do not match", func(t *testing.T) {
		v, err := NewStandardVerifier([]string{v1aPublic})
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range []string{
			v1aProof[:len(v1aProof)-1], strings.TrimPrefix(v1aProof, "v1a,"), "v1," + v1aProof[4:], "v1a,", v1Proof,
			v1aProof[:len(v1aProof)-4] + "====", "v1a," + strings.Repeat("A", 88), v1aProof + v1aProof,
		} {
			h := http.Header{"Webhook-Id": {in.ID}, "Webhook-Timestamp": {"1614265330"}, "Webhook-Signature": {list}}
			if got := v.Verify(h, in.Body, in.Time); !errors.Is(got, ErrNoMatch) {
				t.Errorf("%q: got %v, want %v", list, got, ErrNoMatch)
			}
		}
	})
}

func TestPrivateKeys(t *testing.T) {
	raw, err := base64.StdEncoding.DecodeString(v1aKey)
	if err != nil {
		t.Fatal(err)
	}
	foreign := append([]byte{}, raw...)
	foreign[63] ^= 1
	encode := base64.StdEncoding.EncodeToString
	for _, tt := range []struct{ name, secret, want string }{
		{"33 bytes are refused", "whsk_" + encode(raw[:33]), "holds 33 bytes"},
		{"63 bytes are refused", "whsk_" + encode(raw[:63]), "holds 63 bytes"},
		{"a foreign public half is refused", "whsk_" + encode(foreign), "does not belong"},
		{"a repeated byte is refused", "whsk_" + encode(make([]byte, 32)), "repeated"},
		{"text that is not base64 is refused", "whsk_oh no", "is not whsk_ and standard base64"},
		{"a public key of 31 bytes is refused", "whpk_" + encode(raw[33:]), "a public key has 32"},
		{"an empty public key is refused", "whpk_" + encode(make([]byte, 32)), "no public key"},
		{"the same key in both forms is refused", "whsk_" + v1aKey + ", whsk_" + seedOnly(t, v1aKey), "secret 2 is the same as secret 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewStandard(strings.Split(tt.secret, ", "))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), tt.secret[5:]) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}
