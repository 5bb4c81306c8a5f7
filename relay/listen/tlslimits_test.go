package listen

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client speaks HTTP/2 by hand, as no well-behaved client does.
type h2Client struct {
	conn   net.Conn
	framer *http2.Framer
	answer map[uint32]string // the status of each stream that was answered; empty for one that was reset
	err    error             // why no more could be written
}

// newH2Client shakes hands and sends the preface.
func newH2Client(t *testing.T, f *front, config *tls.Config) *h2Client {
	t.Helper()
	c := &h2Client{conn: dialTLS(t, f, config, "h2"), answer: map[uint32]string{}}
	c.framer = http2.NewFramer(c.conn, c.conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, c.err = io.WriteString(c.conn, http2.ClientPreface); c.err == nil {
		c.err = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}
	return c
}

// dialTLS shakes hands and gives up after acmePatience.
func dialTLS(t *testing.T, f *front, config *tls.Config, protocol string) *tls.Conn {
	t.Helper()
	config = config.Clone()
	config.NextProtos, config.ServerName = []string{protocol}, "relay.example.com"
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: acmePatience}, "tcp", f.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(acmePatience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// request sends the header of a request. fields are names and values.
func (c *h2Client) request(t *testing.T, stream uint32, whole bool, method, host, path string, fields ...string) {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i, all := 0, append([]string{":method", method, ":scheme", "https", ":authority", host, ":path", path}, fields...); i < len(all); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	if c.err != nil {
		return
	}
	const frame = 16 << 10
	first := block.Next(frame)
	c.err = c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: first, EndStream: method == http.MethodGet, EndHeaders: whole && block.Len() == 0,
	})
	for c.err == nil && block.Len() > 0 {
		next := block.Next(frame)
		c.err = c.framer.WriteContinuation(stream, whole && block.Len() == 0, next)
	}
}

// read takes frames until holds, or until the other end closes the connection, whose error it returns.
func (c *h2Client) read(holds func() bool) error {
	const most = 10_000
	for range most {
		if holds() || c.err != nil {
			return c.err
		}
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			c.answer[frame.StreamID] = frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			c.answer[frame.StreamID] += ""
		}
	}
	return errors.New("too many frames")
}

