package guard_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/postern-relay/postern/relay/guard"
)

// flooder is a receiver of HTTP/2 that may answer, and then sends frames that belong to no answer.
type flooder struct {
	answers bool // each request with a 200, before the flood
	frames  int  // of settings that do not exist, to be sent after a request
	body    int  // bytes of the answer
	wrote   atomic.Int64
	cut     chan struct{} // one entry for each connection that ended in the flood
	flooded chan struct{} // one entry for each flood that was sent whole
}

const frameSize = 900 // of 150 settings

func (f *flooder) serve(conn net.Conn) {
	defer conn.Close()
	in, out := bufio.NewReader(conn), bufio.NewWriterSize(conn, 4<<10)
	fr := http2.NewFramer(out, in)
	if _, err := io.ReadFull(in, make([]byte, len(http2.ClientPreface))); err != nil || fr.WriteSettings() != nil || out.Flush() != nil {
		return
	}
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() && (fr.WriteSettingsAck() != nil || out.Flush() != nil) {
			return
		}
		h, ok := frame.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		if f.answers {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: f.body == 0}) // :status 200
			for sent := 0; sent < f.body; sent += 16 << 10 {
				_ = fr.WriteData(h.StreamID, sent+16<<10 >= f.body, make([]byte, 16<<10))
			}
			if out.Flush() != nil {
				return
			}
		}
		go func() { _, _ = io.Copy(io.Discard, in) }() // so that it can write
		for range f.frames {
			if fr.WriteSettings(make([]http2.Setting, frameSize/6)...) != nil {
				f.cut <- struct{}{}
				return
			}
			f.wrote.Add(frameSize)
		}
		_ = out.Flush()
		f.flooded <- struct{}{}
		if f.frames > 0 {
			time.Sleep(100 * time.Millisecond) // so that what cuts it off does
		}
		return
	}
}

// TestFaultFloodOfFrames has a receiver send frames that belong to no answer. The connection must end by their number, not
// only by time.
func TestFaultFloodOfFrames(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, host, time.Now().Add(time.Hour))
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	start := func(t *testing.T, f *flooder) *http.Client {
		t.Helper()
		f.cut, f.flooded = make(chan struct{}, 10), make(chan struct{}, 10)
		dial := func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go f.serve(tls.Server(theirs, config))
			return ours, nil
		}
		transport, err := guard.LoadTransport(guard.TransportOptions{
			RootCAs: ca.pool, Dialer: &guard.Dialer{Inject: map[string]func(context.Context) (net.Conn, error){host: dial}},
		}, guard.TLSFiles{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(transport.CloseIdleConnections)
		return transport.Client()
	}
	get := func(t *testing.T, c *http.Client) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	ends := func(t *testing.T, f *flooder, want bool) {
		t.Helper()
		select {
		case <-f.cut:
			if !want {
				t.Errorf("cut off after %d bytes, want all sent", f.wrote.Load())
			}
		case <-f.flooded:
			if want {
				t.Errorf("all %d bytes were taken, want an end before", f.wrote.Load())
			}
		case <-time.After(time.Minute):
			t.Error("neither cut off nor sent after a minute")
		}
	}
	const many = 16 << 20 / frameSize
	before := &flooder{frames: many}
	t.Run("before the answer", func(t *testing.T) {
		if err := get(t, start(t, before)); err == nil || strings.Contains(err.Error(), "deadline") {
			t.Errorf("got %v, want an error before the time is over", err)
		}
		ends(t, before, true)
	})
	after := &flooder{answers: true, frames: many}
	t.Run("after the answer", func(t *testing.T) {
		if err := get(t, start(t, after)); err != nil {
			t.Error(err)
		}
		ends(t, after, true)
	})
	t.Run("a few are no flood", func(t *testing.T) {
		f := &flooder{answers: true, frames: 1000} // a megabyte
		if err := get(t, start(t, f)); err != nil {
			t.Error(err)
		}
		ends(t, f, false)
	})
	t.Attr("fault", fmt.Sprintf("receivers: floods of SETTINGS over HTTP/2: before an answer the connection ended after %d KiB of frames, after an answer after %d KiB",
		before.wrote.Load()>>10, after.wrote.Load()>>10))
}

// TestLongAnswersKeepTheirConnection has a receiver answer each request with more than is read of it.
func TestLongAnswersKeepTheirConnection(t *testing.T) {
	const long = 1 << 20
	ca := newAuthority(t)
	r := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}, NextProtos: []string{"h2"}},
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, long)) })
	transport, err := guard.LoadTransport(r.options(ca.pool), guard.TLSFiles{})
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	reused := 0
	const requests = 30
	for range requests {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused {
				reused++
			}
		}})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.CopyN(io.Discard, resp.Body, 100)
		_ = resp.Body.Close()
	}
	if reused != requests-1 || r.opened.Load() != 1 {
		t.Errorf("got %d requests on a connection that was there, and %d connections; want %d and 1", reused, r.opened.Load(), requests-1)
	}
}

// TestRoomIsSharedByTransports has two transports with room for one connection.
func TestRoomIsSharedByTransports(t *testing.T) {
	ca := newAuthority(t)
	r := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, host, time.Now().Add(time.Hour))}, NextProtos: []string{"h2"}},
		func(http.ResponseWriter, *http.Request) {})
	o := r.options(ca.pool)
	var both []*guard.Transport
	asked := 0
	o.Room = guard.NewRoom(1, 10*time.Millisecond, func() {
		asked++
		for _, other := range both {
			other.CloseIdleConnections()
		}
	})
	for range 2 {
		one, err := guard.LoadTransport(o, guard.TLSFiles{})
		if err != nil {
			t.Fatal(err)
		}
		defer one.CloseIdleConnections()
		both = append(both, one)
	}
	const rounds = 3
	for n := range 2 * rounds {
		resp, err := both[n%2].Client().Get("https://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	if r.opened.Load() != 2*rounds || asked < 2*rounds-1 {
		t.Errorf("got %d connections, asked %d times for room; want %d: each had to make room for the next", r.opened.Load(), asked, 2*rounds)
	}
}
