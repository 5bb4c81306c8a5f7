package relay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-relay/postern/config"
	"github.com/postern-relay/postern/relay/ingest"
	"github.com/postern-relay/postern/relay/match"
	"github.com/postern-relay/postern/store"
)

func TestBounds(t *testing.T) {
	pattern := func(text string) match.Pattern {
		p, err := match.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	orders := []match.Pattern{pattern("order.*"), pattern("stock.**")}
	to := func(names ...string) []ingest.Route {
		var all []ingest.Route
		for _, name := range names {
			all = append(all, ingest.Route{To: store.Recipient{Destination: name}})
		}
		return all
	}
	none, named := bounds{rate: pace{1, time.Second}}, bounds{destinations: []string{"a", "b"}}
	events, both := bounds{events: orders}, bounds{destinations: []string{"a", "b"}, events: orders}
	for _, tc := range []struct {
		name   string
		bounds bounds
		post   ingest.Post
		routes []ingest.Route
		want   string // part of the refusal; empty for none
	}{
		{"no bounds, a destination", none, ingest.Post{Destination: "c"}, nil, ""},
		{"no bounds, an event", none, ingest.Post{Event: "x"}, to("a", "c"), ""},
		{"destinations, one of them", named, ingest.Post{Destination: "b"}, to("b"), ""},
		{"destinations, another one", named, ingest.Post{Destination: "c"}, nil, `the token "shop" may not post to destination "c"`},
		{"destinations, one that only begins alike", named, ingest.Post{Destination: "aa"}, nil, "may not post to"},
		{"destinations, an event that goes there", named, ingest.Post{Event: "x.y"}, to("a", "b"), ""},
		{"destinations, an event that goes nowhere", named, ingest.Post{Event: "x.y"}, nil, ""},
		{"destinations, an event that goes elsewhere too", named, ingest.Post{Event: "x.y"}, to("a", "c", "d"), `the event "x.y" goes to destination "c" too, to which the token "shop" may not post`},
		{"events, a destination", events, ingest.Post{Destination: "a"}, nil, `the token "shop" may post events only`},
		{"events, one of them", events, ingest.Post{Event: "order.paid"}, to("a", "z"), ""},
		{"events, one of many segments", events, ingest.Post{Event: "stock.a.b.c"}, to("z"), ""},
		{"events, one segment too many", events, ingest.Post{Event: "order.paid.twice"}, nil, `the token "shop" may not post the event "order.paid.twice"`},
		{"events, another one", events, ingest.Post{Event: "user.new"}, nil, "may not post the event"},
		{"both, a destination", both, ingest.Post{Destination: "a"}, to("a"), ""},
		{"both, another destination", both, ingest.Post{Destination: "c"}, nil, "may not post to destination"},
		{"both, an event that goes there", both, ingest.Post{Event: "order.paid"}, to("a"), ""},
		{"both, an event that goes elsewhere", both, ingest.Post{Event: "order.paid"}, to("c"), `goes to destination "c" too`},
		{"both, another event that goes there", both, ingest.Post{Event: "user.new"}, to("a"), "may not post the event"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &caller{name: "shop", bounds: tc.bounds, now: time.Now}
			got := c.May(tc.post, tc.routes)
			if (got == nil) != (tc.want == "") || got != nil && (!strings.Contains(got.Error(), tc.want) || got.Fault != ingest.NotAllowed) {
				t.Errorf("got %v, want %q", got, tc.want)
			}
		})
	}
}

// newCaller returns who posts with a token of a rate.
func newCaller(t *testing.T, p pace, before paces) (*caller, paces) {
	t.Helper()
	list, after := listenTokens([]token{{name: "shop", bounds: bounds{rate: p}}}, before, time.Now)
	c, _ := list[0].Holder.(*caller) // nil for one without a rate
	return c, after
}

