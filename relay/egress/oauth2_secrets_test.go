package egress_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/store"
)

// rotation is a token endpoint whose client has two secrets, and a sender that knows both.
type rotation struct {
	sender *egress.Sender
	logs   *observer.ObservedLogs

	mu      sync.Mutex // guards the fields below
	now     time.Time
	answers map[string]http.HandlerFunc // by the secret that comes; without one, a token
	asked   []string                    // the secrets that came
	refused int                         // calls of egress.OAuth2.Refused
}

const oldSecret, newSecret = "canary-old-secret", "canary-new-secret"

func newRotation(t *testing.T, secrets ...string) *rotation {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rotation{logs: logs, now: time.Now(), answers: map[string]http.HandlerFunc{}}
	f := newFarEnd(t)
	e := newTokenEnd(f)
	e.serve(t, func(w http.ResponseWriter, req *http.Request) {
		_, secret, _ := req.BasicAuth()
		r.mu.Lock()
		r.asked = append(r.asked, secret)
		answer := r.answers[secret]
		r.mu.Unlock()
		if answer != nil {
			answer(w, req)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"t","expires_in":60}`)
	})
	f.serve(t, false, func(http.ResponseWriter, *http.Request) {})
	r.sender = f.sender(t, func(o *egress.Options) {
		o.Log, o.Now = zap.New(core), func() time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.now
		}
		o.Auth = e.auth(t, e.dialer(), func(o *egress.OAuth2) {
			o.ClientSecrets = secrets
			o.Refused = func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.refused++
			}
		})
	})
	return r
}

func (r *rotation) answer(secret string, by http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[secret] = by
}

// later lets the token that was had come to its end.
func (r *rotation) later() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(time.Hour)
}

// wants compares what came since the last time, and how often a refusal was told.
func (r *rotation) wants(t *testing.T, refused int, asked ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.asked, asked) || r.refused != refused {
		t.Errorf("got requests with %q and %d refusals told, want %q and %d", r.asked, r.refused, asked, refused)
	}
	r.asked, r.refused = nil, 0
}

func refuses(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const invalidClient = `{"error":"invalid_client"}`

// RFC 6749, section 5.2: only what is about the client can be mended by another secret of the client's.
func TestAnotherClientSecretIsTriedWhenTheClientIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		tried  bool
	}{
		{"invalid_client by 401", refuses(401, invalidClient), true},
		{"invalid_client by 400", refuses(400, invalidClient), true},
		{"401 without a word", refuses(401, ""), true},
		{"unauthorized_client", refuses(400, `{"error":"unauthorized_client"}`), false},
		{"invalid_scope", refuses(400, `{"error":"invalid_scope"}`), false},
		{"400 without a word", refuses(400, ""), false},
		{"403", refuses(403, invalidClient), false},
		{"429", refuses(429, ""), false},
		{"500", refuses(500, invalidClient), false},
		{"an answer without a token", refuses(200, invalidClient), false},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRotation(t, oldSecret, newSecret)
			r.answer(oldSecret, c.answer)
			a := r.sender.Send(t.Context(), newDelivery(t))
			if c.tried {
				check(t, a, store.ClassOK, 200)
				r.wants(t, 1, oldSecret, newSecret)
				return
			}
			check(t, a, store.ClassAuth, 0)
			r.wants(t, 0, oldSecret)
			if !strings.HasPrefix(a.Error, fmt.Sprintf("no token from %q: ", tokenHost)) {
				t.Errorf("got %q, want nothing of several secrets", a.Error)
			}
		})
	}
}

func TestTheClientSecretThatWorksStaysInUse(t *testing.T) {
	r := newRotation(t, oldSecret, newSecret)
	send := func() {
		t.Helper()
		check(t, r.sender.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
	}
	send()
	r.wants(t, 0, oldSecret)
	send() // with the token in memory
	r.wants(t, 0)
	if n := r.logs.Len(); n != 0 {
		t.Errorf("got %d lines in the log before anything was refused", n)
	}

	r.answer(oldSecret, refuses(401, invalidClient))
	for range 3 {
		r.later()
		send()
	}
	r.wants(t, 1, oldSecret, newSecret, newSecret, newSecret)
	lines := r.logs.FilterMessage("client secret refused, another one is in use now").All()
	if len(lines) != 1 || lines[0].Level != zapcore.WarnLevel || lines[0].ContextMap()["entry"] != int64(2) || lines[0].ContextMap()["token_endpoint"] != tokenHost {
		t.Errorf("got %v in the log, want one warning with the second entry", lines)
	}

	r.answer(oldSecret, nil)
	r.answer(newSecret, refuses(401, invalidClient))
	r.later()
	send()
	r.wants(t, 1, newSecret, oldSecret)
	if lines := r.logs.All(); len(lines) != 2 || strings.Contains(fmt.Sprint(lines[0].ContextMap(), lines[1].ContextMap()), "canary") {
		t.Errorf("got %v in the log, want two lines without a secret", lines)
	}
}

func TestNoClientSecretIsTaken(t *testing.T) {
	const both = ` with 2 client secrets, one after the other: answered `
	t.Run("each is tried once, and then a pause is made", func(t *testing.T) {
		r := newRotation(t, oldSecret, newSecret)
		r.answer(oldSecret, refuses(401, invalidClient))
		r.answer(newSecret, refuses(401, `{"error":"invalid_client","error_description":"not `+oldSecret+` nor `+newSecret+`"}`))
		for range 3 {
			a := r.sender.Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassAuth, 0)
			if !strings.Contains(a.Error, both+"401 Unauthorized, error invalid_client; it says: not ") || strings.Contains(a.Error, "canary") {
				t.Errorf("got %q, want both named as refused, and neither shown", a.Error)
			}
		}
		r.wants(t, 1, oldSecret, newSecret)
		r.later()
		r.sender.Send(t.Context(), newDelivery(t))
		r.wants(t, 1, oldSecret, newSecret)
		if n := r.logs.Len(); n != 0 {
			t.Errorf("got %d lines in the log, want none: no other secret is in use", n)
		}
	})
	t.Run("the second meets another trouble", func(t *testing.T) {
		r := newRotation(t, oldSecret, newSecret)
		r.answer(oldSecret, refuses(401, invalidClient))
		r.answer(newSecret, refuses(503, ""))
		a := r.sender.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassAuth, 0)
		if !strings.Contains(a.Error, both+"503 Service Unavailable") {
			t.Errorf("got %q, want the trouble of the second", a.Error)
		}
		r.wants(t, 1, oldSecret, newSecret)
	})
	t.Run("a single one is tried once", func(t *testing.T) {
		r := newRotation(t, oldSecret)
		r.answer(oldSecret, refuses(401, invalidClient))
		check(t, r.sender.Send(t.Context(), newDelivery(t)), store.ClassAuth, 0)
		r.wants(t, 0, oldSecret)
	})
}

func TestManyAttemptsShareTheChangeOfTheClientSecret(t *testing.T) {
	r := newRotation(t, oldSecret, newSecret)
	r.answer(oldSecret, refuses(401, invalidClient))
	for _, a := range herd(t, r.sender, 50) {
		check(t, a, store.ClassOK, 200)
	}
	r.wants(t, 1, oldSecret, newSecret)
}
