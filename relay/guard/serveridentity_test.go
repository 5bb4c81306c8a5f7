package guard

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/receiver"
)

// listenerFiles are the files of a listener in one folder, and the clock that says when they are looked at again.
type listenerFiles struct {
	dir  string
	ca   *receiver.CA
	now  time.Time
	logs *observer.ObservedLogs
	log  *zap.Logger
}

func newListenerFiles(t *testing.T) *listenerFiles {
	t.Helper()
	ca, err := receiver.NewCA("listener tests")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	return &listenerFiles{dir: t.TempDir(), ca: ca, now: time.Now(), logs: logs, log: zap.New(core)}
}

func (l *listenerFiles) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// pair writes a certificate for hosts, and its key.
func (l *listenerFiles) pair(t *testing.T, from, until time.Time, hosts ...string) TLSFiles {
	t.Helper()
	cert, err := l.ca.IssueFor(from, until, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return l.put(t, cert)
}

func (l *listenerFiles) put(t *testing.T, cert tls.Certificate) TLSFiles {
	t.Helper()
	chain, key, err := receiver.EncodePEM(cert)
	if err != nil {
		t.Fatal(err)
	}
	return TLSFiles{
		Cert: l.write(t, "tls.crt", chain), Key: l.write(t, "tls.key", key), Log: l.log, Now: func() time.Time { return l.now },
	}
}

func names(s *ServerIdentity) []string {
	if cert := s.Certificate(); cert != nil {
		return cert.Leaf.DNSNames
	}
	return nil
}

func TestServerIdentity(t *testing.T) {
	load := func(t *testing.T, f TLSFiles) *ServerIdentity {
		t.Helper()
		s, err := LoadServerIdentity(f)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("new files take over within a second", func(t *testing.T) {
		l := newListenerFiles(t)
		s := load(t, l.pair(t, l.now.Add(-time.Hour), l.now.Add(240*time.Hour), "old.example"))
		l.pair(t, l.now.Add(-time.Hour), l.now.Add(240*time.Hour), "new.example")
		if got, want := names(s), []string{"old.example"}; !slices.Equal(got, want) {
			t.Errorf("at once: got %q, want %q", got, want)
		}
		l.now = l.now.Add(lookEvery)
		if got, want := names(s), []string{"new.example"}; !slices.Equal(got, want) {
			t.Errorf("a second later: got %q, want %q", got, want)
		}
	})
	t.Run("a link that leads elsewhere is a change", func(t *testing.T) {
		l := newListenerFiles(t)
		data := filepath.Join(l.dir, "..data")
		swap := func(version, host string) {
			own := &listenerFiles{dir: filepath.Join(l.dir, version), ca: l.ca, now: l.now}
			if err := os.Mkdir(own.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			own.pair(t, l.now.Add(-time.Hour), l.now.Add(240*time.Hour), host)
			if err := os.Symlink(version, data+".new"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(data+".new", data); err != nil {
				t.Fatal(err)
			}
		}
		swap("..1", "old.example")
		s := load(t, TLSFiles{Cert: filepath.Join(data, "tls.crt"), Key: filepath.Join(data, "tls.key"), Now: func() time.Time { return l.now }})
		swap("..2", "new.example")
		l.now = l.now.Add(time.Minute)
		if got, want := names(s), []string{"new.example"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("a pair that does not fit together changes nothing, and is told once", func(t *testing.T) {
		l := newListenerFiles(t)
		f := l.pair(t, l.now.Add(-time.Hour), l.now.Add(240*time.Hour), "old.example")
		s := load(t, f)
		key, err := os.ReadFile(f.Key)
		if err != nil {
			t.Fatal(err)
		}
		l.pair(t, l.now.Add(-time.Hour), l.now.Add(240*time.Hour), "new.example")
		right, err := os.ReadFile(f.Key)
		if err != nil {
			t.Fatal(err)
		}
		l.write(t, "tls.key", key)
		for range 5 {
			l.now = l.now.Add(time.Minute)
			if got, want := names(s), []string{"old.example"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if got := l.logs.FilterLevelExact(zapcore.WarnLevel).Len(); got != 1 {
			t.Errorf("got %d warnings, want 1: %v", got, l.logs.All())
		}
		l.write(t, "tls.key", right)
		l.now = l.now.Add(time.Minute)
		if got, want := names(s), []string{"new.example"}; !slices.Equal(got, want) {
			t.Errorf("when the key is there: got %q, want %q", got, want)
		}
	})
	t.Run("a certificate that has expired is shown and told", func(t *testing.T) {
		l := newListenerFiles(t)
		s := load(t, l.pair(t, l.now.Add(-2*time.Hour), l.now.Add(time.Hour), "relay.example"))
		for range 3 {
			l.now = l.now.Add(time.Hour)
			if got, want := names(s), []string{"relay.example"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if got := l.logs.FilterMessage("certificate has expired").Len(); got != 1 {
			t.Errorf("told %d times, want once: %v", got, l.logs.All())
		}
	})
	t.Run("authorities alone need no certificate", func(t *testing.T) {
		l := newListenerFiles(t)
		s := load(t, TLSFiles{CA: l.write(t, "ca.pem", l.ca.PEM()), Now: func() time.Time { return l.now }})
		if s.Certificate() != nil || s.ClientCAs() == nil {
			t.Errorf("got certificate %v and authorities %v, want none and some", s.Certificate(), s.ClientCAs())
		}
		before := s.ClientCAs()
		other, err := receiver.NewCA("another")
		if err != nil {
			t.Fatal(err)
		}
		l.write(t, "ca.pem", other.PEM())
		l.now = l.now.Add(time.Minute)
		if after := s.ClientCAs(); after.Equal(before) {
			t.Error("the authorities are as before, want those of the new file")
		}
	})
	t.Run("without files there is nothing", func(t *testing.T) {
		s := load(t, TLSFiles{})
		if s.Certificate() != nil || s.ClientCAs() != nil {
			t.Error("got something, want nothing")
		}
	})
	t.Run("faults name their option", func(t *testing.T) {
		l := newListenerFiles(t)
		good := l.pair(t, l.now.Add(-time.Hour), l.now.Add(time.Hour), "relay.example")
		client, err := l.ca.IssueClient("app")
		if err != nil {
			t.Fatal(err)
		}
		nameless := (&listenerFiles{dir: t.TempDir(), ca: l.ca}).put(t, client)
		for _, c := range []struct {
			files  TLSFiles
			option string
		}{
			{TLSFiles{Cert: good.Cert}, "key_file"},
			{TLSFiles{Key: good.Key}, "cert_file"},
			{TLSFiles{Cert: good.Key, Key: good.Key}, "cert_file"},
			{TLSFiles{Cert: good.Cert, Key: good.Key, CA: good.Key}, "client_ca_file"},
			{TLSFiles{Cert: good.Cert, Key: good.Key, CA: filepath.Join(l.dir, "none")}, "client_ca_file"},
			{TLSFiles{Cert: nameless.Cert, Key: nameless.Key}, "cert_file"},
		} {
			err := c.files.CheckServer()
			file, ok := errors.AsType[*FileError](err)
			if !ok || file.Option != c.option || !strings.Contains(err.Error(), ";") && !strings.Contains(err.Error(), "no such file") {
				t.Errorf("%+v: got error %v, want one of %s", c.files, err, c.option)
			}
			if _, err := LoadServerIdentity(c.files); err == nil {
				t.Errorf("%+v: LoadServerIdentity: got no error", c.files)
			}
		}
		if err := good.CheckServer(); err != nil {
			t.Errorf("good files: %v", err)
		}
	})
}
