package problem_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/problem"
)

// serve runs h behind a real server, with a log that can be read.
func serve(t testing.TB, h problem.Handler) (url string, logs *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Serve(w, r, log, h)
	}))
	t.Cleanup(server.Close)
	return server.URL, logs
}

// get returns the answer with its body, which must be a problem.
func get(t testing.TB, url string) (*http.Response, map[string]any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatalf("body is no JSON: %v", err)
	}
	return resp, body
}

func TestServe(t *testing.T) {
	for _, tc := range []struct {
		name                  string
		err                   error
		status                int
		title, detail, header string // header: Retry-After
		level                 zapcore.Level
		logged                bool
	}{
		{"the client's text is written", problem.New(404, "no %q", "alerts"), 404, "Not Found", `no "alerts"`, "", 0, false},
		{"a wrapped problem is found", errors.Join(errors.New("inside"), problem.New(422, "new key")), 422, "Unprocessable Entity", "new key", "", 0, false},
		{"a title of its own is used", &problem.Error{Status: 409, Title: "Taken"}, 409, "Taken", "", "", 0, false},
		{"headers are added", problem.New(429, "wait").RetryAfter(7), 429, "Too Many Requests", "wait", "7", 0, false},
		{"Retry-After is at least a second", problem.New(429, "wait").RetryAfter(0), 429, "Too Many Requests", "wait", "1", 0, false},
		{"a 503 is a warning", problem.New(503, "stopping"), 503, "Service Unavailable", "stopping", "", zap.WarnLevel, true},
		{"an unknown error is a 500 without its text", errors.New("password hunter2"), 500, "Internal Server Error",
			"Postern could not answer because of an error of its own; its log tells more", "", zap.ErrorLevel, true},
		{"a status that is no refusal is a 500", problem.New(200, "fine"), 500, "Internal Server Error",
			"Postern could not answer because of an error of its own; its log tells more", "", zap.ErrorLevel, true},
		{"a long detail is cut at a character", problem.New(400, "%s", "x"+strings.Repeat("é", 600)), 400, "Bad Request",
			"x" + strings.Repeat("é", 511) + "…", "", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url, logs := serve(t, func(http.ResponseWriter, *http.Request) error { return tc.err })
			resp, body := get(t, url)
			if resp.StatusCode != tc.status || body["status"] != float64(tc.status) {
				t.Errorf("got status %d and in the body %v, want %d", resp.StatusCode, body["status"], tc.status)
			}
			if body["title"] != tc.title {
				t.Errorf("got title %v, want %q", body["title"], tc.title)
			}
			if detail, _ := body["detail"].(string); detail != tc.detail {
				t.Errorf("got detail %q, want %q", detail, tc.detail)
			}
			if body["type"] != "about:blank" {
				t.Errorf("got type %v, want about:blank", body["type"])
			}
			for key, want := range map[string]string{
				"Content-Type": problem.MediaType, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Retry-After": tc.header,
			} {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("got %s %q, want %q", key, got, want)
				}
			}
			if got := logs.Len() == 1; got != tc.logged {
				t.Fatalf("got %d lines in the log, want one: %t", logs.Len(), tc.logged)
			}
			if tc.logged && logs.All()[0].Level != tc.level {
				t.Errorf("got level %v, want %v", logs.All()[0].Level, tc.level)
			}
		})
	}
}

func TestCauseIsForTheLogOnly(t *testing.T) {
	url, logs := serve(t, func(http.ResponseWriter, *http.Request) error {
		return &problem.Error{Status: 507, Detail: "make room", Cause: errors.New("statfs /data")}
	})
	_, body := get(t, url)
	if got := body["detail"]; got != "make room" {
		t.Errorf("got detail %v, want only the client's text", got)
	}
	if got := logs.All()[0].ContextMap()["error"]; got != "statfs /data" {
		t.Errorf("got cause %v in the log, want that of the error", got)
	}
}

func TestErrorText(t *testing.T) {
	err := &problem.Error{Status: 507, Detail: "make room", Cause: io.ErrShortWrite}
	if got, want := err.Error(), "507 Insufficient Storage: make room: short write"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, io.ErrShortWrite) {
		t.Error("got no cause by errors.Is, want it")
	}
}

func TestPanic(t *testing.T) {
	url, logs := serve(t, func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/panic" {
			panic("the stone of folly")
		}
		return problem.New(404, "calm")
	})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for _, step := range []struct {
		path   string
		status int
	}{{"/panic", 500}, {"/calm", 404}} {
		if _, err := io.WriteString(conn, "GET "+step.path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%s on the same connection: %v", step.path, err)
		}
		text, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != step.status || strings.Contains(string(text), "folly") {
			t.Errorf("%s: got %d %s, want %d without the reason", step.path, resp.StatusCode, text, step.status)
		}
	}
	if logs.Len() != 1 {
		t.Fatalf("got %d lines in the log, want 1", logs.Len())
	}
	fields := logs.All()[0].ContextMap()
	stack, _ := fields["stack"].(string)
	if fields["reason"] != "a value of type string" || !strings.Contains(stack, "TestPanic") || strings.Contains(stack, "0x") {
		t.Errorf("got reason %v and stack %q, want the kind of the panic, and its place without arguments", fields["reason"], stack)
	}
}

func TestThePanicOfTheRuntimeIsTold(t *testing.T) {
	recovered := func(f func()) (value any) {
		defer func() { value = recover() }()
		f()
		return nil
	}
	secret := []string{"s3cr3t"}
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"an index", func() { _ = secret[len(secret[0])] }, "runtime error: index out of range [6] with length 1"},
		{"a type", func() { _ = any(secret[0]).(error) }, "interface conversion: string is not error: missing method Error"},
		{"a text of our own", func() { panic(secret[0]) }, "a value of type string"},
		{"an error", func() { panic(errors.New(secret[0])) }, "a value of type *errors.errorString"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := problem.PanicReason(recovered(c.do)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestBegunAnswerIsCutOff(t *testing.T) {
	for name, fail := range map[string]func() error{
		"by an error": func() error { return errors.New("late") },
		"by a panic":  func() error { panic("late") },
	} {
		t.Run(name, func(t *testing.T) {
			url, logs := serve(t, func(w http.ResponseWriter, r *http.Request) error {
				if _, err := io.WriteString(w, "half"); err != nil {
					return err
				}
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Errorf("flush through the wrapper: %v", err)
				}
				return fail()
			})
			resp, err := http.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("got a whole answer %q, want a broken one", body)
			}
			if logs.FilterMessage("answer broken off").Len() != 1 {
				t.Errorf("got log %v, want a line about it", logs.All())
			}
		})
	}
}

func TestAbortIsPassedOn(t *testing.T) {
	url, logs := serve(t, func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
	if resp, err := http.Get(url); err == nil {
		resp.Body.Close()
		t.Errorf("got status %d, want a cut connection", resp.StatusCode)
	}
	if logs.Len() != 0 {
		t.Errorf("got log %v, want none", logs.All())
	}
}
