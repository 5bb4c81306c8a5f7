package receiver

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// TokenServer issues tokens by client credentials (RFC 6749, section 4.4), and knows which of them are valid. Set its
// fields before the first request; its methods may be called at any time and from several goroutines.
//
// In the field Tokens of a [Receiver] it answers what is posted to its Path, and all other requests need a token of
// it. Several receivers may share one.
type TokenServer struct {
	Path         string           // of the token endpoint; empty means /oauth/token
	ClientID     string           // of the only client
	ClientSecret string           // of the only client
	SecretIn     string           // where the client must send both, header or body; empty takes either
	Scope        string           // that the client must ask for, as one text; empty takes any
	Audience     string           // likewise
	Life         time.Duration    // of a token, told as expires_in; 0 means an hour and negative tells none
	Now          func() time.Time // wall clock; nil means time.Now

	mu      sync.Mutex // guards the fields below
	valid   map[string]time.Time
	refusal TokenRefusal
	stats   TokenStats
}

// TokenStats are the counts of a token server since its start.
type TokenStats struct {
	Requests int // all that asked for a token
	Issued   int // tokens
	Refused  int // requests without a token for an answer
}

// TokenRefusal is how a token server refuses whoever asks. The zero value refuses nobody.
type TokenRefusal struct {
	Status      int    // of the answer
	Code        string // the member error (RFC 6749, section 5.2)
	Description string // the member error_description; empty sends none
	RetryAfter  string // the value of Retry-After; empty sends none
}

const (
	defaultTokenPath = "/oauth/token"
	defaultTokenLife = time.Hour
	maxTokenRequest  = 64 << 10
)

// SetRefusal changes how requests that arrive from now on are refused. The zero TokenRefusal ends it.
func (s *TokenServer) SetRefusal(r TokenRefusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = r
}

// Revoke makes all tokens invalid that were issued up to now, whatever their life.
func (s *TokenServer) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.valid)
}

// Valid reports whether token was issued, and is neither revoked nor at its end.
func (s *TokenServer) Valid(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.valid[token]
	return ok && s.now().Before(until)
}

// Stats returns the counts up to now.
func (s *TokenServer) Stats() TokenStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// ServeHTTP answers a request for a token, whatever its path.
func (s *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxTokenRequest)
	refused := s.check(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Requests++
	if s.refusal != (TokenRefusal{}) {
		refused = s.refusal
	}
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store") // RFC 6749, section 5.1
	if refused != (TokenRefusal{}) {
		s.stats.Refused++
		refused.write(w)
		return
	}
	s.stats.Issued++
	token, life := rand.Text(), orDefault(s.Life, defaultTokenLife)
	answer := map[string]any{"access_token": token, "token_type": "Bearer"}
	if life > 0 {
		answer["expires_in"] = int(life / time.Second)
	} else {
		life = defaultTokenLife
	}
	if s.valid == nil {
		s.valid = make(map[string]time.Time)
	}
	s.valid[token] = s.now().Add(life)
	_ = json.NewEncoder(w).Encode(answer) // whoever has gone needs no token
}

// check returns what is wrong with a request for a token, or the zero value.
func (s *TokenServer) check(r *http.Request) TokenRefusal {
	invalid := func(code, description string) TokenRefusal {
		return TokenRefusal{Status: http.StatusBadRequest, Code: code, Description: description}
	}
	if r.Method != http.MethodPost {
		return TokenRefusal{Status: http.StatusMethodNotAllowed, Code: "invalid_request", Description: "the method is not POST"}
	}
	if err := r.ParseForm(); err != nil {
		return invalid("invalid_request", "the body is no form")
	}
	if got := r.PostForm["grant_type"]; !slices.Equal(got, []string{"client_credentials"}) {
		return invalid("unsupported_grant_type", "the grant type is not client_credentials")
	}
	if !s.authenticated(r) {
		return TokenRefusal{Status: http.StatusUnauthorized, Code: "invalid_client", Description: "client authentication failed"}
	}
	if s.Scope != "" && r.PostForm.Get("scope") != s.Scope {
		return invalid("invalid_scope", "the scope is not the one expected")
	}
	if s.Audience != "" && r.PostForm.Get("audience") != s.Audience {
		return invalid("invalid_request", "the audience is not the one expected")
	}
	return TokenRefusal{}
}

// authenticated looks for the client's id and secret by RFC 6749, section 2.3.1, which allows no more than one place.
func (s *TokenServer) authenticated(r *http.Request) bool {
	id, secret, inHeader := r.BasicAuth()
	inBody := r.PostForm.Has("client_id") || r.PostForm.Has("client_secret")
	switch {
	case inHeader == inBody, inHeader && s.SecretIn == "body", inBody && s.SecretIn == "header":
		return false
	case inBody:
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	default:
		var idErr, secretErr error
		id, idErr = url.QueryUnescape(id)
		secret, secretErr = url.QueryUnescape(secret)
		if idErr != nil || secretErr != nil {
			return false
		}
	}
	return id == s.ClientID && hmac.Equal([]byte(secret), []byte(s.ClientSecret))
}

func (r TokenRefusal) write(w http.ResponseWriter) {
	if r.RetryAfter != "" {
		w.Header().Set("Retry-After", r.RetryAfter)
	}
	if r.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="tokens"`)
	}
	answer := map[string]string{"error": r.Code}
	if r.Description != "" {
		answer["error_description"] = r.Description
	}
	w.WriteHeader(r.Status)
	_ = json.NewEncoder(w).Encode(answer)
}

// path returns where the token endpoint is.
func (s *TokenServer) path() string {
	if s.Path == "" {
		return defaultTokenPath
	}
	return s.Path
}

// admits reports whether a request carries a valid token (RFC 6750, section 2.1).
func (s *TokenServer) admits(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return ok && strings.EqualFold(scheme, "Bearer") && s.Valid(token)
}

func (s *TokenServer) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}
