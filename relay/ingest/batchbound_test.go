package ingest_test

import (
	"context"
	"io"
	"iter"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// streaming is an Acceptor that counts posts, keeps none, and looks at memory now and then.
type streaming struct {
	store.Acceptor
	posts     int
	bytes     int64
	most      uint64 // bytes on the heap, garbage collected
	err       error
	untilDone bool // wait for the end of the context, then return err
}

func (s *streaming) AcceptAll(ctx context.Context, posts iter.Seq2[store.Post, error]) ([]store.Accepted, error) {
	var all []store.Accepted
	for post, err := range posts {
		if err != nil {
			return nil, err
		}
		if s.posts++; s.posts%2000 == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			s.most = max(s.most, m.HeapAlloc)
		}
		s.bytes += int64(len(post.Body))
		for _, f := range post.Message.Header {
			s.bytes += int64(len(f.Value))
		}
		all = append(all, store.Accepted{Message: store.Message{ID: post.Message.ID}})
	}
	if s.untilDone {
		<-ctx.Done()
	}
	return all, s.err
}

// endless writes the same line many times.
func endless(line string, times int) io.Reader {
	r, w := io.Pipe()
	go func() {
		for range times {
			if _, err := io.WriteString(w, line); err != nil {
				return // the reader has gone
			}
		}
		_ = w.Close()
	}()
	return r
}

func TestBatchMemoryDoesNotGrowWithItsLines(t *testing.T) {
	body := `{"x":"` + strings.Repeat("y", 4<<10) + `"}`
	for _, form := range []struct {
		name, path, contentType, line, first, last string
	}{
		{"bodies of /batch", "/batch", ndjson, `{"to":"alerts","data":` + body + "}\n", "", ""},
		{"headers of /batch", "/batch", ndjson,
			`{"to":"alerts","data":1,"headers":{"X-Context":"` + strings.Repeat("y", len(body)) + `"}}` + "\n", "", ""},
		{"bodies of /cloudevents", "/cloudevents", "application/cloudevents-batch+json",
			`{"specversion":"1.0","id":"1","source":"/s","type":"nobody.cares","data":` + body + "},", "[",
			`{"specversion":"1.0","id":"1","source":"/s","type":"nobody.cares"}]`},
	} {
		t.Run(form.name, func(t *testing.T) {
			const lines = 9_999
			s := &streaming{}
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) {
				h.Acceptor = s
				h.Router = routes{known: map[string]time.Duration{"alerts": 0}, header: []string{"X-Context"}}
			})
			in := io.MultiReader(strings.NewReader(form.first), endless(form.line, lines), strings.NewReader(form.last))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+form.path, in)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", form.contentType)
			runtime.GC()
			var before runtime.MemStats
			runtime.ReadMemStats(&before)
			resp, text := do(t, req)
			if resp.StatusCode != 202 {
				t.Fatalf("got %d %.300s, want 202", resp.StatusCode, text)
			}
			if s.posts < lines || s.bytes < int64(lines*len(body)) {
				t.Errorf("got %d posts of %d bytes, want them all", s.posts, s.bytes)
			}
			if n := len(parseAll(t, text)); n != s.posts {
				t.Errorf("got %d messages in the answer, want %d", n, s.posts)
			}
			// The answer, ids and places of 10,000 messages are a few MiB; their bodies or headers are 40 MiB.
			if grown := int64(s.most) - int64(before.HeapAlloc); grown > 12<<20 {
				t.Errorf("got %d KiB more on the heap while reading, want less than 12 MiB", grown>>10)
			}
		})
	}
}

func TestBatchBounds(t *testing.T) {
	line := `{"to":"alerts","data":1}` + "\n"
	many := `{"event":"alert.fired","data":1}` + "\n" // two deliveries each
	for _, tc := range []struct {
		name   string
		in     io.Reader
		status int
		detail string
	}{
		{"10,000 lines are taken", endless(line, store.MaxPosts), 202, ""},
		{"a line more is refused", endless(line, store.MaxPosts+1), 413, "line 10001: there are more than 10000 messages"},
		{"10,000 deliveries are taken", endless(many, store.MaxPosts/2), 202, ""},
		{"more deliveries are refused", endless(many, store.MaxPosts/2+1), 413, "line 5001: the messages up to here make more than 10000 deliveries"},
		{"empty lines count for nothing", endless("\n\n"+line, store.MaxPosts), 202, ""},
		{"64 MiB are too much", endless(strings.Repeat(" ", 64<<10)+"\n", 1024), 413, "the request is larger than 67108864 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.Acceptor = &streaming{} })
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/batch", tc.in)
			if err != nil {
				t.Fatal(err)
			}
			resp, text := do(t, req)
			if resp.StatusCode != tc.status || tc.detail != "" && !strings.Contains(detail(t, text), tc.detail) {
				t.Errorf("got %d %.300s, want %d saying %q", resp.StatusCode, text, tc.status, tc.detail)
			}
		})
	}
	t.Run("what is announced too large is refused before it is asked for", func(t *testing.T) {
		for _, target := range []string{"/batch HTTP/1.1\r\n", "/cloudevents HTTP/1.1\r\nContent-Type: application/cloudevents-batch+json\r\n"} {
			b := start(t, storetest.MemoryOptions{}, nil)
			conn, r := b.dial(t)
			send(t, conn, "POST "+target+"Host: x\r\nContent-Length: 67108865\r\nExpect: 100-continue\r\n\r\n")
			if got := status(t, r); got != 413 {
				t.Errorf("got %d first, want 413 and no 100", got)
			}
		}
	})
	t.Run("the memory of bodies bounds lines too", func(t *testing.T) {
		b := start(t, storetest.MemoryOptions{}, func(h *ingest.Handler) { h.BodyMemory = 64 << 10 })
		large := `{"to":"alerts","data":"` + strings.Repeat("x", 100<<10) + `"}`
		if resp, text := b.post(t, "/batch", large, "Content-Type", ndjson); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("got %d %s, want 503 and Retry-After", resp.StatusCode, text)
		}
		event := `[{"specversion":"1.0","id":"1","source":"/s","type":"a","data":"` + strings.Repeat("x", 100<<10) + `"}]`
		if resp, text := b.post(t, "/cloudevents", event, "Content-Type", "application/cloudevents-batch+json"); resp.StatusCode != 503 {
			t.Errorf("got %d %s, want 503", resp.StatusCode, text)
		}
		half := `{"to":"alerts","data":"` + strings.Repeat("x", 40<<10) + `"}`
		for range 3 { // what was taken has been given back
			if resp, text := b.post(t, "/batch", half, "Content-Type", ndjson); resp.StatusCode != 202 {
				t.Errorf("got %d %s for a smaller one, want 202", resp.StatusCode, text)
			}
		}
	})
}
