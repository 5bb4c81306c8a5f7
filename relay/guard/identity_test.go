package guard_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/guard"
)

func TestClientCertificate(t *testing.T) {
	t.Run("without one, a receiver that requires it gets no request", func(t *testing.T) {
		m := newMutual(t)
		if _, body, err := get(t, newClient(t, m.options(m.ca.pool)), "https://h.example/"); err == nil {
			t.Errorf("got %q, want an error", body)
		}
		if got := m.requests.Load(); got != 0 {
			t.Errorf("%d requests got through", got)
		}
	})
	t.Run("it is shown to whoever asks, whatever authorities it lists", func(t *testing.T) {
		m, other := newMutual(t), newAuthority(t)
		r := serve(t, &tls.Config{
			Certificates: []tls.Certificate{m.ca.issue(t, host, time.Now().Add(time.Hour))},
			ClientAuth:   tls.RequireAnyClientCert, ClientCAs: other.pool,
		}, serial)
		m.receiver = r
		m.files.put(m.cert(t, 7))
		m.want(t, m.transport(t), "7")
	})
	t.Run("two destinations at one address each show their own", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		first := m.transport(t)
		m.want(t, first, "1")
		m.files.put(m.cert(t, 2))
		second := m.transport(t)
		for range 3 {
			m.want(t, second, "2")
			m.want(t, first, "1")
		}
	})
	t.Run("roots of a file take the place of those of the options", func(t *testing.T) {
		ca, wrong := newAuthority(t), newAuthority(t)
		r := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}}, ok)
		f := newFolder(t)
		for _, tt := range []struct {
			file, option *authority
			passes       bool
		}{{ca, wrong, true}, {wrong, ca, false}} {
			tr, err := guard.LoadTransport(r.options(tt.option.pool), guard.TLSFiles{CA: f.write("ca.pem", tt.file.pem())})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = get(t, tr.Client(), "https://h.example/")
			tr.CloseIdleConnections()
			if (err == nil) != tt.passes {
				t.Errorf("got %v, want passes = %t", err, tt.passes)
			}
		}
	})
}

func TestCertificateWarnings(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name       string
		begin, end time.Duration // from now
		want       string
	}{
		{"one with more than 14 days left is not worth a word", -20 * day, 14*day + time.Minute, ""},
		{"one with less than 14 days left is", -80 * day, 14*day - time.Minute, "client certificate expires soon"},
		{"a short life is measured by its quarter, just above", -75 * time.Minute, 26 * time.Minute, ""},
		{"a short life is measured by its quarter, just below", -75 * time.Minute, 24 * time.Minute, "client certificate expires soon"},
		{"one that has expired is", -2 * day, -time.Minute, "client certificate has expired"},
		{"one that is not valid yet is", time.Minute, 30 * day, "client certificate is not valid yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &mutual{ca: newAuthority(t), clock: newClock(), files: newFolder(t), receiver: &receiver{addr: netip.IPv6Loopback()}}
			now := m.clock.now()
			m.files.put(m.ca.clientCert(t, 1, now.Add(tt.begin), now.Add(tt.end)))
			m.transport(t)
			if tt.want == "" {
				m.wantLogs(t)
			} else {
				m.wantLogs(t, tt.want)
			}
		})
	}
	t.Run("each is said once, as time goes by, and again of the next certificate", func(t *testing.T) {
		m := newMutual(t)
		now := m.clock.now()
		m.files.put(m.ca.clientCert(t, 1, now.Add(-time.Hour), now.Add(100*day)))
		tr := m.transport(t)
		step := func(d time.Duration, want ...string) {
			t.Helper()
			m.clock.advance(d)
			for range 3 {
				m.want(t, tr, "1")
				m.clock.advance(time.Second)
			}
			m.wantLogs(t, want...)
		}
		step(80 * day)
		step(10*day, "client certificate expires soon")
		step(5 * day)
		step(10*day, "client certificate has expired") // the receiver of the test goes by the true time
		m.files.put(m.ca.clientCert(t, 1, now.Add(-time.Hour), now.Add(106*day)))
		step(0, "client certificate expires soon")
		m.files.put(m.ca.clientCert(t, 1, now.Add(-time.Hour), now.Add(107*day)))
		step(0, "client certificate expires soon")
	})
	t.Run("a key that everyone may read is", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		if err := os.Chmod(m.files.path("key.pem"), 0o604); err != nil {
			t.Fatal(err)
		}
		m.transport(t)
		m.wantLogs(t, "every user of this machine may read the key file")
	})
}

// TestReloadWithoutFiles holds that a Transport over no files is the plain one.
func TestReloadWithoutFiles(t *testing.T) {
	ca := newAuthority(t)
	r := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}}, ok)
	for name, pool := range map[string]*x509.CertPool{"of the options": ca.pool, "of the system": nil} {
		t.Run("the roots are those "+name, func(t *testing.T) {
			tr, err := guard.LoadTransport(r.options(pool), guard.TLSFiles{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(tr.CloseIdleConnections)
			if _, _, err := get(t, tr.Client(), "https://h.example/"); (err == nil) != (pool != nil) {
				t.Errorf("got %v", err)
			}
		})
	}
}
