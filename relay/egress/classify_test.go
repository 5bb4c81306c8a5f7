package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/postern-relay/postern/relay/guard"
	"github.com/postern-relay/postern/store"
)

func TestClassify(t *testing.T) {
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, c := range []struct {
		name  string
		err   error
		phase phase
		class store.Class
		text  string // in the text
	}{
		{"refused by the guard", fmt.Errorf("dial: %w", &guard.BlockedError{Host: "h", Addr: netip.MustParseAddr("10.0.0.1"), Reason: "private"}),
			phaseConnect, store.ClassBlocked, "10.0.0.1"},
		{"proxy without a name", fmt.Errorf("dial: %w", &guard.ProxyError{Proxy: "p:3128", Reason: "no", Err: &net.DNSError{Name: "p", IsNotFound: true}}),
			phaseDNS, store.ClassConnect, "proxy p:3128: no"},
		{"proxy with a certificate for another name", &guard.ProxyError{Proxy: "p:443", Reason: "no", Err: x509.HostnameError{}},
			phaseConnect, store.ClassConnect, "proxy p:443: no"},
		{"no such host", &net.DNSError{Name: "h", IsNotFound: true}, phaseDNS, store.ClassDNS, "no such host"},
		{"DNS timeout", &net.DNSError{Name: "h", IsTimeout: true}, phaseDNS, store.ClassDNS, "did not answer in time"},
		{"DNS server failure", &net.DNSError{Name: "h", Err: "server misbehaving"}, phaseDNS, store.ClassDNS, "could not say"},
		{"connection refused", dial(syscall.ECONNREFUSED), phaseConnect, store.ClassConnect, "connection refused"},
		{"no route", dial(syscall.EHOSTUNREACH), phaseConnect, store.ClassConnect, "no route"},
		{"network unreachable", dial(syscall.ENETUNREACH), phaseConnect, store.ClassConnect, "network unreachable"},
		{"kernel's connect timeout", dial(syscall.ETIMEDOUT), phaseConnect, store.ClassConnect, "did not take the connection in time"},
		{"dial timeout", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, phaseConnect, store.ClassConnect, "in time"},
		{"the guard's time for a lookup", context.DeadlineExceeded, phaseDNS, store.ClassDNS, "not resolved in time"},
		{"descriptors used up", dial(syscall.EMFILE), phaseConnect, store.ClassConnect, "no file descriptor"},
		{"no room for a connection", fmt.Errorf("dial: %w", guard.ErrNoRoom), phaseLoad, store.ClassConnect, "limit on open files"},
		{"reset while waiting", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, phaseWait, store.ClassConnect, "reset by the receiver while waiting"},
		{"EOF before the answer", io.EOF, phaseWait, store.ClassConnect, "closed by the receiver"},
		{"EOF within the answer", io.ErrUnexpectedEOF, phaseAnswer, store.ClassConnect, "closed by the receiver"},
		{"idle connection closed", errors.New("http: server closed idle connection"), phaseSend, store.ClassConnect, "closed by the receiver"},
		{"GOAWAY", errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug="canary"`),
			phaseWait, store.ClassConnect, "GOAWAY"},
		{"stream reset", streamError{StreamID: 1, Code: 8}, phaseWait, store.ClassConnect, "code 8"},
		{"stream error of our own making", streamError{StreamID: 1, Code: 1, Cause: errors.New("canary")}, phaseAnswer, store.ClassProtocol, "not valid HTTP"},
		{"expired certificate", x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{}}, phaseTLS, store.ClassTLS, "is valid from"},
		{"unknown authority", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, phaseTLS, store.ClassTLS, "for a private one name its root in tls.ca_file"},
		{"no TLS", tls.RecordHeaderError{Msg: "canary"}, phaseTLS, store.ClassTLS, "does not speak TLS"},
		{"alert", &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, phaseTLS, store.ClassTLS, "handshake failure"},
		{"handshake timeout", timeoutError{}, phaseTLS, store.ClassTLS, "took too long"},
		{"reset in the handshake", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, phaseTLS, store.ClassTLS, "during the TLS handshake"},
		{"EOF in the handshake", io.EOF, phaseTLS, store.ClassTLS, "during the TLS handshake"},
		{"header timeout", timeoutError{}, phaseWait, store.ClassTimeout, "while waiting for the answer"},
		{"header too large", errors.New("net/http: server response headers exceeded 65536 bytes; aborted"), phaseAnswer, store.ClassProtocol, "too large"},
		{"a flood", fmt.Errorf("transport connection broken: %w", guard.ErrTooMuch), phaseWait, store.ClassProtocol, "far more than an answer may have"},
		{"malformed status line", errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "canary"`),
			phaseAnswer, store.ClassProtocol, "first line is malformed"},
		{"malformed header", errors.New(`malformed MIME header line: canary`), phaseAnswer, store.ClassProtocol, "header is malformed"},
		{"malformed length", errors.New(`http: bad Content-Length "canary"`), phaseAnswer, store.ClassProtocol, "length is malformed"},
		{"anything else in the answer", errors.New("canary"), phaseAnswer, store.ClassProtocol, "not valid HTTP"},
		{"anything else before it", errors.New("canary"), phaseConnect, store.ClassConnect, "no connection"},
		{"a header of ours", errors.New(`net/http: invalid header field value for "X-A"`), phaseLoad, store.ClassRender, "HTTP does not allow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			class, text := classify(c.err, c.phase)
			if class != c.class || !strings.Contains(text, c.text) {
				t.Errorf("got %v %q, want %v and %q in the text", class, text, c.class, c.text)
			}
			if strings.Contains(text, "canary") {
				t.Errorf("the text repeats what came from outside: %q", text)
			}
		})
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "net/http: timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain", "a\r\nb\x00", "\xff\xfe", "\u202e", strings.Repeat("é", 400)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if len(got) > maxError || !utf8.ValidString(got) {
			t.Errorf("got %q of %d bytes, want valid text of at most %d", got, len(got), maxError)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("got %q, which holds %U", got, r)
			}
		}
	})
}
