package dashboard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-relay/postern/relay/admin/dashboard"
)

// fakeAPI is the admin API with sample data, and the dashboard in front of it. Nothing in it happens by itself: a
// test says when an attempt is made.
type fakeAPI struct {
	server *httptest.Server
	now    time.Time

	mu           sync.Mutex // guards the fields below
	destinations []*destination
	deliveries   []*delivery // the latest first
	token        string      // that each call must bring; empty for none
	down         bool        // every call is a 503
	full         string      // why nothing is accepted
	trouble      string      // of listen.https
	reload       *reload
	streams      map[chan string]struct{}
	posts        []string      // path and body of each POST
	held         chan struct{} // a list is answered when it is closed; nil answers at once
}

// newFakeAPI serves the sample data until the test ends.
func newFakeAPI(t testing.TB) *fakeAPI {
	t.Helper()
	api := &fakeAPI{now: time.Now().UTC().Truncate(time.Millisecond), streams: map[chan string]struct{}{}}
	api.sample()
	mux := http.NewServeMux()
	mux.Handle("/", dashboard.Handler())
	mux.HandleFunc("/api/v1/", api.serve)
	mux.HandleFunc("/api/v1/deliveries", api.serveList)
	api.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		api.mu.Lock()
		for stream := range api.streams {
			close(stream)
		}
		api.streams = nil
		api.mu.Unlock()
		api.server.Close()
	})
	return api
}

