package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// notices returns what a host of the far end has been told, in the order of its requests.
func (r *rig) told(t testing.TB, host string) []told {
	t.Helper()
	var all []told
	for _, req := range r.far.of(host) {
		var n told
		if err := json.Unmarshal([]byte(req.body), &n); err == nil && isNotice(n.Type) {
			all = append(all, n)
		}
	}
	return all
}

// awaitTold waits until a host has been told so much, and returns it.
func (r *rig) awaitTold(t testing.TB, host string, want ...string) []told {
	t.Helper()
	until(t, fmt.Sprintf("%s is told of %v", host, want), func() bool { return len(r.far.of(host)) >= len(want) })
	got := r.told(t, host)
	if !slices.Equal(types(got), want) {
		t.Fatalf("%s: got told %v, want %v", host, types(got), want)
	}
	return got
}

func TestNoticesAreMessages(t *testing.T) {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
	r := newRig(t, `
destinations:
  a: {url: "https://a.test/in?key=canary-of-the-query", events: ["order.*"], retry: {schedule: [0s, 20ms], jitter: 0}, headers: {X-Token: canary-of-the-header}}
  b:
    url: "https://b.test/"
    events: [postern.**]
    sign: [{standard: {secrets: [`+secret+`]}}]
    retry: {schedule: [0s, 20ms], jitter: 0}
  c:
    url: "https://c.test/"
    events: [postern.delivery.failed, postern.destination.paused]
    when: '$[?@.data.attempts == 2]'
    content_type: application/json
    body: '{"text": {{ json (print .Data.data.destination " lost " .Data.data.message_id) }}}'
  d: {url: "https://d.test/", events: ["**"]}
`)
	r.far.answer("a.test", func(int) int { return 500 })
	r.far.answer("b.test", func(n int) int { return map[int]int{1: 503}[n] + map[int]int{2: 200}[n] })
	id := r.acceptBody(t, "/events/order.paid", `{"card":"canary-of-the-body"}`)
	r.awaitState(t, id.Delivery(0), store.Failed)
	until(t, "the notice is tried again", func() bool { return len(r.far.of("b.test")) == 2 })
	until(t, "the template has made its own of it", func() bool { return len(r.far.of("c.test")) == 1 })

	requests := r.far.of("b.test")
	if requests[0].id != requests[1].id || requests[0].body != requests[1].body || requests[1].header.Get("Webhook-Signature") == "" {
		t.Errorf("got %+v, want the same message twice, signed", requests)
	}
	var n told
	if err := json.Unmarshal([]byte(requests[0].body), &n); err != nil || n.Data["delivery_id"] != id.Delivery(0).String() {
		t.Errorf("got %s, %v; want the failed delivery", requests[0].body, err)
	}
	if want := fmt.Sprintf(`{"text": "a lost %s"}`, id); r.far.of("c.test")[0].body != want {
		t.Errorf("got %s, want %s", r.far.of("c.test")[0].body, want)
	}
	if strings.Contains(requests[0].body, "canary") {
		t.Errorf("got %s, want neither the body nor a header nor a query of what failed", requests[0].body)
	}
	mid, err := store.ParseMessageID(requests[0].id)
	if err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, mid.Delivery(0), store.Delivered)
	if m, _ := r.message(t, mid); m.Event != noticeFailed || len(m.Recipients) != 2 {
		t.Errorf("got %+v, want it in the history for both", m)
	}
	if got := len(r.far.of("d.test")); got != 0 { // what was posted matches two segments
		if told := r.told(t, "d.test"); len(told) > 0 {
			t.Errorf("got %+v for who wants every event of the app, want none", told)
		}
	}
}

