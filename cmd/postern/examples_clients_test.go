package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-relay/postern/relay/sign"
)

// exampleClients are the programs in examples/clients, with what runs each.
var exampleClients = []struct{ file, interpreter string }{
	{"post.sh", "sh"}, {"post.go", "go"}, {"post.py", "python3"}, {"post.mjs", "node"}, {"post.rb", "ruby"},
}

// clientCommand returns the command that runs a client. An interpreter that is not installed fails the test, unless
// POSTERN_WITHOUT names it: make test does so, and says so, where it cannot be installed.
func clientCommand(t *testing.T, file, interpreter string, args ...string) (cmd *exec.Cmd, ok bool) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "examples", "clients", file))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(interpreter); err != nil {
		if slices.Contains(strings.Split(os.Getenv("POSTERN_WITHOUT"), ","), interpreter) {
			fmt.Fprintf(os.Stderr, "NOT RUN: examples/clients/%s, since %s is not installed and POSTERN_WITHOUT says to go on\n", file, interpreter)
			return nil, false
		}
		t.Fatalf("%s is not installed, so examples/clients/%s cannot be tried; install it, or set POSTERN_WITHOUT=%s to go on without", interpreter, file, interpreter)
	}
	line := append([]string{path}, args...)
	if interpreter == "go" {
		line = []string{clientBinary(t, path)}
		line = append(line, args...)
		return exec.CommandContext(t.Context(), line[0], line[1:]...), true
	}
	return exec.CommandContext(t.Context(), interpreter, line...), true
}

// clientBinary builds the client that is written in Go.
func clientBinary(t *testing.T, path string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "post")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, path).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// runClient runs a client against an address and returns what it printed.
func runClient(t *testing.T, cmd *exec.Cmd, url, token string) (out, errOut string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Dir = t.TempDir() // it must not matter from where it is called
	// A proxy that nobody serves: a client that asked it would fail.
	cmd.Env = append(os.Environ(), "INGEST_URL="+url, "INGEST_TOKEN="+token, "HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// TestExampleClients posts with each of the programs to a relay with the config beside them.
func TestExampleClients(t *testing.T) {
	e := runExample(t, "clients", exampleOptions{ip: "127.0.0.65", env: map[string]string{"ORDERS_SECRET": sign.NewSecret()}})
	arrived := 0
	for _, c := range exampleClients {
		body := fmt.Sprintf(`{"type": "order.paid", "by": %q, "text": "Zoë's \"50 %%\" @home $HOME"}`, c.file)
		cmd, ok := clientCommand(t, c.file, c.interpreter, "orders", "order-"+c.file, body)
		if !ok {
			continue
		}
		t.Run(c.file, func(t *testing.T) {
			out, errOut, err := runClient(t, cmd, "http://"+e.ingest, "")
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, errOut)
			}
			id, err := messageID([]byte(out))
			if err != nil || id == "" {
				t.Fatalf("got answer %q, want the id of a message", out)
			}
			arrived++
			got := e.site.await(t, "hooks.example.com", arrived)
			if n := slices.IndexFunc(got, func(r wireRequest) bool { return r.header.Get("Webhook-Id") == id }); n < 0 || got[n].body != body {
				t.Errorf("got requests %v, want %q under %s", got, body, id)
			}
			again, _ := clientCommand(t, c.file, c.interpreter, "orders", "order-"+c.file, body)
			out, errOut, err = runClient(t, again, "http://"+e.ingest, "")
			if err != nil {
				t.Fatalf("a second time: %v\n%s%s", err, out, errOut)
			}
			if second, err := messageID([]byte(out)); err != nil || second != id {
				t.Errorf("the same key a second time: got id %q, %v; want %q", second, err, id)
			}
		})
	}
	e.relay.stop(t)
	if got := len(e.site.to("")); got != arrived {
		t.Errorf("got %d requests, want one for each program", got)
	}
}

