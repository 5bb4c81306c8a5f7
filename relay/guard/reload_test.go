package guard_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/guard"
)

// clock is a wall clock that stands still unless it is moved. It starts far behind the times of the files, so that
// none of them counts as just written.
type clock struct{ nanoseconds atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanoseconds.Store(time.Now().Add(10 * time.Minute).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanoseconds.Load()) }
func (c *clock) advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

// mutual is a receiver that asks for a client certificate and answers with its serial number.
type mutual struct {
	*receiver
	ca     *authority
	clock  *clock
	logs   *observer.ObservedLogs
	files  folder
	closed chan struct{} // one for each connection that ended
	finish chan struct{} // when it is closed, answers to POST end
}

func newMutual(t *testing.T, protocols ...string) *mutual {
	t.Helper()
	m := &mutual{ca: newAuthority(t), clock: newClock(), files: newFolder(t), closed: make(chan struct{}, 100), finish: make(chan struct{})}
	config := &tls.Config{
		Certificates: []tls.Certificate{m.ca.issue(t, host, time.Now().Add(time.Hour))}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: m.ca.pool, NextProtos: protocols,
	}
	handler := func(w http.ResponseWriter, r *http.Request) {
		serial(w, r)
		if r.Method == http.MethodPost {
			http.NewResponseController(w).Flush()
			<-m.finish
		}
	}
	m.receiver = serveWith(t, config, handler, func(state http.ConnState) {
		if state == http.StateClosed {
			m.closed <- struct{}{}
		}
	})
	return m
}

func serial(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, r.TLS.PeerCertificates[0].SerialNumber.String())
}

// cert makes a certificate with a long life.
func (m *mutual) cert(t *testing.T, serial int64) client {
	t.Helper()
	return m.ca.clientCert(t, serial, time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour))
}