func TestNoticesOfWhatIsSteered(t *testing.T) {
	r := newRig(t, `
destinations:
  a: {url: "https://a.test/", events: [postern.**]}
  b: {url: "https://b.test/", events: [postern.**], concurrency: 1}
`)
	steer := api{steering{r.Relay}}
	ctx := context.Background()
	if err := steer.Pause(ctx, "a", "maintenance"); err != nil {
		t.Fatal(err)
	}
	held := r.accept(t, "a")
	got := r.awaitTold(t, "b.test", noticePaused)
	if d := got[0].Data; d["destination"] != "a" || d["cause"] != "person" || d["reason"] != "maintenance" {
		t.Errorf("got %+v, want the pause of a", got)
	}
	if err := steer.Resume(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	r.awaitTold(t, "b.test", noticePaused, noticeRecovered)
	r.awaitState(t, held, store.Delivered)

	r.far.answer("a.test", func(int) int { return 410 })
	gone := r.accept(t, "a")
	r.awaitState(t, gone, store.Failed)
	got = r.awaitTold(t, "b.test", noticePaused, noticeRecovered, noticePaused, noticeFailed)
	if d := got[2].Data; d["cause"] != "gone" || d["reason"] != goneReason {
		t.Errorf("got %+v, want the pause by the receiver", got[2])
	}
	if d := got[3].Data; d["delivery_id"] != gone.String() || d["attempts"] != 1.0 {
		t.Errorf("got %+v, want the delivery that failed", got[3])
	}

	canceled := r.accept(t, "a")
	if _, err := steer.Cancel(ctx, canceled, "not needed"); err != nil {
		t.Fatal(err)
	}
	r.far.answer("a.test", nil)
	if err := steer.Resume(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := steer.Replay(ctx, gone); err != nil {
		t.Fatal(err)
	}
	r.awaitState(t, gone, store.Delivered)
	r.stop()
	r.awaitTold(t, "b.test", noticePaused, noticeRecovered, noticePaused, noticeFailed, noticeRecovered)
	if told := r.told(t, "a.test"); len(told) > 0 {
		t.Errorf("got %+v told to the destination that it is about, want none", told)
	}
}

func TestNoticesAfterAKill(t *testing.T) {
	mem := storetest.NewMemory(storetest.MemoryOptions{})
	ctx := context.Background()
	// All that is left of a relay that was killed after it had noted a pause.
	if err := mem.Pause(ctx, "a", store.Pause{At: time.Now(), Reason: "by hand"}); err != nil {
		t.Fatal(err)
	}
	for start := range 2 {
		r := newRig(t, `
destinations:
  a: {url: "https://a.test/"}
  b: {url: "https://b.test/", events: [postern.**]}
`, func(r *rig) { r.Relay.Store, r.memory = mem, mem })
		if start == 0 {
			if got := r.awaitTold(t, "b.test", noticePaused); got[0].Data["reason"] != "by hand" {
				t.Errorf("got %+v, want the pause", got)
			}
		}
		r.awaitState(t, r.accept(t, "b"), store.Delivered)
		r.stop()
		if got := types(r.told(t, "b.test")); len(got) != 1-start {
			t.Errorf("start %d: got told %v, want it told once", start+1, got)
		}
	}
}

func TestStormsAreToldInTheEnd(t *testing.T) {
	const config = `
destinations:
  a: {url: "https://a.test/", retry: none}
  b: {url: "https://b.test/", events: [postern.delivery.failed]}
`
	fail := func(r *rig, many int) {
		r.far.answer("a.test", func(int) int { return 500 })
		var all []store.DeliveryID
		for range many {
			all = append(all, r.accept(t, "a"))
		}
		for _, id := range all {
			r.awaitState(t, id, store.Failed)
		}
	}
	t.Run("while it runs", func(t *testing.T) {
		r := newRig(t, config, func(r *rig) { r.notices.Span = 2 * time.Second })
		fail(r, maxNotices+5)
		until(t, "all are told", func() bool { return total(r.told(t, "b.test")) == maxNotices+5 })
	})
	t.Run("when it stops, and after the next start", func(t *testing.T) {
		r := newRig(t, config)
		fail(r, maxNotices+5)
		until(t, "what was told at once has arrived", func() bool { return r.memory.Pending() == 0 })
		r.stop()
		waiting, err := r.memory.Due(context.Background(), "b", store.Cursor{}, 10)
		if err != nil || len(waiting) != 1 || total([]told{readNotice(t, r.memory, waiting[0])}) != 5 {
			t.Errorf("got %+v, %v; want one notice of the last five", waiting, err)
		}
	})
}

func TestASubscriberThatComesWithAReload(t *testing.T) {
	with := func(events string) string {
		return `
destinations:
  a: {url: "https://a.test/", retry: none}
  b: {url: "https://b.test/", events: [` + events + `]}
`
	}
	r := newRig(t, with("x"))
	r.far.answer("a.test", func(int) int { return 500 })
	r.awaitState(t, r.accept(t, "a"), store.Failed)
	r.reloadWith(t, with("postern.delivery.*"))
	r.awaitState(t, r.accept(t, "a"), store.Failed)
	r.awaitTold(t, "b.test", noticeFailed)
	r.reloadWith(t, with("x"))
	r.awaitState(t, r.accept(t, "a"), store.Failed)
	r.stop()
	r.awaitTold(t, "b.test", noticeFailed)
}

func TestEventsOfPosternAreReserved(t *testing.T) {
	r := newRig(t, `destinations: {b: {url: "https://b.test/", events: ["postern.**", "**"]}}`)
	cloud := func(kind string) string {
		return `{"specversion":"1.0","id":"1","source":"/x","type":"` + kind + `","data":1}`
	}
	for _, tc := range []struct{ name, path, contentType, body string }{
		{"a post", "/events/postern.delivery.failed", "application/json", "{}"},
		{"of any name", "/events/postern.order", "application/json", "{}"},
		{"a line of a batch", "/batch", "application/x-ndjson", `{"event":"order.paid","data":1}` + "\n" + `{"event":"postern.order","data":1}`},
		{"a CloudEvent", "/cloudevents", "application/cloudevents+json", cloud("postern.order")},
		{"one of several CloudEvents", "/cloudevents", "application/cloudevents-batch+json", "[" + cloud("order.paid") + "," + cloud("postern.order") + "]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, text := r.post(t, tc.path, tc.body, "Content-Type", tc.contentType)
			if status != 400 || !strings.Contains(text, "begins like those of Postern itself") {
				t.Errorf("got %d %s, want 400 that says why", status, text)
			}
		})
	}
	t.Run("names that only look like it are not", func(t *testing.T) {
		for _, event := range []string{"postern", "posterns.order", "Postern.order", "order.postern.x"} {
			if status, text := r.post(t, "/events/"+event, "{}"); status != 202 {
				t.Errorf("%s: got %d %s, want 202", event, status, text)
			}
		}
	})
	if got := r.memory.Pending(); got > 4 {
		t.Errorf("got %d pending, want at most the four that were taken", got)
	}
}

func TestPatternsThatMatchNoNotice(t *testing.T) {
	for _, tc := range []struct{ pattern, want string }{
		{"postern.delivery.faild", `"postern.delivery.faild" matches none of Postern's own events; did you mean "postern.delivery.failed"?`},
		{"postern.destination.recoverd", `did you mean "postern.destination.recovered"?`},
		{"postern.*", "there are postern.delivery.failed, postern.destination.paused, postern.destination.recovered"},
		{"postern.delivery.failed.*", "matches none"},
		{"postern.delivery.failed", ""}, {"postern.**", ""}, {"postern.*.*", ""}, {"postern.*.paused", ""}, {"postern.destination.**", ""},
		{"postern", ""}, {"posterns.x", ""},
	} {
		t.Run(tc.pattern, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "postern.yaml")
			text := "destinations: {b: {url: 'https://b.test/', events: [order.paid, " + tc.pattern + "]}}"
			if tc.pattern[len(tc.pattern)-1] == '*' {
				text = strings.ReplaceAll(text, tc.pattern, "'"+tc.pattern+"'")
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := Load(path, nil)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got %v, want it accepted", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), "destinations.b.events[1]: ") || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want a fault at its place that says %s", err, tc.want)
			}
		})
	}
}
