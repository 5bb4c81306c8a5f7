package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-relay/postern/relay/lane"
	"github.com/postern-relay/postern/store"
	"github.com/postern-relay/postern/store/storetest"
)

// noticeTest is notices with an engine in memory and lanes without a network.
type noticeTest struct {
	*testing.T
	mem   *storetest.Memory
	plan  *Plan                // that it begins with
	now   atomic.Pointer[Plan] // in force
	n     *notices
	logs  *observer.ObservedLogs
	lanes map[string]*lane.Lane
	stop  func() // ends Run and all lanes; may be called again
	group sync.WaitGroup
	ctx   context.Context

	mu    sync.Mutex // guards the field below
	woken []store.DeliveryID
}

// newNoticeTest begins Run for a config of destinations. It is to be called in a bubble.
func newNoticeTest(t *testing.T, destinations string, o storetest.MemoryOptions) *noticeTest {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	nt := &noticeTest{
		T: t, mem: storetest.NewMemory(o), plan: compile(t, "destinations:\n"+destinations), logs: logs, lanes: map[string]*lane.Lane{},
	}
	nt.n = &notices{
		Store: nt.mem, Plan: nt.now.Load, Now: time.Now, Log: zap.New(core),
		Accepted: func(_ string, c store.Cursor) {
			nt.mu.Lock()
			defer nt.mu.Unlock()
			nt.woken = append(nt.woken, c.ID)
		},
	}
	nt.now.Store(nt.plan)
	ctx, cancel := context.WithCancel(context.Background())
	nt.ctx = ctx
	nt.group.Go(func() { _ = nt.n.Run(ctx) })
	nt.stop = func() {
		cancel()
		nt.group.Wait()
	}
	t.Cleanup(nt.stop)
	return nt
}

// run begins a lane of a destination, with what the plan says of it. adjust, if any, sets fields of it beforehand.
func (nt *noticeTest) run(name string, send func(d store.Delivery) store.Attempt, adjust ...func(*lane.Lane)) {
	nt.Helper()
	d, told := nt.plan.destinations[name], &outages{Store: nt.mem, Notices: nt.n}
	l := &lane.Lane{
		Name: name, Queue: nt.mem, Retry: d.retry, Concurrency: d.concurrency, Breaker: d.breaker, Rand: func() float64 { return 0 },
		Sender: sendBy(func(d store.Delivery) store.Attempt {
			a := send(d)
			a.StartedAt = time.Now()
			return a
		}),
		FollowUp: func(_, after store.Delivery, a store.Attempt) *lane.FollowUp { return nt.n.failed(nt.ctx, after, a) },
		Outages:  told, Opened: told.opened,
	}
	nt.lanes[name] = l
	for _, a := range adjust {
		a(l)
	}
	nt.group.Go(func() {
		if err := l.Run(nt.ctx); err != nil {
			nt.Errorf("lane %s: %v", name, err)
		}
	})
}

// sendBy is a lane.Sender without a network.
type sendBy func(store.Delivery) store.Attempt

func (f sendBy) Send(_ context.Context, d store.Delivery) store.Attempt { return f(d) }

// post accepts a message for a destination and returns its delivery.
func (nt *noticeTest) post(name, event string) store.DeliveryID {
	nt.Helper()
	id, err := store.NewMessageID()
	if err != nil {
		nt.Fatal(err)
	}
	m, _, err := nt.mem.Accept(context.Background(), store.Message{
		ID: id, Event: event, Recipients: []store.Recipient{{Destination: name}},
	}, []byte(`{"card": "canary-of-the-body"}`))
	if err != nil {
		nt.Fatal(err)
	}
	if l := nt.lanes[name]; l != nil {
		l.Wake(m.Delivery(0).Cursor())
	}
	return m.ID.Delivery(0)
}

// told is a notice as a receiver reads it.
type told struct {
	Type      string
	Timestamp time.Time
	Data      map[string]any
}

// forget makes the notices those of a relay that has just been started.
func (nt *noticeTest) forget() {
	nt.n.mu.Lock()
	defer nt.n.mu.Unlock()
	nt.n.tales = nil
}

// toldTo returns the notices that wait for a destination, in the order of their acceptance.
func (nt *noticeTest) toldTo(name string) []told {
	nt.Helper()
	due, err := nt.mem.Due(context.Background(), name, store.Cursor{}, 1_000_000)
	if err != nil {
		nt.Fatal(err)
	}
	slices.SortFunc(due, func(a, b store.Delivery) int { return strings.Compare(string(a.ID[:]), string(b.ID[:])) })
	var all []told
	for _, d := range due {
		if isNotice(d.Event) {
			all = append(all, readNotice(nt, nt.mem, d))
		}
	}
	return all
}