func TestPace(t *testing.T) {
	// begin counts the messages that may be posted now, up to most.
	begin := func(c *caller, most int) int {
		n := 0
		for n < most && c.Begin() == 0 {
			n++
		}
		return n
	}
	t.Run("so many at once, and then at that pace", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newCaller(t, pace{60, time.Minute}, nil)
			if got := begin(c, 100); got != 60 {
				t.Errorf("got %d at once, want 60", got)
			}
			if got := c.Begin(); got != time.Second {
				t.Errorf("got a wait of %v, want 1s", got)
			}
			time.Sleep(400 * time.Millisecond)
			if got := c.Begin().Round(time.Microsecond); got != 600*time.Millisecond {
				t.Errorf("got a wait of %v after 400ms, want 600ms", got)
			}
			time.Sleep(600 * time.Millisecond)
			if got := begin(c, 100); got != 1 {
				t.Errorf("got %d after a second, want 1", got)
			}
			time.Sleep(time.Hour)
			if got := begin(c, 100); got != 60 {
				t.Errorf("got %d after an hour, want 60 and no more", got)
			}
		})
	})
	t.Run("the wait is long enough", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, p := range []pace{{1, time.Hour}, {7, time.Second}, {999_983, time.Second}, {3, time.Minute}} {
				c, _ := newCaller(t, p, nil)
				begin(c, p.count)
				for range 20 {
					if wait := c.Begin(); wait > 0 {
						time.Sleep(wait)
					}
					if again := c.Begin(); again > time.Microsecond {
						t.Fatalf("%v: got a wait of %v after the wait", p, again)
					}
				}
			}
		})
	})
	t.Run("the rest of a batch is made up for before the next one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newCaller(t, pace{10, time.Second}, nil)
			if got := c.Begin(); got != 0 {
				t.Fatalf("got a wait of %v, want none", got)
			}
			c.More(34) // 35 of 10: 25 too many, and one more for the next
			if got := c.Begin(); got != 2600*time.Millisecond {
				t.Errorf("got a wait of %v, want 2.6s", got)
			}
			time.Sleep(2600 * time.Millisecond)
			if got := c.Begin(); got != 0 {
				t.Errorf("got a wait of %v after it, want none", got)
			}
		})
	})
	t.Run("a wait is never longer than a day", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newCaller(t, pace{1, time.Hour}, nil)
			for range 300 {
				c.More(10_000)
			}
			if got := c.Begin(); got != 24*time.Hour {
				t.Errorf("got a wait of %v, want 24h", got)
			}
		})
	})
	t.Run("a reload keeps what has been used", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, before := newCaller(t, pace{10, time.Second}, nil)
			begin(c, 10)
			c, before = newCaller(t, pace{10, time.Second}, before)
			if got := begin(c, 10); got != 0 {
				t.Errorf("the same rate: got %d at once, want none", got)
			}
			c, before = newCaller(t, pace{1000, time.Second}, before)
			if got := begin(c, 10); got != 0 {
				t.Errorf("another rate: got %d at once, want none", got)
			}
			time.Sleep(10 * time.Millisecond)
			if got := begin(c, 100); got != 10 {
				t.Errorf("another rate after 10ms: got %d, want 10", got)
			}
			_, without := newCaller(t, pace{}, before)
			if len(without) != 0 {
				t.Errorf("got %d paces for a token without a rate, want none", len(without))
			}
		})
	})
	t.Run("without a rate nobody waits", func(t *testing.T) {
		c := &caller{now: time.Now}
		c.More(1 << 20)
		if got := c.Begin(); got != 0 {
			t.Errorf("got a wait of %v, want none", got)
		}
	})
}

const (
	allToken  = "all-token-0123456789"
	shopToken = "shop-token-0123456789"
	opsToken  = "ops-token-0123456789"
	ciToken   = "ci-token-0123456789"
)

// boundedRig is a relay with tokens; what is in braces behind the one called shop is more of it.
func boundedRig(more string) string {
	return `listen:
  ingest: "127.0.0.1:0"
  admin: "127.0.0.1:0"
  tokens: [` + allToken + `, {name: shop, token: ` + shopToken + more + `}]
  admin_tokens: [{name: ops, token: ` + opsToken + `}, ` + ciToken + `]
destinations:
  a: {url: "https://a.test/", events: ["order.*"]}
  b: {url: "https://b.test/", events: [order.big], when: "$.big"}
`
}

