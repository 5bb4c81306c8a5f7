package listen

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestATokenThatIsGoneIsGoneOnOpenConnections(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			a := newAuthorityFiles(t)
			list := func(words ...string) []Token {
				var all []Token
				for _, word := range words {
					digest, err := ParseToken(word)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, Token{Name: word, Digest: digest})
				}
				return all
			}
			entered, ended := make(chan struct{}, 1), make(chan error, 1)
			f := newFilesFront(t, Options{
				TLS: &TLS{Files: a.valid(t, "relay.example.com")}, Tokens: list("old"), Drain: 50 * time.Millisecond,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/stream" {
						entered <- struct{}{}
						<-r.Context().Done()
						ended <- r.Context().Err()
					}
				}),
			})
			config := &tls.Config{RootCAs: a.ca.Pool(), ServerName: "relay.example.com", NextProtos: []string{protocol}}
			steady, streaming := newKeptClient(t, f, config), newKeptClient(t, f, config.Clone())
			ask := func(k *keptClient, path, token string) int {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://relay.example.com"+path, nil)
				if err != nil {
					t.Error(err)
					return 0
				}
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := k.client.Do(req)
				if err != nil {
					t.Error(err)
					return 0
				}
				defer resp.Body.Close()
				if _, err := io.Copy(io.Discard, resp.Body); err != nil { // else the connection is not kept
					t.Error(err)
				}
				return resp.StatusCode
			}
			if got := ask(steady, "/", "old"); got != http.StatusOK {
				t.Fatalf("got %d, want 200", got)
			}
			answered := make(chan struct{})
			go func() { defer close(answered); ask(streaming, "/stream", "old") }()
			<-entered
			if err := f.SetTokens(list("new")); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("got no error of the context of a request in progress")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the request in progress goes on")
			}
			<-answered
			if got, other := ask(steady, "/", "old"), ask(steady, "/", "new"); got != http.StatusUnauthorized || other != http.StatusOK {
				t.Errorf("got %d with the old token and %d with the new one, want 401 and 200", got, other)
			}
			if steady.dialed != 1 {
				t.Errorf("got %d connections, want one for all", steady.dialed)
			}
		})
	}
}
