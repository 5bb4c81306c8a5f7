package listen_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-relay/postern/relay/listen"
)

func TestSetTokens(t *testing.T) {
	s, _ := start(t, listen.Options{Tokens: []string{"first-token"}})
	// One connection for all: a client that stays connected must not keep what it had.
	conn := dial(t, s)
	answers := bufio.NewReader(conn)
	try := func(token string) int {
		t.Helper()
		head := "GET / HTTP/1.1\r\nHost: localhost\r\n"
		if token != "" {
			head += "Authorization: Bearer " + token + "\r\n"
		}
		if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for _, tc := range []struct {
		name string
		set  []string
		want map[string]int // status by token
	}{
		{"two tokens are valid while they are changed", []string{"first-token", "second-token"}, map[string]int{"first-token": 200, "second-token": 200, "": 401}},
		{"the former token is not valid any more", []string{"second-token"}, map[string]int{"first-token": 401, "second-token": 200, "": 401}},
		{"without tokens none is needed on loopback", nil, map[string]int{"first-token": 200, "": 200}},
		{"tokens can come later", []string{"third-token"}, map[string]int{"third-token": 200, "second-token": 401, "": 401}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := s.SetTokens(tc.set); err != nil {
				t.Fatal(err)
			}
			for token, want := range tc.want {
				if got := try(token); got != want {
					t.Errorf("token %q: got %d, want %d", token, got, want)
				}
			}
		})
	}
	t.Run("a malformed token changes nothing", func(t *testing.T) {
		err := s.SetTokens([]string{"fine-token", "canary token"})
		if err == nil || !strings.Contains(err.Error(), "a token must be") || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v, want an error that does not repeat the token", err)
		}
		if got, other := try("third-token"), try("fine-token"); got != 200 || other != 401 {
			t.Errorf("got %d for the token before and %d for the new one, want 200 and 401", got, other)
		}
	})
	t.Run("an address that others reach needs one", func(t *testing.T) {
		open, _ := start(t, listen.Options{Address: "0.0.0.0:0", Tokens: []string{"first-token"}})
		if err := open.SetTokens(nil); err == nil || !strings.Contains(err.Error(), "a token is required") {
			t.Errorf("got %v, want an error", err)
		}
		got := exchange(t, open, "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
		if len(got) != 1 || got[0].StatusCode != 401 {
			t.Errorf("got %v without a token, want 401 as before", got)
		}
	})
}
