package admin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/admin"
	"github.com/postern-relay/postern/store"
)

// copies is an engine that can be copied.
type copies struct {
	content string
	err     error // of Backup
	broken  error // of reading, where content ends

	asked  chan store.BackupOptions // has room for one, each
	closed chan struct{}            // which comes when the client has all of it, or later
}

func newCopies(content string) *copies {
	return &copies{content: content, asked: make(chan store.BackupOptions, 1), closed: make(chan struct{}, 1)}
}

func (c *copies) Backup(_ context.Context, o store.BackupOptions) (*store.Backup, error) {
	c.asked <- o
	if c.err != nil {
		return nil, c.err
	}
	return &store.Backup{
		ReadCloser: &copied{c.reader(), c}, Size: int64(len(c.content)),
		Counts: store.BackupCounts{Messages: 7, Pending: 3, Records: 20},
	}, nil
}

type copied struct {
	io.Reader
	of *copies
}

// reader reads the content, and fails behind it if the engine is to.
func (c *copies) reader() io.Reader {
	if c.broken == nil {
		return strings.NewReader(c.content)
	}
	return io.MultiReader(strings.NewReader(c.content[:len(c.content)/2]), iotest.ErrReader(c.broken))
}

func (c *copied) Close() error {
	c.of.closed <- struct{}{}
	return nil
}

func TestBackup(t *testing.T) {
	t.Run("it is handed out whole, with its counts", func(t *testing.T) {
		a := newAPI(t)
		made := newCopies(strings.Repeat("a backup ", 500_000))
		a.Backups = made
		for _, keys := range []bool{false, true} {
			var got bytes.Buffer
			counts, size, err := a.client.Backup(t.Context(), keys, &got)
			if err != nil || got.String() != made.content || size != int64(len(made.content)) {
				t.Fatalf("got %d bytes of %d, error %v", got.Len(), len(made.content), err)
			}
			if want := (store.BackupCounts{Messages: 7, Pending: 3, Records: 20}); counts != want {
				t.Errorf("got %+v, want %+v", counts, want)
			}
			if asked := <-made.asked; asked.IncludeKeys != keys {
				t.Errorf("include keys %t: asked for %+v", keys, asked)
			}
			<-made.closed
		}
	})
	t.Run("nothing is asked for without a word in the body", func(t *testing.T) {
		a := newAPI(t)
		made := newCopies("x")
		a.Backups = made
		if status, _ := a.do(t, http.MethodPost, "/api/v1/backup", ""); status != http.StatusOK || (<-made.asked).IncludeKeys {
			t.Errorf("got %d; want 200 without keys", status)
		}
		if status, _ := a.do(t, http.MethodPost, "/api/v1/backup", `{"keys": true}`); status != http.StatusBadRequest {
			t.Errorf("an unknown key: got %d, want 400", status)
		}
		if status, _ := a.do(t, http.MethodGet, "/api/v1/backup", ""); status != http.StatusMethodNotAllowed {
			t.Errorf("GET: got %d, want 405", status)
		}
	})
	for name, c := range map[string]struct {
		err  error
		want int
		says string
	}{
		"no room":            {fmt.Errorf("back up: %w", store.ErrNoSpace), http.StatusInsufficientStorage, "free disk"},
		"another one made":   {fmt.Errorf("back up: %w", store.ErrBusy), http.StatusConflict, "another"},
		"a store at its end": {store.ErrClosed, http.StatusServiceUnavailable, "next start"},
	} {
		t.Run(name+" is a refusal that says what to do", func(t *testing.T) {
			a := newAPI(t)
			made := newCopies("")
			made.err, a.Backups = c.err, made
			status, text := a.do(t, http.MethodPost, "/api/v1/backup", `{"include_keys": true}`)
			if status != c.want || !strings.Contains(text, c.says) {
				t.Errorf("got %d %s, want %d that says %q", status, text, c.want, c.says)
			}
			<-made.asked
			var refusal *admin.Refusal
			if _, _, err := a.client.Backup(t.Context(), false, io.Discard); !errors.As(err, &refusal) || refusal.Status != status {
				t.Errorf("the client: got error %v", err)
			}
		})
	}
	t.Run("an engine with its own way of copying says so", func(t *testing.T) {
		if status, _ := newAPI(t).do(t, http.MethodPost, "/api/v1/backup", ""); status != http.StatusNotImplemented {
			t.Errorf("got %d, want 501", status)
		}
	})
	t.Run("one that ends early is an error of the client", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Postern-Backup-Counts", "{}")
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "too short")
		}))
		t.Cleanup(server.Close)
		client := admin.Client{Address: server.Listener.Addr().String()}
		_, _, err := client.Backup(t.Context(), false, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "9 of 100 bytes") {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("one that cannot be read to its end is cut off, and told in the log", func(t *testing.T) {
		a := newHandler()
		core, logs := observer.New(zap.ErrorLevel)
		a.Log = zap.New(core)
		server := httptest.NewServer(a.Handler)
		t.Cleanup(server.Close)
		client := admin.Client{Address: server.Listener.Addr().String()}
		made := newCopies(strings.Repeat("x", 3<<20))
		made.broken = errors.New("bad sector")
		a.Backups = made
		if _, _, err := client.Backup(t.Context(), false, io.Discard); err == nil {
			t.Error("the client: no error")
		}
		server.Close() // waits for the handler
		got := logs.FilterMessage("answer broken off").All()
		if len(got) != 1 || !strings.Contains(fmt.Sprint(got[0].ContextMap()["error"]), "bad sector") {
			t.Errorf("got the lines %v, want one with the reason", logs.All())
		}
	})
	t.Run("an answer of something else is none", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
		t.Cleanup(server.Close)
		client := admin.Client{Address: server.Listener.Addr().String()}
		if _, _, err := client.Backup(t.Context(), false, io.Discard); err == nil || !strings.Contains(err.Error(), "not of Postern") {
			t.Errorf("got error %v", err)
		}
	})
	t.Run("a file that cannot be written to is the error", func(t *testing.T) {
		a := newAPI(t)
		a.Backups = newCopies("x")
		full := errors.New("disk full")
		if _, _, err := a.client.Backup(t.Context(), false, failing{full}); !errors.Is(err, full) {
			t.Errorf("got error %v, want %v", err, full)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