func TestSlowTLSClientsAreCut(t *testing.T) {
	a := newAuthorityFiles(t)
	f := newFilesFront(t, Options{
		TLS: &TLS{Files: a.valid(t, "relay.example.com")},
		// Room enough for a handshake on a busy machine, which has the least of them.
		ReadHeaderTimeout: 3 * time.Second, ReadTimeout: 3 * time.Second, IdleTimeout: time.Second, Drain: 50 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }),
	})
	config := &tls.Config{RootCAs: a.ca.Pool()}
	plain := func(t *testing.T, bytes string) net.Conn {
		conn, err := net.DialTimeout("tcp", f.Addr().String(), acmePatience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(acmePatience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, bytes); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	inTLS := func(t *testing.T, text string) net.Conn {
		conn := dialTLS(t, f, config, "http/1.1")
		_, _ = io.WriteString(conn, text) // on a busy machine it may have been cut by now
		return conn
	}
	inH2 := func(t *testing.T, send func(c *h2Client)) net.Conn {
		c := newH2Client(t, f, config)
		send(c)
		return c.conn
	}
	for name, open := range map[string]func(t *testing.T) net.Conn{
		"silent from the start":       func(t *testing.T) net.Conn { return plain(t, "") },
		"a handshake that never ends": func(t *testing.T) net.Conn { return plain(t, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") },
		"silent after the handshake":  func(t *testing.T) net.Conn { return inTLS(t, "") },
		"slow headers":                func(t *testing.T) net.Conn { return inTLS(t, "POST / HTTP/1.1\r\nHost: relay.example.com\r\nX-A:") },
		"slow body": func(t *testing.T) net.Conn {
			return inTLS(t, "POST / HTTP/1.1\r\nHost: relay.example.com\r\nContent-Length: 9\r\n\r\na")
		},
		"HTTP/2: silent from the start": func(t *testing.T) net.Conn { return inH2(t, func(*h2Client) {}) },
		"HTTP/2: slow headers": func(t *testing.T) net.Conn {
			return inH2(t, func(c *h2Client) { c.request(t, 1, false, "GET", "relay.example.com", "/") })
		},
		"HTTP/2: slow body": func(t *testing.T) net.Conn {
			return inH2(t, func(c *h2Client) {
				c.request(t, 1, true, "POST", "relay.example.com", "/", "content-length", "9")
				_ = c.framer.WriteData(1, false, []byte("a")) // as above
			})
		},
		"HTTP/2: idle between requests": func(t *testing.T) net.Conn {
			return inH2(t, func(c *h2Client) { c.request(t, 1, true, "GET", "relay.example.com", "/") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := io.Copy(io.Discard, open(t)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection was still open, want it cut")
			}
		})
	}
	t.Run("a good request is not disturbed", func(t *testing.T) {
		if status, _, err := f.get(t, "https://relay.example.com/", config); err != nil || status != http.StatusOK {
			t.Errorf("got %d, error %v; want 200", status, err)
		}
	})
}

func TestTLSClientThatNeverReadsIsCut(t *testing.T) {
	a, ended := newAuthorityFiles(t), make(chan error, 2)
	f := newFilesFront(t, Options{
		TLS: &TLS{Files: a.valid(t, "relay.example.com")}, WriteTimeout: 2 * time.Second, Drain: 50 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			block := make([]byte, 1<<20)
			for range 1000 { // more than any socket buffer holds
				if _, err := w.Write(block); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}),
	})
	config := &tls.Config{RootCAs: a.ca.Pool()}
	for _, ask := range []func(){
		func() {
			if _, err := io.WriteString(dialTLS(t, f, config, "http/1.1"), "GET / HTTP/1.1\r\nHost: relay.example.com\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		},
		func() { newH2Client(t, f, config).request(t, 1, true, "GET", "relay.example.com", "/") },
	} {
		ask()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the whole answer was written, want it cut")
			}
		case <-time.After(acmePatience):
			t.Fatal("the handler still writes, want it cut")
		}
	}
}

func TestSizesOverHTTP2(t *testing.T) {
	a := newAuthorityFiles(t)
	f := newFilesFront(t, Options{TLS: &TLS{Files: a.valid(t, "relay.example.com")}, Drain: 50 * time.Millisecond})
	many := func(n int) (fields []string) {
		for range n {
			fields = append(fields, "x", "a")
		}
		return fields
	}
	for _, c := range []struct {
		name, method, path string
		fields             []string
		want               string
	}{
		{"a target of 8 KiB passes", "GET", "/" + strings.Repeat("a", 8<<10-1), nil, "200"},
		{"a longer target is refused", "GET", "/" + strings.Repeat("a", 8<<10), nil, "414"},
		{"headers of 15 KiB pass", "GET", "/", []string{"x", strings.Repeat("a", 15<<10)}, "200"},
		{"headers of 17 KiB are refused", "GET", "/", []string{"x", strings.Repeat("a", 9<<10), "y", strings.Repeat("a", 8<<10)}, "431"},
		{"a header of 17 KiB ends the connection", "GET", "/", []string{"x", strings.Repeat("a", 17<<10)}, ""},
		{"128 fields pass", "GET", "/", many(128), "200"},
		{"129 fields are refused", "GET", "/", many(129), "431"},
		{"TRACE is refused", "TRACE", "/", nil, "501"},
		{"a path that is none is refused", "OPTIONS", "*", nil, "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newH2Client(t, f, &tls.Config{RootCAs: a.ca.Pool()})
			h.request(t, 1, true, c.method, "relay.example.com", c.path, c.fields...)
			err := h.read(func() bool { return h.answer[1] != "" })
			if h.answer[1] != c.want {
				t.Errorf("got status %q, error %v; want %s", h.answer[1], err, c.want)
			}
		})
	}
}

func TestAForeignHostOnASharedConnection(t *testing.T) {
	a := newAuthorityFiles(t)
	f := newFilesFront(t, Options{TLS: &TLS{Files: a.valid(t, "relay.example.com", "second.example.com")}})
	h := newH2Client(t, f, &tls.Config{RootCAs: a.ca.Pool()})
	hosts := map[uint32]string{1: "relay.example.com", 3: "other.example.com", 5: "second.example.com", 7: "localhost"}
	for _, stream := range []uint32{1, 3, 5, 7} {
		h.request(t, stream, true, "GET", hosts[stream], "/")
	}
	err := h.read(func() bool { return len(h.answer) == len(hosts) })
	for stream, want := range map[uint32]string{1: "200", 3: "421", 5: "200", 7: "421"} {
		if got := h.answer[stream]; got != want {
			t.Errorf("%s: got status %q, error %v; want %s", hosts[stream], got, err, want)
		}
	}
}

func TestHandshakesThatNeverEndGiveTheirPlacesBack(t *testing.T) {
	a := newAuthorityFiles(t)
	f := newFilesFront(t, Options{TLS: &TLS{Files: a.valid(t, "relay.example.com")}, MaxConns: 2, ReadHeaderTimeout: time.Second})
	for range 6 {
		conn, err := net.Dial("tcp", f.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if status, _, err := f.get(t, "https://relay.example.com/", &tls.Config{RootCAs: a.ca.Pool()}); err != nil || status != http.StatusOK {
		t.Errorf("got %d, error %v; want 200", status, err)
	}
}
