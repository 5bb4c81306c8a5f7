package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"

	"github.com/postern-relay/postern/relay/admin"
)

func TestTablesFitTheTerminal(t *testing.T) {
	columns := []column{{title: "ID"}, {title: "STATE", least: 4}, {title: "EVENT", least: 6, rank: 1}, {title: "N", right: true, rank: 2}}
	render := func(width int) string {
		var b bytes.Buffer
		table := &table{columns: columns, width: width}
		table.add(plainCell("dlv_0001"), plainCell("pending"), plainCell("order.paid.世界"), plainCell("7"))
		table.add(plainCell("dlv_2"), plainCell("ok"), plainCell(""), plainCell("12"))
		table.write(&screen{out: &b}, true)
		return b.String()
	}
	for _, tc := range []struct {
		name  string
		width int
		want  string
	}{
		{"any width", 0, "ID        STATE    EVENT             N\ndlv_0001  pending  order.paid.世界   7\ndlv_2     ok                        12\n"},
		{"just wide enough", 38, "ID        STATE    EVENT             N\ndlv_0001  pending  order.paid.世界   7\ndlv_2     ok                        12\n"},
		{"the widest is cut, between whole characters", 36, "ID        STATE    EVENT           N\ndlv_0001  pending  order.paid.…    7\ndlv_2     ok                      12\n"},
		{"then the highest rank is left out", 25, "ID        STATE   EVENT\ndlv_0001  pendi…  order.…\ndlv_2     ok\n"},
		{"then the next", 18, "ID        STATE\ndlv_0001  pending\ndlv_2     ok\n"},
		{"an id is never cut", 3, "ID        STA…\ndlv_0001  pen…\ndlv_2     ok\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := render(tc.width); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
	t.Run("a later page keeps the columns of the first", func(t *testing.T) {
		var b bytes.Buffer
		table := &table{columns: columns}
		table.add(plainCell("dlv_0001"), plainCell("x"), plainCell("y"), plainCell("1"))
		table.write(&screen{out: &b}, true)
		table.add(plainCell("d"), plainCell("x"), plainCell("y"), plainCell("1"))
		table.write(&screen{out: &b}, false)
		if got := b.String(); !strings.HasSuffix(got, "\nd         x      y      1\n") {
			t.Errorf("got\n%s", got)
		}
	})
}

func TestNumbersForPeople(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	s := &screen{now: now}
	for _, tc := range []struct{ got, want string }{
		{span(0), "0s"}, {span(59 * time.Second), "59s"}, {span(time.Minute), "1m"}, {span(time.Hour - 1), "59m"},
		{span(time.Hour), "1h"}, {span(48*time.Hour - 1), "47h"}, {span(48 * time.Hour), "2d"},
		{s.age(now), "0s ago"}, {s.age(now.Add(-90 * time.Second)), "1m ago"}, {s.age(now.Add(2 * time.Hour)), "in 2h"},
		{s.age(now.Add(time.Millisecond)), "0s ago"}, {s.age(time.Time{}), ""},
		{took(0), "0"}, {took(0.00123), "1.2ms"}, {took(0.0123), "12ms"}, {took(1.25), "1.2s"}, {took(99.9), "99.9s"}, {took(114), "1.9m"}, {took(600), "10m"},
		{size(0), "0 bytes"}, {size(1), "1 byte"}, {size(9999), "9999 bytes"}, {size(10_240), "10 KiB"}, {size(16 << 20), "16 MiB"},
		{count(1, "delivery"), "1 delivery"}, {count(2, "delivery"), "2 deliveries"}, {count(0, "more line"), "0 more lines"},
		{percent(0), "0%"}, {percent(1), "100%"}, {percent(0.5), "50%"}, {percent(0.99999), "99.9%"}, {percent(0.00001), "0.1%"}, {percent(0.985), "98.5%"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

func TestConditionFollowsTheDashboard(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	rate := func(r float64) admin.LastHour { return admin.LastHour{SuccessRate: &r} }
	sound := admin.Destination{InConfig: true, Enabled: true, LastHour: rate(1)}
	for want, change := range map[string]func(*admin.Destination){
		"not in config": func(d *admin.Destination) { d.InConfig, d.Enabled = false, false },
		"disabled":      func(d *admin.Destination) { d.Enabled, d.Pause = false, &admin.Pause{} },
		"paused":        func(d *admin.Destination) { d.Pause, d.Breaker = &admin.Pause{}, "open" },
		"outage":        func(d *admin.Destination) { d.Breaker, d.LastHour = "open", rate(0) },
		"probing":       func(d *admin.Destination) { d.Breaker, d.LastHour = "probing", rate(0) },
		"slowed":        func(d *admin.Destination) { d.HeldUntil, d.LastHour = now.Add(time.Second), rate(0) },
		"failing":       func(d *admin.Destination) { d.LastHour = rate(0.899) },
		"idle":          func(d *admin.Destination) { d.LastHour, d.HeldUntil = admin.LastHour{}, now },
		"healthy":       func(d *admin.Destination) { d.LastHour = rate(0.9) },
	} {
		d := sound
		change(&d)
		if got, _ := (&screen{now: now}).condition(d); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// hostile is a text with all that a terminal might obey.
const hostile = "\x1b]0;owned\a\x1b[2J\x9b31m\u009b31m\u202e\u2066\r\b\x00\x7f"

// TestHostileRecordsCannotSteerTheTerminal shows every record that can be shown, with hostile texts in all its fields.
func TestHostileRecordsCannotSteerTheTerminal(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	content := admin.Content{Body: "{" + hostile + "\n}"}
	headers := []admin.Header{{Name: hostile, Value: hostile}}
	outcome := &admin.Outcome{At: now, Class: hostile, Status: 500, Error: hostile}
	request := &admin.Request{Method: hostile, URL: hostile, Headers: headers, Content: content}
	attempt := admin.Attempt{
		Round: 2, Number: 1, StartedAt: now, Class: hostile, Error: hostile, Request: request, Peer: hostile, Reused: true,
		Response: &admin.Response{Status: 500, Headers: headers, Content: content, Truncated: true}, Probe: true, RetryHintSeconds: 5,
	}
	delivery := admin.Delivery{
		ID: hostile, MessageID: hostile, Destination: hostile, Event: hostile, State: hostile, Round: 2, Made: 1, AcceptedAt: now,
		DueAt: now, EndedAt: now, Reason: hostile, Held: hostile, OrderKey: hostile, Last: outcome,
	}
	message := admin.Message{
		ID: hostile, Event: hostile, ContentType: hostile, SizeBytes: 5, Key: hostile, Path: hostile, Headers: headers, Content: content,
		Deliveries: []admin.Delivery{delivery}, BodyTruncated: true,
	}
	destination := admin.Destination{Name: hostile, InConfig: true, Enabled: true, Pending: 1, Pause: &admin.Pause{At: now, Reason: hostile}}
	unsent := attempt
	unsent.Request, unsent.Response = nil, nil

	var b bytes.Buffer
	p := &program{stdout: &b, stderr: &b}
	s := &screen{out: &b, now: now, width: 100}
	s.showDelivery(admin.DeliveryDetail{Delivery: delivery, Message: message, History: []admin.Attempt{attempt, unsent}}, true)
	s.showMessage(message)
	for _, state := range []string{"pending", "canceled", "failed"} {
		d := delivery
		d.State = state
		s.tailDelivery(d)
		d.Held = ""
		s.tailDelivery(d)
	}
	s.tailReload(admin.Reload{Error: hostile})
	s.tailReload(admin.Reload{OK: true, Changed: []string{hostile}})
	s.overview(admin.Overview{
		Now: now, Version: hostile, Store: admin.StoreState{Full: hostile}, HTTPS: admin.HTTPSState{Trouble: hostile}, Reload: &admin.Reload{Error: hostile},
		Destinations: []admin.Destination{destination, {Name: hostile}},
	})
	(&follower{program: p, screen: s, standing: map[string]string{}}).destination(destination)
	if err := p.printPosted(posted{ID: hostile, Deliveries: []postedDelivery{{ID: hostile, Destination: hostile, State: hostile, Reason: hostile}}}, true, 0); err != nil {
		t.Error(err)
	}
	p.exitCode(usageError{&admin.Refusal{Detail: hostile}})
	if err := p.printJSON(delivery); err != nil {
		t.Error(err)
	}
	text := b.String()
	if strings.Count(text, "owned") < 60 {
		t.Errorf("the hostile text is shown %d times: this tests too little", strings.Count(text, "owned"))
	}
	for i, line := range strings.Split(text, "\n") {
		if at := strings.IndexFunc(line, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }); at >= 0 {
			t.Errorf("line %d has a control character at %d: %q", i+1, at, line)
		}
	}
}

func TestColoursAreForTerminals(t *testing.T) {
	var b bytes.Buffer
	p := &program{stdout: &b}
	if got := p.palette(&b).good.Render("x"); got != "x" {
		t.Errorf("got %q for what is no terminal, want no colour", got)
	}
	if got := (palette{good: lipgloss.NewStyle().Foreground(lipgloss.Color("2"))}).state("delivered").Render("x"); got == "x" {
		t.Error("got no colour with a palette that has one")
	}
}

func TestJSONIsLaidOutWithoutItsValues(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1.50,"a":2}`: "{\n  \"a\": 1.50,\n  \"a\": 2\n}", ` [1] `: "[\n  1\n]", "{no": "{no", "plain\ntext": "plain\ntext", `"s"`: `"s"`,
	} {
		if got := laidOut(text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