// ask has each call bring a token.
func (a *fakeAPI) ask(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

func (a *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	token, down := a.token, a.down
	a.mu.Unlock()
	if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
		refuse(w, http.StatusUnauthorized, "send one of listen.admin_tokens as a bearer token")
		return
	}
	if down {
		refuse(w, http.StatusServiceUnavailable, "the store has failed <script>window.pwned=1</script>")
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/api/v1/")
	if path == "events" {
		a.events(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Method == http.MethodPost {
		a.posts = append(a.posts, path+" "+string(body))
	}
	parts := strings.Split(path, "/")
	switch {
	case path == "overview":
		answer(w, map[string]any{
			"now": stamp(a.now), "version": "0.4.0", "started_at": stamp(a.now.Add(-76 * time.Hour)), "pending": 1412,
			"reload": a.reload, "store": map[string]any{"full": a.full}, "https": map[string]any{"trouble": a.trouble},
			"destinations": a.destinations,
		})
	case path == "destinations":
		answer(w, map[string]any{"destinations": a.destinations})
	case path == "deliveries":
		a.list(w, r)
	case path == "replay":
		a.replayMany(w, body)
	case parts[0] == "destinations":
		a.destination(w, parts, body)
	case parts[0] == "deliveries":
		a.delivery(w, parts)
	case parts[0] == "messages":
		a.message(w, parts)
	default:
		refuse(w, http.StatusNotFound, "there is nothing at this path")
	}
}

func (a *fakeAPI) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > 500 {
		refuse(w, http.StatusBadRequest, "limit is 1 to 500")
		return
	}
	from := 0
	if cursor := query.Get("cursor"); cursor != "" {
		if from = slices.IndexFunc(a.deliveries, func(d *delivery) bool { return d.ID == cursor }); from < 0 {
			refuse(w, http.StatusBadRequest, "the cursor is none of ours")
			return
		}
	}
	page := []*delivery{}
	for i := from; i < len(a.deliveries); i++ {
		if !a.deliveries[i].passes(query.Get) {
			continue
		}
		if len(page) == limit {
			answer(w, map[string]any{"deliveries": page, "next_cursor": a.deliveries[i].ID})
			return
		}
		page = append(page, a.deliveries[i])
	}
	answer(w, map[string]any{"deliveries": page, "next_cursor": nil})
}

// passes judges a delivery by a filter, whose parts get returns.
func (d *delivery) passes(get func(string) string) bool {
	class := ""
	text := strings.ToLower(strings.Join([]string{d.ID, d.MessageID, d.Event, d.OrderKey, d.Reason}, "\n"))
	if d.Last != nil {
		class = d.Last.Class
		text += "\n" + strings.ToLower(d.Last.Error)
	}
	same := func(name, value string) bool { return get(name) == "" || get(name) == value }
	return same("destination", d.Destination) && same("state", d.State) && same("event", d.Event) && same("class", class) &&
		(get("since") == "" || d.AcceptedAt >= get("since")) && (get("until") == "" || d.AcceptedAt < get("until")) &&
		strings.Contains(text, strings.ToLower(get("q")))
}

func (a *fakeAPI) replayMany(w http.ResponseWriter, body []byte) {
	var asked struct {
		Filter      map[string]string `json:"filter"`
		DryRun      bool              `json:"dry_run"`
		ExpectCount *int              `json:"expect_count"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	var matched []*delivery
	for _, d := range a.deliveries {
		if d.State != "pending" && d.passes(func(name string) string { return asked.Filter[name] }) {
			matched = append(matched, d)
		}
	}
	n := len(matched)
	if asked.DryRun {
		answer(w, map[string]any{"matched": n, "replayed": 0, "capped": false})
		return
	}
	if n > 100 && (asked.ExpectCount == nil || *asked.ExpectCount != n) {
		refuse(w, http.StatusConflict, fmt.Sprintf("%d match now", n))
		return
	}
	for _, d := range matched {
		a.replayLocked(d)
	}
	answer(w, map[string]any{"matched": n, "replayed": n, "capped": false})
}

func (a *fakeAPI) destination(w http.ResponseWriter, parts []string, body []byte) {
	i := slices.IndexFunc(a.destinations, func(d *destination) bool { return d.Name == parts[1] })
	if i < 0 {
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no destination %q", parts[1]))
		return
	}
	d := a.destinations[i]
	if len(parts) == 2 {
		detail := *d
		detail.Config = sampleConfig(d)
		answer(w, detail)
		return
	}
	switch parts[2] {
	case "pause":
		var asked struct {
			Reason string `json:"reason"`
		}
		_ = json.Unmarshal(body, &asked) // no body means no reason
		if asked.Reason == "" {
			asked.Reason = "paused by hand"
		}
		d.Pause = &pause{At: stamp(time.Now()), Reason: asked.Reason}
		a.tellLocked("destination", d)
		answer(w, d)
	case "resume":
		d.Pause = nil
		a.tellLocked("destination", d)
		answer(w, d)
	case "test":
		sent := sampleRequest(d, "postern.test")
		sent.BodyIsMessage, sent.Body = false, `{"hello":"world"}`
		answer(w, map[string]any{"request": sent, "attempt": sampleAttempt(1, 1, time.Now(), "ok", 200), "would": "delivered"})
	case "render":
		sent := sampleRequest(d, "postern.test")
		sent.BodyIsMessage, sent.Body = false, `{"hello":"world"}`
		answer(w, map[string]any{
			"request": sent, "curl": "curl --request POST 'https://hooks.example.com/alerts'",
			"signature_bases": []map[string]string{{"signer": "standard", "base": "msg_01.1792000000.{\"hello\":\"world\"}"}},
		})
	default:
		refuse(w, http.StatusNotFound, "there is nothing at this path")
	}
}

func (a *fakeAPI) find(id string) *delivery {
	for _, d := range a.deliveries {
		if d.ID == id || d.MessageID == id {
			return d
		}
	}
	return nil
}

func (a *fakeAPI) delivery(w http.ResponseWriter, parts []string) {
	d := a.find(parts[1])
	if d == nil {
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no delivery %q; it may have outlived the retention", parts[1]))
		return
	}
	if len(parts) == 2 {
		answer(w, struct {
			*delivery
			Message message   `json:"message"`
			History []attempt `json:"history"`
		}{d, d.message, d.history})
		return
	}
	switch parts[2] {
	case "replay":
		a.replayLocked(d)
	case "cancel":
		d.State, d.DueAt, d.EndedAt, d.Reason = "canceled", "", stamp(time.Now()), "canceled by hand"
		a.tellLocked("delivery", d)
	case "retry":
		d.DueAt = stamp(time.Now())
		a.tellLocked("delivery", d)
	}
	answer(w, d)
}

func (a *fakeAPI) message(w http.ResponseWriter, parts []string) {
	d := a.find(parts[1])
	if d == nil {
		refuse(w, http.StatusNotFound, "there is no such message")
		return
	}
	if len(parts) == 3 {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", "attachment")
		_, _ = io.WriteString(w, d.message.Body)
		return
	}
	m := d.message
	for _, other := range a.deliveries {
		if other.MessageID == m.ID {
			m.Deliveries = append(m.Deliveries, other)
		}
	}
	answer(w, m)
}

func (a *fakeAPI) replayLocked(d *delivery) {
	d.State, d.Round, d.Attempts, d.Made = "pending", d.Round+1, 0, 0
	d.DueAt, d.EndedAt, d.Reason = stamp(time.Now()), "", ""
	a.tellLocked("delivery", d)
}

// deliver makes an attempt of a pending delivery that succeeds.
func (a *fakeAPI) deliver(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.find(id)
	d.Attempts, d.Made = d.Attempts+1, d.Made+1
	made := sampleAttempt(d.Round, d.Made, time.Now(), "ok", 200)
	d.history = append(d.history, made)
	d.Last = &outcome{At: made.StartedAt, Class: made.Class, Status: made.Status}
	d.State, d.DueAt, d.EndedAt = "delivered", "", stamp(time.Now())
	a.tellLocked("delivery", d)
}

// accept adds a new delivery and tells of it.
func (a *fakeAPI) accept(d *delivery) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deliveries = slices.Insert(a.deliveries, 0, d)
	a.tellLocked("delivery", d)
}

func (a *fakeAPI) tellLocked(event string, data any) {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	for stream := range a.streams {
		select {
		case stream <- fmt.Sprintf("event: %s\ndata: %s\n\n", event, raw):
		default: // a slow client
		}
	}
}

func (a *fakeAPI) events(w http.ResponseWriter, r *http.Request) {
	stream := make(chan string, 100)
	a.mu.Lock()
	if a.streams == nil {
		a.mu.Unlock()
		return
	}
	a.streams[stream] = struct{}{}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.streams, stream)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, ": keep-alive\n\n")
	for {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case text, ok := <-stream:
			if !ok {
				return
			}
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	}
}

// breakStreams ends all streams of changes, as a restart does.
func (a *fakeAPI) breakStreams() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for stream := range a.streams {
		close(stream)
		delete(a.streams, stream)
	}
}

// posted returns path and body of each POST so far.
func (a *fakeAPI) posted() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.posts)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
}
