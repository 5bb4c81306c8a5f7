package sign

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewKey(t *testing.T) {
	for _, kind := range Kinds() {
		t.Run("a new "+kind+" signs, and its public half verifies", func(t *testing.T) {
			key, err := NewKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			again, err := NewKey(kind)
			if err != nil || key.Kind != kind || key.Secret == again.Secret {
				t.Fatalf("got %q and %q, %v", key.Kind, again.Kind, err)
			}
			asymmetric := slices.Contains([]string{"ed25519", "rfc9421-ed25519", "rfc9421-ecdsa"}, kind)
			if (key.Public != "") != asymmetric {
				t.Errorf("got a public half %q, want one: %t", key.Public, asymmetric)
			}
			public := key.Public
			if !asymmetric {
				public = key.Secret
			}
			var signer Signer
			switch kind {
			case "hmac":
				signer, err = NewHMAC(HMACOptions{Header: "X-S", Secret: key.Secret})
			case "timestamped":
				signer, err = NewTimestamped(TimestampedOptions{Header: "X-S", Secrets: []string{key.Secret}})
			case "standard", "ed25519":
				signer, err = NewStandard([]string{key.Secret})
			default:
				signer, err = NewRFC9421(RFC9421Options{Secret: key.Secret})
			}
			if err != nil {
				t.Fatal(err)
			}
			r, now := received(t, webhookInput(), signer), time.Unix(1700000000, 0)
			switch kind {
			case "hmac":
				err = signer.(*HMAC).Verify(r.Header, r.Body)
			case "timestamped":
				err = signer.(*Timestamped).Verify(r.Header, r.Body, now)
			case "standard", "ed25519":
				var v *StandardVerifier
				if v, err = NewStandardVerifier([]string{public}); err == nil {
					err = v.Verify(r.Header, r.Body, now)
				}
			default:
				err = newVerifier(t, public).Verify(r, now)
			}
			if err != nil {
				t.Errorf("Verify: got %v, want none", err)
			}
		})
	}
	t.Run("an unknown kind is refused with the list", func(t *testing.T) {
		if _, err := NewKey("rsa"); err == nil || !strings.Contains(err.Error(), `"rsa" is not known; choose one of standard, ed25519`) {
			t.Errorf("got %v", err)
		}
	})
}
