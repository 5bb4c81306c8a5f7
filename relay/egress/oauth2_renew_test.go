package egress_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/egress"
	"github.com/postern-relay/postern/relay/receiver"
	"github.com/postern-relay/postern/store"
)

func TestRefusedTokenIsRenewedOnce(t *testing.T) {
	t.Run("the same request follows with a fresh token", func(t *testing.T) {
		e, r, s := oauthPair(t, nil, nil)
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		e.server.Revoke()
		d := newDelivery(t)
		d.Made = 4
		a := s.Send(t.Context(), d)
		check(t, a, store.ClassOK, 200)
		wantFetches(t, e, 2)
		if a.Number != 5 || a.Delivery != d.ID || !a.Reused || a.Peer == "" || a.Timing.FirstByte <= 0 || a.Timing.FirstByte > a.Took {
			t.Errorf("got %+v, want the attempt of the second request", a)
		}
		latest := r.Latest()
		if len(latest) != 3 {
			t.Fatalf("the receiver got %d requests, want 3", len(latest))
		}
		first, second := latest[1], latest[2]
		if string(first.Body) != string(second.Body) || len(first.Body) == 0 {
			t.Errorf("got bodies %q and %q, want the same", first.Body, second.Body)
		}
		if first.Header.Get("Authorization") == second.Header.Get("Authorization") {
			t.Error("both requests have the same token")
		}
		first.Header.Del("Authorization")
		second.Header.Del("Authorization")
		if got, want := fmt.Sprint(second.Header), fmt.Sprint(first.Header); got != want {
			t.Errorf("got header %s, want %s", got, want)
		}
		if got := r.Stats(); got.Unverified != 0 || got.Duplicates != 0 || got.Distinct != 2 {
			t.Errorf("got %+v, want two messages, all verified", got)
		}
	})
	t.Run("a receiver that refuses all of them gets two requests an attempt, and no storm follows", func(t *testing.T) {
		at := time.Now()
		f := newFarEnd(t)
		e := newTokenEnd(f)
		e.serve(t, e.server.ServeHTTP)
		var requests atomic.Int64
		f.serve(t, false, func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.Header().Set("X-Try", fmt.Sprint(requests.Load()))
			w.WriteHeader(401)
		})
		s := f.sender(t, func(o *egress.Options) {
			o.Auth, o.Now = e.auth(t, e.dialer(), nil), func() time.Time { return at }
		})
		for _, step := range []struct {
			later             time.Duration
			requests, fetches int
			text              string
		}{
			{0, 2, 2, "answered 401 Unauthorized; a fresh token did not help"},
			{time.Second - 1, 3, 2, "answered 401 Unauthorized; a fresh token was refused a moment ago as well"},
			{1, 5, 3, "answered 401 Unauthorized; a fresh token did not help"},
		} {
			at = at.Add(step.later)
			a := s.Send(t.Context(), newDelivery(t))
			check(t, a, store.ClassStatus, 401)
			if a.Error != step.text || a.Header.Get("X-Try") != fmt.Sprint(step.requests) {
				t.Errorf("got %q with %v, want %q with the last answer", a.Error, a.Header, step.text)
			}
			if got := requests.Load(); got != int64(step.requests) {
				t.Errorf("the receiver got %d requests, want %d", got, step.requests)
			}
			wantFetches(t, e, step.fetches)
		}
	})
	t.Run("what comes of the second request is what is recorded", func(t *testing.T) {
		f := newFarEnd(t)
		e := newTokenEnd(f)
		e.serve(t, e.server.ServeHTTP)
		var requests atomic.Int64
		f.serve(t, true, func(w http.ResponseWriter, _ *http.Request) {
			if requests.Add(1) == 2 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(401)
			_, _ = io.WriteString(w, "first")
		})
		a := f.sender(t, func(o *egress.Options) { o.Auth = e.auth(t, e.dialer(), nil) }).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassConnect, 0)
		if a.Body != nil || a.Header != nil || a.RetryHint != 0 {
			t.Errorf("got %q, %v and %v of the first answer", a.Body, a.Header, a.RetryHint)
		}
	})
	t.Run("without a fresh token the refusal stays on record", func(t *testing.T) {
		e, r, s := oauthPair(t, nil, nil)
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 200)
		e.server.Revoke()
		e.server.SetRefusal(receiver.TokenRefusal{Status: 400, Code: "unauthorized_client", Description: "this client was removed", RetryAfter: "60"})
		a := s.Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassAuth, 401)
		for _, want := range []string{"answered 401 Unauthorized; no token from \"" + tokenHost + "\"", "unauthorized_client", "this client was removed"} {
			if !strings.Contains(a.Error, want) {
				t.Errorf("got %q, want %q in it", a.Error, want)
			}
		}
		if !strings.Contains(string(a.Body), "no valid token") || a.RetryHint < 50*time.Second || a.RetryHint > time.Minute {
			t.Errorf("got body %q and hint %v, want the receiver's and the endpoint's", a.Body, a.RetryHint)
		}
		if got := r.Stats().Requests; got != 2 {
			t.Errorf("the receiver got %d requests, want 2", got)
		}
	})
	t.Run("a 401 that means success is one", func(t *testing.T) {
		only, err := egress.ParseSuccess([]string{"401"})
		if err != nil {
			t.Fatal(err)
		}
		e, r, s := oauthPair(t, nil, func(o *egress.Options) { o.Success = only })
		r.SetFault(receiver.Fault{Kind: receiver.Status, Status: 401})
		check(t, s.Send(t.Context(), newDelivery(t)), store.ClassOK, 401)
		wantFetches(t, e, 1)
	})
	t.Run("a 401 without OAuth2 is just one", func(t *testing.T) {
		f := newFarEnd(t)
		r := f.receive(t, false)
		r.SetFault(receiver.Fault{Kind: receiver.Status, Status: 401})
		check(t, f.sender(t, nil).Send(t.Context(), newDelivery(t)), store.ClassStatus, 401)
		if got := r.Stats().Requests; got != 1 {
			t.Errorf("the receiver got %d requests, want 1", got)
		}
	})
}

