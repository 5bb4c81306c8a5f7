package admin_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin"
)

// steering is a relay with one destination.
type steering struct {
	pause *admin.Pause
	err   error // of every call
}

func (s *steering) Destinations(context.Context) ([]admin.Destination, error) {
	return []admin.Destination{{Name: "alerts", Enabled: true, Pause: s.pause, Breaker: "closed", InFlight: 2, Due: 3}}, nil
}

func (s *steering) Pause(_ context.Context, name, reason string) error {
	if name != "alerts" {
		return &admin.UnknownError{Name: name, Nearest: "alerts"}
	}
	s.pause = &admin.Pause{At: time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC), Reason: reason}
	return s.err
}

func (s *steering) Resume(_ context.Context, name string) error {
	if name != "alerts" {
		return &admin.UnknownError{Name: name}
	}
	s.pause = nil
	return s.err
}

func TestDestinations(t *testing.T) {
	const state = `"name":"alerts","enabled":true`
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		want                     string // part of the answer
	}{
		{"all", "GET", "", "", 200, `{"destinations":[{` + state + `,"breaker":"closed","in_flight":2,"due":3}]}`},
		{"pause", "POST", "/alerts/pause", "", 200, `"pause":{"at":"2026-03-14T15:09:26Z","reason":"paused by hand"}`},
		{"pause with a reason", "POST", "/alerts/pause", `{"reason":"they are moving"}`, 200, `"reason":"they are moving"`},
		{"resume", "POST", "/alerts/resume", "", 200, `{` + state + `,"breaker"`},
		{"an unknown name has the nearest", "POST", "/alert/pause", "", 404, `did you mean \"alerts\"?`},
		{"an unknown name", "POST", "/x/resume", "", 404, `there is no destination \"x\"`},
		{"an unknown action", "POST", "/alerts/stop", "", 404, "/pause or /resume"},
		{"no action", "POST", "/alerts", "", 404, "/pause or /resume"},
		{"GET of an action", "GET", "/alerts/pause", "", 405, "use POST"},
		{"POST to the list", "POST", "", "", 405, "use GET"},
		{"a body that is no JSON", "POST", "/alerts/pause", "reason", 400, "not of the form"},
		{"an unknown key", "POST", "/alerts/pause", `{"why":"x"}`, 400, "not of the form"},
		{"two bodies", "POST", "/alerts/pause", `{"reason":"x"}{}`, 400, "not of the form"},
		{"an empty reason", "POST", "/alerts/pause", `{"reason":""}`, 400, "1 to 500"},
		{"a reason with an escape sequence", "POST", "/alerts/pause", `{"reason":"x\u001b[31m"}`, 400, "cannot be printed"},
		{"a long reason", "POST", "/alerts/pause", `{"reason":"` + strings.Repeat("x", 501) + `"}`, 400, "1 to 500"},
		{"a body beyond its bound", "POST", "/alerts/pause", strings.Repeat(" ", 4<<10+1), 413, "send less"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(&admin.Handler{Steering: &steering{}})
			defer server.Close()
			req, err := http.NewRequestWithContext(t.Context(), tc.method, server.URL+"/api/v1/destinations"+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status || !strings.Contains(string(body), tc.want) {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, tc.status, tc.want)
			}
		})
	}
}

func TestSteeringClient(t *testing.T) {
	relay := &steering{}
	server := httptest.NewServer(&admin.Handler{Steering: relay})
	defer server.Close()
	client := admin.Client{Address: server.Listener.Addr().String()}

	d, err := client.Pause(t.Context(), "alerts", "they are moving")
	if err != nil || d.Pause == nil || d.Pause.Reason != "they are moving" || relay.pause == nil {
		t.Errorf("pause: got %+v, %v", d, err)
	}
	d, err = client.Resume(t.Context(), "alerts")
	if err != nil || d.Pause != nil || d.Name != "alerts" || relay.pause != nil {
		t.Errorf("resume: got %+v, %v", d, err)
	}
	if _, err := client.Pause(t.Context(), "a/b", ""); err == nil || !strings.Contains(err.Error(), "there is no destination") {
		t.Errorf("a name that has to be escaped: got %v, want that there is none", err)
	}
	relay.err = errors.New("disk on fire")
	if _, err := client.Resume(t.Context(), "alerts"); err == nil || strings.Contains(err.Error(), "fire") {
		t.Errorf("trouble inside: got %v, want an error that tells nothing of it", err)
	}
	if _, err := (admin.Client{Address: "garbage"}).Pause(t.Context(), "alerts", ""); !errors.Is(err, admin.ErrAddress) {
		t.Errorf("got %v, want ErrAddress", err)
	}
}
