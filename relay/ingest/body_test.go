package ingest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

const patience = 10 * time.Second

func (b *bench) dial(t testing.TB) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func send(t testing.TB, w io.Writer, raw string) {
	t.Helper()
	if _, err := io.WriteString(w, raw); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// status reads an answer and returns its status.
func status(t testing.TB, r *bufio.Reader) int {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return resp.StatusCode
}

func TestBodiesOfAllSizesAreKept(t *testing.T) {
	const limit = 300 << 10
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.MaxBody = limit })
	whole := make([]byte, limit+1)
	for i := range whole {
		whole[i] = byte(i * 7 >> 3)
	}
	for _, size := range []int{0, 1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 200_000, limit - 1, limit, limit + 1} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, chunked %t", size, chunked), func(t *testing.T) {
				var in io.Reader = bytes.NewReader(whole[:size])
				if chunked {
					in = io.MultiReader(in) // its length is hidden from net/http
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/to/alerts", in)
				if err != nil {
					t.Fatal(err)
				}
				resp, text := do(t, req)
				if size > limit {
					if resp.StatusCode != 413 || !resp.Close {
						t.Errorf("got %d, close %t, want 413 and an end", resp.StatusCode, resp.Close)
					}
					return
				}
				if resp.StatusCode != 202 {
					t.Fatalf("got %d %q, want 202", resp.StatusCode, text)
				}
				id, err := store.ParseMessageID(parse(t, text).ID)
				if err != nil {
					t.Fatal(err)
				}
				if _, got, err := b.store.Load(t.Context(), id); err != nil || !bytes.Equal(got, whole[:size]) {
					t.Errorf("got %d bytes and %v, want the %d as posted", len(got), err, size)
				}
			})
		}
	}
}

func TestTooLargeIsSaidBeforeTheBodyIsAskedFor(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	conn, r := b.dial(t)
	send(t, conn, "POST /to/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
	if got := status(t, r); got != 413 {
		t.Errorf("got %d first, want 413 and no 100", got)
	}
	if n, err := io.Copy(io.Discard, r); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes and %v, want the end of the connection", n, err)
	}
}

func TestContinue(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	conn, r := b.dial(t)
	send(t, conn, "POST /to/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q and %v, want 100", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "hi")
	if got := status(t, r); got != 202 {
		t.Errorf("got %d, want 202", got)
	}
}

func TestBrokenBodies(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil)
	for name, raw := range map[string]string{
		"a small body that ends early": "Content-Length: 10\r\n\r\nabc",
		"a large body that ends early": "Content-Length: 100000\r\n\r\nabc",
		"a chunk size of nonsense":     "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
		"a chunk that ends early":      "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
		"chunks without an end":        "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, r := b.dial(t)
			send(t, conn, "POST /to/alerts HTTP/1.1\r\nHost: x\r\n"+raw)
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := status(t, r); got != 400 {
				t.Errorf("got %d, want 400", got)
			}
			if n, err := io.Copy(io.Discard, r); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %d bytes and %v, want the end of the connection", n, err)
			}
		})
	}
	if got := b.store.Pending(); got != 0 {
		t.Errorf("got %d deliveries of half a body, want none", got)
	}
}

func TestSlowBodyGets408(t *testing.T) {
	b := start(t, storetest.MemoryOptions{}, nil, func(s *http.Server) { s.ReadTimeout = 50 * time.Millisecond })
	conn, r := b.dial(t)
	send(t, conn, "POST /to/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
	if got := status(t, r); got != 408 {
		t.Errorf("got %d, want 408", got)
	}
}

func TestBodyMemoryIsBounded(t *testing.T) {
	const share = 64 << 10
	returned := make(chan struct{}, 10) // receives for each request that is over
	b := start(t, storetest.MemoryOptions{},
		func(h *ingest.Handler) { h.MaxBody, h.BodyMemory = 1<<20, 2*share },
		func(s *http.Server) {
			inner := s.Handler
			s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { returned <- struct{}{} }()
				inner.ServeHTTP(w, r)
			})
		})
	large := "POST /to/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 17<<10)
	statuses := make(chan int, 3)
	var clients []net.Conn
	for range 3 { // each begins a large body and takes a share of 64 KiB; there are two
		conn, r := b.dial(t)
		clients = append(clients, conn)
		send(t, conn, large)
		go func() {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				statuses <- 0 // cut by ourselves, below
				return
			}
			_ = resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	if got := <-statuses; got != 503 {
		t.Errorf("got %d for one large body too many, want 503", got)
	}
	<-returned
	if resp, text := b.post(t, "/to/alerts", "small"); resp.StatusCode != 202 {
		t.Errorf("got %d %q for a small body meanwhile, want 202", resp.StatusCode, text)
	}
	<-returned
	for _, conn := range clients {
		_ = conn.Close()
	}
	<-returned
	<-returned
	if resp, text := b.post(t, "/to/alerts", strings.Repeat("x", share)); resp.StatusCode != 202 {
		t.Errorf("got %d %q for a large body after the others had gone, want 202", resp.StatusCode, text)
	}
}

// waiting is an Acceptor that accepts when it is told to, or gives up with its context.
type waiting struct {
	store.Acceptor
	entered chan struct{}
	leave   chan struct{}
}

func (a waiting) Accept(ctx context.Context, m store.Message, body []byte) (store.Message, bool, error) {
	close(a.entered)
	select {
	case <-a.leave:
		return a.Acceptor.Accept(ctx, m, body)
	case <-ctx.Done():
		return store.Message{}, false, ctx.Err()
	}
}

func TestMessageOfClientThatHasGoneWakesItsLane(t *testing.T) {
	memory := storetest.NewMemory(storetest.MemoryOptions{})
	a := waiting{Acceptor: memory, entered: make(chan struct{}), leave: make(chan struct{})}
	gone := make(chan struct{})
	woken := make(chan store.Cursor, 1)
	b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
		h.Acceptor = a
		h.Wake = func(_ string, c store.Cursor) { woken <- c }
	}, func(s *http.Server) {
		inner := s.Handler
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			context.AfterFunc(r.Context(), func() { close(gone) })
			inner.ServeHTTP(w, r)
		})
	})
	conn, _ := b.dial(t)
	send(t, conn, "POST /to/alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	<-a.entered
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-gone // the server knows that nobody waits for the answer
	close(a.leave)
	c := <-woken
	if d, err := memory.Delivery(t.Context(), c.ID); err != nil || d.State != store.Pending {
		t.Errorf("got delivery %+v and %v, want it pending", d, err)
	}
}

func TestStoreThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := storetest.NewMemory(storetest.MemoryOptions{})
		var mu sync.Mutex
		var wakes int
		h := &ingest.Handler{
			Acceptor: waiting{Acceptor: memory, entered: make(chan struct{}), leave: make(chan struct{})},
			Router:   routes{known: map[string]time.Duration{"alerts": 0}},
			Wake: func(string, store.Cursor) {
				mu.Lock()
				defer mu.Unlock()
				wakes++
			},
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/to/alerts", nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w := newRecorder()
		h.ServeHTTP(w, r)
		if w.status != 500 || time.Since(begun) != 30*time.Second {
			t.Errorf("got %d after %v, want 500 after 30 s", w.status, time.Since(begun))
		}
		if wakes != 1 {
			t.Errorf("got %d lanes woken, want 1: the message may have been stored", wakes)
		}
	})
}

// recorder is a ResponseWriter without a connection, for time that is not real.
type recorder struct {
	header http.Header
	status int
}

func newRecorder() *recorder { return &recorder{header: http.Header{}} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