// TestExampleClientsTryAgain has each of the programs meet an ingest that is not well.
func TestExampleClientsTryAgain(t *testing.T) {
	for _, c := range exampleClients {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel() // they spend their time waiting
			cmd, ok := clientCommand(t, c.file, c.interpreter, "orders", "order-7", `{"n":7}`)
			if !ok {
				return
			}
			ill := newIllIngest(t, "503", "500", "429", "202")
			out, errOut, err := runClient(t, cmd, ill.URL, "token-of-the-clients-1")
			if err != nil || !strings.Contains(out, `"id":"msg_7"`) {
				t.Errorf("500, 503 and 429 are tried again: got %v\n%s%s", err, out, errOut)
			}
			for i, r := range ill.taken() {
				want := illRequest{"POST", "/to/orders", "application/json", "order-7", "Bearer token-of-the-clients-1", `{"n":7}`}
				if r != want {
					t.Errorf("request %d: got %+v, want %+v", i+1, r, want)
				}
			}
			if got := len(ill.taken()); got != 4 {
				t.Errorf("got %d requests, want 4", got)
			}

			ill = newIllIngest(t, "422", "202")
			cmd, _ = clientCommand(t, c.file, c.interpreter, "orders", "order-7", `{"n":7}`)
			out, errOut, err = runClient(t, cmd, ill.URL, "")
			if err == nil || len(ill.taken()) != 1 || !strings.Contains(out+errOut, "what to do about 422") {
				t.Errorf("422 is told and not tried again: got %v after %d requests\n%s%s", err, len(ill.taken()), out, errOut)
			}
			if got := ill.taken()[0].authorization; got != "" {
				t.Errorf("without a token: got Authorization %q, want none", got)
			}
		})
	}
}

// illIngest is a server that answers in turn as it is told to.
type illIngest struct {
	*httptest.Server
	mu       sync.Mutex // guards the fields below
	answers  []string
	requests []illRequest
}

// illRequest is what a client has sent.
type illRequest struct{ method, target, contentType, key, authorization, body string }

func newIllIngest(t *testing.T, answers ...string) *illIngest {
	t.Helper()
	ill := &illIngest{answers: answers}
	ill.Server = httptest.NewServer(ill)
	t.Cleanup(ill.Close)
	return ill
}

func (ill *illIngest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	ill.mu.Lock()
	defer ill.mu.Unlock()
	ill.requests = append(ill.requests, illRequest{
		r.Method, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key"), r.Header.Get("Authorization"), string(body),
	})
	answer := "202"
	if len(ill.answers) > 0 {
		answer, ill.answers = ill.answers[0], ill.answers[1:]
	}
	var status int
	if _, err := fmt.Sscan(answer, &status); err != nil {
		panic(err)
	}
	w.Header().Set("Retry-After", "0")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status == http.StatusAccepted {
		_, _ = io.WriteString(w, `{"id":"msg_7","deliveries":[]}`)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"detail": "what to do about " + answer})
}

func (ill *illIngest) taken() []illRequest {
	ill.mu.Lock()
	defer ill.mu.Unlock()
	return slices.Clone(ill.requests)
}

// TestExampleClientsWaitForTheStart has each of the programs post while nobody listens yet.
func TestExampleClientsWaitForTheStart(t *testing.T) {
	for _, c := range exampleClients {
		t.Run(c.file, func(t *testing.T) {
			cmd, ok := clientCommand(t, c.file, c.interpreter, "orders", "order-8", `{"n":8}`)
			if !ok {
				return
			}
			address, _ := freeAddresses(t)
			result := make(chan error, 1)
			started := make(chan struct{})
			go func() {
				close(started)
				out, errOut, err := runClient(t, cmd, "http://"+address, "")
				if err != nil {
					err = fmt.Errorf("%w\n%s%s", err, out, errOut)
				}
				result <- err
			}()
			<-started
			// The program needs a moment to start, so its first try is most likely refused. It must not matter if not.
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if c.interpreter != "sh" { // curl tries again after a refused connection only
				broken, err := listener.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if err := broken.(*net.TCPConn).SetLinger(0); err != nil { // so that it ends by a reset
					t.Error(err)
				}
				_ = broken.Close()
			}
			server := &http.Server{Handler: &illIngest{}}
			done := make(chan error, 1)
			go func() { done <- server.Serve(listener) }()
			if err := <-result; err != nil {
				t.Errorf("got %v, want the message taken in the end", err)
			}
			_ = server.Close()
			<-done
		})
	}
}
