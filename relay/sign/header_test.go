package sign

import (
	"slices"
	"strings"
	"testing"
)

// TestHeaderOfASignature holds for each option that names a header: none takes one that means something else.
func TestHeaderOfASignature(t *testing.T) {
	const secret = "correct horse"
	options := map[string]func(name string) error{
		"hmac": func(name string) error {
			_, err := NewHMAC(HMACOptions{Header: name, Secret: secret})
			return err
		},
		"timestamped": func(name string) error {
			_, err := NewTimestamped(TimestampedOptions{Header: name, Secrets: []string{secret}})
			return err
		},
		"the header of a profile": func(name string) error {
			_, err := NewProfile(ProfileOptions{Name: "outpost", Secrets: []string{secret}, Header: name})
			return err
		},
		"the timestamp of a profile": func(name string) error {
			_, err := NewProfile(ProfileOptions{Name: "grafana", Secrets: []string{secret}, TimestampHeader: name})
			return err
		},
		"hmac to be verified": func(name string) error {
			_, err := Question{Scheme: SchemeHMAC, Header: name}.recipe()
			return err
		},
		"timestamped to be verified": func(name string) error {
			_, err := Question{Scheme: SchemeTimestamped, Header: name}.recipe()
			return err
		},
	}
	for name, want := range map[string]string{ // in the error; empty means allowed
		"X-Signature": "", "Signature": "", "X-Content-Signature": "", "Contents": "", "Centre": "", "X-Date": "", "Ranges": "",
		"Date-Signature": "", "Traceparent-Signature": "", "Iffy": "", "X-Postern-Signature": "", "Proxied": "", "X-Webhook-Signature": "",
		"Webhook-Signature": "belongs to Standard Webhooks", "webhook-id": "belongs to Standard Webhooks", "WEBHOOK-X": "belongs to Standard Webhooks",
		"Postern-Hops": "belongs to Postern", "postern-signature": "belongs to Postern", "Postern-Key": "belongs to Postern",
		"Traceparent": "another meaning", "traceparent": "another meaning", "Tracestate": "another meaning",
		"Content-Type": "describes the body", "content-length": "describes the body", "Content-Encoding": "describes the body", "Content-Digest": "describes the body",
		"Content-MD5": "describes the body", "content-range": "describes the body", "Content-Signature": "describes the body",
		"Range": "another meaning", "RANGE": "another meaning", "If-Range": "conditional", "If-None-Match": "conditional", "if-match": "conditional",
		"Date": "another meaning", "date": "another meaning", "Ce-Id": "CloudEvent", "ce-signature": "CloudEvent", "CE-Type": "CloudEvent",
		"Host": "another meaning", "Expect": "another meaning", "Authorization": "another meaning", "Cookie": "another meaning", "cookie2": "another meaning",
		"Http2-Settings": "another meaning", "Proxy-Authorization": "meant for a proxy", "Proxy-Signature": "meant for a proxy",
		"Idempotency-Key": "another meaning", "x-idempotency-key": "another meaning", "User-Agent": "another meaning",
	} {
		for option, try := range options {
			err := try(name)
			if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "choose another name")) {
				t.Errorf("%s in %s: got %v, want %q", option, name, err, want)
			}
		}
	}
	if !slices.IsSorted(reserved[:]) {
		t.Errorf("not sorted: %v", reserved)
	}
}
