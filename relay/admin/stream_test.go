package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// pipes is a network of one server inside a bubble of testing/synctest, where time is fake.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial asks for a path, with bounds on the server like those of the real one, and returns the connection.
func (p *pipes) dial(t testing.TB, path string) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	p.conns <- far
	if _, err := io.WriteString(near, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return near
}

// inBubble runs a test with a handler on fake time. Its streams have ended when it returns.
func inBubble(t *testing.T, test func(t *testing.T, a *api, network *pipes, stopping chan struct{})) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newHandler()
		stopping := make(chan struct{})
		a.Stopping = stopping
		network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: a.Handler, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute}
		served := make(chan error, 1)
		go func() { served <- server.Serve(network) }()
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			<-served
			synctest.Wait()
		})
		test(t, a, network, stopping)
	})
}

// event is one event, or a comment, as it came.
type event struct{ name, data string }

// events reads what a stream sends, until it ends.
func events(t testing.TB, conn net.Conn) <-chan event {
	t.Helper()
	c := make(chan event, 1000)
	go func() {
		defer close(c)
		defer conn.Close()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("got %d of type %q, want a stream", resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		lines := bufio.NewScanner(resp.Body)
		var e event
		for lines.Scan() {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, ":"):
				c <- event{name: line}
			case strings.HasPrefix(line, "event: "):
				e.name = line[len("event: "):]
			case strings.HasPrefix(line, "data: "):
				e.data = line[len("data: "):]
			case line == "" && e != (event{}):
				c <- e
				e = event{}
			}
		}
	}()
	return c
}

// drain returns what has come so far.
func drain(c <-chan event) (list []event, ended bool) {
	synctest.Wait()
	for {
		select {
		case e, ok := <-c:
			if !ok {
				return list, true
			}
			list = append(list, e)
		default:
			return list, false
		}
	}
}

func names(list []event) string {
	var out []string
	for _, e := range list {
		out = append(out, e.name)
	}
	return strings.Join(out, " ")
}

