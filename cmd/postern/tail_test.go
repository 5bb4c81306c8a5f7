package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
)

// follow runs a command in this process until the func it returns is called, which returns its exit code.
func follow(t *testing.T, args ...string) (out, errOut *syncBuffer, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, errOut = &syncBuffer{}, &syncBuffer{}
	done := make(chan int, 1)
	go func() { done <- run(ctx, args, nil, strings.NewReader(""), out, errOut) }()
	return out, errOut, func() int {
		cancel()
		select {
		case code := <-done:
			return code
		case <-time.After(10 * time.Second):
			t.Fatalf("%v does not end", args)
			return -1
		}
	}
}

// once runs a command in this process.
func once(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, nil, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// TestTail follows a relay through deliveries, a pause, reloads and a restart.
func TestTail(t *testing.T) {
	far := newFarEnd(t, "127.0.0.83", "tail.test")
	dir := t.TempDir()
	ingest, adminAddress := freeAddresses(t)
	config := filepath.Join(dir, "postern.yaml")
	text := far.config(ingest, adminAddress, filepath.Join(dir, "data"), "timeout: 20s")
	writeFile(t, config, text)
	relay := startPostern(t, adminAddress, "run", "--config", config)

	out, errOut, end := follow(t, "tail", "--admin", adminAddress)
	jsonOut, _, jsonEnd := follow(t, "tail", "--admin", adminAddress, "--destination", "far", "--json")
	statsOut, _, statsEnd := follow(t, "stats", "--admin", adminAddress, "--watch", "--every", "100ms")
	says := func(b *syncBuffer, want string) {
		t.Helper()
		waitUntil(t, 15*time.Second, want, func() bool { return strings.Contains(b.String(), want) })
	}
	send := func() (id string) {
		t.Helper()
		code, answer, said := once(t, "send", "far", "--ingest", ingest, "--data", "{}", "--wait", "10s", "--json")
		if code != exitOK {
			t.Fatalf("send: exit code %d: %s", code, said)
		}
		var m posted
		if err := json.Unmarshal([]byte(answer), &m); err != nil {
			t.Fatal(err)
		}
		return m.Deliveries[0].ID
	}
	// A stream begins some time after its command, and tells only what comes then.
	waitUntil(t, 15*time.Second, "both streams have begun", func() bool {
		send()
		return strings.Contains(out.String(), "delivered") && strings.Contains(jsonOut.String(), "delivered")
	})

	id := send()
	says(out, "delivered  far  "+id+"  attempt 1, 200\n")
	says(jsonOut, `{"event":"delivery","data":{"id":"`+id+`"`)
	says(statsOut, "far          healthy")

	if code, _, said := once(t, "pause", "far", "--admin", adminAddress, "--reason", "a reason"); code != exitOK {
		t.Fatalf("pause: %s", said)
	}
	says(out, "far is paused: a reason\n")
	says(jsonOut, `"reason":"a reason"`)
	if code, _, said := once(t, "resume", "far", "--admin", adminAddress); code != exitOK {
		t.Fatalf("resume: %s", said)
	}
	says(out, "far goes on\n")

	t.Run("reload tells what has changed", func(t *testing.T) {
		writeFile(t, config, strings.Replace(text, "timeout: 20s", "timeout: 21s", 1))
		code, answer, said := once(t, "reload", "--admin", adminAddress)
		if code != exitOK || !strings.HasPrefix(answer, "reloaded\n") {
			t.Errorf("got %d, %q, %q", code, answer, said)
		}
		says(out, "config reloaded, changed: ")
		if code, answer, said = once(t, "reload", "--admin", adminAddress, "--json"); code != exitOK || !strings.Contains(answer, `"ok": true`) {
			t.Errorf("in JSON: got %d, %q, %q", code, answer, said)
		}
	})
	t.Run("a reload that is refused names each fault with its place", func(t *testing.T) {
		writeFile(t, config, strings.Replace(text, "timeout: 20s", "timeuot: 20s", 1))
		code, _, said := once(t, "reload", "--admin", adminAddress)
		if code != exitUsage || !strings.Contains(said, config+":") || !strings.Contains(said, "destinations.far.timeuot: ") || !strings.Contains(said, "nothing has changed") {
			t.Errorf("got %d, %q", code, said)
		}
		says(out, "config not reloaded: ")
		code, answer, _ := once(t, "reload", "--admin", adminAddress, "--json")
		if code != exitUsage || !strings.Contains(answer, `"path": "destinations.far.timeuot"`) {
			t.Errorf("in JSON: got %d, %q", code, answer)
		}
		writeFile(t, config, text)
	})

	relay.stop(t)
	says(errOut, "postern: the connection is lost (")
	says(statsOut, "is postern run running?")
	relay = startPostern(t, adminAddress, "run", "--config", config)
	says(errOut, "postern: connected again")
	id = send()
	says(out, "delivered  far  "+id)
	for name, stop := range map[string]func() int{"tail": end, "tail --json": jsonEnd, "stats --watch": statsEnd} {
		if code := stop(); code != exitOK {
			t.Errorf("%s: exit code after Ctrl-C: got %d, want %d", name, code, exitOK)
		}
	}
	for line := range strings.Lines(jsonOut.String()) {
		var v struct {
			Event string
			Data  map[string]any
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Event == "" || v.Data == nil {
			t.Errorf("not one object a line: %q: %v", line, err)
		}
	}
	relay.stop(t)

	if code, _, said := once(t, "tail", "--admin", adminAddress); code != exitFailed || !strings.Contains(said, "is postern run running?") {
		t.Errorf("nobody there: got %d, %q", code, said)
	}
}

// TestAdminToken sees what a token is taken from, and that it goes into a header and nowhere else.
func TestAdminToken(t *testing.T) {
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"status": 401, "detail": "a token is needed"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(admin.Overview{Destinations: []admin.Destination{}})
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, "of-the-file\n")
	stats := func(environ []string, args ...string) (int, string) {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"stats", "--admin", address}, args...), environ, os.Stdin, &out, &errOut)
		return code, errOut.String()
	}
	for _, tc := range []struct {
		name    string
		environ []string
		args    []string
		want    string
		code    int
	}{
		{"the environment has one", []string{envAdminToken + "=of-the-environment"}, nil, "Bearer of-the-environment", exitOK},
		{"a file comes first", []string{envAdminToken + "=of-the-environment"}, []string{"--admin-token-file", file}, "Bearer of-the-file", exitOK},
		{"none is sent where there is none", nil, nil, "", exitFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, said := stats(tc.environ, tc.args...)
			if header := <-got; header != tc.want || code != tc.code {
				t.Errorf("got %q and exit code %d, want %q and %d; it said %s", header, code, tc.want, tc.code, said)
			}
			if tc.code != exitOK && !strings.Contains(said, "a token is needed; give the token by POSTERN_ADMIN_TOKEN or --admin-token-file") {
				t.Errorf("got %q, want what to do", said)
			}
		})
	}
	t.Run("a file that is not there is a mistake of the caller", func(t *testing.T) {
		if code, said := stats(nil, "--admin-token-file", file+".missing"); code != exitUsage || !strings.Contains(said, "read token: ") {
			t.Errorf("got %d, %q", code, said)
		}
	})
}