// readNotice reads the body of a notice, and checks what all have in common.
func readNotice(t testing.TB, s store.Loader, d store.Delivery) told {
	t.Helper()
	m, body, err := s.Load(context.Background(), d.ID.Message())
	if err != nil {
		t.Fatal(err)
	}
	var n told
	if err := json.Unmarshal(body, &n); err != nil {
		t.Fatalf("notice %s: %v", body, err)
	}
	if n.Type != m.Event || m.ContentType != "application/json" || m.Key != n.Data["destination"] || n.Timestamp.Location() != time.UTC {
		t.Errorf("got message %+v of %s, want its event, type and key by the body", m, body)
	}
	return n
}

// types returns the types of notices.
func types(all []told) []string {
	var list []string
	for _, n := range all {
		list = append(list, n.Type)
	}
	return list
}

// failing sends nothing and fails with a status.
func failing(status int) func(store.Delivery) store.Attempt {
	return func(store.Delivery) store.Attempt {
		return store.Attempt{Class: store.ClassStatus, Status: status, Error: fmt.Sprintf("%d from the receiver", status), Body: []byte("canary-of-the-answer")}
	}
}

const noticeConfig = `
  alerts: {url: "https://alerts.example.com/", events: ["**"], retry: {schedule: [0s, 1s], jitter: 0}, breaker: none}
  chat: {url: "https://chat.example.com/", events: [postern.delivery.failed]}
`

const pagerConfig = `  pager: {url: "https://pager.example.com/", events: [postern.**]}
`

// bubble runs a test with a fake clock.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestNoticesOfFailedDeliveries(t *testing.T) {
	const unmet = "the answer does not hold what is expected"
	for _, tc := range []struct {
		name     string
		attempt  store.Attempt
		attempts int
		reason   string
		last     map[string]any
	}{
		{
			"after the last attempt", store.Attempt{Class: store.ClassStatus, Status: 500, Error: "500 Internal Server Error"}, 2,
			"no success in 2 of 2 attempts; last: 500 Internal Server Error",
			map[string]any{"class": "status", "status": 500.0, "error": "500 Internal Server Error"},
		},
		{
			"at once, for 410", store.Attempt{Class: store.ClassStatus, Status: 410, Error: "410 Gone"}, 1, "receiver answered 410 Gone",
			map[string]any{"class": "status", "status": 410.0, "error": "410 Gone"},
		},
		{
			"at once, for what the guard refuses", store.Attempt{Class: store.ClassBlocked, Error: "10.0.0.1 is private"}, 1,
			"refused by the guard: 10.0.0.1 is private", map[string]any{"class": "blocked", "status": 0.0, "error": "10.0.0.1 is private"},
		},
		{
			"at once, for what cannot be built", store.Attempt{Class: store.ClassRender, Error: "no title"}, 1,
			"request could not be built: no title", map[string]any{"class": "render", "status": 0.0, "error": "no title"},
		},
		{
			"without what the receiver answered", store.Attempt{Class: store.ClassExpect, Status: 200, Error: "$.ok is canary-of-the-answer"}, 2,
			"no success in 2 of 2 attempts; last: " + unmet, map[string]any{"class": "expect", "status": 200.0, "error": unmet},
		},
		{
			"with texts that are cut", store.Attempt{Class: store.ClassRender, Error: strings.Repeat("é", 1000)}, 1,
			"request could not be built: " + strings.Repeat("é", (store.MaxReason-len("request could not be built: "))/2),
			map[string]any{"class": "render", "status": 0.0, "error": strings.Repeat("é", store.MaxReason/2)},
		},
	} {
		bubble(t, tc.name, func(t *testing.T) {
			nt := newNoticeTest(t, noticeConfig, storetest.MemoryOptions{})
			nt.run("alerts", func(store.Delivery) store.Attempt { return tc.attempt })
			begun := time.Now()
			id := nt.post("alerts", "alert.fired")
			time.Sleep(time.Minute)
			want := told{noticeFailed, begun.Add(time.Duration(tc.attempts-1) * time.Second).UTC(), map[string]any{
				"delivery_id": id.String(), "message_id": id.Message().String(), "destination": "alerts", "event": "alert.fired",
				"round": 1.0, "attempts": float64(tc.attempts), "reason": tc.reason, "last": tc.last, "suppressed": 0.0,
			}}
			if got := nt.toldTo("chat"); !reflect.DeepEqual(got, []told{want}) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			nt.mu.Lock()
			defer nt.mu.Unlock()
			if len(nt.woken) != 1 {
				t.Errorf("got %d wakes, want one for the notice", len(nt.woken))
			}
		})
	}
	bubble(t, "not of a delivery that goes on, succeeds or is canceled", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig, storetest.MemoryOptions{})
		canceled := nt.post("alerts", "alert.late")
		if _, _, err := nt.mem.Cancel(nt.ctx, canceled, time.Now(), "by a test"); err != nil {
			t.Fatal(err)
		}
		n := 0
		nt.run("alerts", func(store.Delivery) store.Attempt {
			if n++; n == 1 {
				return failing(500)(store.Delivery{})
			}
			return store.Attempt{Class: store.ClassOK, Status: 200}
		})
		id := nt.post("alerts", "alert.fired")
		time.Sleep(time.Hour)
		if d, err := nt.mem.Delivery(nt.ctx, id); err != nil || d.State != store.Delivered {
			t.Errorf("got %+v, %v; want it delivered", d, err)
		}
		if got := nt.toldTo("chat"); len(got) > 0 {
			t.Errorf("got %+v, want none", got)
		}
	})
	bubble(t, "of each round of a delivery", func(t *testing.T) {
		nt := newNoticeTest(t, noticeConfig, storetest.MemoryOptions{})
		nt.run("alerts", failing(410))
		id := nt.post("alerts", "")
		time.Sleep(time.Second)
		nt.lanes["alerts"].Resume()
		d, err := nt.mem.Replay(nt.ctx, id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		nt.lanes["alerts"].Wake(d.Cursor())
		time.Sleep(time.Second)
		got := nt.toldTo("chat")
		if len(got) != 2 || got[0].Data["round"] != 1.0 || got[1].Data["round"] != 2.0 || got[1].Data["event"] != "" {
			t.Errorf("got %+v, want one for round 1 and one for round 2", got)
		}
	})
}