func TestStream(t *testing.T) {
	t.Run("changes are told, those of a destination once a second", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			stream := events(t, network.dial(t, "/api/v1/events"))
			synctest.Wait()
			d := a.accept(t, store.Message{Event: "a.b"}, "{}", "alerts")[0]
			a.Changes.Accepted("alerts", d.ID)
			list, _ := drain(stream)
			if names(list) != "delivery" || !strings.Contains(list[0].data, `"state":"pending"`) || !strings.Contains(list[0].data, d.ID.String()) {
				t.Fatalf("got %v, want the delivery as it is in the store", list)
			}
			for range 5 {
				a.Changes.Destination("alerts")
				synctest.Wait()
			}
			if list, _ := drain(stream); len(list) != 0 {
				t.Errorf("got %v within the second, want nothing", list)
			}
			time.Sleep(time.Second)
			if list, _ := drain(stream); names(list) != "destination" || !strings.Contains(list[0].data, `"name":"alerts"`) {
				t.Errorf("got %v after it, want the destination once", list)
			}
			a.relay.reload = &admin.Reload{At: epoch(), OK: false, Error: "x"}
			a.Changes.Reload()
			if list, _ := drain(stream); names(list) != "reload" || !strings.Contains(list[0].data, `"ok":false`) {
				t.Errorf("got %v, want the reload", list)
			}
			done := a.end(t, d, store.Delivered, store.ClassOK, 200)
			a.Changes.Observe(d, done, store.Attempt{})
			if list, _ := drain(stream); names(list) != "delivery" || !strings.Contains(list[0].data, `"state":"delivered"`) {
				t.Errorf("got %v, want the delivery as it ended", list)
			}
		})
	})
	t.Run("what changes twice before it is told is told once", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			conn := network.dial(t, "/api/v1/events")
			synctest.Wait() // the stream waits for its first bytes to be read
			d := a.accept(t, store.Message{Event: "a.b"}, "{}", "alerts")[0]
			for round := range 300 {
				d.Round = round + 1
				a.Changes.Delivery(d)
			}
			list, _ := drain(events(t, conn))
			if names(list) != "delivery" || !strings.Contains(list[0].data, `"round":300`) {
				t.Errorf("got %v, want the last state alone", list)
			}
		})
	})
	t.Run("of one destination only its own are told", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			stream := events(t, network.dial(t, "/api/v1/events?destination=audit"))
			synctest.Wait()
			both := a.accept(t, store.Message{Event: "a.b"}, "{}", "alerts", "audit")
			for _, d := range both {
				a.Changes.Delivery(d)
			}
			if list, _ := drain(stream); names(list) != "delivery" || !strings.Contains(list[0].data, both[1].ID.String()) {
				t.Errorf("got %v, want that of audit", list)
			}
		})
	})
	t.Run("a comment keeps a stream alive beyond the bounds of a request", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			stream := events(t, network.dial(t, "/api/v1/events"))
			time.Sleep(5*time.Minute + time.Second)
			list, ended := drain(stream)
			if ended || len(list) != 20 || list[19].name != ": keep-alive" {
				t.Errorf("got %d comments, ended %t; want one every 15 s for five minutes", len(list), ended)
			}
		})
	})
	t.Run("a stop ends all streams", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			first, second := events(t, network.dial(t, "/api/v1/events")), events(t, network.dial(t, "/api/v1/events"))
			synctest.Wait()
			close(stopping)
			for _, stream := range []<-chan event{first, second} {
				if _, ended := drain(stream); !ended {
					t.Error("the stream goes on, want its end")
				}
			}
		})
	})
	t.Run("a client that never reads costs ten seconds and a bounded queue", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			conn := network.dial(t, "/api/v1/events")
			synctest.Wait() // a pipe holds no bytes: the stream waits
			for range 5000 {
				id, err := store.NewMessageID()
				if err != nil {
					t.Fatal(err)
				}
				a.Changes.Delivery(store.Delivery{ID: id.Delivery(0), Destination: "alerts", State: store.Pending})
			}
			time.Sleep(10*time.Second + time.Millisecond)
			synctest.Wait()
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("got %d bytes, %v; want that the server has closed the connection", n, err)
			}
			conn.Close()
		})
	})
	t.Run("a client that falls behind is told so, and the stream ends", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			conn := network.dial(t, "/api/v1/events")
			synctest.Wait()
			for range 300 {
				id, err := store.NewMessageID()
				if err != nil {
					t.Fatal(err)
				}
				a.Changes.Delivery(store.Delivery{ID: id.Delivery(0), Destination: "alerts", State: store.Pending})
			}
			list, ended := drain(events(t, conn))
			if names(list) != "lagging" || !ended {
				t.Errorf("got %v, ended %t; want the one event and the end", list, ended)
			}
		})
	})
	t.Run("there are at most 100 streams, and one that ends makes room", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			var conns []net.Conn
			for range 100 {
				conn := network.dial(t, "/api/v1/events")
				conns = append(conns, conn)
				events(t, conn)
			}
			synctest.Wait()
			ask := func() int {
				t.Helper()
				conn := network.dial(t, "/api/v1/events")
				conns = append(conns, conn)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				return resp.StatusCode
			}
			if status := ask(); status != http.StatusServiceUnavailable {
				t.Errorf("got %d for the next one, want 503", status)
			}
			conns[0].Close()
			synctest.Wait()
			if status := ask(); status != http.StatusOK {
				t.Errorf("got %d after one has ended, want 200", status)
			}
			for _, conn := range conns {
				conn.Close()
			}
		})
	})
}

// slow takes its time for a test.
type slow struct{ *fake }

func (s slow) Test(ctx context.Context, m store.Message, body []byte) (store.Attempt, store.State, error) {
	select {
	case <-ctx.Done():
		return store.Attempt{}, 0, context.Cause(ctx)
	case <-time.After(10 * time.Minute):
		return s.fake.Test(ctx, m, body)
	}
}

func TestLongRequest(t *testing.T) {
	t.Run("a test may last longer than the server gives other requests", func(t *testing.T) {
		inBubble(t, func(t *testing.T, a *api, network *pipes, stopping chan struct{}) {
			a.Trials = slow{a.relay}
			near, far := net.Pipe()
			defer near.Close()
			network.conns <- far
			if _, err := io.WriteString(near, "POST /api/v1/destinations/alerts/test HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(near), nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("got %+v, %v; want 200 after ten minutes", resp, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestStreamAnswersAsDescribed(t *testing.T) {
	a := newAPI(t)
	d := a.accept(t, store.Message{Event: "a.b"}, "{}", "alerts")[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := map[string]any{}
	for e, err := range a.client.Events(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Name {
		case admin.EventConnected:
			a.relay.Reload(ctx)
			a.Changes.Reload()
			a.Changes.Delivery(d) // and its destination, a second later
		case admin.EventDelivery:
			got["Delivery"] = e.Delivery
		case admin.EventDestination:
			got["Destination"] = e.Destination
		case admin.EventReload:
			got["Reload"] = e.Reload
		}
		if len(got) == 3 {
			break
		}
	}
	for name, value := range got {
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		compiled, err := a.checks.compiler.Compile("openapi.json#/components/schemas/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var decoded any
		if err := json.Unmarshal(encoded, &decoded); err != nil {
			t.Fatal(err)
		}
		if err := compiled.Validate(decoded); err != nil {
			t.Errorf("the event of a %s is not as described: %v", name, err)
		}
	}
}