func TestTokensOfAWholeRelay(t *testing.T) {
	r := newRig(t, boundedRig(`, destinations: [a], events: ["order.*"]`))
	post := func(token, path, body string) (int, string) {
		t.Helper()
		return r.post(t, path, body, "Authorization", "Bearer "+token)
	}
	for _, tc := range []struct {
		name, token, path, body string
		want                    int
		text                    string
	}{
		{"no token", "", "/to/a", "{}", 401, ""},
		{"a wrong one", "wrong-token-0123456789", "/to/a", "{}", 401, ""},
		{"an admin token", opsToken, "/to/a", "{}", 401, ""},
		{"one without bounds, anywhere", allToken, "/to/b", "{}", 202, `"destination":"b"`},
		{"one without bounds, any event", allToken, "/events/order.big", `{"big":1}`, 202, `"destination":"b"`},
		{"one with bounds, within them", shopToken, "/to/a", "{}", 202, `"destination":"a"`},
		{"one with bounds, beyond them", shopToken, "/to/b", "{}", 403, `the token \"shop\" may not post to destination \"b\"`},
		{"one with bounds, an event that goes to one destination", shopToken, "/events/order.small", "{}", 202, `"destination":"a"`},
		{"one with bounds, an event whose filter lets it go to one", shopToken, "/events/order.big", `{}`, 202, `"destination":"a"`},
		{"one with bounds, the same event that goes to both", shopToken, "/events/order.big", `{"big":1}`, 403, `goes to destination \"b\" too`},
		{"one with bounds, another event", shopToken, "/events/user.new", "{}", 403, "may not post the event"},
		{"one with bounds, a batch", shopToken, "/batch", `{"to":"a","data":1}` + "\n" + `{"to":"b","data":2}`, 403, "line 2: the token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, text := post(tc.token, tc.path, tc.body); got != tc.want || !strings.Contains(text, tc.text) {
				t.Errorf("got %d %s, want %d with %s", got, text, tc.want, tc.text)
			}
		})
	}
	t.Run("a reload takes other bounds and tokens at once", func(t *testing.T) {
		r.reloadWith(t, boundedRig(`, destinations: [b]`))
		if got, text := post(shopToken, "/to/a", "{}"); got != 403 {
			t.Errorf("got %d %s for the destination before, want 403", got, text)
		}
		if got, text := post(shopToken, "/to/b", "{}"); got != 202 {
			t.Errorf("got %d %s for the new one, want 202", got, text)
		}
		got := r.reloadWith(t, strings.ReplaceAll(boundedRig(`, destinations: [b]`), shopToken, "next-token-0123456789"))
		if !slices.Equal(got.Settings, []string{"listen.tokens"}) {
			t.Errorf("got the settings %v, want the tokens", got.Settings)
		}
		if got, other := first(post(shopToken, "/to/b", "{}")), first(post("next-token-0123456789", "/to/b", "{}")); got != 401 || other != 202 {
			t.Errorf("got %d and %d, want 401 for the old token and 202 for the new one", got, other)
		}
	})
	for _, line := range r.logs.All() {
		if text := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(text, "-token-0123456789") {
			t.Errorf("a token is in the log: %s", text)
		}
	}
}

func first(status int, _ string) int { return status }

func TestTheRateOfATokenOutlivesReloads(t *testing.T) {
	r := newRig(t, boundedRig(`, rate: 3/h`))
	post := func() (int, string) { return r.post(t, "/to/a", "{}", "Authorization", "Bearer "+shopToken) }
	for n := range 3 {
		if got, text := post(); got != 202 {
			t.Fatalf("post %d: got %d %s, want 202", n+1, got, text)
		}
	}
	if got, text := post(); got != 429 || !strings.Contains(text, "rate in listen.tokens") {
		t.Errorf("got %d %s beyond the rate, want 429", got, text)
	}
	r.reloadWith(t, strings.Replace(boundedRig(`, rate: 3/h`), "order.*", "other.*", 1))
	if got, _ := post(); got != 429 {
		t.Errorf("got %d after a reload, want 429 as before", got)
	}
	if got := first(r.post(t, "/to/a", "{}", "Authorization", "Bearer "+allToken)); got != 202 {
		t.Errorf("got %d for another token, want 202", got)
	}
	r.reloadWith(t, boundedRig(""))
	if got, text := post(); got != 202 {
		t.Errorf("got %d %s without the rate, want 202", got, text)
	}
}

func TestPostToken(t *testing.T) {
	cfg, err := config.Parse("postern.yaml", []byte(`
listen:
  tokens:
    - {name: orders, token: orders-0123456789ab, events: ["order.*"]}
    - {name: one, token: one-0123456789abcdef, destinations: [a]}
    - all-0123456789abcdef
destinations: {a: {url: https://a.example, events: [user.*]}, b: {url: https://b.example, events: ["user.*", "order.*", job.done]}, c: {url: https://b.example, events: [job.*], enabled: false}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ destination, event, want string }{
		{"a", "", "one-0123456789abcdef"},
		{"b", "", "all-0123456789abcdef"},
		{"", "order.paid", "orders-0123456789ab"},
		{"", "user.new", "all-0123456789abcdef"},
		{"", "job.begun", "one-0123456789abcdef"},
		{"", "nobody.wants", "one-0123456789abcdef"},
	} {
		if got := PostToken(cfg, tc.destination, tc.event).Reveal(); got != tc.want {
			t.Errorf("to %q, event %q: got %q, want %q", tc.destination, tc.event, got, tc.want)
		}
	}
	cfg.Listen.Tokens = cfg.Listen.Tokens[:1]
	if got := PostToken(cfg, "a", ""); got.IsSet() {
		t.Error("got a token that may not post there")
	}
}