// TestNoTokenIsRecorded sends to a receiver that repeats the tokens it got, first in a refusal, then in an answer
// that the end of the record cuts at every place.
func TestNoTokenIsRecorded(t *testing.T) {
	f := newFarEnd(t)
	e := newTokenEnd(f)
	var issued atomic.Int64
	e.serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":"canary-token-%06d-%s"}`, issued.Add(1), strings.Repeat("x", 100))
	})
	var first atomic.Value
	f.serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		got := r.Header.Get("Authorization")
		earlier, _ := first.Load().(string)
		w.Header().Set("X-Echo", got+" "+earlier)
		if earlier == "" {
			first.Store(got)
			w.WriteHeader(401)
		}
		_, _ = io.WriteString(w, strings.Repeat("."+got+"."+earlier, 40))
	})
	for keep := 5000; keep < 5260; keep += 7 { // more than is read in any case
		first.Store("")
		a := f.sender(t, func(o *egress.Options) { o.Auth, o.KeepResponse = e.auth(t, e.dialer(), nil), keep }).Send(t.Context(), newDelivery(t))
		check(t, a, store.ClassOK, 200)
		whole := fmt.Sprint(a.Header, a.Error) + string(a.Body)
		if strings.Contains(whole, "canary") || strings.Contains(whole, "xxx") {
			t.Fatalf("keep %d: the attempt holds a token: %s", keep, whole)
		}
		if len(a.Body) != keep || a.Header.Get("X-Echo") == "" {
			t.Fatalf("got %d bytes and header %v, want %d and the echo", len(a.Body), a.Header, keep)
		}
	}
}
