package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/store"
)

// maxError bounds the text of an attempt, in bytes.
const maxError = 500

// statusText says what an answer without success was.
func statusText(status int) string {
	text := fmt.Sprintf("answered %d", status)
	if name := http.StatusText(status); name != "" {
		text += " " + name // the standard name: what the receiver wrote there is anyone's text
	}
	if status >= 300 && status <= 399 {
		text += "; redirects are never followed, so write the new address as url if you trust it"
	}
	return text
}

// ended says why an attempt was cut off: by its own deadline or by our stop.
func ended(ctx context.Context, p phase, timeout time.Duration) (store.Class, string) {
	if context.Cause(ctx) == errDeadline {
		return store.ClassTimeout, fmt.Sprintf("no answer within %v; the time was over %v", timeout, p)
	}
	return store.ClassInterrupted, "cut off by the stop of Postern " + p.String()
}

// blocked reports whether the guard refused the address.
func blocked(err error) (store.Class, string, bool) {
	refused, ok := errors.AsType[*guard.BlockedError](err)
	if !ok {
		return 0, "", false
	}
	return store.ClassBlocked, clean(refused.Error()), true
}

// classify gives the error of a transport its class and a text for a person. Texts are ours as far as possible:
// what comes from outside may repeat our own request with its secrets. p is how far the request came.
func classify(err error, p phase) (store.Class, string) {
	if class, text, ok := blocked(err); ok {
		return class, text
	}
	// Before all that may be its cause: the proxy's name and certificate are not the receiver's.
	if failed, ok := errors.AsType[*guard.ProxyError](err); ok {
		return store.ClassConnect, clean(failed.Error())
	}
	if class, text, ok := classifyDNS(err); ok {
		return class, text
	}
	if class, text, ok := classifyTLS(err, p); ok {
		return class, text
	}
	if class, text, ok := classifyTimeout(err, p); ok {
		return class, text
	}
	if class, text, ok := classifyBroken(err, p); ok {
		return class, text
	}
	return classifyHTTP(err, p)
}

func classifyDNS(err error) (store.Class, string, bool) {
	failed, ok := errors.AsType[*net.DNSError](err)
	if !ok {
		return 0, "", false
	}
	reason := "the DNS server could not say"
	switch {
	case failed.IsNotFound:
		reason = "no such host"
	case failed.IsTimeout:
		reason = "the DNS server did not answer in time"
	}
	return store.ClassDNS, clean(fmt.Sprintf("%q does not resolve: %s", failed.Name, reason)), true
}

func classifyTLS(err error, p phase) (store.Class, string, bool) {
	if text := certificateText(err); text != "" {
		return store.ClassTLS, clean(text), true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return store.ClassTLS, "the receiver does not speak TLS on port 443", true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		// crypto/tls reports alerts so; their texts are a fixed list.
		return store.ClassTLS, clean(fmt.Sprintf("TLS %s: %v", op.Op, op.Err)), true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok || strings.HasPrefix(err.Error(), "tls: ") {
		return store.ClassTLS, clean(err.Error()), true
	}
	if p != phaseTLS {
		return 0, "", false
	}
	if isTimeout(err) {
		return store.ClassTLS, "the TLS handshake took too long", true
	}
	if text := brokenText(err); text != "" {
		return store.ClassTLS, text + " during the TLS handshake", true
	}
	return store.ClassTLS, clean("TLS handshake: " + err.Error()), true
}

// certificateText says what is wrong with the receiver's certificate, if that is what err is about.
func certificateText(err error) string {
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return "certificate is for another name: " + wrong.Error()
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "certificate is not signed by a trusted authority; for a private one name its root in tls.ca_file"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired && invalid.Cert != nil {
			return fmt.Sprintf("certificate is valid from %s to %s only; look at the receiver's certificate and at our clock",
				invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
		}
		return "certificate is not valid: " + invalid.Error()
	}
	if failed, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "certificate could not be verified: " + failed.Err.Error()
	}
	return ""
}

