package main

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/receiver"
)

// untrusted are receivers that do not prove who they are. None of them may see a byte of the request.
func untrusted() []ailment {
	var all []ailment
	for _, c := range []struct{ identity, text string }{
		{"expired", "certificate is valid from"}, {"not valid yet", "certificate is valid from"},
		{"for another name", "for another name"}, {"for a subdomain", "for another name"}, {"for its address alone", "for another name"},
		{"self-signed", "not signed by a trusted authority"}, {"of another authority", "not signed by a trusted authority"},
		{"without a name", "for another name"}, {"of a leaf that signs", "not signed by a trusted authority"},
		{"with TLS 1.1", "TLS"}, {"with TLS 1.0", "TLS"}, {"with a key that is not its own", "invalid signature"},
		{"that wants ours", "TLS"},
	} {
		all = append(all, ailment{name: "a certificate " + c.identity, group: "bad TLS", tls: c.identity, serve: seesNothing, class: "tls", text: c.text})
	}
	all = append(all,
		ailment{name: "no TLS", group: "bad TLS", tls: "none", serve: func(l *rogueLine) {
			_, _ = l.Read(make([]byte, 1000))
			l.say("HTTP/1.1 400 Bad Request\r\n\r\n")
		}, class: "tls", text: "does not speak TLS"},
		ailment{name: "an alert in place of TLS", group: "bad TLS", tls: "none", serve: func(l *rogueLine) {
			_, _ = l.Read(make([]byte, 1000))
			l.say("\x15\x03\x01\x00\x02\x02\x28")
		}, class: "tls", text: "handshake failure"},
		ailment{name: "a handshake message without end", group: "bad TLS", tls: "none", serve: func(l *rogueLine) {
			_, _ = l.Read(make([]byte, 1000))
			l.repeat("\x16\x03\x03\x40\x00"+"\x0b\xff\xff\xff"+strings.Repeat("x", 1<<14-4), 0)
		}, class: "tls", most: 8 << 20},
		ailment{name: "warnings without end", group: "bad TLS", tls: "none", serve: func(l *rogueLine) {
			_, _ = l.Read(make([]byte, 1000))
			l.repeat(strings.Repeat("\x15\x03\x03\x00\x02\x01\x5a", 1000), 0)
		}, class: "tls", most: 8 << 20},
	)
	return all
}

// seesNothing is for receivers that a request must not reach: that one has come shows as a request that was read.
func seesNothing(l *rogueLine) {
	if n, _ := io.ReadFull(l.in, make([]byte, 1)); n > 0 {
		l.rogue.requests.Add(1)
	}
}

// identity returns how a rogue of the given name shows itself.
func identity(t *testing.T, s *site, a ailment, host, ip string) *tls.Config {
	t.Helper()
	must := func(c tls.Certificate, err error) tls.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := time.Now()
	config := &tls.Config{NextProtos: []string{"http/1.1"}}
	if a.alpn != "" {
		config.NextProtos = []string{a.alpn}
	}
	var cert tls.Certificate
	switch a.tls {
	case "none":
		return nil
	case "expired":
		cert = must(s.ca.IssueFor(now.Add(-48*time.Hour), now.Add(-24*time.Hour), host))
	case "not valid yet":
		cert = must(s.ca.IssueFor(now.Add(24*time.Hour), now.Add(48*time.Hour), host))
	case "for another name":
		cert = must(s.ca.Issue("elsewhere.faults.test"))
	case "for a subdomain":
		cert = must(s.ca.Issue("*."+host, "x."+host))
	case "for its address alone":
		cert = must(s.ca.Issue(ip))
	case "self-signed":
		cert = must(receiver.SelfSigned(host))
	case "of another authority", "of a leaf that signs":
		other, err := receiver.NewCA("another")
		if err != nil {
			t.Fatal(err)
		}
		cert = must(other.Issue(host))
		if a.tls == "of a leaf that signs" { // its chain has a good leaf of ours behind it, which may sign nothing
			cert.Certificate = append(cert.Certificate, must(s.ca.Issue(host)).Certificate...)
		}
	case "without a name":
		cert = must(s.ca.IssueClient(host))
	case "with a key that is not its own":
		cert = must(s.ca.Issue(host))
		cert.PrivateKey = must(s.ca.Issue(host)).PrivateKey
	default:
		cert = must(s.ca.Issue(host))
	}
	config.Certificates = []tls.Certificate{cert}
	switch a.tls {
	case "with TLS 1.1":
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	case "with TLS 1.0":
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	case "that wants ours":
		config.ClientAuth = tls.RequireAnyClientCert
	}
	return config
}