// transport loads cert.pem and key.pem.
func (m *mutual) transport(t *testing.T) *guard.Transport {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	m.logs = logs
	tr, err := guard.LoadTransport(m.options(m.ca.pool), guard.TLSFiles{
		Cert: m.files.path("cert.pem"), Key: m.files.path("key.pem"), Log: zap.New(core), Now: m.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func (m *mutual) want(t *testing.T, tr *guard.Transport, want string) {
	t.Helper()
	_, body, err := get(t, tr.Client(), "https://h.example/")
	if err != nil || body != want {
		t.Fatalf("got certificate %q, %v; want %q", body, err, want)
	}
}

func (m *mutual) wantClosed(t *testing.T) {
	t.Helper()
	select {
	case <-m.closed:
	case <-time.After(20 * time.Second):
		t.Fatal("no connection was closed")
	}
}

// wantLogs checks the messages at warn since the last call.
func (m *mutual) wantLogs(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, e := range m.logs.TakeAll() {
		if e.Level >= zapcore.WarnLevel {
			got = append(got, e.Message)
		}
	}
	if g, w := strings.Join(got, "|"), strings.Join(want, "|"); g != w {
		t.Errorf("got warnings %q, want %q", g, w)
	}
}

func TestReload(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run("a new pair is used from the next look on, and the old connection ends, "+protocol, func(t *testing.T) {
			m := newMutual(t, protocol)
			m.files.put(m.cert(t, 1))
			tr := m.transport(t)
			m.want(t, tr, "1")
			m.files.put(m.cert(t, 2))
			m.want(t, tr, "1") // the same second
			m.clock.advance(999 * time.Millisecond)
			m.want(t, tr, "1")
			m.clock.advance(time.Millisecond)
			m.want(t, tr, "2")
			m.wantClosed(t)
			m.want(t, tr, "2")
			if got := m.opened.Load(); got != 2 {
				t.Errorf("got %d connections, want 2", got)
			}
			m.wantLogs(t)
		})
	}
	t.Run("a broken pair leaves the old one in use and is logged once for each change", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		tr := m.transport(t)
		next := m.cert(t, 2)
		m.files.write("cert.pem", next.cert) // and the key is to come
		const refused = "certificate files refused, the earlier ones stay in use"
		for range 3 {
			m.clock.advance(time.Second)
			m.want(t, tr, "1")
		}
		if entries := m.logs.FilterMessage(refused).All(); len(entries) != 1 || !strings.Contains(entries[0].ContextMap()["error"].(string), "does not belong") {
			t.Errorf("got %v, want what is wrong", entries)
		}
		m.wantLogs(t, refused)
		m.files.write("key.pem", []byte("no key at all"))
		for range 3 {
			m.clock.advance(time.Second)
			m.want(t, tr, "1")
		}
		m.wantLogs(t, refused)
		m.files.write("key.pem", next.key)
		m.clock.advance(time.Second)
		m.want(t, tr, "2")
		m.wantLogs(t)
	})
	t.Run("files that vanish leave the old ones in use, and are taken when they are back", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		tr := m.transport(t)
		if err := os.Remove(m.files.path("key.pem")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			m.clock.advance(time.Second)
			m.want(t, tr, "1")
		}
		m.wantLogs(t, "certificate files refused, the earlier ones stay in use")
		m.files.put(m.cert(t, 2))
		m.clock.advance(time.Second)
		m.want(t, tr, "2")
	})
	t.Run("files that cannot be read now are read as soon as they can be", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		tr := m.transport(t)
		m.want(t, tr, "1")
		m.files.put(m.cert(t, 2))
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		restore := func() {
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
		}
		defer restore()
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			m.clock.advance(time.Second)
			m.want(t, tr, "1") // on the connection that there is
		}
		m.wantLogs(t, "certificate files refused, the earlier ones stay in use")
		restore()
		m.clock.advance(time.Second)
		m.want(t, tr, "2")
	})
	t.Run("a symbolic link to a folder may be swapped, as Kubernetes does", func(t *testing.T) {
		m := newMutual(t)
		for serial, name := range map[int64]string{1: "..one", 2: "..two"} {
			if err := os.Mkdir(m.files.path(name), 0o700); err != nil {
				t.Fatal(err)
			}
			folder{t, m.files.path(name)}.put(m.cert(t, serial))
		}
		// The same time for all: only the files themselves differ.
		same := time.Now().Add(-time.Hour)
		link := func(old, new string) {
			if err := os.Symlink(old, m.files.path(new)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"..one/cert.pem", "..one/key.pem", "..two/cert.pem", "..two/key.pem"} {
			if err := os.Chtimes(m.files.path(name), same, same); err != nil {
				t.Fatal(err)
			}
		}
		link("..one", "..data")
		link(filepath.Join("..data", "cert.pem"), "cert.pem")
		link(filepath.Join("..data", "key.pem"), "key.pem")
		tr := m.transport(t)
		m.want(t, tr, "1")
		link("..two", "..data_tmp")
		if err := os.Rename(m.files.path("..data_tmp"), m.files.path("..data")); err != nil {
			t.Fatal(err)
		}
		m.clock.advance(time.Second)
		m.want(t, tr, "2")
	})
	t.Run("a file that is written twice within a tick of its time is read again", func(t *testing.T) {
		m := newMutual(t)
		one, two := m.cert(t, 1), m.cert(t, 2)
		for len(two.cert) != len(one.cert) || len(two.key) != len(one.key) { // signatures vary in length
			two = m.cert(t, 2)
		}
		tick := m.clock.now()
		put := func(c client) {
			m.files.put(c)
			for _, name := range []string{"cert.pem", "key.pem"} {
				if err := os.Chtimes(m.files.path(name), tick, tick); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(one)
		tr := m.transport(t)
		put(two) // same files, sizes and times
		m.clock.advance(time.Second)
		m.want(t, tr, "2")
	})
	t.Run("files that were only touched change nothing", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		tr := m.transport(t)
		m.want(t, tr, "1")
		if err := os.Chtimes(m.files.path("cert.pem"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		m.clock.advance(time.Second)
		m.want(t, tr, "1")
		if got := m.opened.Load(); got != 1 {
			t.Errorf("got %d connections, want 1", got)
		}
	})
	t.Run("a clock that is set back does not end the looking", func(t *testing.T) {
		m := newMutual(t)
		m.files.put(m.cert(t, 1))
		tr := m.transport(t)
		m.files.put(m.cert(t, 2))
		m.clock.advance(-5 * time.Minute)
		m.want(t, tr, "2")
	})
	t.Run("new roots are obeyed", func(t *testing.T) {
		ca, next, clock, f := newAuthority(t), newAuthority(t), newClock(), newFolder(t)
		var cert atomic.Pointer[tls.Certificate]
		set := func(a *authority) { c := a.issue(t, host, time.Now().Add(time.Hour)); cert.Store(&c) }
		set(ca)
		r := serve(t, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Load(), nil }}, ok)
		tr, err := guard.LoadTransport(r.options(nil), guard.TLSFiles{CA: f.write("ca.pem", ca.pem()), Now: clock.now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tr.CloseIdleConnections)
		if _, _, err := get(t, tr.Client(), "https://h.example/"); err != nil {
			t.Fatalf("got %v, want none", err)
		}
		f.write("ca.pem", next.pem())
		clock.advance(time.Second)
		if _, _, err := get(t, tr.Client(), "https://h.example/"); err == nil {
			t.Error("a certificate of the old CA passes")
		}
		set(next)
		if _, _, err := get(t, tr.Client(), "https://h.example/"); err != nil {
			t.Errorf("got %v, want none", err)
		}
	})
}

func TestReloadInFlight(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run("a request in flight ends undisturbed, and then its connection does, "+protocol, func(t *testing.T) {
			m := newMutual(t, protocol)
			m.files.put(m.cert(t, 1))
			tr := m.transport(t)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://h.example/", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req) // its body is not read yet
			if err != nil {
				t.Fatal(err)
			}
			m.files.put(m.cert(t, 2))
			m.clock.advance(time.Second)
			m.want(t, tr, "2")
			select {
			case <-m.closed:
				t.Fatal("the connection was closed under the request")
			default:
			}
			close(m.finish)
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "1" {
				t.Errorf("got %q, %v; want 1", body, err)
			}
			resp.Body.Close()
			m.wantClosed(t)
			m.want(t, tr, "2")
			if got := m.opened.Load(); got != 2 {
				t.Errorf("got %d connections, want 2", got)
			}
		})
	}
	t.Run("many requests while the files change all succeed, and one connection is left", func(t *testing.T) {
		m := newMutual(t)
		pairs := []client{m.cert(t, 1), m.cert(t, 2)}
		m.files.put(pairs[0])
		tr := m.transport(t)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range 20 {
					if _, body, err := get(t, tr.Client(), "https://h.example/"); err != nil || body != "1" && body != "2" {
						t.Errorf("got %q, %v; want 1 or 2", body, err)
					}
				}
			})
		}
		group.Go(func() {
			for i := range 20 {
				m.files.put(pairs[i%2])
				m.clock.advance(time.Second)
			}
		})
		group.Wait()
		m.files.put(pairs[1])
		m.clock.advance(time.Second)
		m.want(t, tr, "2")
		for m.opened.Load()-int64(len(m.closed)) > 1 {
			m.wantClosed(t)
			m.opened.Add(-1)
		}
		m.want(t, tr, "2")
	})
}