func TestWhoGetsNotices(t *testing.T) {
	bubble(t, "those who asked for them by name, if their filter lets them", func(t *testing.T) {
		nt := newNoticeTest(t, `
  alerts: {url: "https://alerts.example.com/", events: [postern.**], retry: none, breaker: none}
  everything: {url: "https://a.example.com/", events: ["**", "*.delivery.failed", "*.*.*"]}
  nothing: {url: "https://b.example.com/"}
  off: {url: "https://c.example.com/", events: [postern.**], enabled: false}
  exact: {url: "https://d.example.com/", events: [order.paid, postern.delivery.failed]}
  other: {url: "https://e.example.com/", events: [postern.destination.*]}
  ours: {url: "https://f.example.com/", events: [postern.**], order: key, retry: {schedule: [3s]}}
  filtered: {url: "https://g.example.com/", events: [postern.**], when: '$[?@.data.last.status == 500]'}
  unfiltered: {url: "https://h.example.com/", events: [postern.**], when: '$[?@.data.last.status == 503]'}
`, storetest.MemoryOptions{})
		nt.run("alerts", failing(500))
		nt.post("alerts", "alert.fired")
		time.Sleep(time.Second)
		var got []string
		for _, name := range nt.plan.names {
			if len(nt.toldTo(name)) > 0 {
				got = append(got, name)
			}
		}
		if want := []string{"exact", "filtered", "ours"}; !slices.Equal(got, want) {
			t.Errorf("got notices for %v, want %v", got, want)
		}
		due, err := nt.mem.Due(nt.ctx, "ours", store.Cursor{}, 1)
		if err != nil || len(due) != 1 || due[0].Order != "=alerts" || due[0].DueAt.Sub(due[0].AcceptedAt) != 3*time.Second {
			t.Errorf("got %+v, %v; want it in the line of the destination, after the delay that comes first", due, err)
		}
	})
	bubble(t, "a notice that fails makes none", func(t *testing.T) {
		nt := newNoticeTest(t, `
  alerts: {url: "https://alerts.example.com/", events: [postern.**], retry: none, breaker: {failures: 1}}
  chat: {url: "https://chat.example.com/", events: [postern.**], retry: none, breaker: {failures: 1}}
`, storetest.MemoryOptions{})
		for _, name := range nt.plan.names {
			nt.post(name, noticeFailed) // as another version may have left it
			nt.run(name, failing(503))
		}
		time.Sleep(time.Hour)
		for _, name := range nt.plan.names {
			if got := nt.toldTo(name); len(got) > 0 {
				t.Errorf("%s: got %+v, want none", name, got)
			}
		}
	})
}