func classifyTimeout(err error, p phase) (store.Class, string, bool) {
	if !isTimeout(err) {
		return 0, "", false
	}
	switch {
	case p == phaseDNS:
		return store.ClassDNS, "the name was not resolved in time", true
	case p <= phaseConnect:
		return store.ClassConnect, "the receiver did not take the connection in time", true
	}
	return store.ClassTimeout, "no answer in time; the time was over " + p.String(), true
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// streamError has the fields of net/http's own HTTP/2 stream error, which is how that one lets itself be read.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "stream error" }

func classifyBroken(err error, p phase) (store.Class, string, bool) {
	if stream, ok := errors.AsType[streamError](err); ok {
		if stream.Code == 1 && stream.Cause != nil { // PROTOCOL_ERROR, found by us in the answer
			return 0, "", false
		}
		return store.ClassConnect, fmt.Sprintf("the receiver reset the HTTP/2 stream with code %d", stream.Code), true
	}
	if text := brokenText(err); text != "" {
		return store.ClassConnect, text + " " + p.String(), true
	}
	return 0, "", false
}

// brokenText says how a connection failed or broke, if that is what err is about.
func brokenText(err error) string {
	for _, known := range []struct {
		err  error
		text string
	}{
		{syscall.ECONNREFUSED, "connection refused"},
		{syscall.ECONNRESET, "connection reset by the receiver"},
		{syscall.EPIPE, "connection closed by the receiver"},
		{syscall.EHOSTUNREACH, "no route to the receiver"},
		{syscall.ENETUNREACH, "network unreachable"},
		{guard.ErrNoRoom, guard.ErrNoRoom.Error() + "; raise that limit: none became free"},
		{syscall.EMFILE, "no file descriptor left for a connection"},
		{syscall.EADDRNOTAVAIL, "no local port left for a connection"},
		{io.ErrUnexpectedEOF, "connection closed by the receiver"},
		{io.EOF, "connection closed by the receiver"},
		{io.ErrClosedPipe, "connection closed"},
		{net.ErrClosed, "connection closed"},
	} {
		if errors.Is(err, known.err) {
			return known.text
		}
	}
	// These have no type that can be seen from outside net/http.
	text := err.Error()
	for _, known := range []struct{ part, text string }{
		{"GOAWAY", "connection ended by the receiver (GOAWAY)"},
		{"cannot retry err", "request refused by the receiver's HTTP/2 connection"},
		{"server closed idle connection", "connection closed by the receiver"},
		{"client connection lost", "connection lost"},
		{"client connection force closed", "connection closed"},
		{"client conn not usable", "connection closed"},
		{"client conn is closed", "connection closed"},
		{"after connection loss", "connection closed by the receiver"}, // net/http would send it again, and has no body to do so
		{"client conn could not be established", "connection closed"},
		{"connection broken: EOF", "connection closed by the receiver"},
	} {
		if strings.Contains(text, known.part) {
			return known.text
		}
	}
	return ""
}

// classifyHTTP is left with what net/http found in the answer. Its errors quote the answer, so none is shown.
func classifyHTTP(err error, p phase) (store.Class, string) {
	text := err.Error()
	switch {
	case strings.Contains(text, "invalid header field") && p <= phaseSend:
		return store.ClassRender, "the request has a header that HTTP does not allow"
	case errors.Is(err, guard.ErrTooMuch):
		return store.ClassProtocol, guard.ErrTooMuch.Error()
	case p < phaseSend:
		return store.ClassConnect, "no connection " + p.String()
	case strings.Contains(text, "response headers exceeded"), strings.Contains(text, "header list"):
		return store.ClassProtocol, "the answer's header, with the 1xx answers before it, is too large"
	case strings.HasPrefix(text, "connection error: "): // of HTTP/2; net/http keeps to itself what it was
		return store.ClassProtocol, "the answer is not valid HTTP/2, or its header is far too large"
	case strings.Contains(text, "malformed HTTP"):
		return store.ClassProtocol, "the answer is not HTTP: its first line is malformed"
	case strings.Contains(text, "MIME header"), strings.Contains(text, "malformed"):
		return store.ClassProtocol, "the answer is not valid HTTP: its header is malformed"
	case strings.Contains(text, "Content-Length"), strings.Contains(text, "transfer encoding"):
		return store.ClassProtocol, "the answer is not valid HTTP: its length is malformed"
	}
	return store.ClassProtocol, "the answer is not valid HTTP"
}

// clean makes a text that may hold what others wrote fit for a record: one line, printable, bounded.
func clean(s string) string {
	var b strings.Builder
	for _, r := range clip(s, maxError) {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return clip(b.String(), maxError)
}

// clip cuts s to at most n bytes between two characters, and shows that it did.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "…"
	end := n - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
